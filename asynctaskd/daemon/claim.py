"""Claim: as many tasks at once as there are free slots, chosen by the lanes.

A notice only says where to look; the one-second poll looks everywhere. What is known between two looks
(`Ready`) is a set of label sets believed to hold something. A set leaves it when a claim found less there
than it asked for, and comes back with a notice, a promotion or the next poll.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from asynctaskd.daemon.doubts import Doubts
from asynctaskd.daemon.loops import OUTAGE, Backoff, wait_for
from asynctaskd.daemon.ready import Ready
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
        self._ready = Ready(store, lease, poll_interval)
        self._doubts = Doubts(
            store, lease, slots, put_back=self._ready.look_next, poll_interval=poll_interval
        )
        self._lanes = LaneState()
        self._idle_as: UUID | None = None
        self._blocked = True
        self._last_hungry = 0.0

    def wake(self) -> None:
        """A slot was freed. That changes nothing where the last claim had room to spare."""
        if self._blocked:
            self._wake.set()

    def look(self, label_set: str = EVERYWHERE) -> None:
        """Something may have become ready: under this label set, or anywhere."""
        if label_set == EVERYWHERE:
            self._ready.hasten()
        else:
            self._ready.announce(label_set)
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
                await self._doubts.search()
                claimed = claimed or await self._take([], 1, suspects_alone=True)
            except OUTAGE as error:
                await backoff.wait(error)
            else:
                backoff.reset()
                if not self._doubts:
                    return
                await self._rest(self._poll_interval)

    async def put_back_lost_claims(self) -> None:
        """Put back what was claimed in doubt, for the last time."""
        await self._doubts.put_back_all()

    async def _step(self) -> None:
        self._wake.clear()
        await self._doubts.search()
        if not self._lease.is_held or not self._slots.free:
            await self._rest(_BUSY_AFTER)
        elif await self._claim() or not self._ready.seconds_to_look:
            return
        elif self._is_idle or not self._hears():
            await self._rest(self._ready.seconds_to_look)
        else:
            # Say so first and look once more: whoever commits from now on speaks.
            await self._say_idle(True)
            self._ready.look_next()

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
        await self._ready.refresh()
        groups = self._groups()
        slots = self._slots.free
        shares = self._shares(groups, slots)
        claimed = await self._take(shares, slots) if shares or self._others_wait else []
        return claimed is not None and self._settle(shares, groups, claimed, slots)

    async def _take(
        self, shares: list[Share], slots: int, *, suspects_alone: bool = False
    ) -> list[ClaimedTask] | None:
        """Claim and start; None where the lease was lost meanwhile, or this one is to stop."""
        if self._stopping:
            return None
        worker_id = self._lease.worker_id
        try:
            claimed = await self._ask(worker_id, shares, slots, suspects_alone)
        except OUTAGE:
            self._doubts.add(worker_id)
            raise
        if not self._lease.covers(worker_id):
            # Lost while this was under way: others may have these already.
            self._doubts.add(worker_id)
            return None
        for task in claimed:
            self._start(task)
        _tell(claimed)
        return claimed

    async def _ask(
        self, worker_id: UUID, shares: list[Share], slots: int, suspects_alone: bool
    ) -> list[ClaimedTask]:
        strict = min(slots, max(self._strict_cap() - self._slots.strict, 0))
        suspects = int(self._takes_suspects and not self._slots.suspects)
        ask = partial(
            self._store.claim,
            worker_id,
            self._lease.labels,
            strict=strict,
            strict_after=self._ready.cursors.strict,
            slots=slots,
            shares=shares,
            but=[execution.task.id for execution in self._slots.lost],
            suspects=suspects,
            suspects_alone=suspects_alone,
            new_above=self._ready.cursors.new_above,
        )
        plain = self._is_plain(shares)
        if plain and (claimed := await ask(plain=True)):
            return claimed
        claimed = await ask()
        # As many as were asked for: more may wait, until a look says otherwise.
        self._ready.strict |= 0 < strict == sum(task.strict for task in claimed)
        self._ready.suspects |= 0 < suspects == sum(task.is_suspect for task in claimed)
        self._ready.is_blocked |= plain and any(task.is_normal for task in claimed)
        return claimed

    def _is_plain(self, shares: list[Share]) -> bool:
        """Whether nothing but the normal lane is likely to hold something, and no group has to be ranked."""
        groups = {share.group for share in shares}
        others = self._others_wait or self._ready.is_blocked
        return 0 < len(groups) == len(shares) and not others and not self._slots.lost

    @property
    def _others_wait(self) -> bool:
        """Whether a lane that this worker asks beside the normal one may hold something."""
        strict = self._ready.strict and self._strict_cap() > 0
        return strict or (self._ready.suspects and self._takes_suspects)

    def _groups(self) -> dict[str, list[str]]:
        """Group → its label sets, of those believed to hold something."""
        weights = self._steering.config.weights
        groups: dict[str, list[str]] = {}
        for label_set in self._ready.sets:
            group = group_of(label_set.split(","), weights) if weights else DEFAULT_GROUP
            groups.setdefault(group, []).append(label_set)
        return groups

    def _shares(self, groups: dict[str, list[str]], slots: int) -> list[Share]:
        weights = self._weights()
        quotas = share(self._lanes, weights, groups.keys(), slots)
        behind = standings(self._lanes, weights, groups.keys())
        after = self._ready.cursors.after
        shares: list[Share] = []
        for group, quota in quotas.items():
            label_sets = self._ready.first(groups[group], quota)
            row_limit = _row_limit(quota, len(label_sets))
            shares += [
                Share(one, group, quota, row_limit, weights[group], behind[group], after(one))
                for one in label_sets
            ]
        return shares

    def _settle(
        self, shares: list[Share], groups: dict[str, list[str]], claimed: list[ClaimedTask], slots: int
    ) -> bool:
        group_by_set = {s.label_set: s.group for s in shares}
        normal = [task for task in claimed if task.is_normal]
        self._ready.cursors.pass_by(claimed)
        found = Counter(task.label_set for task in normal)
        taken: Counter[str] = Counter()
        for label_set, count in found.items():
            taken[group_by_set[label_set]] += count
        if shares and not claimed:
            self._ready.hasten()  # what was announced isn't where the last claim stopped
        if len(claimed) < slots:
            self._last_hungry = self._now()
            self._ready.sets -= {
                s.label_set for s in shares if taken[s.group] < s.quota and found[s.label_set] < s.row_limit
            }
        backlog = [group for group, sets in groups.items() if not self._ready.sets.isdisjoint(sets)]
        self._lanes = settle(self._lanes, self._weights(), taken, backlog)
        full = not self._slots.free or 0 < self._strict_cap() <= self._slots.strict
        self._blocked = full or self._slots.suspects > 0
        return bool(self._ready.sets) or len(claimed) == slots

    def _weights(self) -> dict[str, int]:
        config = self._steering.config
        return {**config.weights, DEFAULT_GROUP: config.default_weight}

    def _strict_cap(self) -> int:
        return strict_cap(self._slots.concurrency, self._steering.max_strict_percentage)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _row_limit(quota: int, sets: int) -> int:
    # A group's first tasks may all be in one of its label sets. Looking at the whole quota in each of many
    # sets would lock far more rows than are taken; four times its even part is enough unless one set has
    # most of the group's first tasks, and then the next claim takes them.
    return quota if sets == 1 else min(quota, max(2, -(-4 * quota // sets)))


def _tell(claimed: list[ClaimedTask]) -> None:
    if is_watched("task.claimed"):
        for task in claimed:
            emit("task.claimed", task_id=task.id, task=task.name, attempt=task.attempts)
