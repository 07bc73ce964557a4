"""The worker's identity and its lease, renewed by the database's clock."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from asynctaskd.daemon.loops import OUTAGE, Backoff
from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctaskd.daemon.commands import Steering
    from asynctaskd.daemon.slots import Slots
    from asynctaskd.postgres.store import Store, WorkerRow

# Executions are cancelled this share of a lease before it ends, so that they have stopped when others may
# take their tasks.
_FENCE = 0.8


class Lease:
    """Renews the lease; when that fails for too long, says so before the lease ends (`lost`).

    A lease that the database declared lost is final: the worker goes on under a new identity.
    """

    def __init__(
        self,
        store: Store,
        worker: WorkerRow,
        steering: Steering,
        slots: Slots,
        *,
        renew_interval: float,
        lost: Callable[[], None],
    ) -> None:
        self._store = store
        self._worker = worker
        self._steering = steering
        self._slots = slots
        self._renew_interval = renew_interval
        self._lost = lost
        self._fence_timer: asyncio.TimerHandle | None = None
        self.is_held = False

    @property
    def worker_id(self) -> UUID:
        """The identity that owns this worker's claims."""
        return self._worker.id

    @property
    def labels(self) -> list[str]:
        """What this worker may run."""
        return self._worker.labels

    async def acquire(self) -> None:
        """Register a new identity and its lease."""
        asked_at = self._now()
        self._worker = replace(self._worker, id=uuid4())
        await self._store.register_worker(self._worker, version=self._steering.config.version)
        self._hold_from(asked_at)

    async def run(self) -> None:
        """Renew until cancelled."""
        backoff = Backoff("lease")
        try:
            while True:
                try:
                    await self._renew()
                except OUTAGE as error:
                    await backoff.wait(error)
                else:
                    backoff.reset()
                    await asyncio.sleep(self._renew_interval)
        finally:
            self._stop_timer()

    async def _renew(self) -> None:
        asked_at = self._now()
        newest = await self._store.renew_lease(
            self.worker_id,
            self._worker.lease,
            running=self._slots.running,
            version=self._steering.config.version,
        )
        if newest is None:
            self._fence("the database declared it lost")
            await self.acquire()
        else:
            self._hold_from(asked_at)
            await self._steering.follow(newest)

    def _hold_from(self, asked_at: float) -> None:
        # From before the question, not from after the answer: the database counted from in between.
        ends = asked_at + self._worker.lease.total_seconds() * _FENCE
        self._stop_timer()
        self._fence_timer = asyncio.get_running_loop().call_at(ends, self._fence, "it could not be renewed")
        self.is_held = True

    def _fence(self, why: str) -> None:
        self._stop_timer()
        self.is_held = False
        emit("lease.lost", worker_id=self.worker_id, error=why)
        self._lost()

    def _stop_timer(self) -> None:
        if self._fence_timer is not None:
            self._fence_timer.cancel()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
