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
from asynctaskd.daemon.lanes import Lanes
from asynctaskd.daemon.loops import OUTAGE, Backoff, wait_for
from asynctaskd.daemon.ready import Ready
from asynctaskd.telemetry.events import emit, is_watched

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from asynctaskd.daemon.audience import Audience
    from asynctaskd.daemon.commands import Steering
    from asynctaskd.daemon.lanes import Plan
    from asynctaskd.daemon.lease import Lease
    from asynctaskd.daemon.measures import Measures
    from asynctaskd.daemon.permits import Permits
    from asynctaskd.daemon.slots import Slots
    from asynctaskd.postgres.orders import OrderStore
    from asynctaskd.postgres.permits import PermitStore
    from asynctaskd.postgres.records import Share
    from asynctaskd.postgres.store import Store
    from asynctaskd.task import ClaimedTask

EVERYWHERE = "*"
"""The payload of a notice that names no label set."""

# How long all slots have to be taken before enqueuers are told to stop notifying: an idle flag that flips
# with every task would cost more than the notices it saves.
_BUSY_AFTER = 0.1

NAME_PAUSED = "name paused"
"""The reason of tasks that were put aside since their name is paused."""


class Claimer:
    """The claim loop. It alone takes slots, and it alone knows which label sets hold something."""

    def __init__(
        self,
        store: Store,
        orders: OrderStore,
        lease: Lease,
        steering: Steering,
        slots: Slots,
        permits: Permits,
        *,
        parks: PermitStore,
        start: Callable[[ClaimedTask], None],
        audience: Audience,
        measures: Measures,
        hears: Callable[[], bool],
        poll_interval: float,
        takes_suspects: bool,
    ) -> None:
        self._store = store
        self._orders = orders
        self._lease = lease
        self._steering = steering
        self._slots = slots
        self._permits = permits
        self._parks = parks
        self._start = start
        self._audience = audience
        self._measures = measures
        self._hears = hears
        self._poll_interval = poll_interval
        self._takes_suspects = takes_suspects
        self._wake = asyncio.Event()
        self._stopping = False
        self._is_asked = False
        self._ready = Ready(store, lease, poll_interval)
        self._doubts = Doubts(
            store, lease, slots, put_back=self._ready.look_next, poll_interval=poll_interval
        )
        self._lanes = Lanes(self._ready, permits, slots, steering, takes_suspects=takes_suspects)
        self._parked: Counter[str] = Counter()
        self._idle_as: UUID | None = None
        self._blocked = True
        self._last_hungry = 0.0

    def wake(self) -> None:
        """A slot was freed; of no use where the last claim had room and nothing waits for permits."""
        if self._blocked or self._permits.is_short or self._is_asked:
            self._wake.set()

    def look(self, label_set: str = EVERYWHERE) -> None:
        """Something may have become ready: under this label set, or anywhere."""
        if label_set == EVERYWHERE:
            self._ready.hasten()
        else:
            self._ready.announce(label_set)
        self._wake.set()

    def run_asked(self) -> None:
        """An operator wants a task to run now."""
        self._is_asked = True
        self._wake.set()

    def begin_anew(self, poll_interval: float) -> None:
        """This worker polls as often as that by now, and its labels or its concurrency may have changed."""
        self._poll_interval = self._ready.poll_interval = self._doubts.poll_interval = poll_interval
        self._ready.forget()
        self._permits.begin_anew()
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
                self._ready.look_next()  # a step that asks for nothing doesn't show that it is over
                await backoff.wait(error)
            else:
                if self._ready.has_looked:
                    backoff.reset()

    async def run_one_suspect(self) -> None:
        """Instead: claim one suspect, if there is one, and look for what that may have claimed beside it."""
        backoff = Backoff("claim")
        claimed = None
        while not self._stopping:
            self._wake.clear()
            try:
                async with self._steering.between_claims:
                    await self._doubts.search()
                claimed = claimed or await self._take_suspect()
            except OUTAGE as error:
                await backoff.wait(error)
            else:
                backoff.reset()
                if not self._doubts:
                    return
                await self._rest(self._poll_interval)

    async def run_disabled(self) -> None:
        """Instead: claim nothing, and put back what other claims have taken without an answer."""
        backoff = Backoff("claim")
        while not self._stopping:
            self._wake.clear()
            try:
                async with self._steering.between_claims:
                    await self._doubts.search()
            except OUTAGE as error:
                await backoff.wait(error)
            else:
                backoff.reset()
                await wait_for(self._wake, self._poll_interval)

    def doubt(self, worker_id: UUID) -> None:
        """Another claim of this worker's may have been committed under this identity without an answer."""
        self._doubts.add(worker_id)

    async def _take_suspect(self) -> list[ClaimedTask] | None:
        async with self._steering.between_claims:
            await self._permits.ask_for_any()
            claimed = await self._take(partial(self._ask, [], 1, suspects_alone=True))
            await self._permits.give_back()
        return claimed

    async def put_back_lost_claims(self) -> None:
        """Put back what was claimed in doubt, for the last time."""
        await self._doubts.put_back_all()

    async def _step(self) -> None:
        self._wake.clear()
        async with self._steering.between_claims:
            await self._doubts.search()
        if not self._lease.is_held:
            await self._rest(_BUSY_AFTER)
            return
        if not self._doubts:
            self._permits.note_certainty()
        await self._permits.keep()
        if self._is_asked and self._slots.free:
            await self._take_asked()
        if not self._slots.free:
            await self._rest(min(_BUSY_AFTER, self._permits.seconds_to_keep))
        elif await self._claim() or not self._ready.seconds_to_look:
            return
        elif self._is_idle or not self._hears():
            waits = self._permits.seconds_to_keep, self._permits.seconds_to_ask
            await self._rest(min(self._ready.seconds_to_look, *waits))
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
        async with self._steering.between_claims:  # one claim knows one configuration
            self._parked.clear()
            await self._permits.follow()
            await self._ready.refresh()
            await self._permits.ask(self._lanes.own_sets)
            plan = self._lanes.plan()
            ask = partial(self._ask, plan.shares, plan.slots)
            claimed = await self._take(ask) if plan.shares or self._lanes.others_wait else []
            may_be_more = claimed is not None and self._settle(plan, claimed)
            if self._parked:  # many have that name, most likely
                await self._parks.park(self._parked, self._steering.config.paused_names)
            return may_be_more

    def _settle(self, plan: Plan, claimed: list[ClaimedTask]) -> bool:
        may_be_more = self._lanes.settle(plan, claimed, self._parked)
        if len(claimed) < plan.slots:
            self._last_hungry = self._now()
        full = not self._slots.free or 0 < self._lanes.strict_cap <= self._slots.strict
        self._blocked = full or self._slots.suspects > 0
        return may_be_more

    async def _take_asked(self) -> None:
        """Take one of the tasks that operators want to run now."""
        async with self._steering.between_claims:
            self._is_asked = False
            await self._permits.ask_for_any()
            # Where there was one there may be more.
            self._is_asked |= bool(await self._take(self._ask_for_one))

    def _ask_for_one(self, worker_id: UUID) -> Awaitable[list[ClaimedTask]]:
        return self._orders.claim_asked(
            worker_id,
            self._lease.labels,
            self._lease.worker.names,
            strict=self._slots.strict < self._lanes.strict_cap,
            barred=self._lanes.barred,
        )

    async def _take(self, ask: Callable[[UUID], Awaitable[list[ClaimedTask]]]) -> list[ClaimedTask] | None:
        """Claim and start; None where the lease was lost meanwhile, or this one is to stop."""
        if self._stopping:
            return None
        worker_id = self._permits.worker_id
        try:
            claimed = await ask(worker_id)
        except OUTAGE:
            self._doubt(worker_id)
            raise
        if not self._lease.covers(worker_id):
            # Lost while this was under way: others may have these already.
            self._doubt(worker_id)
            return None
        claimed = self._put_aside(claimed)
        for task in claimed:
            self._start(task)
        self._permits.note_claimed(claimed)
        self._audience.claimed(claimed)
        self._measures.claimed(claimed)
        _tell(claimed)
        return claimed

    def _doubt(self, worker_id: UUID) -> None:
        self._doubts.add(worker_id)
        self._permits.note_doubt()

    def _put_aside(self, claimed: list[ClaimedTask]) -> list[ClaimedTask]:
        """What is left of a claim without the tasks that it has put aside since their name is paused."""
        if not self._steering.config.paused_names:
            return claimed
        parked = [task for task in claimed if task.reason == NAME_PAUSED]
        self._ready.cursors.pass_by(parked)
        self._parked.update(task.label_set for task in parked)
        return [task for task in claimed if task.reason != NAME_PAUSED]

    async def _ask(
        self, shares: list[Share], slots: int, worker_id: UUID, *, suspects_alone: bool = False
    ) -> list[ClaimedTask]:
        strict, suspects = self._lanes.strict_lane(slots), self._lanes.suspects
        ask = partial(
            self._store.claim,
            worker_id,
            self._lease.labels,
            slots=slots,
            shares=shares,
            strict=strict,
            suspects=suspects,
            suspects_alone=suspects_alone,
            barred=self._lanes.barred,
        )
        plain = self._lanes.is_alone(shares)
        if plain and (claimed := await ask(plain=True)):
            return claimed
        claimed = await ask()
        # As many as were asked for: more may wait, until a look says otherwise.
        if 0 < strict.most == sum(task.strict for task in claimed):
            self._ready.strict = True
            self._ready.strict_sets.update(task.label_set for task in claimed if task.strict)
        self._ready.suspects |= 0 < suspects == sum(task.is_suspect for task in claimed)
        self._ready.is_blocked |= plain and any(task.is_normal for task in claimed)
        return claimed

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _tell(claimed: list[ClaimedTask]) -> None:
    if is_watched("task.claimed"):
        for task in claimed:
            emit("task.claimed", task_id=task.id, task=task.name, attempt=task.attempts)
