"""The database goes away in every way there is, and the worker stays, and claims again when it is back."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from asynctaskd import Client, DatabaseUnavailableError, FatalTaskError, TaskContext
from asynctaskd.postgres import embedded
from asynctaskd.postgres.migrate import migrate
from tests.support.proxy import Proxy

LOCAL = pytest.mark.skipif("ASYNCTASKD_TEST_DSN" in os.environ, reason="needs the server's processes")
QUICK = {"lease": "3s", "renew_interval": "200ms", "poll_interval": "50ms", "grace": "1s"}
BACKEND = "SELECT pg_backend_pid()"
OURS = """
    FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'asynctaskd' AND pid <> pg_backend_pid()
"""


@pytest.fixture
def shop(app):
    """An App with one task that does nothing."""

    @app.task("one")
    async def one() -> None: ...

    return app


async def test_a_network_that_swallows_everything(shop, running, proxy, client, wait, recorder):
    async with running(shop, url=proxy.dsn, **QUICK):
        await wait(await client.enqueue("one"))
        proxy.silence()
        await recorder.wait_for("database.lost", station="claim")
        await recorder.wait_for("database.lost", station="lease")
        await recorder.wait_for("listener.lost")
        lost = len(recorder.all("listener.up"))
        await proxy.restore()
        await wait(await client.enqueue("one"))
        await recorder.wait_for("listener.up", times=lost + 1)


@pytest.mark.parametrize(
    "refuse", [Proxy.refuse, partial(Proxy.divert, server="postgresql:///?host=/nowhere")]
)
async def test_connections_that_are_reset_and_refused(shop, running, proxy, client, wait, recorder, refuse):
    async with running(shop, url=proxy.dsn, **QUICK):
        await recorder.wait_for("listener.up")
        refuse(proxy)
        proxy.cut()
        await recorder.wait_for("listener.lost", times=4)
        await recorder.wait_for("database.lost", station="claim")
        await proxy.restore()
        await wait(await client.enqueue("one"))
        await recorder.wait_for("listener.up", times=2)


async def test_connections_that_are_reset_in_the_middle_of_work(
    app, running, proxy, client, tables, recorder
):
    ran: list[int] = []

    @app.task("count")
    async def count(n: int) -> None:
        ran.append(n)

    async with running(app, url=proxy.dsn, **QUICK):
        for n in range(200):
            await client.enqueue("count", {"n": n})
            if n % 20 == 0:
                proxy.cut()
        await tables.until("SELECT count(*) = 200 FROM asynctaskd.finished_tasks WHERE status = 'completed'")
    assert set(ran) == set(range(200))


@LOCAL
async def test_backends_that_are_frozen(shop, running, client, wait, tables, recorder, freeze):
    async with running(shop, **QUICK):
        await recorder.wait_for("listener.up")
        pids = await tables.column(f"SELECT pid {OURS}")
        assert len(pids) >= 3
        for pid in pids:
            await freeze(pid)
        await wait(await client.enqueue("one"))
        await recorder.wait_for("listener.lost")
        await recorder.wait_for("listener.up", times=2)


@LOCAL
async def test_a_transaction_whose_backend_is_frozen_at_its_end_is_given_up_and_run_again(
    app, running, client, wait, freeze
):
    ran = []

    @app.task("book")
    async def book(ctx: TaskContext) -> None:
        ran.append(ctx.attempt)
        async with ctx.transaction() as connection:
            if len(ran) == 1:
                await freeze(await connection.fetchval(BACKEND))

    async with running(app):
        await wait(await client.enqueue("book"))
    assert ran == [1, 1]


@LOCAL
async def test_an_enqueue_of_a_handler_whose_backend_is_frozen_is_given_up(
    app, running, client, wait, freeze
):
    app.task("child")(lambda: None)

    @app.task("parent")
    async def parent(ctx: TaskContext) -> None:
        await freeze(await daemon._pool.fetchval(BACKEND))
        with pytest.raises(DatabaseUnavailableError):
            await ctx.enqueue("child")

    async with running(app, pool_size=1) as daemon:
        await wait(await client.enqueue("parent"))


async def test_a_listener_whose_backend_was_ended_looks_at_once(
    shop, running, client, wait, tables, recorder
):
    async with running(shop, listen="on", poll_interval="1h") as daemon:
        await recorder.wait_for("listener.up")
        await tables.until_idle(daemon)
        listens = "query LIKE 'SELECT pg_notify%'"  # once it has asked for its first sign of life
        await tables.until(f"SELECT count(*) = 1 {OURS} AND {listens}")
        assert await tables.terminate(listens) == 1
        await wait(await client.enqueue("one"))


async def test_a_table_that_somebody_locked(shop, running, client, wait, pool, recorder):
    async with running(shop, **QUICK):
        await recorder.wait_for("listener.up")
        task_id = await client.enqueue("one", delay="10s")
        async with pool.acquire() as other:
            locking = other.transaction()
            await locking.start()
            await other.execute("LOCK TABLE asynctaskd.tasks IN ACCESS EXCLUSIVE MODE")
            lost = await recorder.wait_for("database.lost", station="housekeeping")
            assert "lock timeout" in lost["error"]
            await other.execute("UPDATE asynctaskd.tasks SET run_at = now()")
            await locking.commit()
        await wait(task_id)


async def test_a_server_that_takes_no_writes(shop, running, database, client, wait, tables, recorder):
    name = urlsplit(database.dsn).path[1:]
    async with running(shop, **QUICK):
        await recorder.wait_for("listener.up")
        task_id = await client.enqueue("one", delay="1s")
        await tables.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        await tables.terminate()
        lost = await recorder.wait_for("database.lost", station="claim")
        await recorder.wait_for("database.lost", station="lease")
        assert lost["error"]
        # By a session that was there before.
        await tables.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = off')
        await wait(task_id)
    errors = {facts["error"] for facts in recorder.all("listener.lost") + recorder.all("database.lost")}
    assert any("takes no writes" in str(error) for error in errors)


async def test_more_transactions_and_hooks_than_connections(app, running, client, wait, tables):
    @app.task("write")
    async def write(n: int, ctx: TaskContext) -> None:
        await ctx.progress(n)
        async with ctx.transaction() as connection:
            await connection.execute("INSERT INTO written VALUES ($1)", n)

    @app.task("fail")
    async def fail() -> None:
        raise FatalTaskError

    @fail.on_failed
    async def fail_failed(params, failure, tx) -> None:
        await tx.execute("INSERT INTO written VALUES (-1)")

    await tables.execute("CREATE TABLE written (n integer)")
    async with running(app, pool_size=1, concurrency=50):
        for n in range(50):
            await client.enqueue("write", {"n": n})
            await client.enqueue("fail")
        await tables.until("SELECT count(*) = 100 FROM asynctaskd.finished_tasks")
    assert await tables.value("SELECT count(*) FROM written") == 100
    assert not await tables.value("SELECT count(*) FROM asynctaskd.task_events WHERE kind = 'hook_failed'")


async def test_a_database_where_transactions_are_serializable(app, database, client, tables, request):
    name = urlsplit(database.dsn).path[1:]

    @app.task("one")
    async def one() -> None: ...

    await tables.execute(f'ALTER DATABASE "{name}" SET default_transaction_isolation = serializable')
    running = request.getfixturevalue("running")
    async with running(app, **QUICK), running(app, **QUICK):
        for _ in range(100):
            await client.enqueue("one")
        await tables.until("SELECT count(*) = 100 FROM asynctaskd.finished_tasks WHERE status = 'completed'")
    assert await tables.value("SELECT count(*) FROM asynctaskd.task_events") == 0


@pytest.fixture
def home():
    """A directory for a server: in memory where there is some, since a crash is recovered from there."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="asynctaskd-test-", dir=memory if memory.is_dir() else None, ignore_cleanup_errors=True
    ) as directory:
        Path(directory).chmod(0o755)  # the server may run as somebody else
        yield Path(directory)


