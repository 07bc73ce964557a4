"""What this worker may not run now: paused labels, and limited ones of which it has no permit to spare.

A worker runs tasks of a limited label within its permits, and all permits together are within the limit. So a
claim asks nobody. Only who would take more than it has permits for asks for more, and who has had permits to
spare for a while gives them back. Everything counts that is held, until its end is written.

The claim loop alone calls this, between two claims.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from asynctaskd.postgres.permits import Given, Wish
from asynctaskd.scheduling.limits import Part, cut

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from uuid import UUID

    from asynctaskd.config import RuntimeConfig
    from asynctaskd.daemon.commands import Steering
    from asynctaskd.daemon.lease import Lease
    from asynctaskd.daemon.slots import Slots
    from asynctaskd.postgres.permits import PermitStore
    from asynctaskd.postgres.records import Share
    from asynctaskd.task import ClaimedTask

# Whoever got too few permits asks again after so many seconds, and each time in vain later.
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 0.4

# What was to spare for so many seconds is given back.
_WINDOW = 0.25

# So often a worker that holds permits says so again: others may have waited for their share.
_REFRESH = 1.0


@dataclass(slots=True)
class _Permit:
    """What this worker has of one limited label; counts are tasks."""

    limit: int
    granted: int = 0
    target: int = 0
    """Up to how many it may begin new ones."""
    told: int = 0
    """How many it said it would use."""
    used: int = 0
    doubted: int = 0
    """What claims whose answer got lost may have taken."""
    least: int = 0
    """What was to spare all the time since the window began."""
    has_strangers: bool = False
    """Whether workers that don't know of the limit yet may begin some."""
    is_short: bool = False
    """Whether something that is believed to be ready waits for it."""
    wanted_at: float = -inf
    pause: float = _FIRST_PAUSE
    next_ask: float = 0.0

    @property
    def held(self) -> int:
        return self.used + self.doubted

    @property
    def spare(self) -> int:
        return min(self.granted, self.target) - self.held

    @property
    def is_over(self) -> bool:
        """Whether more is granted than is held or may be begun."""
        return self.granted > max(self.held, self.target)


