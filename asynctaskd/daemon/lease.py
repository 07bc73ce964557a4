"""What this worker's stations know of its lease: who they are, and whether their claims stand."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from asynctaskd.scheduling.leases import LeaseTerm
from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from uuid import UUID

    from asynctaskd.postgres.records import WorkerRow

_SHORTEST_TIMER = 0.01
_LONGEST_TIMER = 1.0


def clock() -> float:
    """Seconds by a clock that only runs forward and, where the system has one, goes on while it sleeps."""
    return time.clock_gettime(_CLOCK)


_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Lease:
    """The identity that owns this worker's claims, and its present term.

    The keeper's thread sets both, each as a whole; the main loop reads them, and alone fences. What the
    worker is may be changed by either, under a lock.
    """

    def __init__(self, worker: WorkerRow, *, lost: Callable[[], None]) -> None:
        self._worker = worker
        self._changing = threading.Lock()
        self._lost = lost
        self._term: LeaseTerm | None = None
        self._fenced: LeaseTerm | None = None
        self._stands_until = 0.0  # by `clock()`; a shortcut, asked before each handler
        self._timer: asyncio.TimerHandle | None = None

    @property
    def worker(self) -> WorkerRow:
        """What the worker says of itself."""
        return self._worker

    @property
    def worker_id(self) -> UUID:
        """The identity that owns this worker's claims."""
        return self._worker.id

    @property
    def labels(self) -> list[str]:
        """What this worker may run."""
        return self._worker.labels

    @property
    def term(self) -> LeaseTerm | None:
        """The last term that was acquired or renewed; None before the first."""
        return self._term

    @property
    def is_held(self) -> bool:
        """Whether claims may be made, and stand."""
        term = self._term
        return term is not None and term is not self._fenced and term.stands(clock())

    def covers(self, worker_id: UUID) -> bool:
        """Whether what was claimed under this identity still stands."""
        return self.is_held and worker_id == self.worker_id

    def describe(self, worker: WorkerRow) -> None:
        """The worker has changed, but for its identity: the database is told with the next renewal."""
        with self._changing:
            self._worker = replace(worker, id=self._worker.id)

    def begin(self, worker: WorkerRow, asked_at: float) -> None:
        """A new identity was registered, asked for at that time."""
        self._term = None
        self._stands_until = 0.0
        with self._changing:
            self._worker = replace(self._worker, id=worker.id)  # the rest may have changed meanwhile
        self.hold(asked_at, worker.lease)

    def hold(self, asked_at: float, lease: timedelta) -> None:
        """The lease was renewed for so long, asked for at that time."""
        self._term = term = LeaseTerm(asked_at, lease.total_seconds())
        self._stands_until = term.fence_at
        emit("lease.renewed", worker_id=self.worker_id, seconds=term.fence_at - clock())

    def fence(self, why: str) -> None:
        """Tell what runs to stop; once for each term."""
        if self._fenced is not self._term:
            self._fenced = self._term
            self._stands_until = 0.0
            emit("lease.lost", worker_id=self.worker_id, error=why)
            self._lost()

    def look(self) -> bool:
        """Whether claims stand by the clock; where they don't, what runs is told to stop.

        Asked before each handler begins: a process that was frozen goes on in the middle of its loop.
        """
        if clock() < self._stands_until or self.is_held:
            return True
        self.fence("it could not be renewed")
        return False

    def watch(self) -> None:
        """Fence in time, from the main loop's own timer."""
        self.look()
        term = self._term
        pause = 0.0 if term is None else term.fence_at - clock()
        if pause <= 0.0:  # until it is renewed
            pause = self._worker.lease.total_seconds() / 20
        # The loop's own clock stands still while the machine sleeps.
        pause = min(max(pause, _SHORTEST_TIMER), _LONGEST_TIMER)
        self._timer = asyncio.get_running_loop().call_later(pause, self.watch)

    def unwatch(self) -> None:
        """Fence no more."""
        if self._timer is not None:
            self._timer.cancel()
