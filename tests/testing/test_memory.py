from __future__ import annotations

import asyncio
import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from asynctaskd import (
    App,
    FatalTaskError,
    InvalidInputError,
    InvalidPayloadError,
    RetryPolicy,
    RetryQuietlyError,
    SnoozeTask,
    TaskAlreadyExistsError,
    TaskCancelledError,
    TaskContext,
    TaskExpiredError,
    TaskFailedError,
    TaskNotFoundError,
    TaskRequest,
    TaskStatus,
    UnknownTaskError,
)
from asynctaskd.testing import InMemoryClient, NullClient, assert_enqueued


class Mail(BaseModel):
    to: str
    copies: int = 1


@pytest.fixture
def ran() -> list[Any]:
    return []


@pytest.fixture
def app(ran) -> App:
    app = App()

    @app.task("mail", timeout="30s", labels=["mail"])
    async def mail(params: Mail, ctx: TaskContext) -> dict[str, Any]:
        ran.append(params.to)
        return {"sent_to": params.to, "attempt": ctx.attempt}

    @app.task("flaky", retry=RetryPolicy("1m,2m", max_attempts=3))
    async def flaky() -> None:
        ran.append("flaky")
        raise ConnectionError("not today")

    @app.task("doomed", retry="1m")
    async def doomed() -> None:
        raise FatalTaskError("enough")

    @app.task("add")
    def add(a: int, b: int) -> int:
        ran.append(threading.current_thread() is threading.main_thread())
        return a + b

    return app


@pytest.fixture
def client(app) -> InMemoryClient:
    return InMemoryClient(app)


# What is refused, by all three alike


@pytest.mark.parametrize("kind", [InMemoryClient, NullClient])
@pytest.mark.parametrize(
    ("name", "payload", "options", "error"),
    [
        ("mial", {}, {}, UnknownTaskError),
        ("mail", {"to": 3}, {}, InvalidPayloadError),
        ("mail", {"to": "ada", "cc": "bob"}, {"weight": 0}, InvalidInputError),
        ("mail", {"to": "ada"}, {"delay": "1h", "run_at": None, "labls": []}, InvalidInputError),
        ("mail", {"to": "ada"}, {"retry": "sometimes"}, InvalidInputError),
        ("mail", {"to": "ada"}, {"retry": RetryPolicy(timedelta)}, InvalidInputError),
        (TaskRequest("mail", {"to": "ada"}), {"to": "bob"}, {}, InvalidInputError),
    ],
)
async def test_what_a_client_with_an_app_refuses_is_refused(app, kind, name, payload, options, error):
    client = kind(app)
    with pytest.raises(error):
        await client.enqueue(name, payload, **options)
    assert kind is NullClient or await client.list_tasks() == []


@pytest.mark.parametrize("kind", [InMemoryClient, NullClient])
async def test_of_many_all_are_enqueued_or_none(app, kind):
    client = kind(app)
    good = TaskRequest("mail", {"to": "ada"})
    with pytest.raises(InvalidPayloadError, match="request 2"):
        await client.enqueue_many([good, TaskRequest("mail", {})])
    with pytest.raises(InvalidInputError, match="request 2: a TaskRequest is needed, got str"):
        await client.enqueue_many([good, "mail"])
    assert await client.enqueue_many([good, app["add"].request(1, b=2)]) == [1, 2]


async def test_a_null_client_runs_nothing(app, ran):
    client = NullClient(app)
    assert [await client.enqueue("mail", Mail(to="ada")) for _ in range(3)] == [1, 2, 3]
    assert await client.enqueue("mail", Mail(to="ada"), cron="@daily") == 4
    assert ran == []


# Drain


