"""Handlers that misbehave harm nobody but their own task."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from contextlib import suppress
from typing import Any

import pytest

from asynctaskd import TaskContext
from asynctaskd.errors import InvalidInputError

colour = contextvars.ContextVar("colour", default="none")


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_a_task_that_a_handler_left_running_is_cancelled_and_named(
    app, running, client, wait, recorder
):
    cleaned_up = []

    async def background() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.append(True)

    @app.task("leak")
    async def leak() -> str:
        asyncio.create_task(background(), name="forgotten")  # noqa: RUF006  (that is the fault)
        return "done"

    async with running(app, concurrency=1):
        done = await wait(await client.enqueue("leak"))
        told = await recorder.wait_for("handler.leaked_tasks", task_id=done.id)
    assert done.result == "done"
    assert cleaned_up == [True]
    assert (told["task"], told["count"]) == ("leak", 1)
    assert told["names"][0].startswith("forgotten (")
    assert "background" in told["names"][0]


@pytest.mark.parametrize("way", ["raise", "timeout"])
async def test_what_a_failed_handler_left_running_is_cancelled_too(
    app, running, client, tables, recorder, way
):
    @app.task("leak", timeout="50ms")
    async def leak() -> None:
        asyncio.create_task(for_ever())  # noqa: RUF006
        if way == "raise":
            raise ValueError
        await for_ever()

    async with running(app):
        task_id = await client.enqueue("leak")
        row = await tables.until_status(task_id, "failed")
        await recorder.wait_for("handler.leaked_tasks", task_id=task_id)
    assert row["reason"] == ("error" if way == "raise" else "timeout")


async def test_what_tasks_start_that_a_handler_started_belongs_to_it_too(
    app, running, client, wait, recorder
):
    async def parent() -> None:
        asyncio.create_task(for_ever(), name="grandchild")  # noqa: RUF006

    @app.task("leak")
    async def leak() -> None:
        await asyncio.create_task(parent())

    async with running(app):
        await wait(await client.enqueue("leak"))
        told = await recorder.wait_for("handler.leaked_tasks")
    assert told["names"][0].startswith("grandchild")


async def test_a_synchronous_handler_leaks_no_task_either(app, running, client, wait, recorder):
    loop = asyncio.get_running_loop()

    @app.task("leak")
    def leak() -> None:
        asyncio.run_coroutine_threadsafe(for_ever(), loop)

    async with running(app):
        done = await wait(await client.enqueue("leak"))
        await recorder.wait_for("handler.leaked_tasks", task_id=done.id)


async def test_what_ends_by_itself_in_a_moment_is_let_end(app, running, client, wait, recorder):
    ended = []

    async def last_words() -> None:
        await asyncio.sleep(0)
        ended.append(True)

    @app.task("tidy")
    async def tidy() -> None:
        asyncio.create_task(last_words())  # noqa: RUF006

    async with running(app):
        await wait(await client.enqueue("tidy"))
    assert ended == [True]
    assert recorder.all("handler.leaked_tasks") == []


async def test_a_task_in_a_context_of_its_own_outlives_the_handler(app, running, client, wait, recorder):
    kept = []

    @app.task("start")
    async def start() -> None:
        kept.append(asyncio.create_task(for_ever(), context=contextvars.Context()))

    async with running(app, leaves_tasks=True):
        await wait(await client.enqueue("start"))
    assert not kept[0].done()
    assert recorder.all("handler.leaked_tasks") == []
    kept[0].cancel()


async def test_a_leaked_task_that_cannot_be_cancelled_does_not_hold_the_result_back(
    app, running, client, wait, recorder
):
    go_on = asyncio.Event()

    async def stubborn() -> None:
        while not go_on.is_set():
            with suppress(asyncio.CancelledError):
                await go_on.wait()

    @app.task("leak")
    async def leak() -> str:
        asyncio.create_task(stubborn())  # noqa: RUF006
        return "done"

    async with running(app, leaves_tasks=True):
        assert (await wait(await client.enqueue("leak"))).result == "done"
    go_on.set()


async def test_a_stop_does_not_wait_for_leaked_tasks(app, running, client, tables, soon):
    entered = asyncio.Event()

    @app.task("leak")
    async def leak() -> None:
        asyncio.create_task(for_ever())  # noqa: RUF006
        entered.set()
        await for_ever()

    async with running(app) as daemon:
        task_id = await client.enqueue("leak")
        await soon(entered)
        daemon.stop()
        daemon.stop()
        row = await tables.until_status(task_id, "pending")
    assert row["attempts"] == 0


async def test_the_clients_watch_serves_others_when_the_handler_that_woke_it_has_ended(
    app, running, client, wait, soon, recorder
):
    asked, go_on = asyncio.Event(), asyncio.Event()

    @app.task("hold")
    async def hold() -> str:
        await go_on.wait()
        return "held"

    @app.task("ask")
    async def ask(task_id: int) -> None:
        asked.set()
        with suppress(TimeoutError):
            await client.wait(task_id, timeout="50ms")

    async with running(app):
        held = await client.enqueue("hold")
        asking = await client.enqueue("ask", {"task_id": held})
        await soon(asked)
        waiting = asyncio.create_task(wait(held))
        await recorder.wait_for("task.completed", task_id=asking)
        go_on.set()
        assert (await waiting).result == "held"
    assert recorder.all("handler.leaked_tasks") == []


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("awaited", [True, False], ids=["awaited", "forgotten"])
async def test_a_task_that_a_handler_started_cannot_end_the_event_loop(
    app, running, client, tables, wait, error, awaited
):
    async def leave() -> None:
        raise error("now")

    @app.task("start")
    async def start() -> str:
        leaving = asyncio.create_task(leave())
        if awaited:
            await leaving
        await asyncio.wait({leaving})
        return repr(leaving.exception())

    async with running(app):
        task_id = await client.enqueue("start")
        if awaited:
            row = await tables.until_status(task_id, "failed")
            told = row["last_error"]
        else:
            told = (await wait(task_id)).result
    assert f"a task that the handler started raised {error('now')!r}" in told


async def test_a_task_that_is_cancelled_before_its_first_step_leaves_no_warning(
    app, running, client, wait, recwarn
):
    @app.task("start")
    async def start() -> bool:
        starting = asyncio.create_task(for_ever())
        starting.cancel()
        await asyncio.wait({starting})
        return starting.cancelled()

    async with running(app):
        assert (await wait(await client.enqueue("start"))).result is True
    assert [str(one.message) for one in recwarn if one.category is RuntimeWarning] == []


async def test_the_tasks_of_a_handler_look_like_any_others(app, running, client, wait):
    import inspect

    @app.task("look")
    async def look() -> list[str]:
        task = asyncio.create_task(for_ever(), name="mine")
        await asyncio.sleep(0)
        coro: Any = task.get_coro()
        seen = [
            task.get_name(),
            coro.__name__,
            inspect.getcoroutinestate(coro),
            task.get_stack()[0].f_code.co_name,
        ]
        task.cancel()
        return seen

    async with running(app):
        assert (await wait(await client.enqueue("look"))).result == [
            "mine",
            "for_ever",
            inspect.CORO_SUSPENDED,
            "for_ever",
        ]


async def test_the_loops_own_task_factory_is_used_and_given_back(app, running, client, wait):
    loop = asyncio.get_running_loop()
    made = []

    def factory(loop, coro, **options):
        made.append(coro.__qualname__)
        return asyncio.Task(coro, loop=loop, **options)

    @app.task("start")
    async def start() -> None:
        await asyncio.create_task(asyncio.sleep(0))

    loop.set_task_factory(factory)
    try:
        async with running(app):
            async with running(app):
                pass
            await wait(await client.enqueue("start"))
        assert "sleep" in made
        assert loop.get_task_factory() is factory
    finally:
        loop.set_task_factory(None)


@pytest.mark.parametrize("sync", [False, True], ids=["async", "thread"])
async def test_no_task_sees_the_context_variables_of_another(app, running, client, wait, sync):
    def swap(name: str) -> str:
        before = colour.get()
        colour.set(name)
        return before

    async def swap_in_loop(name: str) -> str:
        return swap(name)

    app.task("swap")(swap if sync else swap_in_loop)
    async with running(app, concurrency=1):
        seen = [(await wait(await client.enqueue("swap", {"name": name}))).result for name in ("red", "blue")]
    assert seen == ["none", "none"]


@pytest.mark.parametrize("sync", [False, True], ids=["async", "thread"])
async def test_a_handler_that_does_not_stop_is_named_with_where_it_hangs(
    app, running, client, tables, recorder, monkeypatch, sync
):
    monkeypatch.setattr("asynctaskd.daemon.execution._STUCK_AFTER", 0.05)
    go_on, released = asyncio.Event(), threading.Event()

    async def stubborn_in_loop() -> None:
        while not go_on.is_set():
            with suppress(asyncio.CancelledError):
                await go_on.wait()

    def stubborn_in_thread() -> None:
        released.wait(20)

    app.task("stubborn", timeout="50ms")(stubborn_in_thread if sync else stubborn_in_loop)
    async with running(app):
        task_id = await client.enqueue("stubborn")
        first = await recorder.wait_for("handler.stuck", task_id=task_id)
        again = await recorder.wait_for("handler.stuck", task_id=task_id, times=2)
        assert (await tables.task(task_id))["status"] == "running"
        go_on.set()
        released.set()
        row = await tables.until_status(task_id, "failed")
    assert (first["task"], first["why"], first["seconds"], again["seconds"]) == (
        "stubborn",
        "timeout",
        0.05,
        0.1,
    )
    assert ("stubborn_in_thread" if sync else "stubborn_in_loop") in first["traceback"]
    assert "wait" in first["traceback"]
    assert row["reason"] == "timeout"


async def test_a_failure_hook_that_does_not_stop_is_named_and_keeps_its_task(
    app, running, client, tables, wait, recorder, monkeypatch
):
    monkeypatch.setattr("asynctaskd.daemon.hooks._TIMEOUT", 0.05)
    monkeypatch.setattr("asynctaskd.daemon.hooks._STUCK_AFTER", 0.1)
    go_on = asyncio.Event()

    @app.task("bad")
    async def bad() -> None:
        raise ValueError

    @bad.on_failed
    async def stubborn_hook(params, failure, tx) -> None:
        while not go_on.is_set():
            with suppress(asyncio.CancelledError):
                await go_on.wait()

    @app.task("fine")
    async def fine() -> None: ...

    async with running(app):
        task_id = await client.enqueue("bad")
        told = await recorder.wait_for("handler.stuck", task_id=task_id)
        await wait(await client.enqueue("fine"))
        assert (await tables.task(task_id))["status"] == "running"
        go_on.set()
        await tables.until_status(task_id, "failed")
    assert told["why"] == "hook timeout"
    assert "stubborn_hook" in told["traceback"]


async def test_a_blocking_task_of_a_handler_is_put_down_to_its_task(app, running, client, wait, recorder):
    async def block() -> None:
        time.sleep(1.6)  # noqa: ASYNC251  (that is the fault)

    @app.task("start")
    async def start() -> None:
        await asyncio.create_task(block())

    async with running(app):
        task_id = await client.enqueue("start")
        told = await recorder.wait_for("loop.stalled")
        await wait(task_id)
    assert (told["task_id"], told["task"]) == (task_id, "start")


async def test_a_handler_that_cancels_itself_has_failed_and_is_not_given_back(app, running, client, tables):
    @app.task("quit")
    async def leave() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async with running(app):
        task_id = await client.enqueue("quit")
        row = await tables.until_status(task_id, "failed")
    assert (row["reason"], row["last_error"]) == ("error", "CancelledError")
    assert await tables.events(task_id) == ["failed"]


async def test_a_handler_that_cancels_itself_at_its_end_has_completed(app, running, client, wait):
    @app.task("quit")
    async def leave() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "done"

    async with running(app):
        assert (await wait(await client.enqueue("quit"))).result == "done"


class SilentError(Exception):
    def __repr__(self) -> str:
        raise ValueError("no repr")


class UnpicklableError(Exception):
    def __init__(self) -> None:
        super().__init__("can't be pickled")
        self.lock = threading.Lock()


def cyclic() -> Exception:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    first.__context__, second.__context__ = second, first
    return first


@pytest.mark.parametrize("sync", [False, True], ids=["async", "thread"])
@pytest.mark.parametrize(
    ("error", "described"),
    [
        (SilentError("said"), "SilentError: said"),
        (UnpicklableError(), "UnpicklableError: can't be pickled"),
        (cyclic(), "ValueError: first"),
        (StopAsyncIteration("over"), "StopAsyncIteration: over"),
        (BaseExceptionGroup("several", [SystemExit(3)]), "several"),
        (RecursionError("x" * 100_000), "[truncated"),
    ],
    ids=["repr", "pickle", "cycle", "stop", "group", "long"],
)
async def test_however_odd_its_exception_a_failure_is_recorded(
    app, running, client, tables, wait, error, described, sync
):
    def in_thread(ok: bool = False) -> None:
        if not ok:
            raise error

    async def in_loop(ok: bool = False) -> None:
        in_thread(ok)

    app.task("odd")(in_thread if sync else in_loop)
    async with running(app, concurrency=1):
        row = await tables.until_status(await client.enqueue("odd"), "failed")
        await wait(await client.enqueue("odd", {"ok": True}))
    assert described in row["last_error"]
    assert len(row["last_error"].encode()) <= 65_536


@pytest.mark.parametrize(
    ("make", "stored"),
    [(lambda: {3}, [3]), (lambda: (n for n in (1, 2)), [1, 2]), (lambda: (1, 2), [1, 2])],
    ids=["set", "generator", "tuple"],
)
async def test_what_has_items_is_stored_as_a_list(app, running, client, wait, make, stored):
    @app.task("make")
    async def result() -> Any:
        return make()

    async with running(app):
        assert (await wait(await client.enqueue("make"))).result == stored


async def test_a_generator_that_raises_is_an_invalid_result(app, running, client, tables):
    @app.task("make")
    async def result() -> Any:
        return (1 // n for n in (1, 0))

    async with running(app):
        row = await tables.until_status(await client.enqueue("make"), "failed")
    assert row["reason"] == "invalid_result"


async def test_a_recursion_without_end_is_a_failure(app, running, client, tables, wait):
    @app.task("dive")
    async def dive(ctx: TaskContext) -> int:
        def deeper() -> int:
            return deeper() + 1

        return deeper()

    @app.task("fine")
    async def fine() -> None: ...

    async with running(app):
        row = await tables.until_status(await client.enqueue("dive"), "failed")
        await wait(await client.enqueue("fine"))
    assert row["last_error"].startswith("RecursionError")


def fork_and_come_back() -> int:
    """The exit code of a child that comes back out of its handler."""
    child = os.fork()
    return -1 if child == 0 else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
async def test_a_forked_child_that_comes_back_out_of_its_handler_is_ended(app, running, wait, client):
    @app.task("thread")
    def thread() -> int:
        return fork_and_come_back()

    @app.task("coroutine")
    async def coroutine() -> int:
        return fork_and_come_back()

    async with running(app):
        for name in ("thread", "coroutine"):
            assert (await wait(await client.enqueue(name))).result == 70


@pytest.mark.parametrize("what", ["progress", "enqueue", "dependency_results", "transaction"])
async def test_a_loop_of_the_handlers_own_is_refused_before_it_touches_a_connection(
    app, running, client, wait, what
):
    async def ask(ctx: TaskContext) -> None:
        match what:
            case "progress":
                await ctx.progress(50)
            case "enqueue":
                await ctx.enqueue("other")
            case "dependency_results":
                await ctx.dependency_results()
            case _:
                async with ctx.transaction():
                    pass

    @app.task("own_loop")
    def own_loop(ctx: TaskContext) -> str:
        with pytest.raises(InvalidInputError, match=rf"ctx\.{what}\(\) was called in another event loop"):
            asyncio.run(ask(ctx))
        return "refused"

    async with running(app):
        assert (await wait(await client.enqueue("own_loop"))).result == "refused"
