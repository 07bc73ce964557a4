from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from structlog.testing import capture_logs

from asynctaskd import TaskContext


class Letter(BaseModel):
    to: str
    copies: int = 1


async def test_a_task_runs_when_its_transaction_is_committed_and_not_before(
    app, running, client, connection, wait
):
    ran = []

    @app.task("note")
    async def note(n: int) -> None:
        ran.append(n)

    async with running(app):
        async with connection.transaction():
            first = await client.enqueue("note", {"n": 1}, connection=connection)
            await wait(await client.enqueue("note", {"n": 2}))
            assert ran == [2]
        await wait(first)
    assert ran == [2, 1]


async def test_a_task_whose_transaction_rolled_back_never_runs(
    app, running, client, connection, wait, tables
):
    ran = []

    @app.task("note")
    async def note(n: int) -> None:
        ran.append(n)

    async with running(app):
        transaction = connection.transaction()
        await transaction.start()
        await client.enqueue("note", {"n": 1}, connection=connection)
        await transaction.rollback()
        await wait(await client.enqueue("note", {"n": 2}))
    assert ran == [2]
    assert await tables.value("SELECT count(*) FROM asynctaskd.all_tasks") == 1


async def test_a_completed_task_keeps_its_result_and_nothing_of_its_claim_runs_on(
    app, running, client, wait, tables
):
    @app.task("add")
    async def add(a: int, b: int) -> int:
        return a + b

    async with running(app) as daemon:
        done = await wait(await client.enqueue("add", {"a": 2, "b": 3}))
        assert (done.status, done.result, done.attempts, done.losses) == ("completed", 5, 1, 0)
        assert done.worker_id == daemon.worker_id
        assert done.created_at <= done.claimed_at <= done.finished_at
    assert await tables.events(done.id) == []
    assert await tables.value("SELECT count(*) FROM asynctaskd.tasks") == 0


async def test_a_handler_gets_a_model(app, running, client, wait):
    @app.task("send")
    async def send(letter: Letter) -> str:
        return f"{letter.to} x {letter.copies}"

    async with running(app):
        assert (await wait(await client.enqueue("send", {"to": "Ada"}))).result == "Ada x 1"
        assert (await wait(await client.enqueue(send, Letter(to="Bob", copies=2)))).result == "Bob x 2"


async def test_a_model_that_is_returned_is_stored_as_its_fields(app, running, client, wait):
    @app.task("draft")
    async def draft() -> Letter:
        return Letter(to="Ada")

    async with running(app):
        assert (await wait(await client.enqueue("draft"))).result == {"to": "Ada", "copies": 1}


async def test_a_handler_may_take_the_whole_payload(app, running, client, wait):
    @app.task("keys")
    async def keys(payload: dict[str, Any]) -> list[str]:
        return sorted(payload)

    async with running(app):
        assert (await wait(await client.enqueue("keys", {"b": 1, "a": None}))).result == ["a", "b"]


async def test_a_synchronous_handler_runs_in_a_thread(app, running, client, wait):
    threads = []

    @app.task("compute")
    def compute(n: int) -> int:
        threads.append(threading.current_thread())
        return n * 2

    async with running(app):
        assert (await wait(await client.enqueue("compute", {"n": 21}))).result == 42
    assert threads[0] is not threading.main_thread()


async def test_as_many_threads_run_at_once_as_there_are_slots(app, running, client, wait):
    together = threading.Barrier(4, timeout=10)

    @app.task("meet")
    def meet() -> None:
        together.wait()

    ids = [await client.enqueue("meet") for _ in range(4)]
    async with running(app, concurrency=4):
        for task_id in ids:
            await wait(task_id)


async def test_the_context_says_which_attempt_of_which_task_this_is_and_how_long_it_may_take(
    app, running, client, wait
):
    seen = {}

    @app.task("look", timeout="30s")
    async def look(ctx: TaskContext) -> None:
        seen.update(
            task_id=ctx.task_id,
            name=ctx.name,
            attempt=ctx.attempt,
            cancelled=ctx.cancelled,
            remaining=ctx.remaining(),
            deadline=ctx.deadline,
        )
        ctx.log.debug("looked")

    async with running(app):
        done = await wait(await client.enqueue("look"))
    assert (seen["task_id"], seen["name"], seen["attempt"]) == (done.id, "look", 1)
    assert not seen["cancelled"]
    assert seen["deadline"] == done.claimed_at + timedelta(seconds=30)
    assert timedelta(seconds=20) < seen["remaining"] <= timedelta(seconds=30)