class Permits:
    """The permits of the identity that claims now, and the labels that are paused.

    Attributes:
        is_short: whether something that is believed to be ready waits for a permit.
    """

    def __init__(self, store: PermitStore, lease: Lease, steering: Steering, slots: Slots) -> None:
        self._store = store
        self._lease = lease
        self._steering = steering
        self._slots = slots
        self.is_short = False  # no property: it is asked twice a task
        self._config: RuntimeConfig | None = None
        self._worker_id = lease.worker_id
        self._paused: frozenset[str] = frozenset()
        self._permits: dict[str, _Permit] = {}
        self._limited: dict[str, tuple[str, ...]] = {}
        self._has_rows = False  # in the database, for all that is known
        self._request = 0
        self._window_ends = self._next_refresh = self._next_return = inf

    @property
    def worker_id(self) -> UUID:
        """The identity these permits are of: what is claimed is claimed under it."""
        return self._worker_id

    # -- what claims ask

    @property
    def restricts(self) -> bool:
        """Whether there is any label that may not run now, or not without a limit."""
        return bool(self._paused or self._permits)

    @property
    def blocked(self) -> list[str]:
        """The labels whose tasks may not run now."""
        return [*self._paused, *(label for label, one in self._permits.items() if one.spare <= 0)]

    @property
    def spare(self) -> dict[str, int]:
        """How many more tasks of the other limited labels may run."""
        return {label: one.spare for label, one in self._permits.items() if one.spare > 0}

    def block(self, label_set: str) -> bool:
        """Whether tasks of this label set may not run now."""
        if not self.restricts:
            return False
        return any(self._permits[label].spare <= 0 for label in self._limits_of(label_set)) or (
            bool(self._paused) and not self._paused.isdisjoint(label_set.split(","))
        )

    def block_all(self, label_sets: Collection[str]) -> bool:
        """Whether there are label sets, and none of them may run now."""
        return self.restricts and bool(label_sets) and all(map(self.block, label_sets))

    def fit(self, shares: list[Share]) -> list[Share]:
        """The same shares, with no more of any limited label than may run."""
        if not self._permits or not any(self._limits_of(share.label_set) for share in shares):
            return shares
        counts = cut([self._part(share) for share in shares], self.spare)
        total: Counter[str] = Counter()
        for share, count in zip(shares, counts, strict=True):
            total[share.group] += count
        return [
            share._replace(row_limit=count, quota=min(share.quota, total[share.group]))
            for share, count in zip(shares, counts, strict=True)
            if count
        ]

    def _part(self, share: Share) -> Part:
        most = min(share.row_limit, share.quota)
        return Part(share.group, self._limits_of(share.label_set), most, share.weight, share.standing)

    def is_exhausted(self, label_set: str) -> bool:
        """Whether a limited label of this set has no permit to spare any more."""
        return any(self._permits[label].spare <= 0 for label in self._limits_of(label_set))

    def _limits_of(self, label_set: str) -> tuple[str, ...]:
        if not self._permits:
            return ()
        found = self._limited.get(label_set)
        if found is None:
            found = tuple(label for label in label_set.split(",") if label in self._permits)
            self._limited[label_set] = found
        return found

    # -- what claims tell

    def note_claimed(self, claimed: Iterable[ClaimedTask]) -> None:
        """These were claimed, and are held from now on."""
        if self._permits:
            for label_set, count in Counter([task.label_set for task in claimed]).items():
                for label in self._limits_of(label_set):
                    self._permits[label].used += count

    def note_doubt(self) -> None:
        """A claim may have been committed without an answer: it may have taken all there was to spare."""
        for one in self._permits.values():
            one.doubted += max(one.spare, 0)

    def note_certainty(self) -> None:
        """What claims without an answer may have taken has been put back."""
        for one in self._permits.values():
            one.doubted = 0

    # -- what keeps them

    async def follow(self) -> None:
        """Obey the configuration in force, and know what is held; raises what the store raises."""
        config, worker_id = self._steering.config, self._lease.worker_id
        if config is not self._config or worker_id != self._worker_id:
            await self._begin(config, worker_id)
        elif self._permits:
            self._count()

    def begin_anew(self) -> None:
        """This worker offers other labels: ask for theirs before the next claim."""
        self._config = None

    async def _begin(self, config: RuntimeConfig, worker_id: UUID) -> None:
        """Say what is held of each limited label, before anything else of it is claimed."""
        labels = set(self._lease.labels)
        limits = {label: limit for label, limit in config.limits.items() if label in labels}
        self._has_rows = self._has_rows and worker_id == self._worker_id
        self._slots.count_sets(bool(limits))
        before = self._permits if self._has_rows else {}
        self._permits = {
            label: _Permit(limit, doubted=before[label].doubted if label in before else 0)
            for label, limit in limits.items()
        }
        self._limited.clear()
        self.is_short = False
        self._paused = frozenset(config.paused_labels)
        self._window_ends = self._next_refresh = inf
        self._config = None  # until it is said
        self._worker_id = worker_id
        self._count()
        if self._has_rows:
            # Again until it is done: of whoever has a row, others believe that it keeps to the next limit.
            await self._store.drop(worker_id, but=list(limits))
        self._has_rows = bool(limits)
        if limits:
            await self._exchange({})
        self._config = config

    def _count(self) -> None:
        """Count what is held."""
        for one in self._permits.values():
            one.used = 0
        by_set = self._slots.by_set
        for label_set, count in tuple(by_set.items()):
            if not count:
                del by_set[label_set]
            for label in self._limits_of(label_set):
                self._permits[label].used += count
        for one in self._permits.values():
            one.least = min(one.least, one.granted - one.held)
        if self._window_ends == inf and self._is_idle:
            self._begin_window()

    @property
    def _is_idle(self) -> bool:
        return any(one.granted > one.held for one in self._permits.values())

    def _begin_window(self) -> None:
        for one in self._permits.values():
            one.least = one.granted - one.held
        self._window_ends = self._now() + _WINDOW if self._is_idle else inf

    async def ask(self, label_sets: Iterable[str]) -> None:
        """Ask for permits where there are none to spare for these label sets."""
        if not self._permits:
            return
        label_sets = [one for one in label_sets if self._limits_of(one)]
        if not label_sets and not self.is_short:
            return
        if self._may_be_overtaken(label_sets):
            await self._exchange({})
        now = self._now()
        short = self._short_of(label_sets)
        self.is_short = bool(short)
        for label, one in self._permits.items():
            one.is_short = label in short
            if one.is_short:
                one.wanted_at = now
        if any(one.next_ask <= now for one in short.values()):
            before = {label: one.granted for label, one in short.items()}
            await self._exchange({label: self._most_of_use(one) for label, one in short.items()})
            for label, one in short.items():
                grew = one.granted > before[label]
                one.pause = _FIRST_PAUSE if grew else min(one.pause * 2, _LONGEST_PAUSE)
                one.next_ask = now + one.pause
        if idle := self._of_no_use(label_sets):
            await self._exchange({label: self._permits[label].held for label in idle})

    def _may_be_overtaken(self, label_sets: Iterable[str]) -> bool:
        """Whether a permit that could be used has to be asked about again before each claim.

        Who doesn't know of the limit begins what it likes, and may have learned of it by now.
        """
        needed = {label for one in label_sets for label in self._limits_of(one)}
        return any(self._permits[label].has_strangers and self._permits[label].spare > 0 for label in needed)

    def _most_of_use(self, one: _Permit) -> int:
        """What ends gives its slot back before its permit: twice the slots are in use where all is quick.

        But the first come mustn't take for that what others could use now: one for each slot comes first.
        """
        return min(one.held + self._slots.room, max(self._slots.concurrency, 2 * one.granted))

    def _of_no_use(self, label_sets: Iterable[str]) -> set[str]:
        """Labels with permits to spare for nothing but label sets that wait for another one's.

        Kept, they could be what somebody else waits for who keeps the others.
        """
        of_use: set[str] = set()
        waiting: set[str] = set()
        for one in label_sets:
            (waiting if self.block(one) else of_use).update(self._limits_of(one))
        return {label for label in waiting - of_use if self._permits[label].spare > 0}

    async def ask_for_any(self) -> None:
        """Ask for a permit of each limited label, for one task of which nothing is known yet."""
        await self.follow()
        await self.ask(list(self._permits))

    def _short_of(self, label_sets: Iterable[str]) -> dict[str, _Permit]:
        needed = {label: self._permits[label] for one in label_sets for label in self._limits_of(one)}
        return {label: one for label, one in needed.items() if one.spare <= 0 < one.limit}

    async def give_back(self) -> None:
        """Give back all that isn't in use."""
        if self._permits:
            await self._exchange({label: one.held for label, one in self._permits.items()})

    async def keep(self) -> None:
        """Follow the configuration; give back what others have a right to or nobody uses."""
        await self.follow()
        if not self._permits or self.seconds_to_keep:
            return
        now = self._now()
        is_over = now >= self._window_ends
        if not is_over or now >= self._next_refresh or any(one.least > 0 for one in self._permits.values()):
            wants = {label: self._wanted(one, is_over, now) for label, one in self._permits.items()}
            await self._exchange(wants)
        else:
            self._begin_window()

    @staticmethod
    def _wanted(one: _Permit, window_is_over: bool, now: float) -> int:
        """What was to spare all the time isn't wanted any more, nor what was asked for long ago."""
        used = one.granted - max(one.least, 0) if window_is_over else one.granted
        return max(used, one.told if one.wanted_at > now - _REFRESH else 0)

    @property
    def seconds_to_keep(self) -> float:
        """After how many seconds there is something to give back; 0 where there is."""
        if not self._permits:
            return inf
        is_over = any(one.is_over for one in self._permits.values())
        returns = self._next_return if is_over else inf
        return max(min(self._window_ends, self._next_refresh, returns) - self._now(), 0.0)

    @property
    def seconds_to_ask(self) -> float:
        """After how many seconds what waits for permits asks again."""
        waiting = (one.next_ask for one in self._permits.values() if one.is_short)
        return max(min(waiting, default=inf) - self._now(), 0.0)

    async def _exchange(self, wants: Mapping[str, int]) -> None:
        """Say what is held and wanted; labels that aren't named in `wants` are wanted as before."""
        self._request += 1
        wishes = [self._wish(label, one, wants) for label, one in self._permits.items()]
        # Whether the answer comes or not: what is given back isn't used from here on, and what is asked for
        # may be granted, so it has to be asked about again.
        for wish in wishes:
            one = self._permits[wish.label]
            one.granted = min(one.granted, wish.wants)
            one.told = wish.wants
        self._next_refresh = self._now()
        answer = await self._store.exchange(self._worker_id, self._request, wishes)
        now = self._now()
        for wish in wishes:
            one = self._permits[wish.label]
            one.granted, one.target, one.has_strangers = answer.get(wish.label, Given(0, 0))
        self._next_return = now + _FIRST_PAUSE
        self._begin_window()
        holds = any(one.granted or one.told for one in self._permits.values())
        self._next_refresh = now + _REFRESH if holds else inf

    def _wish(self, label: str, one: _Permit, wants: Mapping[str, int]) -> Wish:
        wanted = wants.get(label, max(one.told, one.granted))
        return Wish(label, one.limit, one.held, max(min(wanted, one.limit), one.held))

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
