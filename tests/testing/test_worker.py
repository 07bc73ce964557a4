"""Real workers of the test kit, and time that leaps."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from asynctaskd import App, InvalidInputError, RetryPolicy, SchemaVersionError, TaskContext, TaskStatus
from asynctaskd.daemon.housekeeping import Housekeeper
from asynctaskd.postgres.scratch import connected, run_script
from asynctaskd.testing import Clock, Worker


@pytest.fixture
def app() -> App:
    return App()


async def ask(dsn: str, question: str, *arguments):
    async with connected(dsn) as connection:
        return await connection.fetchval(question, *arguments)


async def test_drain_returns_when_nothing_is_due_any_more(app, asynctaskd_client, asynctaskd_worker):
    @app.task("parent")
    async def parent(ctx: TaskContext) -> None:
        await ctx.enqueue("child", {"depth": 3})

    @app.task("child")
    async def child(depth: int, ctx: TaskContext) -> None:
        if depth:
            await ctx.enqueue("child", {"depth": depth - 1})

    async with asynctaskd_worker(app) as worker:
        await worker.drain()
        for _ in range(2):
            await asynctaskd_client.enqueue("parent")
            await worker.drain()
        later = await asynctaskd_client.enqueue("parent", delay="1h")
        await worker.drain()

    statuses = [task.status for task in await asynctaskd_client.list_tasks()]
    assert statuses == [TaskStatus.SCHEDULED, *[TaskStatus.COMPLETED] * 10]
    assert (await asynctaskd_client.get_task(later)).status is TaskStatus.SCHEDULED


async def test_a_worker_that_cannot_start_says_why(app, asynctaskd_dsn):
    await run_script(asynctaskd_dsn, "DROP SCHEMA asynctaskd CASCADE")
    with pytest.raises(SchemaVersionError):
        async with Worker(app, asynctaskd_dsn):
            pass


async def test_a_worker_that_crashes_under_a_test_is_no_silent_success(
    app, asynctaskd_dsn, asynctaskd_worker, monkeypatch
):
    async def broken(self) -> None:
        raise LookupError("crashed")

    async def go_on_for_ever() -> None:
        async with asynctaskd_worker(app) as worker:
            monkeypatch.setattr(Housekeeper, "tidy", broken)
            worker._daemon.leap(0)
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as caught:
        await go_on_for_ever()
    assert caught.group_contains(LookupError)


async def test_a_block_that_ends_cancels_what_runs_and_puts_it_back(
    app, asynctaskd_client, asynctaskd_worker
):
    entered = asyncio.Event()

    @app.task("hold")
    async def hold() -> None:
        entered.set()
        await asyncio.Event().wait()

    task_id = await asynctaskd_client.enqueue("hold")
    async with asynctaskd_worker(app):
        await asyncio.wait_for(entered.wait(), 60)
    assert (await asynctaskd_client.get_task(task_id)).status is TaskStatus.PENDING


async def test_time_leaps_to_retries(app, asynctaskd_client, asynctaskd_worker, asynctaskd_clock):
    attempts = []

    @app.task("flaky", retry=RetryPolicy("1h,1d", max_attempts=3))
    async def flaky(ctx: TaskContext) -> None:
        attempts.append(ctx.attempt)
        if ctx.attempt < 3:
            raise ConnectionError("again")

    task_id = await asynctaskd_client.enqueue("flaky")
    async with asynctaskd_worker(app) as worker:
        await worker.drain()
        await asynctaskd_clock.advance("30m")
        await worker.drain()
        assert attempts == [1]
        await asynctaskd_clock.advance("30m")
        await worker.drain()
        assert attempts == [1, 2]
        await asynctaskd_clock.advance("1d")
        # No drain: the worker itself notices.
        task = await asynctaskd_client.wait(task_id, timeout="20s")

    assert task.attempts == 3
    assert task.finished_at - task.created_at > timedelta(days=1, hours=1)


async def test_time_leaps_to_slots_of_schedules(app, asynctaskd_client, asynctaskd_worker, asynctaskd_clock):
    ran = []

    @app.task("report", cron="0 0 2 * * *")
    async def report(ctx: TaskContext) -> None:
        ran.append(ctx.deadline - timedelta(hours=1))

    start = (await asynctaskd_clock.now()).replace(hour=0, minute=0, second=0, microsecond=0)
    async with asynctaskd_worker(app) as worker:
        await asynctaskd_clock.advance_to(start + timedelta(days=1))
        await worker.drain()
        ran.clear()
        for day in (1, 2):
            await asynctaskd_clock.advance_to(start + timedelta(days=day, hours=2))
            await worker.drain()

    wanted = [start + timedelta(days=day, hours=2) for day in (1, 2)]
    assert [began.replace(minute=0, second=0, microsecond=0) for began in ran] == wanted
    slots = await asynctaskd_client.list_slots("report")
    assert [slot["slot"] for slot in slots][:2] == wanted[::-1]


async def test_a_schedule_that_is_made_after_a_leap_begins_then(
    app, asynctaskd_client, asynctaskd_worker, asynctaskd_clock
):
    @app.task("report")
    async def report() -> None: ...

    async with asynctaskd_worker(app) as worker:
        await asynctaskd_clock.advance("30d")
        await asynctaskd_client.add_schedule("report", "@hourly")
        await worker.drain()
        assert await asynctaskd_client.list_slots("report") == []


async def test_time_leaps_past_the_lease_of_another_worker(
    app, asynctaskd_client, asynctaskd_worker, asynctaskd_clock, asynctaskd_dsn
):
    @app.task("lost")
    async def lost(ctx: TaskContext) -> int:
        return ctx.attempt

    task_id = await asynctaskd_client.enqueue("lost")
    await run_script(
        asynctaskd_dsn,
        f"""
        INSERT INTO asynctaskd.workers
            (id, name, hostname, pid, version, labels, names, concurrency, expires_at)
        SELECT id, id, 'elsewhere', 1, '0', '{{}}', '{{lost}}', 1, asynctaskd.clock() + interval '1 hour'
        FROM (VALUES ('{uuid4()}'::uuid)) AS dead (id);
        UPDATE asynctaskd.tasks SET status = 'running', attempts = 1, claim_token = 1,
            claimed_at = asynctaskd.clock(), worker_id = (SELECT id FROM asynctaskd.workers)
        """,
    )
    async with asynctaskd_worker(app) as worker:
        await worker.drain()
        assert (await asynctaskd_client.get_task(task_id)).status is TaskStatus.RUNNING
        await asynctaskd_clock.advance("61m")
        task = await asynctaskd_client.wait(task_id, timeout="20s")

    assert (task.result, task.losses) == (2, 0)
    assert [event["kind"] for event in await asynctaskd_client.events(task_id)] == ["lease_lost"]


async def test_a_worker_that_travels_keeps_its_lease(
    app, asynctaskd_client, asynctaskd_worker, asynctaskd_clock, asynctaskd_dsn
):
    entered, go_on = asyncio.Event(), asyncio.Event()

    @app.task("hold", timeout="30d")
    async def hold(ctx: TaskContext) -> float:
        entered.set()
        await go_on.wait()
        return ctx.remaining() / timedelta(days=1)

    task_id = await asynctaskd_client.enqueue("hold")
    async with asynctaskd_worker(app, renew_interval="10ms", lease="10s"):
        await asyncio.wait_for(entered.wait(), 60)
        for _ in range(20):
            await asynctaskd_clock.advance("1d")
        question = "SELECT bool_and(asynctaskd.is_live(w)) FROM asynctaskd.workers AS w"
        assert await ask(asynctaskd_dsn, question)
        go_on.set()
        task = await asynctaskd_client.wait(task_id, timeout="20s")

    assert task.attempts == 1
    assert 9 < task.result <= 10
    assert await asynctaskd_client.events(task_id) == []


async def test_what_runs_past_its_timeout_by_a_leap_is_told_so(
    app, asynctaskd_client, asynctaskd_worker, asynctaskd_clock
):
    entered = asyncio.Event()

    @app.task("hold", timeout="1h")
    async def hold() -> None:
        entered.set()
        await asyncio.Event().wait()

    task_id = await asynctaskd_client.enqueue("hold")
    async with asynctaskd_worker(app) as worker:
        await asyncio.wait_for(entered.wait(), 60)
        await asynctaskd_clock.advance("59m")
        assert (await asynctaskd_client.get_task(task_id)).status is TaskStatus.RUNNING
        await asynctaskd_clock.advance("1m")
        await worker.drain()

    assert (await asynctaskd_client.get_task(task_id)).reason == "timeout"


async def test_a_leap_expires_what_is_past_its_deadline(
    app, asynctaskd_client, asynctaskd_worker, asynctaskd_clock
):
    @app.task("late")
    async def late() -> None: ...

    task_id = await asynctaskd_client.enqueue("late", delay="1d", deadline="1h")
    async with asynctaskd_worker(app):
        await asynctaskd_clock.advance("1h")
        await asynctaskd_clock.advance("1s")
        async with asyncio.timeout(20):
            while (await asynctaskd_client.get_task(task_id)).status is not TaskStatus.EXPIRED:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


async def test_every_column_that_tells_a_time_travels(asynctaskd_client, asynctaskd_clock, asynctaskd_dsn):
    before = await asynctaskd_clock.now()
    await asynctaskd_clock.advance("7d")
    task = await asynctaskd_client.get_task(await asynctaskd_client.enqueue("any"))
    assert timedelta(days=7) <= task.created_at - before < timedelta(days=7, minutes=10)
    left = await ask(
        asynctaskd_dsn,
        "SELECT count(*) FROM information_schema.columns"
        " WHERE table_schema = 'asynctaskd' AND column_default LIKE '%clock_timestamp%'",
    )
    assert left == 0


async def test_two_clocks_of_one_database_are_one(asynctaskd_clock, asynctaskd_dsn):
    other = Clock(asynctaskd_dsn)
    before = await asynctaskd_clock.now()
    for clock in (asynctaskd_clock, other, asynctaskd_clock):
        await clock.advance("1h")
    passed = await other.now() - before
    assert timedelta(hours=3) <= passed < timedelta(hours=3, minutes=10)


@pytest.mark.parametrize("duration", ["-1h", "soon", timedelta(-1), 5])
async def test_there_is_no_way_back(asynctaskd_clock, duration):
    with pytest.raises(InvalidInputError):
        await asynctaskd_clock.advance(duration)
    with pytest.raises(InvalidInputError, match="can't go back"):
        await asynctaskd_clock.advance_to(await asynctaskd_clock.now() - timedelta(hours=1))