async def test_drain_runs_what_was_enqueued_and_stores_results(client, ran):
    task_id = await client.enqueue("mail", Mail(to="ada"), labels=["urgent"], connection=object())
    assert (await client.get_task(task_id)).status is TaskStatus.PENDING
    assert ran == []

    assert await client.drain() == 1

    task = await client.get_task(task_id)
    assert (task.status, task.result) == (TaskStatus.COMPLETED, {"sent_to": "ada", "attempt": 1})
    assert (task.payload, task.labels, task.timeout) == (
        {"to": "ada", "copies": 1},
        ["urgent"],
        timedelta(seconds=30),
    )
    assert task.claimed_at is not None
    assert task.created_at <= task.claimed_at <= task.finished_at
    assert await client.drain() == 0


async def test_higher_priorities_run_first_and_else_the_older(client, ran):
    for name, priority in [("a", 0), ("b", 5), ("c", 0), ("d", 9), ("e", 5)]:
        await client.enqueue("mail", {"to": name}, priority=priority)
    await client.drain()
    assert ran == ["d", "b", "e", "a", "c"]


async def test_a_synchronous_handler_runs_in_a_thread(client, app, ran):
    task_id = await client.enqueue(app["add"].request(1, b=2))
    assert (await client.wait(task_id)).result == 3
    assert ran == [False]


async def test_what_handlers_enqueue_runs_too_as_children(app, client):
    @app.task("parent")
    async def parent(ctx: TaskContext) -> list[int]:
        own = await ctx.enqueue("mail", {"to": "child"})
        return [own, await ctx.enqueue("mail", {"to": "stranger"}, parent_id=None)]

    parent_id = await client.enqueue("parent")
    assert await client.drain() == 3
    own, stranger = (await client.get_task(parent_id)).result
    assert ((await client.get_task(own)).parent_id, (await client.get_task(stranger)).parent_id) == (
        parent_id,
        None,
    )


async def test_a_failed_task_is_retried_when_the_clock_says_so(client, ran):
    task_id = await client.enqueue("flaky")

    assert await client.drain() == 1
    task = await client.get_task(task_id)
    assert (task.status, task.attempts, task.last_error) == ("scheduled", 1, "ConnectionError: not today")

    client.advance("59s")
    assert await client.drain() == 0
    client.advance("1s")
    assert await client.drain() == 1
    client.advance("2m")
    with pytest.raises(ExceptionGroup) as caught:
        await client.drain()

    [error] = caught.value.exceptions
    assert isinstance(error, ConnectionError)
    task = await client.get_task(task_id)
    assert (task.status, task.attempts, task.reason) == ("failed", 3, "error")


async def test_drain_runs_all_before_it_raises_what_failed_for_good(client, ran):
    await client.enqueue("doomed")
    await client.enqueue("flaky")
    await client.enqueue("mail", {"to": "ada"})

    with pytest.raises(ExceptionGroup, match="tasks failed for good") as caught:
        await client.drain()

    assert [type(error) for error in caught.value.exceptions] == [FatalTaskError]
    assert ran == ["flaky", "ada"]
    assert (await client.get_task(1)).reason == "terminated"


async def test_errors_can_be_left_to_the_records(client):
    task_id = await client.enqueue("doomed")
    assert await client.drain(raise_errors=False) == 1
    with pytest.raises(TaskFailedError, match="after 1 of 10 attempts: FatalTaskError: enough"):
        await client.wait(task_id)


async def test_a_snooze_gives_the_attempt_back(app, client):
    answers = iter([SnoozeTask("1h"), None])

    @app.task("later")
    async def later(ctx: TaskContext) -> int:
        if (answer := next(answers)) is not None:
            raise answer
        return ctx.attempt

    task_id = await client.enqueue("later")
    await client.drain()
    assert (await client.get_task(task_id)).attempts == 0
    client.advance("1h")
    assert (await client.wait(task_id)).result == 1


@pytest.mark.parametrize("how", ["drain", "wait"])
async def test_a_handler_that_comes_back_for_ever_keeps_no_timeout_of_the_test_from_it(app, client, ran, how):
    @app.task("sleepy")
    async def sleepy() -> None:
        ran.append("sleepy")
        if len(ran) > 100:
            raise FatalTaskError("nobody got through")
        raise SnoozeTask("0s")

    task_id = await client.enqueue("sleepy")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await (client.drain() if how == "drain" else client.wait(task_id))


