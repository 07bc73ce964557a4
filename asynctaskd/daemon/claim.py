"""Claim: as many tasks at once as there are free slots, chosen by the lanes.

A notice only says where to look; the one-second poll looks everywhere. What is known between two looks is a
set of label sets believed to hold something. A set leaves it when a claim found less there than it asked for,
and comes back with a notice, a promotion or the next poll.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from asynctaskd.daemon.loops import OUTAGE, Backoff, wait_for
from asynctaskd.postgres.records import Share
from asynctaskd.scheduling.lanes import (
    DEFAULT_GROUP,
    LaneState,
    group_of,
    settle,
    share,
    standings,
    strict_cap,
)
from asynctaskd.telemetry.events import emit, is_watched

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from uuid import UUID

    from asynctaskd.daemon.commands import Steering
    from asynctaskd.daemon.lease import Lease
    from asynctaskd.daemon.slots import Slots
    from asynctaskd.postgres.store import Store
    from asynctaskd.task import ClaimedTask

EVERYWHERE = "*"
"""The payload of a notice that names no label set."""

# How long all slots have to be taken before enqueuers are told to stop notifying: an idle flag that flips
# with every task would cost more than the notices it saves.
_BUSY_AFTER = 0.1

# How long after a claim failed it may still be committed: as long as the server may go on with a statement
# that nobody waits for.
_DOUBT = timedelta(seconds=30)

# How often to look for such claims without any doubt, in seconds.
_AUDIT_INTERVAL = 30.0


class Claimer:
    """The claim loop. It alone takes slots, and it alone knows which label sets hold something."""

    def __init__(
        self,
        store: Store,
        lease: Lease,
        steering: Steering,
        slots: Slots,
        *,
        start: Callable[[ClaimedTask], None],
        hears: Callable[[], bool],
        poll_interval: float,
        takes_suspects: bool,
    ) -> None:
        self._store = store
        self._lease = lease
        self._steering = steering
        self._slots = slots
        self._start = start
        self._hears = hears
        self._poll_interval = poll_interval
        self._takes_suspects = takes_suspects
        self._wake = asyncio.Event()
        self._stopping = False
        self._look_everywhere = True
        self._announced: set[str] = set()
        self._ready: set[str] = set()
        self._lanes = LaneState()
        self._idle_as: UUID | None = None
        self._blocked = True
        self._next_poll = 0.0
        self._last_hungry = 0.0
        # Identity → until when a claim of its may come to light, by the database's clock; None: not known
        self._doubts: dict[UUID, datetime | None] = {}
        self._next_search = 0.0
        self._next_audit = self._now() + _AUDIT_INTERVAL

    def wake(self) -> None:
        """A slot was freed. That changes nothing where the last claim had room to spare."""
        if self._blocked:
            self._wake.set()

    def look(self, label_set: str = EVERYWHERE) -> None:
        """Something may have become ready: under this label set, or anywhere."""
        if label_set == EVERYWHERE:
            self._look_everywhere = True
        else:
            self._announced.add(label_set)
        self._wake.set()

    def stop(self) -> None:
        """Stop claiming. A claim in flight is never cancelled: what it leased would have nobody to run it."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Claim until stopped."""
        backoff = Backoff("claim")
        while not self._stopping:
            try:
                await self._step()
            except OUTAGE as error:
                await backoff.wait(error)
            else:
                backoff.reset()

    async def run_one_suspect(self) -> None:
        """Instead: claim one suspect, if there is one, and look for what that may have claimed beside it."""
        backoff = Backoff("claim")
        claimed = None
        while not self._stopping:
            self._wake.clear()
            try:
                await self._find_lost_claims()
                claimed = claimed or await self._take([], 1, suspects_alone=True)
            except OUTAGE as error:
                await backoff.wait(error)
            else:
                backoff.reset()
                if not self._doubts:
                    return
                await self._rest(self._poll_interval)

    async def _step(self) -> None:
        self._wake.clear()
        await self._find_lost_claims()
        if not self._lease.is_held or not self._slots.free:
            await self._rest(_BUSY_AFTER)
        elif await self._claim():
            return
        elif self._is_idle or not self._hears():
            await self._rest(max(self._next_poll - self._now(), 0.0))
        else:
            # Say so first and look once more: whoever commits from now on speaks.
            await self._say_idle(True)
            self._look_everywhere = True

    async def _rest(self, longest: float) -> None:
        """Until woken, but not longer than that."""
        if self._is_idle and not self._slots.free and self._now() - self._last_hungry > _BUSY_AFTER:
            await self._say_idle(False)
        await wait_for(self._wake, longest)

    @property
    def _is_idle(self) -> bool:
        return self._idle_as == self._lease.worker_id

    async def _say_idle(self, idle: bool) -> None:
        worker_id = self._lease.worker_id
        await self._store.set_idle(worker_id, idle)
        self._idle_as = worker_id if idle else None

    async def _claim(self) -> bool:
        """Claim what the lanes plan; True if there may be more where that came from."""
        await self._find_ready()
        groups = self._groups()
        slots = self._slots.free
        shares = self._shares(groups, slots)
        claimed = await self._take(shares, slots)
        return claimed is not None and self._settle(shares, groups, claimed, slots)

    async def _take(
        self, shares: list[Share], slots: int, *, suspects_alone: bool = False
    ) -> list[ClaimedTask] | None:
        """Claim and start; None where the lease was lost meanwhile, or this one is to stop."""
        if self._stopping:
            return None
        worker_id = self._lease.worker_id
        try:
            claimed = await self._store.claim(
                worker_id,
                self._lease.labels,
                strict=min(slots, max(self._strict_cap() - self._slots.strict, 0)),
                slots=slots,
                shares=shares,
                but=[execution.task.id for execution in self._slots if execution.has_lost_its_lease],
                suspects=int(self._takes_suspects and not self._slots.suspects),
                suspects_alone=suspects_alone,
            )
        except OUTAGE:
            self._doubt(worker_id)
            raise
        if not self._lease.covers(worker_id):
            # Lost while this was under way: others may have these already.
            self._doubt(worker_id)
            return None
        for task in sorted(claimed, key=_strict_first):
            self._start(task)
        _tell(claimed)
        return claimed

    async def _find_ready(self) -> None:
        if self._look_everywhere or self._now() >= self._next_poll:
            self._look_everywhere = False
            self._announced.clear()
            self._next_poll = self._now() + self._poll_interval
            self._ready = set(await self._store.ready_sets(self._lease.labels))
        self._ready |= {label_set for label_set in self._announced if self._may_run(label_set)}
        self._announced.clear()

    def _doubt(self, worker_id: UUID) -> None:
        """A claim may have been committed under this identity without an answer."""
        self._doubts[worker_id] = None

    async def put_back_lost_claims(self) -> None:
        """Put back what was claimed in doubt, for the last time."""
        for worker_id in self._doubts:
            await self._release_orphans(worker_id)

    async def _find_lost_claims(self) -> None:
        """Once a poll, slots or none: put back what was claimed in doubt, until none can come any more.

        A backend that was frozen takes up what it was sent whenever it wakes, so now and then this is done
        without any doubt.
        """
        if self._now() >= self._next_audit:
            self._next_audit = self._now() + _AUDIT_INTERVAL
            await self._release_orphans(self._lease.worker_id)
        if not self._doubts or self._now() < self._next_search:
            return
        self._next_search = self._now() + self._poll_interval
        for worker_id in tuple(self._doubts):
            as_of = await self._release_orphans(worker_id)
            # Or as long as a COMMIT may wait for a standby: a lease, since renewals wait for it too.
            until = self._doubts[worker_id] or as_of + max(_DOUBT, self._lease.worker.lease)
            self._doubts[worker_id] = until
            if as_of >= until:
                del self._doubts[worker_id]

    async def _release_orphans(self, worker_id: UUID) -> datetime:
        """Put back what got lost on its way; returns as of when, by the database's clock."""
        # This loop alone claims: what the database says is ours and the slots don't know got lost on its way.
        # Should this be executed late itself, it must not put back what is claimed meanwhile.
        as_of = await self._store.clock()
        known = [execution.task.id for execution in self._slots]
        released = await self._store.release_orphans(worker_id, known, as_of)
        if released:
            self._look_everywhere = True
            emit("claim.lost", worker_id=worker_id, tasks=released)
        return as_of

    def _groups(self) -> dict[str, list[str]]:
        """Group → its label sets, of those believed to hold something."""
        weights = self._steering.config.weights
        groups: dict[str, list[str]] = {}
        for label_set in sorted(self._ready):
            groups.setdefault(
                group_of(label_set.split(","), weights) if weights else DEFAULT_GROUP, []
            ).append(label_set)
        return groups

    def _shares(self, groups: dict[str, list[str]], slots: int) -> list[Share]:
        weights = self._weights()
        quotas = share(self._lanes, weights, groups.keys(), slots)
        behind = standings(self._lanes, weights, groups.keys())
        return [
            Share(
                label_set, group, quota, _row_limit(quota, len(groups[group])), weights[group], behind[group]
            )
            for group, quota in quotas.items()
            for label_set in groups[group]
        ]

    def _settle(
        self, shares: list[Share], groups: dict[str, list[str]], claimed: list[ClaimedTask], slots: int
    ) -> bool:
        group_by_set = {s.label_set: s.group for s in shares}
        found = Counter(task.label_set for task in claimed if not task.strict and not task.is_suspect)
        taken: Counter[str] = Counter()
        for label_set, count in found.items():
            taken[group_by_set[label_set]] += count
        if len(claimed) < slots:
            self._last_hungry = self._now()
            self._ready -= {
                s.label_set for s in shares if taken[s.group] < s.quota and found[s.label_set] < s.row_limit
            }
        backlog = [group for group, sets in groups.items() if not self._ready.isdisjoint(sets)]
        self._lanes = settle(self._lanes, self._weights(), taken, backlog)
        full = not self._slots.free or self._slots.strict >= self._strict_cap()
        self._blocked = full or self._slots.suspects > 0
        return bool(self._ready) or len(claimed) == slots

    def _weights(self) -> dict[str, int]:
        config = self._steering.config
        return {**config.weights, DEFAULT_GROUP: config.default_weight}

    def _strict_cap(self) -> int:
        return strict_cap(self._slots.concurrency, self._steering.max_strict_percentage)

    def _may_run(self, label_set: str) -> bool:
        return not label_set or set(label_set.split(",")) <= set(self._lease.labels)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _row_limit(quota: int, sets: int) -> int:
    # A group's first tasks may all be in one of its label sets. Looking at the whole quota in each of many
    # sets would lock far more rows than are taken; four times its even part is enough unless one set has
    # most of the group's first tasks, and then the next claim takes them.
    return quota if sets == 1 else min(quota, max(8, -(-4 * quota // sets)))


def _tell(claimed: list[ClaimedTask]) -> None:
    if is_watched("task.claimed"):
        for task in claimed:
            emit("task.claimed", task_id=task.id, task=task.name, attempt=task.attempts)


def _strict_first(task: ClaimedTask) -> tuple[bool, int]:
    return not task.strict, task.id
