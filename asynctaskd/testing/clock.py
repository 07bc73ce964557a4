"""Time travel: the database's clock, as the schema sees it, and the workers of the test move on together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from asynctaskd.daemon.supervisor import Daemon
from asynctaskd.definitions import rules
from asynctaskd.errors import InvalidInputError
from asynctaskd.postgres.time_travel import make_movable, move_clock, read_clock


class Clock:
    """The clock of one test's database.

    It goes on as clocks do, and leaps where it is told to: what waits for a time is due then, what runs is
    older, and workers that this clock doesn't know have lost their leases.
    """

    def __init__(self, dsn: str, *, schema: str = "asynctaskd") -> None:
        self._dsn = dsn
        self._schema = schema
        self._workers: set[Daemon] = set()
        self._is_movable = False

    async def now(self) -> datetime:
        """The time that the database sees, in UTC."""
        return await read_clock(self._dsn, self._schema)

    async def advance(self, duration: str | timedelta) -> None:
        """Move on by a duration such as "1h". Workers look at once for what is due.

        Raises:
            InvalidInputError: it isn't a duration; there is no way back.
        """
        by = rules.duration("duration", duration)
        if not self._is_movable:
            await make_movable(self._dsn, self._schema)
            self._is_movable = True
        workers = list(self._workers)
        await move_clock(self._dsn, self._schema, by, [worker.worker_id for worker in workers])
        for worker in workers:
            worker.leap(by.total_seconds())

    async def advance_to(self, moment: datetime) -> None:
        """Move on to an instant, an aware datetime.

        Raises:
            InvalidInputError: it is past already.
        """
        by = rules.instant("moment", moment) - await self.now()
        if by < timedelta(0):
            raise InvalidInputError(f"the clock can't go back to {moment.isoformat()}, {-by} ago")
        await self.advance(by)

    @asynccontextmanager
    async def known(self, worker: Daemon) -> AsyncIterator[None]:
        """A worker that travels too, in this event loop, until the end of the block."""
        self._workers.add(worker)
        try:
            yield
        finally:
            self._workers.discard(worker)