async def test_a_delay_and_a_start_time_are_waited_for(client, ran):
    delayed = await client.enqueue("mail", {"to": "delayed"}, delay="1h")
    await client.enqueue("mail", {"to": "timed"}, run_at=client.now + timedelta(hours=2))
    assert (await client.get_task(delayed)).status is TaskStatus.SCHEDULED
    await client.drain()
    client.advance("1h")
    await client.drain()
    assert ran == ["delayed"]
    client.advance(timedelta(hours=1))
    await client.drain()
    assert ran == ["delayed", "timed"]


async def test_a_task_past_its_deadline_expires_without_running(client, ran):
    task_id = await client.enqueue("mail", {"to": "late"}, deadline="1m")
    client.advance("2m")
    await client.drain()
    with pytest.raises(TaskExpiredError):
        await client.wait(task_id)
    assert ran == []


async def test_a_retry_after_the_deadline_is_a_final_failure(client):
    task_id = await client.enqueue("flaky", deadline="30s")
    await client.drain(raise_errors=False)
    assert (
        "not retried: the retry would start after the deadline" in (await client.get_task(task_id)).last_error
    )


async def test_a_handler_over_its_timeout_fails(app, client):
    @app.task("slow", timeout="20ms")
    async def slow() -> None:
        await asyncio.Event().wait()

    task_id = await client.enqueue("slow")
    await client.drain(raise_errors=False)
    task = await client.get_task(task_id)
    assert (task.reason, task.last_error) == ("timeout", "timed out after 20ms")


async def test_a_timeout_of_the_handlers_own_is_an_error_like_others(app, client):
    @app.task("slow")
    async def slow() -> None:
        raise TimeoutError("of somebody else")

    await client.enqueue("slow")
    await client.drain(raise_errors=False)
    assert (await client.get_task(1)).reason == "error"


async def test_a_handler_may_get_more_time(app, client):
    @app.task("stretch", timeout="10ms")
    async def stretch(ctx: TaskContext) -> float:
        await ctx.extend("1h")
        await asyncio.sleep(0.02)
        await ctx.progress(50, "half")
        return ctx.remaining().total_seconds()

    task = await client.wait(await client.enqueue("stretch"))
    assert 3000 < task.result <= 3600
    assert task.progress == {"percent": 50, "message": "half"}


@pytest.mark.parametrize(("said", "rule"), [(("half",), "percent must be a"), ((50, 5), "message must be a")])
async def test_a_progress_that_is_none_is_a_failure(app, client, said, rule):
    @app.task("climb")
    async def climb(ctx: TaskContext) -> None:
        await ctx.progress(*said)

    task_id = await client.enqueue("climb")
    await client.drain(raise_errors=False)
    assert rule in ((await client.get_task(task_id)).last_error or "")


async def test_a_result_that_cannot_be_stored_is_a_failure(app, client):
    @app.task("make")
    async def make() -> Any:
        return float("nan")

    await client.enqueue("make")
    with pytest.raises(ExceptionGroup) as caught:
        await client.drain()
    assert isinstance(caught.value.exceptions[0], InvalidPayloadError)
    assert (await client.get_task(1)).reason == "invalid_result"


@pytest.mark.parametrize("error", [SystemExit, StopIteration])
async def test_whatever_a_handler_in_a_thread_raises_is_its_failure(app, client, error):
    @app.task("leave")
    def leave() -> None:
        raise error("now")

    await client.enqueue("leave")
    await client.drain(raise_errors=False)
    assert error.__name__ in (await client.get_task(1)).last_error


# Tags, dependencies, hooks


