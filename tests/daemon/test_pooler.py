"""A worker works through a pooler that shares sessions by the transaction, and leaves nothing in them."""

from __future__ import annotations

import asyncio
import os

import asyncpg
import pytest

from asynctaskd import Client, ConfigError, FatalTaskError, TaskContext, TaskRequest
from asynctaskd.postgres.driver import connect
from asynctaskd.postgres.migrate import migrate
from asynctaskd.postgres.store import Store
from tests.support.pooler import pooler_to

SESSIONS = 3
STATE = """
    SELECT pg_backend_pid(), current_setting('enable_seqscan'), current_setting('statement_timeout'),
           (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_listening_channels())
"""


@pytest.fixture(params=[False, True], ids=["refuses", "ignores"])
async def pooler(request, database):
    async with pooler_to(database.dsn, ignores=request.param, sessions=SESSIONS) as opened:
        yield opened


async def states(dsn):
    """What each of the pooler's sessions remembers, asked in as many transactions at once."""
    clients = [await asyncpg.connect(dsn, statement_cache_size=0) for _ in range(SESSIONS)]
    try:
        for client in clients:
            await client.execute("BEGIN")
        return {row[0]: tuple(row)[1:] for row in [await client.fetchrow(STATE) for client in clients]}
    finally:
        for client in clients:
            client.terminate()


async def test_tasks_transactions_hooks_and_progress_work_and_no_session_is_changed(
    app, daemon_of, pooler, tables, recorder
):
    @app.task("add")
    async def add(a: int, b: int) -> int:
        return a + b

    @app.task("write")
    async def write(n: int, ctx: TaskContext) -> None:
        await ctx.progress(50)
        async with ctx.transaction() as connection:
            await connection.execute("INSERT INTO written VALUES ($1)", n)

    @app.task("fail")
    async def fail() -> None:
        raise FatalTaskError

    @fail.on_failed
    async def fail_failed(params, failure, tx) -> None:
        await tx.execute("INSERT INTO written VALUES (-1)")

    await tables.execute("CREATE TABLE written (n integer)")
    before = set((await states(pooler.dsn)).values())
    client = Client(pooler.dsn)
    await asyncio.gather(*(client.enqueue("add", {"a": 1, "b": n}) for n in range(30)))
    await client.enqueue_many(
        [TaskRequest("write", {"n": n}) for n in range(30)] + [TaskRequest("fail", {})] * 5
    )
    daemon = daemon_of(app, url=pooler.dsn, listen="auto")
    await asyncio.wait_for(daemon.run(once=True), 60)
    await client.close()
    assert dict(
        await tables._pool.fetch(
            "SELECT name || ' ' || status, count(*) FROM asynctaskd.all_tasks GROUP BY 1"
        )
    ) == {"add completed": 30, "write completed": 30, "fail failed": 5}
    assert await tables.value("SELECT count(*) FROM written") == 35
    assert len(recorder.all("listener.off")) == 1
    assert set((await states(pooler.dsn)).values()) == before


async def test_its_statements_have_their_settings_in_each_transaction(pooler):
    store = await Store.open(pooler.dsn, schema="asynctaskd", connections=1)
    try:
        for _ in range(2 * SESSIONS):
            [row] = await store.sessions.fetch(
                "SELECT current_setting('enable_seqscan'), current_setting('lock_timeout'), $1::integer", 7
            )
            assert tuple(row) == ("off", "2500ms", 7)
    finally:
        await store.close()


async def test_an_error_ends_its_transaction_and_not_the_connection(pooler):
    store = await Store.open(pooler.dsn, schema="asynctaskd", connections=1)
    try:
        with pytest.raises(asyncpg.DivisionByZeroError):
            await store.sessions.fetch("SELECT 1 / $1::integer", 0)
        assert [tuple(row) for row in await store.sessions.fetch("SELECT 1")] == [(1,)]
        assert len(store.sessions._idle) == 1
    finally:
        await store.close()


async def test_required_notices_are_refused_with_what_to_do(app, daemon_of, pooler):
    with pytest.raises(ConfigError, match="set database.listen_url"):
        await asyncio.wait_for(daemon_of(app, url=pooler.dsn, listen="on").run(), 60)


async def test_notices_come_by_a_url_past_it(app, running, pooler, database, client, wait, tables):
    @app.task("one")
    async def one() -> None: ...

    settings = {"url": pooler.dsn, "listen": "on", "listen_url": database.dsn, "poll_interval": "1h"}
    async with running(app, **settings):
        await tables.until("SELECT idle FROM asynctaskd.workers")
        done = await wait(await client.enqueue("one"))
    assert done.attempts == 1


async def test_it_migrates_and_tells_that_it_is_there(pooler):
    assert await migrate(pooler.dsn, schema="elsewhere")
    assert await migrate(pooler.dsn, schema="elsewhere") == []
    async with connect(pooler.dsn) as connection:
        assert connection.is_pooled


async def test_without_one_a_connection_has_its_own_session(database):
    async with connect(database.dsn) as connection:
        assert not connection.is_pooled


async def test_a_parameter_nobody_knows_is_named(pooler, database):
    dsn = database.dsn if pooler._ignores else pooler.dsn
    dsn += "&bogus=1" if "?" in dsn else "?bogus=1"
    with pytest.raises(ConfigError, match="bogus"):
        async with connect(dsn):
            raise AssertionError(os.getpid())
