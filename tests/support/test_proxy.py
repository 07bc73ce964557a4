"""The fault proxy between asyncpg and a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from tests.support.proxy import Proxy

LONG_ENOUGH = 60.0
LOST = (ConnectionError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)

Connect = Callable[[], Awaitable[Any]]


@pytest.fixture
async def dial(proxy: Proxy) -> AsyncIterator[Connect]:
    """Opens a connection through the proxy."""
    opened = []

    async def connect(**settings: str) -> Any:
        connection = await asyncpg.connect(proxy.dsn, timeout=LONG_ENOUGH, server_settings=settings)
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.terminate()


@pytest.fixture
async def numbers(connection: Any) -> Any:
    """A connection past the proxy, and a table to write to."""
    await connection.execute("CREATE TABLE numbers (n integer)")
    return connection


async def written(connection: Any) -> list[int]:
    return [row["n"] for row in await connection.fetch("SELECT n FROM numbers ORDER BY n")]


async def test_what_isnt_broken_passes(dial, proxy):
    connection = await dial()
    assert await connection.fetchval("SELECT $1::int + 1", 41) == 42
    body = "x" * 2_000_000
    assert await connection.fetchval("SELECT $1::text", body) == body


async def test_it_knows_which_process_a_connection_belongs_to(dial, proxy):
    await dial(**{"chaos.process": "4711"})
    assert [one.pid for one in proxy.connections] == [4711]


async def test_refused_connections_leave_the_open_ones_alone(dial, proxy):
    connection = await dial()
    proxy.refuse("a")
    proxy.refuse("b")
    with pytest.raises(ConnectionRefusedError):
        await dial()
    assert await connection.fetchval("SELECT 1") == 1
    await proxy.restore("a")
    with pytest.raises(ConnectionRefusedError):
        await dial()
    await proxy.restore("b")
    assert await (await dial()).fetchval("SELECT 1") == 1


async def test_where_no_server_is_connections_are_taken_and_reset(dial, proxy):
    connection = await dial()
    proxy.divert("postgresql:///?host=/nowhere")
    with pytest.raises(LOST):
        await dial()
    assert proxy.accepted == 2
    assert await connection.fetchval("SELECT 1") == 1
    await proxy.restore()
    assert await (await dial()).fetchval("SELECT 1") == 1


async def test_a_cut_resets_the_open_connections(dial, proxy):
    connection = await dial()
    asking = asyncio.ensure_future(connection.fetchval("SELECT pg_sleep(60)"))
    await asyncio.sleep(0)
    assert proxy.cut() == 1
    with pytest.raises(LOST):
        await asking


async def test_silence_delays_everything_and_loses_nothing(dial, proxy, numbers):
    connection = await dial()
    proxy.silence("a")
    asking = asyncio.ensure_future(connection.execute("INSERT INTO numbers VALUES (1)"))
    newcomer = asyncio.ensure_future(dial())
    done, _ = await asyncio.wait({asking, newcomer}, timeout=0.2)
    assert not done
    assert await written(numbers) == []
    await proxy.restore("a")
    await asyncio.wait_for(asking, LONG_ENOUGH)
    await asyncio.wait_for(newcomer, LONG_ENOUGH)
    assert await written(numbers) == [1]


async def test_what_was_sent_before_the_client_left_arrives_when_the_silence_ends(dial, proxy, numbers):
    connection = await dial()
    [frozen] = proxy.freeze("a")
    writing = asyncio.ensure_future(connection.execute("INSERT INTO numbers VALUES (1)"))
    await asyncio.wait({writing}, timeout=0.05)
    connection.terminate()
    await asyncio.wait_for(frozen.left.wait(), LONG_ENOUGH)
    await asyncio.wait({writing})
    assert writing.exception()
    assert await written(numbers) == []
    frozen.gate.open("a")
    async with asyncio.timeout(LONG_ENOUGH):
        while await written(numbers) != [1]:  # noqa: ASYNC110  (rows tell nobody)
            await asyncio.sleep(0.01)


async def test_half_open_connections_are_silent_while_new_ones_pass(dial, proxy):
    old = await dial()
    [frozen] = proxy.freeze("a")
    with pytest.raises(TimeoutError):
        await old.fetchval("SELECT 1", timeout=0.1)
    assert await (await dial()).fetchval("SELECT 1") == 1
    assert not frozen.was_cut
    frozen.cut()
    assert frozen.was_cut


@pytest.mark.parametrize("then", ["cut", "freeze"])
async def test_a_swallowed_reply_to_a_commit_leaves_it_committed(dial, proxy, numbers, then):
    connection = await dial()
    loss = proxy.lose("commit", "reply", then)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("INSERT INTO numbers VALUES (1)")
    committing = asyncio.ensure_future(transaction.commit())
    await asyncio.wait_for(loss.done.wait(), LONG_ENOUGH)
    assert await written(numbers) == [1]
    if then == "freeze":
        done, _ = await asyncio.wait({committing}, timeout=0.1)
        assert not done
        loss.connection.cut()
    with pytest.raises(LOST):
        await committing


async def test_after_a_loss_everything_may_fall_silent(dial, proxy, numbers):
    writer, other = await dial(), await dial()
    loss = proxy.lose("enqueue", then="silence")
    writing = asyncio.ensure_future(writer.execute("INSERT INTO numbers VALUES (1) /* enqueue( */"))
    await asyncio.wait_for(loss.done.wait(), LONG_ENOUGH)
    assert await written(numbers) == [1]
    with pytest.raises(TimeoutError):
        await other.fetchval("SELECT 1", timeout=0.1)
    assert not writing.done()
    writing.cancel()


async def test_a_reply_that_nothing_was_done_is_not_lost(dial, proxy, numbers):
    connection = await dial()
    delete = await connection.prepare("DELETE FROM numbers /* enqueue( */ RETURNING n")
    loss = proxy.lose("enqueue")
    assert await delete.fetch() == []
    await numbers.execute("INSERT INTO numbers VALUES (1)")
    with pytest.raises(LOST):
        await delete.fetch()
    assert loss.done.is_set()
    assert await written(numbers) == []


async def test_a_lost_request_never_reaches_the_server(dial, proxy, numbers):
    connection = await dial()
    loss = proxy.lose("commit", "request", "cut")
    with pytest.raises(LOST):
        async with connection.transaction():
            await connection.execute("INSERT INTO numbers VALUES (1)")
    assert loss.done.is_set()
    assert await written(numbers) == []


async def test_only_the_chosen_statement_is_lost_and_only_once(dial, proxy, numbers):
    connection = await dial()
    proxy.lose("commit", "reply", "cut")
    await connection.execute("INSERT INTO numbers VALUES (1)")
    assert await connection.fetchval("SELECT count(*) FROM numbers WHERE n = $1", 1) == 1
    with pytest.raises(LOST):
        async with connection.transaction():
            await connection.execute("INSERT INTO numbers VALUES (2)")
    again = await dial()
    async with again.transaction():
        await again.execute("INSERT INTO numbers VALUES (3)")
    assert await written(numbers) == [1, 2, 3]


async def test_a_prepared_statement_is_recognised_when_it_is_executed_again(dial, proxy):
    connection = await dial()
    statement = await connection.prepare("SELECT /* enqueue( */ $1::int")
    assert await statement.fetchval(1) == 1
    loss = proxy.lose("enqueue", "reply", "cut")
    with pytest.raises(LOST):
        await statement.fetchval(2)
    assert loss.done.is_set()


async def test_a_loss_that_found_nothing_can_be_forgotten(dial, proxy, numbers):
    connection = await dial()
    proxy.lose("commit", "reply", "cut").forget()
    async with connection.transaction():
        await connection.execute("INSERT INTO numbers VALUES (1)")
    assert await written(numbers) == [1]


async def test_a_loss_can_be_forgotten_while_its_reply_is_awaited(dial, proxy, numbers):
    count = await (await dial()).prepare("SELECT count(*) FROM numbers /* enqueue( */")
    assert await count.fetchval() == 0
    loss = proxy.lose("enqueue")
    async with asyncio.timeout(LONG_ENOUGH), numbers.transaction():
        await numbers.execute("LOCK TABLE numbers")
        counting = asyncio.ensure_future(count.fetchval())
        while loss in proxy.losses:  # noqa: ASYNC110  (the proxy tells when it is lost, not before)
            await asyncio.sleep(0.01)
        loss.forget()
    assert await counting == 0
    assert not loss.done.is_set()


async def test_a_listener_is_known_as_one_until_it_falls_silent(dial, proxy):
    connection = await dial()
    assert not proxy.listeners
    await connection.add_listener("somewhere", lambda *_: None)
    assert proxy.listeners
    proxy.freeze("a", lambda one: one.listens)
    assert not proxy.listeners