async def test_a_unique_tag_gives_the_first_id(client, ran):
    first = await client.enqueue("mail", {"to": "ada"}, unique_tag="once")
    assert await client.enqueue("mail", {"to": "bob"}, unique_tag="once") == first
    with pytest.raises(TaskAlreadyExistsError) as caught:
        await client.enqueue("mail", {"to": "bob"}, unique_tag="once", on_conflict="raise")
    assert caught.value.task_id == first
    await client.drain()
    assert ran == ["ada"]


@pytest.mark.parametrize(("until", "is_free"), [("finished", True), ("forgotten", False), (None, False)])
async def test_a_unique_tag_is_freed_when_it_says_so(client, until, is_free):
    await client.enqueue("mail", {"to": "ada"}, unique_tag="once", unique_until=until)
    await client.drain()
    second = await client.enqueue("mail", {"to": "bob"}, unique_tag="once", unique_until=until)
    assert (second == 2) is is_free


async def test_a_unique_tag_is_freed_however_its_task_ends(client):
    doomed = await client.enqueue("doomed")
    tag = {"unique_tag": "once", "unique_until": "finished"}
    for options in ({"depends_on": [doomed]}, {"deadline": "1s"}, {}):
        await client.enqueue("mail", {"to": "ada"}, **tag, **options)
        client.advance("2s")
        await client.drain(raise_errors=False)
    statuses = [task.status for task in await client.list_tasks(name="mail")]
    assert statuses == ["completed", "expired", "cancelled"]


async def test_a_unique_tag_is_free_at_once_where_its_task_is_born_at_its_end(client):
    doomed = await client.enqueue("doomed")
    await client.drain(raise_errors=False)
    options = {"unique_tag": "once", "unique_until": "finished"}
    born_cancelled = await client.enqueue("mail", {"to": "a"}, depends_on=[doomed], **options)
    born_expired = await client.enqueue("mail", {"to": "a"}, deadline=client.now - timedelta(1), **options)
    alive = await client.enqueue("mail", {"to": "a"}, **options)
    ids = (born_cancelled, born_expired, alive)
    assert [(await client.get_task(task_id)).status for task_id in ids] == ["cancelled", "expired", "pending"]
    assert await client.enqueue("mail", {"to": "a"}, **options) == alive


async def test_a_task_waits_for_those_it_depends_on_and_gets_their_results(app, client):
    @app.task("sum")
    async def total(ctx: TaskContext) -> int:
        return sum((await ctx.dependency_results()).values())

    terms = [await client.enqueue(app["add"].request(n, n), delay="1h") for n in (1, 2)]
    task_id = await client.enqueue("sum", depends_on=terms)
    assert (await client.get_task(task_id)).status is TaskStatus.WAITING
    assert await client.drain() == 0
    client.advance("1h")
    assert await client.drain() == 3
    assert (await client.get_task(task_id)).result == 6


async def test_a_task_whose_dependency_fails_is_cancelled_and_so_on(client):
    doomed = await client.enqueue("doomed")
    dependant = await client.enqueue("mail", {"to": "ada"}, depends_on=[doomed])
    last = await client.enqueue("mail", {"to": "bob"}, depends_on=[dependant])
    await client.drain(raise_errors=False)
    with pytest.raises(TaskCancelledError, match=f"dependency {doomed} failed"):
        await client.wait(dependant)
    assert (await client.get_task(last)).status is TaskStatus.CANCELLED


@pytest.mark.parametrize("options", [{"depends_on": [7]}, {"parent_id": 7}])
async def test_a_task_that_is_none_cannot_be_waited_for(client, options):
    with pytest.raises(InvalidInputError, match="7 is not a task"):
        await client.enqueue("mail", {"to": "ada"}, **options)


async def test_failure_hooks_are_told_of_final_failures_alone(app):
    told, connection = [], object()
    client = InMemoryClient(app, connection=connection)

    @app["flaky"].on_failed
    async def own(params, failure, tx) -> None:
        told.append(("own", params, failure.attempts, failure.max_attempts, failure.error, tx))

    @app.on_failed
    async def anybodys(failure, tx) -> None:
        told.append(("app", failure.reason, failure.payload))

    await client.enqueue("flaky", retry=RetryPolicy("0s", max_attempts=2))
    await client.drain(raise_errors=False)
    assert told == [
        ("own", {}, 2, 2, "ConnectionError: not today", connection),
        ("app", "error", {}),
    ]


