"""Enqueuers beside each other wait for each other in one order, and never crosswise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from asynctaskd import Client, TaskRequest

if TYPE_CHECKING:
    import asyncpg

LONG_ENOUGH = 60.0
WAITING = """
    SELECT count(DISTINCT pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE NOT granted AND datname = current_database()
"""


@pytest.fixture
async def pair(database) -> AsyncIterator[tuple[Client, Client]]:
    """Two clients with connections of their own."""
    async with Client(database.dsn) as one, Client(database.dsn) as other:
        yield one, other


async def waiting(connection: asyncpg.Connection, count: int) -> None:
    """Until that many sessions wait for a lock."""
    async with asyncio.timeout(LONG_ENOUGH):
        while await connection.fetchval(WAITING) != count:  # noqa: ASYNC110  (locks tell nobody)
            await asyncio.sleep(0.005)


def tagged(tags: list[str]) -> list[TaskRequest]:
    return [TaskRequest("x", {"tag": tag}, unique_tag=tag) for tag in tags]


async def test_the_same_tags_in_opposite_order_give_the_same_ids_and_no_deadlock(pair, connection):
    one, other = pair
    for number in range(20):
        tags = [f"{number}-{n}" for n in range(60)]
        there, back = await asyncio.gather(
            one.enqueue_many(tagged(tags)), other.enqueue_many(tagged(tags[::-1]))
        )
        assert there == back[::-1]
    assert await connection.fetchval("SELECT count(*) FROM asynctaskd.tasks") == 20 * 60


async def test_batches_that_both_wait_for_a_third_one_do_not_block_each_other(pair, connection, pool):
    one, other = pair
    held = connection.transaction()
    await held.start()
    await one.enqueue("x", {}, unique_tag="middle", connection=connection)
    tags = ["first", "middle", "last"]
    there = asyncio.create_task(one.enqueue_many(tagged(tags)))
    back = asyncio.create_task(other.enqueue_many(tagged(tags[::-1])))
    await waiting(pool, 2)
    await held.rollback()
    async with asyncio.timeout(LONG_ENOUGH):
        assert await there == (await back)[::-1]
    assert await pool.fetchval("SELECT count(*) FROM asynctaskd.tasks") == 3


async def test_the_same_serial_keys_in_opposite_order_do_not_deadlock(pair, connection):
    one, other = pair
    for _ in range(10):
        keys = [f"key{n}" for n in range(60)]
        await asyncio.gather(
            *(
                client.enqueue_many([TaskRequest("x", {}, serial_key=key) for key in order])
                for client, order in ((one, keys), (other, keys[::-1]))
            )
        )
    assert await connection.fetchval("SELECT count(*) FROM asynctaskd.tasks") == 10 * 2 * 60
    assert await connection.fetchval("SELECT count(*) FROM asynctaskd.tasks WHERE status = 'pending'") == 60
