"""Claims whose answer got lost: they may be committed, and then nobody runs what they claimed."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from uuid import UUID

    from asynctaskd.daemon.lease import Lease
    from asynctaskd.daemon.slots import Slots
    from asynctaskd.postgres.store import Store

# How long after a claim failed it may still be committed: as long as the server may go on with a statement
# that nobody waits for.
_DOUBT = timedelta(seconds=30)

# How often to look for such claims without any doubt, in seconds.
_AUDIT_INTERVAL = 30.0


class Doubts:
    """Which identities may hold tasks that this worker doesn't know of; asked between two claims only."""

    def __init__(
        self, store: Store, lease: Lease, slots: Slots, *, put_back: Callable[[], None], poll_interval: float
    ) -> None:
        self._store = store
        self._lease = lease
        self._slots = slots
        self._put_back = put_back
        self.poll_interval = poll_interval
        # Identity → until when a claim of its may come to light, by the database's clock; None: not known
        self._until: dict[UUID, datetime | None] = {}
        self._next_search = 0.0
        self._next_audit = self._now() + _AUDIT_INTERVAL

    def __bool__(self) -> bool:
        return bool(self._until)

    def add(self, worker_id: UUID) -> None:
        """A claim may have been committed under this identity without an answer."""
        self._until[worker_id] = None

    async def search(self) -> None:
        """Once a poll, put back what was claimed in doubt, until none can come any more.

        A backend that was frozen takes up what it was sent whenever it wakes, so now and then this is done
        without any doubt.
        """
        if self._now() >= self._next_audit:
            self._next_audit = self._now() + _AUDIT_INTERVAL
            await self._release_orphans(self._lease.worker_id)
        if not self._until or self._now() < self._next_search:
            return
        self._next_search = self._now() + self.poll_interval
        for worker_id in tuple(self._until):
            as_of = await self._release_orphans(worker_id)
            # Or as long as a COMMIT may wait for a standby: a lease, since renewals wait for it too.
            until = self._until[worker_id] or as_of + max(_DOUBT, self._lease.worker.lease)
            self._until[worker_id] = until
            if as_of >= until:
                del self._until[worker_id]

    async def put_back_all(self) -> None:
        """Put back what was claimed in doubt, for the last time."""
        for worker_id in self._until:
            await self._release_orphans(worker_id)

    async def _release_orphans(self, worker_id: UUID) -> datetime:
        """Put back what got lost on its way; returns as of when, by the database's clock."""
        # Nobody claims meanwhile: what the database says is ours and the slots don't know got lost on its
        # way. Should this be executed late itself, it must not put back what is claimed later.
        as_of = await self._store.clock()
        known = [execution.task.id for execution in self._slots]
        released = await self._store.release_orphans(worker_id, known, as_of)
        if released:
            self._put_back()
            emit("claim.lost", worker_id=worker_id, tasks=released)
        return as_of

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