async def test_error_hooks_are_told_of_every_failed_attempt(app, client):
    told = []

    @app.on_error
    async def note(failure, error) -> None:
        told.append((failure.attempts, failure.error, type(error)))

    @app.task("slow", timeout="10ms")
    async def slow() -> None:
        await asyncio.Event().wait()

    await client.enqueue("flaky", retry=RetryPolicy("0s", max_attempts=2))
    await client.enqueue("slow")
    await client.drain(raise_errors=False)
    assert told == [
        (1, "ConnectionError: not today", ConnectionError),
        (2, "ConnectionError: not today", ConnectionError),
        (1, "timed out after 10ms", TimeoutError),
    ]


async def test_a_failure_task_is_enqueued_and_starts_no_other(app, client):
    seen = []

    @app.task("fragile", on_failed="clean_up")
    async def fragile() -> None:
        raise ValueError("broken")

    @app.task("clean_up", on_failed="clean_up")
    async def clean_up(task_id: int) -> None:
        seen.append(task_id)
        raise ValueError("broken too")

    failed = await client.enqueue("fragile")
    assert await client.drain(raise_errors=False) == 2
    assert seen == [failed]


async def test_middleware_and_routes_are_as_in_a_worker(app, client, ran):
    @app.middleware
    async def noted(params, ctx, proceed):
        ran.append(f"before {ctx.name}")
        return {"wrapped": await proceed()}

    @app.route("mail:")
    async def any_mail(payload: dict, ctx: TaskContext) -> str:
        return ctx.name

    @app.route("sync:")
    def synchronous(payload: dict, ctx: TaskContext) -> str:
        return ctx.name

    for name in ("mail:new", "sync:new"):
        assert (await client.wait(await client.enqueue(name))).result == {"wrapped": name}
    assert ran == ["before mail:new", "before sync:new"]


async def test_what_goes_through_a_codec_is_read_through_it(app, client):
    told = []

    class Backwards:
        name, takes_plain = "backwards", False

        def encode(self, value: Any, about: str) -> bytes:
            return json.dumps(value).encode()[::-1]

        def decode(self, data: bytes, about: str) -> Any:
            return json.loads(data[::-1])

    @app.task("secret", codec=Backwards(), on_failed="clean_up")
    async def secret(word: str) -> str:
        if word == "bad":
            raise ValueError("no")
        return word * 2

    @app.task("clean_up", codec=Backwards())
    async def clean_up(task_id: int) -> None:
        told.append(task_id)

    @app.on_failed
    async def note(failure, tx) -> None:
        told.append(failure.payload)

    task = await client.wait(await client.enqueue("secret", {"word": "abc"}))
    assert (task.payload, task.result) == ({"word": "abc"}, "abcabc")
    await assert_enqueued(client, "secret", {"word": "abc"})
    bad = await client.enqueue("secret", {"word": "bad"})
    await client.drain(raise_errors=False)
    assert told == [{"word": "bad"}, bad]


async def test_whatever_can_be_enqueued_can_be_here(app, client):
    def double(n: int) -> int:
        return 2 * n

    class Orders:
        def ship(self, order: int) -> str:
            return f"shipped {order}"

    app.register(double)
    app.expose(Orders, name="orders")
    assert (await client.wait(await client.enqueue(double, {"n": 3}))).result == 6
    call = {"target": "orders", "method": "ship", "payload": {"order": 7}, "idempotence_token": "once"}
    task_id = await client.enqueue(**call)
    assert (await client.wait(task_id)).result == "shipped 7"
    assert await client.enqueue(**call) == task_id


