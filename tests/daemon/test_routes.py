"""Handlers for all names that begin alike, and what is run around them."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import BaseModel

from asynctaskd import Client, TaskContext, TaskFailure, TaskRequest, UnknownTaskError
from asynctaskd.postgres.driver import query


@pytest.fixture
def ran(app):
    """Routes and a handler that note which of them was asked, and under which name."""
    notes: list[tuple[str, str]] = []

    def note(who: str):
        async def handler(payload: dict, ctx: TaskContext) -> None:
            notes.append((who, ctx.name))

        return handler

    app.route("")(note("all"))
    app.route("email:")(note("email"))
    app.route("email:bulk:")(note("bulk"))
    app.task("email:new")(note("new"))
    return notes


async def test_the_longest_prefix_counts_and_a_handler_of_its_own_comes_first(
    app, ran, running, client, wait
):
    names = ["email:new", "email:old", "email:bulk:1", "sms", "email:newer"]
    async with running(app, concurrency=1):
        for name in names:
            await wait(await client.enqueue(name))
    assert ran == [
        ("new", "email:new"),
        ("email", "email:old"),
        ("bulk", "email:bulk:1"),
        ("all", "sms"),
        ("email", "email:newer"),
    ]


async def test_a_name_without_a_route_waits_until_a_worker_has_one(
    app, running, client, tables, recorder, wait
):
    task_id = await client.enqueue("email:new")
    async with running(app):
        await recorder.wait_for("task.unknown_name")
        await tables.until("SELECT reason = 'unknown_name' FROM asynctaskd.tasks")
    assert (await tables.task(task_id))["attempts"] == 0

    @app.route("email:")
    async def email(payload: dict) -> None: ...

    async with running(app):
        await wait(task_id)


async def test_what_is_enqueued_under_a_routes_names_takes_its_defaults(app, running, client, tables):
    @app.route("email:", labels=["mail"], priority=3, timeout="7s", retry="2s,4s", keep="1d")
    async def email(payload: dict) -> None: ...

    @app.route("email:slow:", serial_key="slow")
    async def slow(payload: dict) -> None: ...

    @app.task("email:own")
    async def own(payload: dict) -> None: ...

    async with running(app):  # without the label it runs none of them
        names = ["email:new", "email:own", "email:slow:1", "email:slow:2", "other"]
        single = [await client.enqueue(name) for name in names]
        many = await client.enqueue_many([TaskRequest(name) for name in names])
        columns = "name, label_set, priority, timeout::text, max_attempts, keep::text, serial_key, status"
        ids = [single[0], *many[:1]]
        rows = [
            tuple(await tables.value(f"SELECT ROW({columns}) FROM asynctaskd.tasks WHERE id = $1", task_id))
            for task_id in ids
        ]
    assert rows == [("email:new", "mail", 3, "00:00:07", 10, "1 day", None, "pending")] * 2
    assert await tables.value("SELECT serial_key FROM asynctaskd.all_tasks WHERE id = $1", many[3]) == "slow"
    assert (await tables.task(many[1]))["max_attempts"] == 1


async def test_a_client_with_an_app_checks_payloads_against_the_route(app, pool):
    class Mail(BaseModel):
        to: str

    @app.route("email:")
    async def email(mail: Mail) -> None: ...

    client = Client(pool, app)
    assert await client.enqueue("email:new", {"to": "ada"})
    with pytest.raises(ValueError, match="to: Field required"):
        await client.enqueue("email:new", {})
    with pytest.raises(UnknownTaskError, match="no task is named 'sms'"):
        await client.enqueue("sms")
    with pytest.raises(ValueError, match="task name must match"):
        await client.enqueue(email, {"to": "ada"})


async def test_a_routes_failure_hook_hears_of_tasks_that_fail_at_rest(app, running, client, tables):
    failures: list[TaskFailure] = []

    @app.route("email:", delay="1h")
    async def email(payload: dict) -> None: ...

    @email.on_failed
    async def gone(params, failure, tx) -> None:
        failures.append(failure)

    async with running(app):
        task_id = await client.enqueue("email:new", {"a": 1})
        assert await client.fail(task_id, "not needed")
        await tables.until_status(task_id, "failed")
    assert [(one.name, one.error, one.payload) for one in failures] == [("email:new", "not needed", {"a": 1})]


async def test_the_database_knows_that_a_worker_knows_a_routes_names(app, running, tables):
    @app.route("email:")
    async def email(payload: dict) -> None: ...

    @app.task("em")
    async def em(payload: dict) -> None: ...

    async with running(app):
        known = await tables.column(
            "SELECT asked FROM asynctaskd.workers AS w,"
            " unnest('{email:new,email:,email,em,emo}'::text[]) AS asked"
            " WHERE asynctaskd.knows(w.names, asked)"
        )
    assert known == ["email:new", "email:", "em"]


async def test_run_now_takes_a_task_by_a_route(app, running, client):
    @app.route("email:")
    async def email(payload: dict) -> None: ...

    async with running(app):
        receipt = await client.run_now(await client.enqueue("email:new", delay="1h"))
    assert [one.outcome for one in receipt.tasks] == ["stopped"]


# Middleware


@pytest.fixture
def trail(app):
    """What the layers around handlers noted, in order."""
    notes: list[str] = []

    def layer(name: str):
        async def around(params, ctx, proceed):
            notes.append(f"{name} in")
            try:
                return await proceed()
            finally:
                notes.append(f"{name} out")

        return around

    app.middleware(layer("first"))
    app.middleware(layer("second"))

    @app.route("email:")
    async def email(payload: dict) -> str:
        notes.append("email")
        return "sent"

    email.middleware(layer("own"))

    @app.task("count")
    def count(payload: dict) -> int:
        notes.append("count")
        return 3

    return notes


async def test_middleware_lies_around_the_handler_in_the_order_of_registration(
    app, trail, running, client, wait
):
    async with running(app):
        task = await wait(await client.enqueue("email:new"))
    assert trail == ["first in", "second in", "own in", "email", "own out", "second out", "first out"]
    assert task.result == "sent"


async def test_middleware_lies_around_handlers_in_threads_too(app, trail, running, client, wait):
    async with running(app):
        task = await wait(await client.enqueue("count"))
    assert trail == ["first in", "second in", "count", "second out", "first out"]
    assert task.result == 3


async def test_middleware_sees_typed_params_and_the_context_and_may_change_what_comes_of_it(
    app, running, client, wait
):
    seen = []

    @app.middleware
    async def double(params, ctx: TaskContext, proceed) -> int:
        seen.append((params, ctx.task_id, ctx.name, ctx.attempt))
        return 2 * await proceed()

    class Sum(BaseModel):
        a: int

    @app.task("add")
    async def add(params: Sum) -> int:
        return params.a + 1

    async with running(app):
        task = await wait(await client.enqueue("add", {"a": 1}))
    assert task.result == 4
    assert seen == [(Sum(a=1), task.id, "add", 1)]


async def test_what_middleware_raises_is_the_tasks_error_and_the_handler_may_not_run(
    app, running, client, tables
):
    ran = []

    @app.task("add")
    async def add(payload: dict) -> None:
        ran.append(payload)

    @add.middleware
    async def refuse(params, ctx, proceed) -> None:
        raise ValueError("not today")

    async with running(app):
        row = await tables.until_status(await client.enqueue("add"), "failed")
    assert (row["last_error"], ran) == ("ValueError: not today", [])


async def test_a_timeout_ends_middleware_too(app, running, client, tables):
    ended = asyncio.Event()

    @app.task("wait", timeout="50ms")
    async def wait(payload: dict) -> None:
        await asyncio.Event().wait()

    @wait.middleware
    async def around(params, ctx, proceed) -> None:
        try:
            await proceed()
        finally:
            ended.set()

    async with running(app):
        row = await tables.until_status(await client.enqueue("wait"), "failed")
    assert row["reason"] == "timeout"
    assert ended.is_set()


# Hooks for every failed attempt


async def test_an_error_hook_sees_every_failed_attempt_with_its_exception(app, running, client, tables):
    seen: list[tuple[TaskFailure, BaseException]] = []

    @app.on_error
    async def report(failure: TaskFailure, error: BaseException) -> None:
        seen.append((failure, error))

    @app.task("add", retry="0s,0s")
    async def add(payload: dict) -> None:
        raise KeyError("a")

    async with running(app):
        task_id = await client.enqueue("add", {"b": 1}, retry="0s", keep="1d")
        await tables.until_status(task_id, "failed")
    assert [failure.attempts for failure, _ in seen] == list(range(1, 11))
    failure, error = seen[0]
    assert (failure.task_id, failure.name, failure.max_attempts, failure.payload) == (
        task_id,
        "add",
        10,
        {"b": 1},
    )
    assert (failure.error, failure.reason) == ("KeyError: 'a'", "error")
    assert isinstance(error, KeyError)
    assert error.__traceback__ is not None


@pytest.mark.parametrize(
    ("payload", "reason", "kind"),
    [({"do": "hang"}, "timeout", "TimeoutError"), ({}, "invalid_payload", "InvalidPayloadError")],
)
async def test_an_error_hook_hears_of_timeouts_and_bad_payloads(
    app, running, client, tables, payload, reason, kind
):
    seen = []

    @app.on_error
    async def report(failure: TaskFailure, error: BaseException) -> None:
        seen.append((failure.reason, type(error).__name__, str(error) == failure.error))

    @app.task("add", timeout="50ms")
    async def add(do: str) -> None:
        await asyncio.Event().wait()

    async with running(app):
        await tables.until_status(await client.enqueue("add", payload), "failed")
    assert seen == [(reason, kind, True)]


async def test_an_error_hook_that_raises_changes_nothing_and_is_logged(
    app, running, client, tables, recorder
):
    told = []

    @app.on_error
    async def broken(failure: TaskFailure, error: BaseException) -> None:
        raise SystemExit(3)

    @app.on_error
    async def fine(failure: TaskFailure, error: BaseException) -> None:
        told.append(failure.task_id)

    @app.task("add")
    async def add(payload: dict) -> None:
        raise ValueError("no")

    async with running(app):
        task_id = await client.enqueue("add")
        row = await tables.until_status(task_id, "failed")
    assert (row["last_error"], told) == ("ValueError: no", [task_id])
    assert recorder.all("error_hook.failed", task_id=task_id)[0]["error"] == "SystemExit: 3"


async def test_an_error_hook_that_hangs_is_ended_with_its_worker(app, running, client, tables, soon):
    begun = asyncio.Event()

    @app.on_error
    async def hang(failure: TaskFailure, error: BaseException) -> None:
        begun.set()
        await asyncio.Event().wait()

    @app.task("add")
    async def add(payload: dict) -> None:
        raise ValueError("no")

    async with running(app):
        task_id = await client.enqueue("add")
        await soon(begun)
    assert (await tables.task(task_id))["status"] == "failed"


@pytest.mark.parametrize(
    ("statement", "arguments"), [("wake_unknown", [["email:*"], 1000]), ("check_unknown", [])]
)
async def test_each_name_is_looked_up_once_however_many_wait(app, running, pool, statement, arguments):
    @app.route("email:")
    async def email(payload: dict) -> None: ...

    async with running(app), pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL track_functions = 'all'")
        await connection.execute(
            "SELECT asynctaskd.enqueue('sms:' || n % 3, delay => '1h') FROM generate_series(1, 300) AS n"
        )
        await connection.execute("UPDATE asynctaskd.tasks SET reason = 'unknown_name'")
        await connection.fetch(query(statement, "asynctaskd"), *arguments)
        calls = await connection.fetchval(
            "SELECT sum(calls) FROM pg_stat_xact_user_functions WHERE funcname = 'knows'"
        )
    assert 3 <= calls <= 12
