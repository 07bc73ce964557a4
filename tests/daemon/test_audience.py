"""What workers tell those who watch, and that they are silent otherwise."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from asynctaskd import App, Client, FatalTaskError, RetryPolicy, TaskContext
from asynctaskd.codecs import AesGcmCodec
from asynctaskd.control.watching import Cursor, InOrder, TaskEvent
from asynctaskd.daemon import audience
from asynctaskd.daemon.audience import messages_of
from asynctaskd.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

LONG_ENOUGH = 60.0


@pytest.fixture
def app(app: App) -> App:
    @app.task("add")
    def add(a: int = 1) -> int:
        return a

    @app.task("fail", retry=RetryPolicy("10ms", max_attempts=2))
    async def fail() -> None:
        raise ValueError("no")

    @app.task("fatal")
    async def fatal() -> None:
        raise FatalTaskError("never")

    return app


async def collected(
    events: AsyncIterator[TaskEvent], is_last: Callable[[TaskEvent], bool]
) -> list[TaskEvent]:
    found: list[TaskEvent] = []
    async with asyncio.timeout(LONG_ENOUGH):
        async for event in events:
            found.append(event)
            if is_last(event):
                break
    return found


def is_end(*kinds: str) -> Callable[[TaskEvent], bool]:
    return lambda event: event.kind in kinds


async def watched(client: Client, **only: Any) -> tuple[Any, asyncio.Task[Any]]:
    """A stream that is on its way, with the step to its first event."""
    stream = client.watch(**only)
    return stream, asyncio.ensure_future(anext(stream))


async def is_heard(tables: Any) -> None:
    """Until the watcher is there; workers hear of it at once."""
    await tables.until("SELECT count(*) > 0 FROM asynctaskd.watchers")


async def until(is_so: Callable[[], object]) -> None:
    """Until something that nobody tells is so."""
    async with asyncio.timeout(LONG_ENOUGH):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def kinds_of(client: Client, tables: Any, running: Any, app: App, act: Any, *ends: str) -> list[Any]:
    async with running(app) as daemon:
        stream, first = await watched(client)
        async with aclosing(stream):
            await is_heard(tables)
            await until(lambda: daemon._audience._wants)
            await act()
            begun = await asyncio.wait_for(first, LONG_ENOUGH)
            return [begun, *(await collected(stream, is_end(*ends)))]


async def test_a_task_is_seen_from_its_birth_to_its_end(client, tables, running, app) -> None:
    async def act() -> None:
        await client.enqueue("add", labels=["mail"], priority=3)

    app_events = await kinds_of(client, tables, lambda a: running(a, labels=["mail"]), app, act, "completed")
    assert [event.kind for event in app_events] == ["enqueued", "claimed", "completed"]
    assert [event.status for event in app_events] == ["pending", "running", "completed"]
    assert {(event.name, tuple(event.labels)) for event in app_events} == {("add", ("mail",))}
    assert [event.attempt for event in app_events] == [None, 1, 1]
    assert app_events[0].at <= app_events[1].at <= app_events[2].at
    assert app_events[1].worker_id == await tables.value("SELECT id FROM asynctaskd.workers")


async def test_a_retry_and_a_failure_are_told_with_their_error(client, tables, running, app) -> None:
    async def act() -> None:
        await client.enqueue("fail")

    events = await kinds_of(client, tables, running, app, act, "failed")
    assert [event.kind for event in events] == ["enqueued", "claimed", "retried", "claimed", "failed"]
    assert events[2].detail["error"] == "ValueError: no"
    assert events[2].status == "scheduled"


async def test_a_stream_can_be_narrowed(client, tables) -> None:
    """Without a worker, what stands in rows is told all the same."""
    stream, first = await watched(client, name="x", labels=["a"], status=["cancelled"])
    async with aclosing(stream):
        await is_heard(tables)
        for name, labels in (("x", ["a", "b"]), ("x", ["b"]), ("y", ["a"])):
            await client.cancel(await client.enqueue(name, labels=labels))
        await client.cancel(last := await client.enqueue("x", labels=["a"]))
        events = [await asyncio.wait_for(first, LONG_ENOUGH)]
        events += await collected(stream, lambda event: event.task_id == last)
    assert [(event.kind, event.task_id) for event in events] == [("cancelled", last - 3), ("cancelled", last)]


async def test_an_unknown_status_is_refused(client) -> None:
    with pytest.raises(InvalidInputError, match="status must be one of .*, got 'gone'"):
        await anext(client.watch(status=["gone"]))


async def test_what_commits_late_is_told_late(client, tables) -> None:
    stream, first = await watched(client)
    async with aclosing(stream):
        await is_heard(tables)
        async with tables.transaction() as connection:
            late = await client.enqueue("late", connection=connection)
            early = await client.enqueue("early")
            assert (await asyncio.wait_for(first, LONG_ENOUGH)).task_id == early
        [event] = await collected(stream, is_end("enqueued"))
    assert event.task_id == late


async def test_nobody_is_told_anything_while_nobody_watches(
    client, tables, running, app, wait, connection
) -> None:
    heard: list[str] = []
    await connection.add_listener("asynctaskd_task_events", lambda *told: heard.append(told[-1]))
    async with running(app) as daemon:
        await wait(await client.enqueue("add"))
        assert not daemon._audience._events
        assert not daemon._audience._claims
    await connection.fetchval("SELECT 1")
    assert heard == []
    assert await tables.value("SELECT count(*) FROM asynctaskd.claims_told") == 0


async def test_watchers_that_are_gone_are_told_no_more(client, tables, running, app, monkeypatch) -> None:
    monkeypatch.setattr(audience, "_WORD_INTERVAL", 0.01)
    async with running(app) as daemon:
        stream, first = await watched(client)
        await is_heard(tables)
        await until(lambda: daemon._audience._wants)
        first.cancel()
        await asyncio.wait({first})
        await stream.aclose()
        await until(lambda: not daemon._audience._wants)


async def test_a_worker_without_notices_learns_of_watchers_by_its_renewal(
    client, tables, running, app
) -> None:
    async with running(app, listen="off", renew_interval="50ms") as daemon:
        stream, first = await watched(client)
        async with aclosing(stream), asyncio.timeout(LONG_ENOUGH):
            await until(lambda: daemon._audience._wants)
            await client.enqueue("add")
            assert (await first).kind == "enqueued"


async def test_shares_had_follow_the_claims(client, tables, running, app) -> None:
    await client.update_runtime_config(weights={"a": 3})
    async with (
        running(app, labels=["a"]),
        aclosing(client.follow("50ms")) as overviews,
        asyncio.timeout(LONG_ENOUGH),
    ):
        assert (await anext(overviews)).groups[0].had is None
        await tables.until("SELECT count(*) > 0 FROM asynctaskd.claims_told")
        for labels in (["a"], ["a"], ["a"], []):
            await client.enqueue("add", labels=labels)
        await client.enqueue("add", priority=1)
        async for overview in overviews:
            if sum(sum(counts.values()) for counts in overview.claims.values()) == 5:
                break
    assert [(group.name, group.had) for group in overview.groups] == [("a", 0.75), ("default", 0.25)]
    assert overview.rate > 0


def test_messages_are_short_enough_for_notices_and_hold_everything() -> None:
    events = [["claimed", n, "n" * 128, ",".join(["l" * 128] * (n % 16)), 1, 1.5] for n in range(200)]
    messages = messages_of("w", events, 7)
    assert all(len(message.encode()) < 8000 for message in messages)
    read = [json.loads(message)["params"] for message in messages]
    assert [event for params in read for event in params["events"]] == events
    assert [params["left_out"] for params in read] == [0] * (len(messages) - 1) + [7]
    assert len(messages) < 40


async def test_progress_that_no_notice_can_hold_is_told_without_its_message(running, client, tables, pool):
    app = App(codec=AesGcmCodec({"k": b"k" * 32}))

    @app.task("pack")
    async def pack(ctx: TaskContext) -> None:
        await ctx.progress(50, "\x1b" * 1024)  # six bytes each in JSON

    async with running(app):
        stream, first = await watched(client)
        async with aclosing(stream):
            await is_heard(tables)
            task_id = await Client(pool, app).enqueue("pack")
            events = [await first, *await collected(stream, is_end("completed"))]
    [told] = [event for event in events if event.kind == "progress"]
    assert (told.task_id, told.detail) == (task_id, {})


async def test_more_events_than_anybody_reads_are_counted(client, tables, running, app, monkeypatch) -> None:
    monkeypatch.setattr(audience, "_MOST_EVENTS", 3)

    async def act() -> None:
        async with tables.transaction() as connection:
            for _ in range(10):
                await client.enqueue("add", connection=connection)

    events = await kinds_of(client, tables, running, app, act, "left_out")
    assert events[-1].detail["events"] > 0


def test_what_is_told_late_takes_its_place() -> None:
    def at(second: int, kind: str) -> TaskEvent:
        return TaskEvent(at=datetime(2026, 1, 1, second=second, tzinfo=UTC), kind=kind, task_id=1)

    claimed, failed, enqueued = at(1, "claimed"), at(2, "failed"), at(3, "enqueued")
    in_order = InOrder()
    assert in_order.take([failed]) == []
    assert in_order.take([enqueued, claimed]) == [claimed, failed]
    assert in_order.take([]) == [enqueued]
    assert in_order.take([]) == []


async def test_ids_that_never_appear_are_not_asked_for_for_ever(monkeypatch) -> None:
    cursor = Cursor(10)
    events = cursor.take([{"id": 15}, {"id": 12}], lambda row: TaskEvent(at=None, kind=str(row["id"])))
    assert [event.kind for event in events] == ["15", "12"]
    assert cursor.passed_over() == [11, 13, 14]
    cursor.take([{"id": 13}], lambda row: TaskEvent(at=None, kind="late"))
    assert cursor.passed_over() == [11, 14]
    monkeypatch.setattr("asynctaskd.control.watching._PATIENCE", 0.0)
    assert cursor.passed_over() == []


async def test_watchers_hear_how_far_a_task_is(running, client, tables):
    app = App()

    @app.task("pack", retry=RetryPolicy("10ms", max_attempts=2))
    async def pack(ctx: TaskContext) -> None:
        await ctx.progress(30 * ctx.attempt, "packing")
        if ctx.attempt == 1:
            raise ValueError("dropped it")
        kept = await client.get_task(ctx.task_id)
        assert kept.progress == {"percent": 60, "message": "packing"}

    async with running(app):
        stream, first = await watched(client)
        async with aclosing(stream):
            await is_heard(tables)
            task_id = await client.enqueue("pack")
            events = [await first, *await collected(stream, is_end("completed"))]
    told = [event for event in events if event.kind == "progress"]
    assert [event.detail["progress"]["percent"] for event in told] == [30, 60]
    assert {(event.task_id, event.name, event.status) for event in told} == {(task_id, "pack", "running")}


async def test_progress_is_kept_over_a_retry(running, client, tables):
    app = App()

    @app.task("pack", retry=RetryPolicy("1h", max_attempts=2))
    async def pack(ctx: TaskContext) -> None:
        await ctx.progress(30, "packing")
        raise ValueError("dropped it")

    async with running(app):
        task_id = await client.enqueue("pack")
        await tables.until_status(task_id, "scheduled")
    assert (await client.get_task(task_id)).progress == {"percent": 30, "message": "packing"}