async def test_a_hook_that_raises_is_seen(app, client):
    @app.on_failed
    async def broken(failure, tx) -> None:
        raise LookupError("the hook's own")

    await client.enqueue("doomed")
    with pytest.raises(LookupError, match="the hook's own"):
        await client.drain()
    assert (await client.get_task(1)).status is TaskStatus.FAILED


async def test_what_needs_a_database_says_so(app, client):
    @app.task("transfer")
    async def transfer(ctx: TaskContext) -> None:
        async with ctx.transaction():
            pass

    await client.enqueue("transfer")
    with pytest.raises(ExceptionGroup) as caught:
        await client.drain()
    assert "has no database, so no ctx.transaction()" in str(caught.value.exceptions[0])
    with pytest.raises(InvalidInputError, match="has no schedules"):
        await client.enqueue("mail", {"to": "ada"}, cron="@daily")


# Wait, list, inline


async def test_waiting_runs_what_is_due(client, ran):
    await client.enqueue("mail", {"to": "first"})
    task_id = await client.enqueue("mail", {"to": "second"})
    assert (await client.wait(task_id, timeout="1s")).result["sent_to"] == "second"
    assert ran == ["first", "second"]


async def test_waiting_for_a_later_time_says_what_to_do(client):
    task_id = await client.enqueue("mail", {"to": "ada"}, delay="1h")
    with pytest.raises(TimeoutError, match="is scheduled, due at"):
        await client.wait(task_id)


async def test_a_handler_may_wait_for_its_child(app, client):
    @app.task("parent")
    async def parent(ctx: TaskContext) -> Any:
        return (await client.wait(await ctx.enqueue("add", {"a": 1, "b": 1}))).result

    assert (await client.wait(await client.enqueue("parent"))).result == 2


async def test_nobody_knows_a_task_that_was_never_enqueued(client):
    for ask in (client.get_task, client.wait):
        with pytest.raises(TaskNotFoundError):
            await ask(1)


async def test_tasks_are_listed_like_those_of_a_database(client):
    await client.enqueue("mail", {"to": "a"}, labels=["x", "y"])
    await client.enqueue("mail", {"to": "b"}, labels=["x"], delay="1h")
    await client.enqueue("add", {"a": 1, "b": 2})

    async def listed(**conditions) -> list[int]:
        return [task.id for task in await client.list_tasks(**conditions)]

    assert await listed() == [3, 2, 1]
    assert await listed(name="mail") == [2, 1]
    assert await listed(labels=["x"], status="pending") == [1]
    assert await listed(limit=1) == [3]


async def test_inline_a_task_runs_within_its_enqueue(app, ran):
    client = InMemoryClient(app, inline=True)
    task_id = await client.enqueue("mail", {"to": "ada"})
    await client.enqueue("mail", {"to": "later"}, delay="1h")
    assert ran == ["ada"]
    assert (await client.get_task(task_id)).status is TaskStatus.COMPLETED
    client.advance("1h")
    await client.drain()
    assert ran == ["ada", "later"]


async def test_inline_what_a_handler_raises_comes_out_of_enqueue(app):
    client = InMemoryClient(app, inline=True)
    with pytest.raises(ConnectionError, match="not today"):
        await client.enqueue("flaky")
    assert (await client.get_task(1)).status is TaskStatus.SCHEDULED
    with pytest.raises(FatalTaskError, match="enough"):
        await client.enqueue("doomed")


async def test_inline_a_snooze_is_no_error_and_a_quiet_failure_is_one(app):
    client = InMemoryClient(app, inline=True)

    @app.task("ask", retry="1m")
    async def ask(quietly: bool) -> None:
        raise RetryQuietlyError("busy") if quietly else SnoozeTask("1h")

    await client.enqueue("ask", {"quietly": False})
    with pytest.raises(RetryQuietlyError):
        await client.enqueue("ask", {"quietly": True})


async def test_inline_a_duplicate_does_not_run(app, ran):
    client = InMemoryClient(app, inline=True)
    for _ in range(2):
        await client.enqueue("mail", {"to": "ada"}, unique_tag="once")
    assert ran == ["ada"]


