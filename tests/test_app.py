"""A worker inside another application's loop."""

from __future__ import annotations

import asyncio
import signal

import pytest

from asynctaskd import App, Client, ConfigError, InvalidDefinitionError

LONG_ENOUGH = 60.0


@pytest.fixture
def app() -> App:
    return App()


async def test_a_worker_runs_tasks_while_its_block_lasts(app, database, pool):
    @app.task
    async def add(a: int, b: int) -> int:
        return a + b

    client = Client(pool, app)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    async with app.worker(database.dsn, concurrency=3, labels=["mail"]):
        task = await client.wait(await client.enqueue(add.request(1, b=2), labels=["mail"]), timeout="20s")
        [worker] = await client.list_workers()
        assert handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert task.result == 3
    assert (worker["concurrency"], worker["labels"][0]) == (3, "mail")
    assert await pool.fetchval("SELECT stopped_at IS NOT NULL FROM asynctaskd.workers")


async def test_the_end_of_the_block_waits_for_what_runs(app, database, pool):
    begun, ended = asyncio.Event(), asyncio.Event()

    @app.task
    async def slow() -> None:
        begun.set()
        await asyncio.sleep(0.05)
        ended.set()

    client = Client(pool, app)
    async with app.worker(database.dsn):
        task_id = await client.enqueue(slow)
        await asyncio.wait_for(begun.wait(), LONG_ENOUGH)
    assert ended.is_set()
    assert (await client.get_task(task_id)).status == "completed"


async def test_a_cancelled_block_gives_back_what_runs(app, database, pool):
    begun = asyncio.Event()

    @app.task
    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    client = Client(pool, app)
    task_id = await client.enqueue(endless)

    async def host() -> None:
        async with app.worker(database.dsn):
            await asyncio.Event().wait()

    running = asyncio.create_task(host())
    await asyncio.wait_for(begun.wait(), LONG_ENOUGH)
    running.cancel()
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await client.get_task(task_id)).status == "pending"


async def test_an_error_of_the_block_ends_the_worker_and_stays_itself(app, database, pool):
    with pytest.raises(ZeroDivisionError):
        async with app.worker(database.dsn):
            raise ZeroDivisionError
    assert await pool.fetchval("SELECT stopped_at IS NOT NULL FROM asynctaskd.workers")


async def test_a_worker_that_crashes_ends_the_block_with_its_error(app, database, pool, monkeypatch):
    async def crash(self) -> float:
        raise RuntimeError("out of order")

    monkeypatch.setattr("asynctaskd.daemon.housekeeping.Housekeeper.step", crash)
    with pytest.raises(BaseExceptionGroup) as raised:
        async with asyncio.timeout(LONG_ENOUGH), app.worker(database.dsn):
            await asyncio.Event().wait()
    assert raised.group_contains(RuntimeError, match="out of order")


async def test_a_crash_during_the_drain_is_the_error_of_the_block(app, database, pool, monkeypatch):
    begun, crashing = asyncio.Event(), asyncio.Event()

    @app.task
    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def crash(self) -> float:
        await crashing.wait()
        raise RuntimeError("out of order")

    monkeypatch.setattr("asynctaskd.daemon.housekeeping.Housekeeper.step", crash)
    await Client(pool, app).enqueue(endless)

    async def host() -> None:
        async with app.worker(database.dsn):
            await asyncio.wait_for(begun.wait(), LONG_ENOUGH)
            asyncio.get_running_loop().call_soon(crashing.set)

    with pytest.raises(BaseExceptionGroup) as raised:
        await host()
    assert raised.group_contains(RuntimeError, match="out of order")
    assert not asyncio.current_task().cancelling()


async def test_what_is_wrong_is_said_before_anything_starts(app, database):
    with pytest.raises(ConfigError, match="worker.concurrency"):
        async with app.worker(database.dsn, concurrency=0):
            pass
    with pytest.raises(ConfigError, match="worker.colour"):
        async with app.worker(database.dsn, colour="red"):
            pass

    @app.task(on_failed="nobody")
    async def ship() -> None: ...

    with pytest.raises(InvalidDefinitionError, match="no task is named 'nobody'"):
        async with app.worker(database.dsn):
            pass


async def test_several_apps_have_a_worker_each_in_one_process(database, pool):
    shop, mail = App(), App()

    @shop.task("ship")
    async def ship() -> str:
        return "shop"

    @mail.task("send")
    async def send() -> str:
        return "mail"

    client = Client(pool)
    async with (
        shop.worker(database.dsn, labels=["shop"]),
        mail.worker(database.dsn, labels=["mail"]),
    ):
        ids = [await client.enqueue("ship", labels=["shop"]), await client.enqueue("send", labels=["mail"])]
        tasks = [await client.wait(task_id, timeout="20s") for task_id in ids]
    assert [task.result for task in tasks] == ["shop", "mail"]
    assert len({task.worker_id for task in tasks}) == 2