async def test_an_attempt_has_an_hour_where_nothing_is_said(app, running, client, wait):
    deadlines = []

    @app.task("look")
    async def look(ctx: TaskContext) -> None:
        deadlines.append(ctx.deadline)

    async with running(app):
        done = await wait(await client.enqueue("look"))
    assert deadlines == [done.claimed_at + timedelta(hours=1)]


async def test_what_a_handler_logs_carries_its_task(app, running, client, wait):
    @app.task("look")
    async def look(ctx: TaskContext) -> None:
        ctx.log.info("looked", found=3)

    with capture_logs() as lines:
        async with running(app) as daemon:
            done = await wait(await client.enqueue("look"))
    [line] = [line for line in lines if line["event"] == "looked"]
    assert line == {
        "event": "looked",
        "log_level": "info",
        "task_id": done.id,
        "task": "look",
        "attempt": 1,
        "worker_id": daemon.worker_id,
        "found": 3,
    }


async def test_a_synchronous_handler_may_use_all_of_its_context_that_is_not_async(app, running, client, wait):
    @app.task("look", timeout="30s")
    def look(ctx: TaskContext) -> dict[str, Any]:
        ctx.log.debug("looked")
        return {
            "id": ctx.task_id,
            "name": ctx.name,
            "attempt": ctx.attempt,
            "cancelled": ctx.cancelled,
            "enough": timedelta(seconds=20) < ctx.remaining() <= timedelta(seconds=30),
            "deadline": ctx.deadline.isoformat(),
        }

    async with running(app):
        done = await wait(await client.enqueue("look"))
    assert done.result == {
        "id": done.id,
        "name": "look",
        "attempt": 1,
        "cancelled": False,
        "enough": True,
        "deadline": (done.claimed_at + timedelta(seconds=30)).isoformat(),
    }


async def test_the_result_in_the_context_is_stored_unless_the_handler_returns_one(app, running, client, wait):
    @app.task("set")
    async def set_only(ctx: TaskContext) -> None:
        ctx.result = {"from": "context"}

    @app.task("both")
    def both(ctx: TaskContext) -> str:
        ctx.result = "context"
        return "return"

    async with running(app):
        assert (await wait(await client.enqueue("set"))).result == {"from": "context"}
        assert (await wait(await client.enqueue("both"))).result == "return"


def _circle() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    return deep


class Hostile:
    def __repr__(self) -> str:
        raise SystemExit("repr")

    __str__ = __repr__


@pytest.mark.parametrize(
    "result",
    [
        object(),
        lambda: 1,
        float("nan"),
        {"x": float("inf")},
        "a\x00b",
        "\ud800",
        "x" * 2_000_000,
        2**64,
        _deep(),
        _circle(),
        Hostile(),
    ],
    ids=["object", "function", "nan", "inf", "nul", "surrogate", "2MB", "2^64", "deep", "circle", "hostile"],
)
async def test_a_result_that_cannot_be_stored_fails_the_task(app, running, client, tables, wait, result):
    @app.task("make")
    async def make() -> Any:
        return result

    @app.task("fine")
    async def fine() -> int:
        return 1

    async with running(app):
        bad = await client.enqueue("make")
        good = await client.enqueue("fine")
        row = await tables.until_status(bad, "failed")
        assert row["reason"] == "invalid_result"
        assert "result" in row["last_error"]
        assert row["result"] is None
        assert (await wait(good)).result == 1


async def test_options_of_the_enqueue_win_over_those_of_the_definition(app, running, client, tables, soon):
    entered = asyncio.Event()

    @app.task("hold", timeout="1h", priority=3)
    async def hold() -> None:
        entered.set()
        await asyncio.Event().wait()

    async with running(app):
        task_id = await client.enqueue("hold", timeout="50ms", priority=0)
        await soon(entered)
        row = await tables.until_status(task_id, "failed")
    assert (row["reason"], row["priority"]) == ("timeout", 0)


async def test_progress_is_a_column_that_others_can_read_while_the_task_runs(
    app, running, client, tables, wait
):
    go_on = asyncio.Event()

    @app.task("climb")
    async def climb(ctx: TaskContext) -> None:
        await ctx.progress(40, "half way, nearly")
        await go_on.wait()

    async with running(app):
        task_id = await client.enqueue("climb")
        await tables.until("SELECT progress IS NOT NULL FROM asynctaskd.tasks WHERE id = $1", task_id)
        assert (await client.get_task(task_id)).progress == {"percent": 40, "message": "half way, nearly"}
        go_on.set()
        assert (await wait(task_id)).progress == {"percent": 40, "message": "half way, nearly"}