async def test_a_task_with_a_schedule_can_be_enqueued_by_hand(app, client, ran):
    @app.task("report", cron="@daily")
    async def report() -> None:
        ran.append("report")

    await client.enqueue("report", unique_tag="once")
    await client.drain()
    assert ran == ["report"]


async def test_of_many_none_is_enqueued_where_one_is_refused(client):
    await client.enqueue("mail", {"to": "a"}, unique_tag="a")
    for refused, error in [
        (TaskRequest("mail", {"to": "c"}, unique_tag="a", on_conflict="raise"), TaskAlreadyExistsError),
        (TaskRequest("mail", {"to": "c"}, depends_on=[404]), InvalidInputError),
    ]:
        with pytest.raises(error):
            await client.enqueue_many([TaskRequest("mail", {"to": "b"}, unique_tag="b"), refused])
        assert len(await client.list_tasks()) == 1
    assert await client.enqueue("mail", {"to": "b"}, unique_tag="b") == 2


async def test_a_handler_that_swallows_its_cancellation_has_timed_out(app, client):
    @app.task("stubborn", timeout="10ms")
    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "done"

    task_id = await client.enqueue("stubborn")
    await client.drain(raise_errors=False)
    task = await client.get_task(task_id)
    assert (task.status, task.reason, task.last_error) == ("failed", "timeout", "timed out after 10ms")


async def test_a_cancellation_of_a_handlers_own_is_its_failure_and_that_of_the_test_is_none(app, client):
    started = asyncio.Event()

    @app.task("gives_up")
    async def gives_up() -> None:
        raise asyncio.CancelledError

    @app.task("goes_on")
    async def goes_on() -> None:
        started.set()
        await asyncio.sleep(60)

    task_id = await client.enqueue("gives_up")
    await client.drain(raise_errors=False)
    assert (await client.get_task(task_id)).last_error == "CancelledError"

    await client.enqueue("goes_on")
    draining = asyncio.create_task(client.drain())
    await started.wait()
    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining


async def test_what_a_handler_enqueues_wrongly_is_an_error_and_no_invalid_result(app, client):
    @app.task("careless")
    async def careless(ctx: TaskContext) -> None:
        await ctx.enqueue("mail", {"to": 3})

    task_id = await client.enqueue("careless")
    await client.drain(raise_errors=False)
    assert (await client.get_task(task_id)).reason == "error"


async def test_a_deadline_passes_for_what_waits_too(client):
    later = await client.enqueue("mail", {"to": "a"}, delay="2h", deadline="1h", unique_tag="a")
    first = await client.enqueue("mail", {"to": "b"}, delay="3h")
    behind = await client.enqueue("mail", {"to": "c"}, depends_on=[first], deadline="1h")
    client.advance("90m")
    await client.drain()
    for task_id in (later, behind):
        task = await client.get_task(task_id)
        assert (task.status, task.reason, task.attempts) == ("expired", "deadline passed", 0)
    assert (await client.get_task(first)).status == "scheduled"


async def test_dependencies_that_have_ended_count_at_once(client):
    good = await client.enqueue("mail", {"to": "a"})
    bad = await client.enqueue("doomed")
    open_one = await client.enqueue("mail", {"to": "b"}, depends_on=[good], delay="1h")
    assert (await client.get_task(open_one)).status == "waiting"
    await client.drain(raise_errors=False)
    assert (await client.get_task(open_one)).status == "scheduled"
    for dependency, status in ((good, "pending"), (bad, "cancelled")):
        task_id = await client.enqueue("mail", {"to": "c"}, depends_on=[dependency])
        assert (await client.get_task(task_id)).status == status


async def test_a_serial_id_needs_a_key(client):
    with pytest.raises(InvalidInputError, match="serial_id needs a serial_key"):
        await client.enqueue("mail", {"to": "a"}, serial_id=1)
