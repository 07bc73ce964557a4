"""What PostgreSQL does by itself: the same row, into a plain copy of the table with the same indexes."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from benchmarks.contenders.asynctaskd import Asynctaskd
from benchmarks.contenders.contender import NOOP
from benchmarks.server import lasting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.server import Server

COPY_OF_TABLE = "CREATE TABLE bare_tasks (LIKE asynctaskd.tasks INCLUDING ALL)"
INSERT = "INSERT INTO bare_tasks (status, name, payload) VALUES ('pending', 'noop', $1)"
# One statement, so one transaction, and what is told goes with the commit.
INSERT_AND_NOTIFY = f"WITH row AS ({INSERT} RETURNING id) SELECT pg_notify('bare_tasks', '') FROM row"
COLUMNS = ["status", "name", "payload"]


@dataclass(frozen=True)
class Reference:
    """A bare statement."""

    name: str
    statement: str = ""

    @asynccontextmanager
    async def producer(self, server: Server, connections: int) -> AsyncIterator[BareProducer]:
        """Connected to a fresh database with that table."""
        async with (
            server.fresh(Asynctaskd(10)) as dsn,
            lasting(dsn, connections) as database,
        ):
            await database.execute(COPY_OF_TABLE)
            yield BareProducer(database, self.statement)


class BareProducer:
    """Enqueues without a task queue."""

    def __init__(self, database: asyncpg.Pool | asyncpg.Connection, statement: str) -> None:
        self._database = database
        self._statement = statement

    def requests(self, count: int, sent_at: float | None = None) -> list[Any]:
        """Rows."""
        return [("pending", "noop", json.dumps(NOOP))] * count

    async def enqueue(self, sent_at: float | None = None) -> None:
        """One row, committed."""
        await self._database.execute(self._statement, json.dumps(NOOP))

    async def enqueue_many(self, requests: list[Any]) -> None:
        """COPY them."""
        await self._database.copy_records_to_table("bare_tasks", records=requests, columns=COLUMNS)
