"""The claim loop of a simulated worker: the daemon's, around the real lanes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from asynctaskd.daemon.cursors import may_run
from asynctaskd.postgres.records import Share
from asynctaskd.scheduling.lanes import (
    group_of,
    settle,
    share,
    standings,
    strict_cap,
)
from asynctaskd.task import ClaimedTask
from tests.simulation.process import OUTAGE, Process
from tests.simulation.rules import DOUBT, POLL
from tests.simulation.scenario import WorkerSpec

if TYPE_CHECKING:
    from tests.simulation.world import World


class Claimer(Process):
    """A process that claims; what becomes of its claims is the `Worker`'s."""

    def __init__(self, world: World, spec: WorkerSpec) -> None:
        super().__init__(world, spec)
        self.weights = world.scenario.weights
        self.cap = strict_cap(spec.concurrency, spec.strict_percentage)

    def _poll(self, _: Any) -> None:
        self._push(POLL, self._poll)
        self.look_everywhere = self.may_give_back = True
        self.step()

    def hear(self, label_set: str) -> None:
        """A notice: what it names is claimed first, and then everything is looked at."""
        if not label_set or self.spec.labels.issuperset(label_set.split(",")):
            self.announced.add(label_set)
            self._look()

    def _look(self) -> None:
        self.look_everywhere = True
        self.step()

    @property
    def free(self) -> int:
        return min(self.spec.concurrency - self.running, 2 * self.spec.concurrency - len(self.slots))

    @property
    def others(self) -> bool:
        """Whether a lane beside the normal one may hold something."""
        return (self.strict_wait and self.cap > 0) or self.suspects_wait

    def step(self, _: Any = None) -> None:
        """Claim, if there is a reason to and nothing is in the way."""
        if self.claiming or self.stopping:
            return
        if self.look_everywhere and self.doubted:
            self._release_orphans()  # slots or none
            return
        self.permits.follow()
        if not self.doubted:
            self.permits.doubted.clear()
        if self.held and self.may_give_back and (surplus := self.permits.surplus()):
            self.may_give_back = False
            self.claiming = True
            self.permits.exchange(surplus, self._gave_back)
            return
        if not self.held or self.free <= 0:
            return
        self._find_ready()
        if not self.ready and not self.others and self.was_full:
            self.was_full = False  # a worker that has time says that it is idle, and looks
            self.look_everywhere = True
            self._find_ready()
        if not self.ready and not self.others:
            return
        if self.world.reaches(self) and not self.world.anything_pending():
            return  # a claim that finds nothing, without its two steps
        self._claim()

    def _gave_back(self, answer: Any, asked: tuple[int, int]) -> None:
        self._exchanged(answer, asked, self.step)

    def _got(self, answer: Any, asked: tuple[int, int]) -> None:
        self._exchanged(answer, asked, self._claim)

    def _exchanged(self, answer: Any, asked: tuple[int, int], then: Any) -> None:
        if answer is OUTAGE:
            self._push(self._pause(), self._after_outage)
            return
        self.permits.follow()
        self.permits.take(answer, asked)
        self.claiming = False
        if self.leaving:
            self._leave()
        elif self.held and (idle := self.permits.of_no_use(self._own_sets())):
            self.claiming = True
            self.permits.exchange(idle, self._gave_back)
        elif not self.stopping and self.held and self.free > 0:
            then()
        else:
            self._leave_if_idle()

    def _release_orphans(self) -> None:
        self.claiming = True
        known = [one.task.id for one in self.slots]
        worker_id = min(self.doubted)  # one that was lost since may hold some as well
        release = _nothing if "orphans forgotten" in self.broken else self.database.release_orphans
        arguments = (worker_id, known, self.world.clock.now)
        self.world.call(self, release, arguments, self._released_orphans, (worker_id, self.world.clock.now))

    def _released_orphans(self, released: Any, asked: tuple[int, float]) -> None:
        if released is OUTAGE:
            self._claim_again_later(asked[0])
            return
        worker_id, as_of = asked
        until = self.doubted[worker_id]
        if until is None:
            self.doubted[worker_id] = as_of + DOUBT
        elif as_of >= until:
            del self.doubted[worker_id]
        self.claiming = False
        self._find_ready()
        if self.leaving:
            self._leave()
        elif self.held and not self.stopping and self.free > 0 and (self.ready or self.others):
            self._claim()

    def _find_ready(self) -> None:
        self.went_ahead = bool(self.announced) and not self.went_ahead
        self.ready |= self.announced
        self.announced.clear()
        if not self.went_ahead and self.look_everywhere and self.world.reaches(self):
            self.look_everywhere = False
            look = self.database.ready_sets(self.spec.labels)
            self.ready = set(look.normal)
            self.strict_wait, self.suspects_wait = bool(look.strict), bool(look.suspects)
            self.strict_sets, self.suspect_sets = set(look.strict), look.suspects
            self.cursors.put_back(look, self.spec.labels)

    def _own_sets(self) -> set[str]:
        strict = self.strict_sets if self.cap > self.strict else set[str]()
        others = strict | (set() if self.suspects else self.suspect_sets)
        return self.ready | {one for one in others if may_run(one, self.spec.labels)}

    def _claim(self) -> None:
        self.claiming = True
        self.permits.follow()
        if wants := self.permits.ask(self._own_sets(), self.free):
            self.permits.exchange(wants, self._got)
            return
        groups: dict[str, list[str]] = {}
        for label_set in sorted(self.ready):
            if self.permits.block(label_set):
                continue
            groups.setdefault(group_of(label_set.split(","), self.weights), []).append(label_set)
        slots = self.free
        quotas = share(self.lanes, self.weights, groups.keys(), slots)
        behind = standings(self.lanes, self.weights, groups.keys())
        shares = [
            Share(
                label_set,
                group,
                quota,
                quota,
                self.weights[group],
                behind[group],
                self.cursors.after(label_set),
            )
            for group, quota in quotas.items()
            for label_set in groups[group]
        ]
        shares = self.permits.fit(shares)
        strict = min(slots, max(self.cap - self.strict, 0))
        but = [one.task.id for one in self.slots if one.has_lost_its_lease]
        if "claims what it runs" in self.broken:
            but = []
        suspects = slots if "suspects together" in self.broken else int(not self.suspects)
        self.asked = strict, suspects
        self.world.call(
            self,
            self.database.claim,
            (
                self.worker_id,
                self.spec.labels,
                strict,
                slots,
                shares,
                but,
                suspects,
                (dict(self.cursors.strict), self.cursors.new_above),
                (self.permits.blocked, self.permits.to_spare),
            ),
            self._claimed,
            (self.worker_id, groups, shares, slots),
        )

    def _claim_again_later(self, worker_id: int) -> None:
        self.doubted[worker_id] = None
        self._push(self._pause(), self._after_outage)

    def _after_outage(self, _: Any) -> None:
        self.claiming = False
        if self.leaving:
            self._leave()
        else:
            self.step()

    def _claimed(self, claimed: Any, plan: Any) -> None:
        worker_id, groups, shares, slots = plan
        if claimed is OUTAGE:
            self.permits.note_doubt()
            self._claim_again_later(worker_id)
            return
        self.claiming = False
        covered = self.held and worker_id == self.worker_id
        if not covered and "starts stale claims" not in self.broken:
            # Lost while this was under way: others may have these already.
            self.doubted[worker_id] = None
            self.permits.note_doubt()
            claimed = []
        for task in sorted(claimed, key=_strict_first):
            self._start(task, worker_id)
        if self.leaving:
            self._leave()
        elif covered and (self._settle(groups, shares, slots, claimed) or self._may_look()):
            self._push(0.0, self.step)
        self._leave_if_idle()

    def _may_look(self) -> bool:
        return self.look_everywhere and self.world.reaches(self)

    def _settle(self, groups: Any, shares: Any, slots: int, claimed: list[ClaimedTask]) -> bool:
        group_by_set = {one[0]: one[1] for one in shares}
        normal = [task for task in claimed if task.is_normal]
        found = Counter(task.label_set for task in normal)
        self.cursors.pass_by(claimed)
        strict, suspects = self.asked
        self.strict_wait |= 0 < strict == sum(task.strict for task in claimed)
        self.suspects_wait |= 0 < suspects == sum(task.is_suspect for task in claimed)
        self.was_full = len(claimed) == slots
        taken: Counter[str] = Counter()
        for label_set, count in found.items():
            taken[group_by_set[label_set]] += count
        if len(claimed) < slots:
            self.ready -= {
                one[0]
                for one in shares
                if taken[one[1]] < one[2] and found[one[0]] < one[3] and not self.permits.block(one[0])
            }
        claimable = {one for one in self.ready if not self.permits.block(one)}
        backlog = [group for group, sets in groups.items() if not claimable.isdisjoint(sets)]
        self.lanes = settle(self.lanes, self.weights, taken, backlog)
        return bool(claimable) or len(claimed) == slots


def _strict_first(task: ClaimedTask) -> tuple[bool, int]:
    return not task.strict, task.id


def _nothing(*_: Any) -> int:
    return 0