@pytest.mark.parametrize(
    ("said", "rule"),
    [
        ((-1,), "percent must be a number from 0 to 100"),
        ((101,), "percent must be a number from 0 to 100"),
        ((float("nan"),), "percent must be a number from 0 to 100"),
        (("half",), "percent must be a number from 0 to 100, got 'half'"),
        ((50, 5), "message must be a string, got 5"),
    ],
)
async def test_a_progress_that_is_none_is_refused(app, running, client, tables, said, rule):
    @app.task("climb")
    async def climb(ctx: TaskContext) -> None:
        await ctx.progress(*said)

    async with running(app):
        row = await tables.until_status(await client.enqueue("climb"), "failed")
    assert rule in row["last_error"]


async def test_extend_moves_the_deadline_of_this_attempt_back(app, running, client, wait):
    seen = []

    @app.task("stretch", timeout="10s")
    async def stretch(ctx: TaskContext) -> None:
        seen.append(ctx.deadline)
        await ctx.extend("1m")
        seen.append(ctx.deadline)
        assert ctx.remaining() > timedelta(seconds=60)

    async with running(app):
        await wait(await client.enqueue("stretch"))
    assert seen[1] - seen[0] == timedelta(minutes=1)


async def test_an_extended_attempt_outlives_its_first_timeout(app, running, client, wait):
    @app.task("stretch", timeout="50ms")
    async def stretch(ctx: TaskContext) -> bool:
        await ctx.extend("1h")
        past_the_first = asyncio.Event()
        asyncio.get_running_loop().call_later(0.06, past_the_first.set)
        await past_the_first.wait()
        return ctx.cancelled

    async with running(app):
        assert (await wait(await client.enqueue("stretch"))).result is False


async def test_a_child_is_enqueued_with_its_parent_and_a_stranger_without(app, running, client, wait, tables):
    @app.task("parent")
    async def parent(ctx: TaskContext) -> list[int]:
        return [await ctx.enqueue("child"), await ctx.enqueue("child", parent_id=None)]

    @app.task("child")
    async def child() -> None: ...

    async with running(app):
        done = await wait(await client.enqueue("parent"))
        own, strange = [await wait(task_id) for task_id in done.result]
    assert (own.parent_id, strange.parent_id) == (done.id, None)


async def test_a_record_that_is_kept_for_no_time_leaves_nothing_behind(
    app, running, client, tables, recorder
):
    ran = asyncio.Event()

    @app.task("gone", keep=0)
    async def gone() -> None:
        ran.set()

    async with running(app):
        task_id = await client.enqueue("gone", unique_tag="once")
        await tables.until("SELECT NOT EXISTS (SELECT FROM asynctaskd.all_tasks WHERE id = $1)", task_id)
        assert ran.is_set()
        assert await tables.events(task_id) == []
        assert await tables.value("SELECT count(*) FROM asynctaskd.unique_tags") == 0


async def test_a_thousand_tasks_run_once_each(app, running, client, tables):
    from collections import Counter

    from asynctaskd import TaskRequest

    ran = Counter()

    @app.task("one")
    async def one(n: int) -> None:
        ran[n] += 1

    async with running(app, concurrency=50), running(app, concurrency=50):
        await client.enqueue_many([TaskRequest("one", {"n": n}) for n in range(1000)])
        await tables.until("SELECT count(*) = 1000 FROM asynctaskd.finished_tasks")
    assert ran == Counter(range(1000))
    assert await tables.value("SELECT count(*) FROM asynctaskd.task_events") == 0


async def test_metadata_stays_with_a_task_to_its_end(app, running, client, wait):
    @app.task("note")
    async def note() -> None: ...

    async with running(app):
        task_id = await client.enqueue("note", metadata={"order": 7, "by": {"user": "ada"}})
        assert (await client.get_task(task_id)).metadata == {"order": 7, "by": {"user": "ada"}}
        done = await wait(task_id)
    assert (done.status, done.metadata) == ("completed", {"order": 7, "by": {"user": "ada"}})


async def test_a_call_of_a_method_is_performed_with_its_transaction_and_never_without(
    app, running, client, connection, wait, tables
):
    shipped = []

    class Orders:
        def ship(self, order: int) -> str:
            shipped.append(order)
            return f"order {order} is on its way"

    app.expose(Orders(), "orders")
    call = {"target": "orders", "method": "ship", "connection": connection}
    async with running(app):
        undone = connection.transaction()
        await undone.start()
        await client.enqueue(payload={"order": 1}, **call)
        await undone.rollback()
        async with connection.transaction():
            task_id = await client.enqueue(payload={"order": 2}, **call)
        assert (await wait(task_id)).result == "order 2 is on its way"
    assert shipped == [2]
    assert await tables.value("SELECT count(*) FROM asynctaskd.all_tasks") == 1
