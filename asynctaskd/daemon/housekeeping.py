"""What keeps the queue moving beside the claims: due tasks, deadlines, lost workers, serial lines."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asynctaskd.daemon.loops import OUTAGE
from asynctaskd.scheduling.leases import may_judge
from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from datetime import timedelta

    from asynctaskd.postgres.configs import ConfigStore
    from asynctaskd.postgres.orders import OrderStore
    from asynctaskd.postgres.store import Store

AWAITED = "!awaited"
"""The payload of a notice that says: from now on some task waits for another."""

_UPKEEP_INTERVAL = 3600.0
_BATCH = 1000


class Housekeeper:
    """Run by every worker; rows that another one has in hand are skipped, so that nobody waits."""

    def __init__(
        self,
        store: Store,
        orders: OrderStore,
        configs: ConfigStore,
        names: list[str],
        *,
        unpark: Callable[[int], Awaitable[int]],
        look: Callable[[], None],
        poll_interval: float,
        lease: float,
    ) -> None:
        self._store = store
        self._orders = orders
        self._configs = configs
        self._unpark = unpark
        self._look = look
        self._names = names  # those for which tasks may still be waiting
        self.poll_interval = poll_interval
        self.lease = lease
        self._cut_off_at: float | None = None
        self._awaited_up_to = 0
        self._unsettled: list[int] = []  # have ended; those that wait for them are seen to next
        # `--once` asks beside the loop: of two calls one would find all locked, and nothing left to do.
        self._promoting, self._tidying, self._settling = asyncio.Lock(), asyncio.Lock(), asyncio.Lock()
        self._has_new_dependants = False
        self.has_dependants = True
        """Whether any task waits for another, as far as is known."""
        self._next_upkeep = 0.0
        self._next_round = 0.0
        self.wake = asyncio.Event()

    def expect(self, delay: timedelta) -> None:
        """A task of this worker's is due after `delay`: look then, not at the next round."""
        if delay.total_seconds() < self.poll_interval:
            asyncio.get_running_loop().call_later(delay.total_seconds(), self.wake.set)

    def note_dependants(self) -> None:
        """A task waits for another."""
        self.has_dependants = self._has_new_dependants = True

    @property
    def is_settling(self) -> bool:
        """Whether some task has ended and others that wait for it are still to be seen to."""
        return bool(self._unsettled)

    def note_unsettled(self, ended: Iterable[int]) -> None:
        """These have ended, and tasks that wait for them are left: go on with those at once."""
        self._note_ended(ended)
        self.wake.set()

    def hasten(self) -> None:
        """Another configuration was applied: look at everything now."""
        self._next_round = 0.0
        self.wake.set()

    def note_cut_off(self) -> None:
        """The database was away: the others could not renew their leases either, so don't judge them yet."""
        self._cut_off_at = self._now()

    async def step(self) -> float:
        """Promote what is due; once a poll interval also look for the rest. Returns the pause, in seconds."""
        try:
            return await self._round()
        except OUTAGE:
            self.note_cut_off()
            raise

    async def _round(self) -> float:
        next_due = await self.promote_due()
        if self._now() >= self._next_round:
            self._next_round = self._now() + self.poll_interval
            await self.tidy()
            await self._look_for_ended()
        # Last: those who wait for a task may be any number, and nothing else is to wait for them.
        await self._settle_some()
        if self.is_settling:
            return 0.0
        until_round = max(self._next_round - self._now(), 0.0)
        return until_round if next_due is None else min(until_round, next_due)

    async def promote_due(self) -> float | None:
        """Make all due tasks claimable; returns the seconds until the next one, or None."""
        async with self._promoting:
            while True:
                promoted, next_due = await self._store.promote_due(_BATCH)
                if promoted:
                    self._look()
                if promoted < _BATCH:
                    return next_due

    async def settle_dependencies(self) -> None:
        """See to those who wait for tasks that have ended unseen: a part of them, where they are many."""
        await self._look_for_ended()
        await self._settle_some()

    async def _look_for_ended(self) -> None:
        self._has_new_dependants = False
        awaited = await self._store.awaited(self._awaited_up_to, _BATCH)
        self.has_dependants = bool(awaited) or self._awaited_up_to > 0 or self._has_new_dependants
        self._awaited_up_to = awaited[-1][0] if len(awaited) == _BATCH else 0
        self._note_ended(task_id for task_id, has_ended in awaited if has_ended)

    def _note_ended(self, ended: Iterable[int]) -> None:
        known = set(self._unsettled)
        self._unsettled.extend(task_id for task_id in ended if task_id not in known)

    async def _settle_some(self) -> None:
        async with self._settling:
            if not (asked := self._unsettled[:_BATCH]):
                return
            settled, left = await self._store.settle_dependencies(asked)
            del self._unsettled[: len(asked)]
            if settled:  # otherwise somebody keeps the rest locked, and the poll comes back to it
                self._look()
                self._note_ended(left)

    async def tidy(self) -> None:
        """Expire, recover, and promote what a notice or a finalize has missed or a pause has held back."""
        async with self._tidying:
            await self._tidy()

    async def _tidy(self) -> None:
        while await self._store.expire(_BATCH):
            continue
        judges = may_judge(self._now(), self._cut_off_at, self.lease)
        recovered = await self._recover(judge=judges)
        while (unparked := await self._unpark(_BATCH)) == _BATCH:
            self._look()
        if await self._store.promote_serial() or recovered or unparked:
            self._look()
        await self._orders.settle()
        if self._names:
            while await self._store.wake_unknown(self._names, _BATCH) == _BATCH:
                continue
            self._names = []
        await self._configs.expire()
        if self._now() >= self._next_upkeep:
            self._next_upkeep = self._now() + _UPKEEP_INTERVAL
            await self._store.ensure_partitions()
            await self._store.forget_workers()
            await self._store.forget_commands()

    async def _recover(self, *, judge: bool) -> bool:
        found = False
        while lost := await self._store.recover(_BATCH, judge=judge):
            found = True
            emit("workers.lost", workers=sorted({str(row["holder"]) for row in lost}), tasks=len(lost))
        return found

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