@asynccontextmanager
async def own_server(home: Path):
    """A server of the test's own, with a migrated database: its URL, and ways to crash and revive it."""
    url = f"embedded:{home}"

    async def revive() -> str:
        return await asyncio.to_thread(embedded.start, url)

    dsn = await revive()
    await migrate(dsn)

    async def crash() -> None:
        server = embedded._server(url)
        stop = server._command("pg_ctl", "stop", "--mode=immediate", "-D", str(server.data))
        ended = await asyncio.create_subprocess_exec(*stop, cwd="/", stdout=asyncio.subprocess.DEVNULL)
        assert await ended.wait() == 0

    try:
        yield dsn, crash, revive
    finally:
        await crash()
        embedded.release(url)


@LOCAL
async def test_a_server_that_crashes_and_comes_back(shop, running, home, recorder):
    async with own_server(home) as (dsn, crash, revive):  # noqa: SIM117
        async with running(shop, url=dsn), Client(dsn) as client:
            await recorder.wait_for("listener.up")
            for times in (1, 2):
                await crash()
                await recorder.wait_for("database.lost", station="claim", times=times)
                await revive()
                task_id = await enqueue_when_possible(client)
                assert (await client.wait(task_id, timeout="20s")).status == "completed"
                await recorder.wait_for("listener.up", times=times + 1)


async def enqueue_when_possible(client: Client) -> int:
    """A client tells its caller of an outage; this caller asks again."""
    from asynctaskd import DatabaseUnavailableError

    while True:
        try:
            return await client.enqueue("one")
        except DatabaseUnavailableError:
            await asyncio.sleep(0.01)


async def test_a_hook_whose_connection_fell_silent_before_it_began(
    app, running, proxy, client, tables, recorder, soon
):
    entered, go_on = asyncio.Event(), asyncio.Event()

    @app.task("ship")
    async def ship() -> None:
        entered.set()
        await soon(go_on)
        raise FatalTaskError("no stock")

    @ship.on_failed
    async def ship_failed(params, failure, tx) -> None:
        await tx.execute("SELECT 1")

    async with running(app, url=proxy.dsn, lease="1m"):
        task_id = await client.enqueue("ship")
        await soon(entered)
        proxy.silence()
        go_on.set()
        await recorder.wait_for("database.lost", station="finalize")
        await proxy.restore()
        await tables.until_status(task_id, "failed")
    assert await tables.events(task_id) == ["failed"]
