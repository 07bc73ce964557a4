"""Partitions at the hands of a worker that owns nothing: it has functions make, detach and drop them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest

from asynctaskd.postgres.retention import NotDroppedError, Partitions, alone
from asynctaskd.postgres.store import Store
from tests.support.divided import Divided, divided_or_skipped

if TYPE_CHECKING:
    from asyncpg import Connection, Record

NOON = datetime(2030, 1, 10, 12, tzinfo=UTC)
AT_ONCE = 5.0
"""Seconds in which a statement is through that nobody lets wait for long."""

PARTITIONS = """
    SELECT relname::text FROM pg_class JOIN pg_inherits ON inhrelid = oid
    WHERE inhparent = 'asynctaskd.finished_tasks'::regclass ORDER BY 1
"""


@pytest.fixture
def divided(dsn: str) -> Iterator[Divided]:
    with divided_or_skipped(dsn) as made:
        yield made


@pytest.fixture
async def owner(divided: Divided) -> AsyncIterator[Connection[Record]]:
    """It is noon of a day far away, and stays it."""
    connection = await asyncpg.connect(divided.admin)
    await connection.execute(f"SET ROLE {divided.schema}_owner")
    await connection.execute(
        divided.sql(
            "CREATE OR REPLACE FUNCTION asynctaskd.clock() RETURNS timestamptz"
            f" LANGUAGE sql VOLATILE PARALLEL SAFE RETURN timestamptz '{NOON.isoformat()}'"
        )
    )
    yield connection
    await connection.close()


@pytest.fixture
async def store(divided: Divided, owner: Connection[Record]) -> AsyncIterator[Store]:
    """A worker's; there are partitions of two days that have come, and of one that is to come."""
    opened = await Store.open(divided.logins["worker"], schema=divided.schema)
    for days in (-1, 0, 1):
        day = NOON.date() + timedelta(days=days)
        await opened.sessions.fetch(divided.sql("SELECT asynctaskd.ensure_finished_partition($1)"), day)
    yield opened
    await opened.close()


@asynccontextmanager
async def dropping(divided: Divided, store: Store) -> AsyncIterator[Partitions]:
    async with alone(divided.logins["worker"], store, schema=divided.schema) as partitions:
        assert partitions is not None
        yield partitions


async def drop_all(partitions: Partitions) -> list[str]:
    return [due.name for due in await partitions._store.due_partitions() if await partitions.drop(due)]


async def test_it_drops_what_is_due_and_no_other(
    divided: Divided, store: Store, owner: Connection[Record]
) -> None:
    async with dropping(divided, store) as partitions:
        assert await drop_all(partitions) == ["finished_tasks_20300109", "finished_tasks_20300110"]
        assert await store.due_partitions() == []
    assert [row[0] for row in await owner.fetch(divided.sql(PARTITIONS))] == ["finished_tasks_20300111"]


async def test_what_it_made_belongs_to_the_owner(
    divided: Divided, store: Store, owner: Connection[Record]
) -> None:
    owners = await owner.fetch(
        "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relname LIKE 'finished_tasks_2030%'"
    )
    assert [row[0] for row in owners] == [f"{divided.schema}_owner"]


async def test_a_partition_in_use_stays_and_whoever_uses_it_is_named(
    divided: Divided, store: Store, owner: Connection[Record]
) -> None:
    async with dropping(divided, store) as partitions:
        async with owner.transaction():
            await owner.fetch(divided.sql("SELECT FROM asynctaskd.all_tasks"))
            with pytest.raises(NotDroppedError) as caught:
                await drop_all(partitions)
            assert caught.value.blockers == [owner.get_server_pid()]
        assert await drop_all(partitions) == ["finished_tasks_20300109", "finished_tasks_20300110"]


async def test_readers_and_finalize_go_on_while_somebody_is_in_the_way(
    divided: Divided, store: Store, owner: Connection[Record]
) -> None:
    reader = await asyncpg.connect(divided.logins["worker"])
    try:
        async with dropping(divided, store) as partitions, owner.transaction():
            await owner.fetch(divided.sql("SELECT FROM asynctaskd.all_tasks"))

            async def insist() -> None:
                for _ in range(5):
                    with pytest.raises(NotDroppedError):
                        await drop_all(partitions)

            insisting = asyncio.create_task(insist())
            while not insisting.done():
                async with asyncio.timeout(AT_ONCE):
                    await reader.fetch(divided.sql("SELECT FROM asynctaskd.finished_tasks"))
                    await reader.execute(
                        divided.sql("UPDATE asynctaskd.finished_tasks SET reason = reason WHERE id = 1")
                    )
            await insisting
    finally:
        await reader.close()


async def test_it_ends_what_an_owner_began(divided: Divided, store: Store, owner: Connection[Record]) -> None:
    blocker = await asyncpg.connect(divided.logins["worker"])
    try:
        async with blocker.transaction(isolation="repeatable_read"):
            await blocker.fetch(divided.sql("SELECT FROM asynctaskd.finished_tasks"))
            await owner.execute("SET statement_timeout = '100ms'")
            with pytest.raises(asyncpg.QueryCanceledError):
                await owner.execute(
                    divided.sql(
                        "ALTER TABLE asynctaskd.finished_tasks"
                        " DETACH PARTITION asynctaskd.finished_tasks_20300110 CONCURRENTLY"
                    )
                )
    finally:
        await blocker.close()
    assert await owner.fetchval("SELECT EXISTS (SELECT FROM pg_inherits WHERE inhdetachpending)")
    async with dropping(divided, store) as partitions:
        assert await drop_all(partitions) == ["finished_tasks_20300110", "finished_tasks_20300109"]
