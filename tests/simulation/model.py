"""A database in plain Python that keeps the promises of `queries/*.sql`; each method is one statement.

Statements are atomic and follow each other: what locks and isolation levels do is the business of the tests
that run on PostgreSQL. Whatever changes a row is told to the judge, as the event log would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctaskd.postgres.records import Look
from asynctaskd.task import ClaimedTask, TaskStatus, Transition
from tests.simulation.rows import (
    COMPLETED,
    EXPIRED,
    HEADS,
    PENDING,
    RAISED,
    RELEASED,
    RUNNING,
    SCHEDULED,
    SNOOZED,
    STALE,
    TERMINAL,
    WAITING,
    WRITTEN,
    Clock,
    Row,
    WorkerRow,
    kind_of,
    moment,
)
from tests.simulation.rules import HOOK_TRIES, LEASE, QUARANTINE, SUSPECT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from asynctaskd.postgres.records import Position, Share
    from tests.simulation.judge import Judge
    from tests.simulation.scenario import TaskSpec


class Database:
    """The tables and the statements."""

    def __init__(
        self,
        clock: Clock,
        judge: Judge,
        announce: Callable[[Row], None],
        broken: frozenset[str],
        look_seconds: float,
    ) -> None:
        self.clock = clock
        self.judge = judge
        self.announce = announce
        self.broken = broken
        self.look_seconds = look_seconds
        self.tasks: dict[int, Row] = {}
        self.workers: dict[int, WorkerRow] = {}
        self.tags: dict[str, int] = {}
        self.finished = 0
        self.inserted = 0
        self.up_since = -LEASE

    # -- workers

    def is_live(self, worker: WorkerRow) -> bool:
        return not worker.stopped and not worker.lost and worker.expires_at > self.clock.now

    def register(self, process: int) -> int:
        worker = WorkerRow(len(self.workers) + 1, process, self.clock.now + LEASE)
        self.workers[worker.id] = worker
        self.judge.registered(worker)
        return worker.id

    def renew(self, worker_id: int) -> bool:
        worker = self.workers[worker_id]
        if not self.is_live(worker) and "renews after loss" not in self.broken:
            return False
        worker.expires_at = self.clock.now + LEASE
        self.judge.renewed(worker)
        return True

    def stop(self, worker_id: int) -> bool:
        worker = self.workers[worker_id]
        worker.stopped = True
        if not any(row.worker == worker_id for row in self.tasks.values()):
            worker.permits.clear()
        self.judge.gone(worker)
        return True

    def declare_lost(self, process: int) -> bool:
        """A parent saw the process die: whatever identities it had end now."""
        for worker in self.workers.values():
            if worker.process == process and not worker.stopped and not worker.lost:
                worker.lost = True
                self.judge.gone(worker)
        return True

    # -- permits

    def exchange(
        self, worker_id: int, request: int, wishes: list[tuple[str, int, int, int]]
    ) -> dict[str, tuple[int, int]]:
        """Wishes are (label, limit, how many are held, how many are wanted).

        Returns what a worker has of each, and up to how many it may begin new ones.
        """
        worker = self.workers[worker_id]
        if not self.is_live(worker):
            return {}
        if request <= worker.request:
            return {label: (most, most) for label, most in worker.permits.items()}
        worker.request = request
        answer: dict[str, tuple[int, int]] = {}
        for label, most, held, wants in wishes:
            self._drop_strays(label)
            taken = sum(one.permits.get(label, 0) for one in self.workers.values() if one is not worker)
            if "each for itself" in self.broken:
                taken = 0
            target = max(min(wants, most - taken), 0)
            worker.permits[label] = max(target, held)
            answer[label] = worker.permits[label], target
        return answer

    def _drop_strays(self, label: str) -> None:
        for worker in self.workers.values():
            holds = any(row.worker == worker.id and label in row.labels for row in self.tasks.values())
            if not self.is_live(worker) and (not holds or "lost ones don't count" in self.broken):
                worker.permits.pop(label, None)

    # -- enqueue

    def enqueue(self, spec: TaskSpec) -> int:
        held = self.tags.get(spec.unique_tag) if spec.unique_tag else None
        if held is not None and "tag taken twice" not in self.broken:
            self.judge.refused(spec, held)
            return held
        self.inserted += 1
        row = Row(self.inserted, spec, self.clock.now)
        if spec.unique_tag:
            self.tags[spec.unique_tag] = row.id
        if row.serial_key and not self._goes_first(row):
            row.status = WAITING
        self.tasks[row.id] = row
        self.judge.enqueued(row)
        self._announce_ready(row)
        return row.id

    def _goes_first(self, newcomer: Row) -> bool:
        mates = [row for row in self.tasks.values() if row.serial_key == newcomer.serial_key]
        place = newcomer.place_in_line
        if any(row.status is RUNNING or row.place_in_line < place for row in mates):
            return False
        for row in mates:
            row.status = WAITING
        return True

    def _announce_ready(self, row: Row) -> None:
        if row.status is PENDING:
            self.announce(row)

    # -- claim

    def ready_sets(self, labels: frozenset[str]) -> Look:
        """A look from the start; what it costs is the scenario's."""
        pending = [row for row in self.tasks.values() if row.status is PENDING]
        normal: dict[str, Position] = {}
        strict: dict[str, Position] = {}
        for row in pending:
            if row.losses < SUSPECT and (row.priority or row.labels <= labels):
                before = -(row.priority or row.weight), row.id - 1
                found = strict if row.priority else normal
                found[row.label_set] = min(before, found.get(row.label_set, before))
        suspects = frozenset(row.label_set for row in pending if row.losses >= SUSPECT)
        return Look(normal, strict, suspects, self.inserted, 0, self.look_seconds)

    def claim(  # noqa: PLR0917  (a statement, with its parameters)
        self,
        worker_id: int,
        labels: frozenset[str],
        strict: int,
        slots: int,
        shares: list[Share],
        but: Collection[int],
        suspects: int,
        cursors: tuple[dict[str, Position], int],
        permits: tuple[Collection[str], Mapping[str, int]],
    ) -> list[ClaimedTask]:
        if not self.is_live(self.workers[worker_id]) and "claims without a lease" not in self.broken:
            return []
        strict_after, new_above = cursors
        blocked, spare = permits
        ready = [
            row
            for row in self.tasks.values()
            if row.status is PENDING and row.id not in but and row.labels.isdisjoint(blocked)
        ]
        urgent = sorted(
            (row for row in ready if row.priority and row.losses < SUSPECT and row.labels <= labels),
            key=lambda row: (-row.priority, row.id),
        )
        urgent = [
            row
            for row in urgent
            if not new_above
            or row.id > new_above
            or (row.label_set in strict_after and (-row.priority, row.id) > strict_after[row.label_set])
        ][:strict]
        taken = urgent
        if "normal first" in self.broken:
            taken = []
        suspected = [row for row in ready if row.losses >= SUSPECT and row.labels <= labels]
        taken = taken + suspected[: min(suspects, slots - len(taken))]
        taken += self._normal(ready, shares, new_above)[: slots - len(taken)]
        if "normal first" in self.broken:
            taken += urgent[: slots - len(taken)]
        within = self._within(taken, spare)
        claimed = [self._claimed(row, worker_id) for row in within]
        if len(within) == len(taken):
            self.judge.chosen(taken, labels, strict, but, new_above, blocked)
        return claimed

    @staticmethod
    def _within(taken: list[Row], spare: Mapping[str, int]) -> list[Row]:
        """Of each limited label only so many, those first that come first: strict, suspects, normal."""
        counts: dict[str, int] = {}
        within = []
        for row in sorted(taken, key=_turn):
            for label in row.labels:
                counts[label] = counts.get(label, 0) + 1
            if all(counts[label] <= spare.get(label, counts[label]) for label in row.labels):
                within.append(row)
        return within

    def _normal(self, ready: list[Row], shares: list[Share], new_above: int) -> list[Row]:
        found: dict[str, list[tuple[int, int, Row]]] = {}
        terms: dict[str, tuple[int, int, float]] = {}
        for label_set, group, quota, row_limit, weight, standing, after in shares:
            rows = [
                (-row.weight, row.id, row)
                for row in ready
                if row.label_set == label_set and not row.priority and row.losses < SUSPECT
            ]
            rows.sort()
            if new_above or not rows or rows[0][0] >= after[0]:
                # Nothing has more weight than where the last claim stopped, or it isn't asked for.
                rows = [row for row in rows if row[:2] > after]
            found.setdefault(group, []).extend(rows[:row_limit])
            terms[group] = quota, weight, standing
        ranked = []
        for group, rows in found.items():
            quota, weight, standing = terms[group]
            rows.sort()
            ranked += [
                ((n - standing) / weight, row.id, row) for n, (_, _, row) in enumerate(rows[:quota], 1)
            ]
        ranked.sort()
        return [row for _, _, row in ranked]

    def _claimed(self, row: Row, worker_id: int) -> ClaimedTask:
        now = self.clock.now
        row.status = RUNNING
        row.worker = worker_id
        row.token += 1
        row.claimed_at = now
        row.attempts += 1
        self.judge.claimed(row, worker_id)
        spec = row.spec
        return ClaimedTask(
            row.id,
            row.token,
            row.name,
            "{}",
            row.label_set,
            row.priority,
            row.weight,
            row.attempts,
            row.failures,
            row.losses,
            spec.max_attempts,
            None,
            None,
            None if row.deadline is None else moment(row.deadline),
            moment(now),
            moment(row.created_at) if row.reason == "unknown_name" else None,
            row.serial_key,
            None,
            row.reason,
            now - row.created_at,
            None,
            None,
        )

    def release_orphans(self, worker_id: int, known: Collection[int], as_of: float) -> int:
        """Put back what the worker doesn't know of; `as_of` is when it could have known."""
        released = 0
        for row in list(self.tasks.values()):
            late = row.claimed_at > as_of and "orphans by name only" not in self.broken
            if row.worker == worker_id and row.id not in known and not late:
                row.attempts -= 1
                self._put_back(row, RELEASED, 0.0)
                released += 1
        return released

    # -- finalize

    def finalize(self, batch: Iterable[tuple[int, int, Transition, float]]) -> set[int]:
        """Items are (id, claim token, transition, error of the worker's clock); returns the ids written."""
        written = set()
        for task_id, token, transition, clock_error in batch:
            row = self.tasks.get(task_id)
            if row is None or not self._stands(row, token):
                continue
            self._write(row, token, transition, clock_error)
            written.add(task_id)
        return written

    def _stands(self, row: Row, token: int) -> bool:
        if "stale results are written" in self.broken:
            return row.status is RUNNING
        return row.token == token and row.status is RUNNING

    def _write(self, row: Row, token: int, transition: Transition, clock_error: float) -> None:
        if not transition.attempt_spent and "attempts aren't given back" not in self.broken:
            row.attempts -= 1
        if transition.failed_execution and "failures aren't counted" not in self.broken:
            row.failures += 1
        if transition.event is SNOOZED and "snooze is a failure" in self.broken:
            row.failures += 1
        if transition.status in TERMINAL:
            self._end(row, token, transition.status, transition.reason)
            return
        if transition.event is not RELEASED and transition.reason != "unknown_name":
            row.losses = 0
        if transition.event is not RELEASED and row.reason != "quarantined":
            row.reason = transition.reason
        delay = transition.delay.total_seconds() if transition.delay else 0.0
        self._put_back(row, kind_of(transition), delay, token, clock_error)

    def _put_back(
        self, row: Row, what: str, delay: float, token: int | None = None, clock_error: float = 0.0
    ) -> None:
        row.worker = None
        self.judge.put_back(row, row.token if token is None else token, what, delay)
        if "retried at once" in self.broken:
            delay = 0.0
        row.status = SCHEDULED if delay > 0 else PENDING
        if delay > 0:
            row.run_at = self.clock.now + delay
            if "worker's clock" in self.broken:
                row.run_at += clock_error
        self._announce_ready(row)

    def _end(self, row: Row, token: int | None, status: TaskStatus, reason: str | None) -> None:
        del self.tasks[row.id]
        self.finished += 1
        spec = row.spec
        if spec.unique_tag and spec.until_finished and self.tags.get(spec.unique_tag) == row.id:
            del self.tags[spec.unique_tag]
        self.judge.ended(row, token, status, reason)

    def note_stale(self, claims: Collection[tuple[int, int]]) -> set[int]:
        """Of claims that finalize found gone, those that were taken from their worker."""
        return {task_id for task_id, token in claims if self.judge.was_taken(task_id, token)}

    def end_with_hook(self, task_id: int, token: int, transition: Transition, tries: int) -> str:
        """One transaction: the status, and the hook inside a savepoint, or the note that it failed."""
        row = self.tasks.get(task_id)
        raises = self.judge.stories[task_id].spec.hook_fails > tries
        apart = "hook apart" in self.broken and not tries
        if not raises and not apart and "hook before the fence" in self.broken:
            self.judge.hook_ran(task_id, token)
            apart = True
        if row is None or not self._stands(row, token):
            return STALE
        if tries >= HOOK_TRIES:
            self.judge.hook_failed(task_id)
        elif raises and "hook error swallowed" not in self.broken:
            return RAISED
        elif not raises and not apart:
            self.judge.hook_ran(task_id, token)
        self._write(row, token, transition, 0.0)
        return WRITTEN

    def run_hook(self, task_id: int, token: int) -> str:
        """The hook in a transaction of its own (a mutant's)."""
        self.judge.hook_ran(task_id, token)
        return WRITTEN

    def complete_in_transaction(self, task_id: int, token: int) -> str:
        """`ctx.transaction()`: the handler's writes and the end of its task, or neither."""
        row = self.tasks.get(task_id)
        if row is None or not self._stands(row, token):
            return STALE
        self.judge.wrote(task_id, token)
        self._write(row, token, Transition(COMPLETED), 0.0)
        return WRITTEN

    def was_committed(self, task_id: int, token: int) -> bool:
        """What became of the transaction that completed a task."""
        return self.judge.has_written(task_id, token)

    # -- housekeeping

    def tidy(self, judging: bool) -> bool:
        """A housekeeping round; `judging`: may the one who asks declare others lost?"""
        promoted = self.promote_due()
        self._expire()
        promoted = self._recover(judging) or promoted
        return self.promote_serial() or promoted

    def promote_due(self) -> bool:
        promoted = False
        now = self.clock.now
        for row in self.tasks.values():
            if row.status is SCHEDULED and row.run_at <= now:
                row.status = PENDING
                self.announce(row)
                promoted = True
        return promoted

    def wake_unknown(self, names: frozenset[str]) -> bool:
        for row in self.tasks.values():
            if row.reason == "unknown_name" and row.name in names and row.status is SCHEDULED:
                row.run_at = min(row.run_at, self.clock.now)
                self.judge.woken(row)
        return True

    def _expire(self) -> None:
        now = self.clock.now
        for row in list(self.tasks.values()):
            spared = row.status is RUNNING and "running ones expire" not in self.broken
            if row.deadline is not None and row.deadline <= now and not spared:
                self._end(row, None, EXPIRED, "deadline passed")

    def _recover(self, judging: bool) -> bool:
        if judging:
            self._declare_lost()
        gone = {worker.id for worker in self.workers.values() if worker.stopped or worker.lost}
        lost = [row for row in self.tasks.values() if row.worker in gone]
        for row in lost:
            self._lose(row)
        return bool(lost)

    def _declare_lost(self) -> None:
        now = self.clock.now
        if now <= self.up_since + LEASE and "cut off judges" not in self.broken:
            return  # nobody could renew before the server was there
        for worker in self.workers.values():
            if not worker.stopped and not worker.lost and worker.expires_at <= now:
                self.judge.declared(worker)
                worker.lost = True

    def _lose(self, row: Row) -> None:
        holder, row.worker = row.worker, None
        row.status = PENDING
        if "losses aren't counted" not in self.broken:
            row.losses += 1
        quarantined = row.losses >= QUARANTINE and "nobody is quarantined" not in self.broken
        row.reason = "quarantined" if quarantined else "lease_lost"
        self.judge.lost(row, holder or 0)
        if "token reset" in self.broken:
            row.token = 0
        self.announce(row)

    def promote_serial(self) -> bool:
        keys = {row.serial_key for row in self.tasks.values() if row.status is WAITING}
        promoted = False
        for key in sorted(key for key in keys if key):
            mates = [row for row in self.tasks.values() if row.serial_key == key]
            blocked = HEADS - {RUNNING} if "two of a serial key" in self.broken else HEADS
            if any(row.status in blocked for row in mates):
                continue
            first = min((row for row in mates if row.status is WAITING), key=lambda row: row.place_in_line)
            first.status = SCHEDULED if first.run_at > self.clock.now else PENDING
            self._announce_ready(first)
            promoted = True
        return promoted


def _turn(row: Row) -> int:
    if row.losses >= SUSPECT:
        return 1
    return 0 if row.priority else 2
