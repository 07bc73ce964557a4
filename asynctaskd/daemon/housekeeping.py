"""What keeps the queue moving beside the claims: due tasks, deadlines, lost workers, serial lines."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asynctaskd.daemon.loops import OUTAGE
from asynctaskd.scheduling.leases import may_judge
from asynctaskd.telemetry.events import emit, is_watched

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from asynctaskd.postgres.store import Store

_UPKEEP_INTERVAL = 3600.0
_BATCH = 1000


class Housekeeper:
    """Run by every worker; rows that another one has in hand are skipped, so that nobody waits."""

    def __init__(
        self,
        store: Store,
        names: list[str],
        *,
        look: Callable[[], None],
        poll_interval: float,
        lease: float,
    ) -> None:
        self._store = store
        self._look = look
        self._names = names  # those for which tasks may still be waiting
        self._poll_interval = poll_interval
        self._lease = lease
        self._cut_off_at: float | None = None
        self._next_upkeep = 0.0
        self._next_round = 0.0
        self.wake = asyncio.Event()

    def expect(self, delay: timedelta) -> None:
        """A task of this worker's is due after `delay`: look then, not at the next round."""
        if delay.total_seconds() < self._poll_interval:
            asyncio.get_running_loop().call_later(delay.total_seconds(), self.wake.set)

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
            self._next_round = self._now() + self._poll_interval
            await self.tidy()
        until_round = max(self._next_round - self._now(), 0.0)
        return until_round if next_due is None else min(until_round, next_due)

    async def promote_due(self) -> float | None:
        """Make all due tasks claimable; returns the seconds until the next one, or None."""
        while True:
            promoted, next_due = await self._store.promote_due(_BATCH)
            if promoted:
                self._look()
            if promoted < _BATCH:
                return next_due

    async def tidy(self) -> None:
        """Expire, recover, and promote what a notice or a finalize has missed."""
        while await self._store.expire(_BATCH) == _BATCH:
            continue
        judges = may_judge(self._now(), self._cut_off_at, self._lease)
        recovered = await self._recover(judge=judges)
        if await self._store.promote_serial() or recovered:
            self._look()
        if self._names:
            while await self._store.wake_unknown(self._names, _BATCH) == _BATCH:
                continue
            self._names = []
        if is_watched("notices.counted"):
            sent, saved = await self._store.count_notices()
            emit("notices.counted", sent=sent, saved=saved)
        if self._now() >= self._next_upkeep:
            self._next_upkeep = self._now() + _UPKEEP_INTERVAL
            await self._store.ensure_partitions()
            await self._store.forget_workers()

    async def _recover(self, *, judge: bool) -> bool:
        found = False
        while lost := await self._store.recover(_BATCH, judge=judge):
            found = True
            emit("workers.lost", workers=sorted({str(row["holder"]) for row in lost}), tasks=len(lost))
        return found

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
