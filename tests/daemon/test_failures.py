from __future__ import annotations

import asyncio
import json
import threading
from datetime import timedelta

import pytest
from pydantic import BaseModel, field_validator

from asynctaskd import (
    App,
    FatalTaskError,
    RetryPolicy,
    RetryQuietlyError,
    SnoozeTask,
    TaskContext,
    TaskFailedError,
)


async def test_a_failed_attempt_is_retried_after_the_policys_delay(app, running, client, tables, recorder):
    @app.task("flaky", retry=RetryPolicy("1h,2h", max_attempts=5))
    async def flaky() -> None:
        raise ValueError("not today")

    async with running(app):
        task_id = await client.enqueue("flaky")
        told = await recorder.wait_for("task.retried", task_id=task_id)
        row = await tables.task(task_id)
    assert row["status"] == "scheduled"
    assert (row["attempts"], row["reason"], row["last_error"]) == (1, "error", "ValueError: not today")
    assert row["run_at"] - row["claimed_at"] >= timedelta(hours=1)
    assert row["run_at"] - row["claimed_at"] < timedelta(hours=1, minutes=1)
    assert row["worker_id"] is None
    assert told["delay"] == timedelta(hours=1)
    assert await tables.events(task_id) == ["retried"]


async def test_each_failure_waits_for_its_own_entry_of_a_list(app, running, client, tables):
    @app.task("flaky", retry=RetryPolicy("1h,3h", max_attempts=5))
    async def flaky() -> None:
        raise ValueError("not today")

    waits = []
    async with running(app):
        task_id = await client.enqueue("flaky")
        await tables.until_status(task_id, "scheduled")
        for _ in range(3):
            row = await tables.task(task_id)
            waits.append(round((row["run_at"] - row["claimed_at"]) / timedelta(hours=1)))
            await client.run_now(task_id)
    assert waits == [1, 3, 3]


async def test_who_waits_for_a_failed_task_is_told_what_failed_how_often_and_why(app, running, client, wait):
    @app.task("ship", retry=RetryPolicy("0s", max_attempts=3))
    async def ship(often: bool) -> None:
        raise ValueError("no stock") if often else FatalTaskError("no such order")

    async with running(app):
        for often, attempts, why in (
            (True, 3, "ValueError: no stock"),
            (False, 1, "FatalTaskError: no such order"),
        ):
            task_id = await client.enqueue("ship", {"often": often})
            with pytest.raises(TaskFailedError) as caught:
                await wait(task_id)
            error = caught.value
            told = (error.task_id, error.name, error.attempts, error.max_attempts, error.last_error)
            assert told == (task_id, "ship", attempts, 3, why)
            assert str(error) == f"task 'ship' ({task_id}) failed after {attempts} of 3 attempts: {why}"


async def test_a_task_that_fails_twice_and_then_succeeds_completes(app, running, client, wait, tables):
    attempts = []

    @app.task("flaky", retry=RetryPolicy("1ms", max_attempts=3))
    async def flaky(ctx: TaskContext) -> int:
        attempts.append(ctx.attempt)
        if ctx.attempt < 3:
            raise ValueError("again")
        return ctx.attempt

    async with running(app, poll_interval="50ms"):
        done = await wait(await client.enqueue("flaky"))
    assert (done.result, done.attempts, attempts) == (3, 3, [1, 2, 3])
    assert await tables.events(done.id) == ["retried", "retried"]


async def test_a_retry_is_claimed_when_it_is_due_however_seldom_the_worker_polls(
    app, running, client, wait, tables
):
    @app.task("flaky", retry=RetryPolicy("50ms", max_attempts=2))
    async def flaky(ctx: TaskContext) -> None:
        if ctx.attempt == 1:
            raise ValueError("again")

    async with running(app, poll_interval="1h") as daemon:
        await tables.until_idle(daemon)
        await wait(await client.enqueue("flaky"))


async def test_the_last_allowed_failure_is_final(app, running, client, tables, recorder):
    @app.task("hopeless", retry=RetryPolicy("0s", max_attempts=3))
    async def hopeless() -> None:
        raise ValueError("never")

    async with running(app):
        task_id = await client.enqueue("hopeless")
        row = await tables.until_status(task_id, "failed")
        await recorder.wait_for("task.failed", task_id=task_id)
    assert (row["attempts"], row["reason"], row["last_error"]) == (3, "error", "ValueError: never")
    assert await tables.events(task_id) == ["retried", "retried", "failed"]


async def test_without_a_policy_the_first_failure_is_final(app, running, client, tables):
    @app.task("once")
    async def once() -> None:
        raise ValueError("no")

    async with running(app):
        row = await tables.until_status(await client.enqueue("once"), "failed")
    assert row["attempts"] == 1


async def test_a_retry_that_would_start_after_the_deadline_is_a_final_failure_now(
    app, running, client, tables
):
    @app.task("late", retry=RetryPolicy("2h", max_attempts=5))
    async def late() -> None:
        raise ValueError("no")

    async with running(app):
        row = await tables.until_status(await client.enqueue("late", deadline="1h"), "failed")
    assert row["attempts"] == 1
    assert "deadline" in row["last_error"]


def _raise(error: BaseException, chained: bool) -> None:
    if chained:
        raise RuntimeError("wrapped") from error
    raise error


@pytest.mark.parametrize("chained", [False, True], ids=["raised", "as a cause"])
@pytest.mark.parametrize("sync", [False, True], ids=["async", "thread"])
class TestSignals:
    def declare(self, app, sync, raising):
        def in_thread(ctx: TaskContext) -> int:
            raising(ctx)
            return ctx.attempt

        async def in_loop(ctx: TaskContext) -> int:
            raising(ctx)
            return ctx.attempt

        app.task("signal", retry=RetryPolicy("0s", max_attempts=3))(in_thread if sync else in_loop)

    async def test_a_fatal_error_ends_the_task_at_once(self, app, running, client, tables, sync, chained):
        self.declare(app, sync, lambda ctx: _raise(FatalTaskError("enough"), chained))
        async with running(app):
            task_id = await client.enqueue("signal")
            row = await tables.until_status(task_id, "failed")
        assert (row["attempts"], row["reason"]) == (1, "terminated")
        assert ("wrapped" if chained else "enough") in row["last_error"]
        assert await tables.events(task_id) == ["failed"]

    async def test_a_quiet_retry_leaves_an_event_only_where_it_is_final(
        self, app, running, client, tables, sync, chained
    ):
        self.declare(app, sync, lambda ctx: _raise(RetryQuietlyError("busy"), chained))
        async with running(app):
            task_id = await client.enqueue("signal")
            row = await tables.until_status(task_id, "failed")
        assert row["attempts"] == 3
        assert await tables.events(task_id) == ["failed"]

    async def test_a_snooze_gives_the_attempt_back(self, app, running, client, wait, tables, sync, chained):
        snoozes = iter([True] * 5)
        self.declare(app, sync, lambda ctx: next(snoozes, None) and _raise(SnoozeTask(timedelta(0)), chained))
        async with running(app):
            done = await wait(await client.enqueue("signal"))
        assert (done.attempts, done.result, done.claim_token) == (1, 1, 6)
        assert await tables.events(done.id) == ["snoozed"] * 5


async def test_a_snoozed_task_waits_for_its_time(app, running, client, tables, recorder):
    @app.task("later")
    async def later() -> None:
        raise SnoozeTask("1h")

    async with running(app):
        task_id = await client.enqueue("later")
        await recorder.wait_for("task.snoozed", task_id=task_id)
        row = await tables.task(task_id)
    assert (row["status"], row["attempts"]) == ("scheduled", 0)
    assert timedelta(hours=1) <= row["run_at"] - row["claimed_at"] < timedelta(hours=1, minutes=1)


@pytest.mark.parametrize("sync", [False, True], ids=["async", "thread"])
@pytest.mark.parametrize(
    "error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit, TimeoutError]
)
async def test_whatever_a_handler_raises_is_its_own_failure_and_not_the_daemons(
    app, running, client, tables, wait, error, sync
):
    async def in_loop(ok: bool) -> None:
        if not ok:
            raise error

    def in_thread(ok: bool) -> None:
        if not ok:
            raise error

    app.task("raise")(in_thread if sync else in_loop)
    async with running(app, concurrency=1):
        row = await tables.until_status(await client.enqueue("raise", {"ok": False}), "failed")
        await wait(await client.enqueue("raise", {"ok": True}))
    assert error.__name__ in row["last_error"]
    assert row["reason"] == "error"


async def test_a_stop_iteration_in_a_thread_is_a_failure_too(app, running, client, tables):
    @app.task("first")
    def first() -> None:
        next(iter([]))

    async with running(app):
        row = await tables.until_status(await client.enqueue("first"), "failed")
    assert "StopIteration" in row["last_error"]


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise SystemExit("even this")

    __repr__ = __str__


async def test_an_exception_that_cannot_be_put_into_words_is_named_by_its_type(app, running, client, tables):
    @app.task("mute")
    async def mute() -> None:
        raise UnspeakableError

    async with running(app):
        row = await tables.until_status(await client.enqueue("mute"), "failed")
    assert row["last_error"].startswith("UnspeakableError")


async def test_a_message_of_ten_megabytes_is_truncated_with_a_mark(app, running, client, tables):
    @app.task("loud")
    async def loud() -> None:
        raise ValueError("ä" * 10_000_000)

    async with running(app):
        row = await tables.until_status(await client.enqueue("loud"), "failed")
    assert len(row["last_error"].encode()) <= 65_536
    assert "truncated" in row["last_error"]


async def test_nul_and_surrogates_in_a_message_are_replaced(app, running, client, tables):
    @app.task("odd")
    async def odd() -> None:
        raise ValueError("a\x00b\ud800c")

    async with running(app):
        row = await tables.until_status(await client.enqueue("odd"), "failed")
    assert row["last_error"] == "ValueError: a\ufffdb\ufffdc"


class Order(BaseModel):
    amount: int

    @field_validator("amount")
    @classmethod
    def divide(cls, amount: int) -> int:
        return 1 // amount


@pytest.mark.parametrize(
    "payload", [{}, {"amount": "many"}, {"amount": 0}, {"order": 1}, [1], None], ids=repr
)
async def test_a_payload_that_does_not_fit_is_a_final_failure_with_no_params_for_the_hook(
    app, running, tables, payload
):
    told = []

    @app.task("ship", retry=RetryPolicy("1h"))
    async def ship(order: Order) -> None: ...

    @ship.on_failed
    async def ship_failed(params, failure, tx) -> None:
        told.append((params, failure.reason, failure.payload))

    async with running(app):
        task_id = await tables.value("SELECT asynctaskd.enqueue('ship', $1)", json.dumps(payload))
        row = await tables.until_status(task_id, "failed")
    assert (row["reason"], row["attempts"]) == ("invalid_payload", 1)
    assert told == [(None, "invalid_payload", payload)]


async def test_a_payload_of_64_levels_enqueued_by_sql_is_read(app, running, client, tables, wait):
    @app.task("deep")
    async def deep(payload: dict) -> int:
        return len(json.dumps(payload).replace(" ", ""))

    async with running(app):
        task_id = await tables.value(
            "SELECT asynctaskd.enqueue('deep', $1)", '{"a":' + "[" * 63 + "]" * 63 + "}"
        )
        assert (await wait(task_id)).result == 132


@pytest.mark.parametrize(
    "payload",
    ['{"a":' + "[" * 3000 + "]" * 3000 + "}", '{"a":' + "9" * 5000 + "}"],
    ids=["3000 levels", "5000 digits"],
)
async def test_a_payload_that_python_cannot_read_is_a_final_failure(
    app, running, tables, client, wait, payload
):
    @app.task("read")
    async def read(payload: dict) -> None: ...

    async with running(app):
        # Past the rules of enqueue, which would refuse it.
        task_id = await tables.value(
            "INSERT INTO asynctaskd.tasks (name, status, payload) VALUES ('read', 'pending', $1)"
            " RETURNING id",
            payload,
        )
        row = await tables.until_status(task_id, "failed")
        await wait(await client.enqueue("read", {}))
    assert row["reason"] == "invalid_payload"


async def test_an_unknown_name_waits_visibly_and_spends_no_attempt(app, running, client, tables, recorder):
    async with running(app):
        task_id = await client.enqueue("stranger")
        await recorder.wait_for("task.unknown_name", task_id=task_id)
        row = await tables.until_status(task_id, "scheduled")
    assert (row["reason"], row["attempts"]) == ("unknown_name", 0)
    assert timedelta(seconds=4) < row["run_at"] - row["claimed_at"] < timedelta(minutes=5)
    assert await tables.events(task_id) == []


async def test_an_unknown_name_runs_when_a_worker_that_knows_it_starts(
    app, running, client, tables, wait, recorder
):
    from asynctaskd import App

    async with running(App()):
        task_id = await client.enqueue("stranger")
        await tables.until_status(task_id, "scheduled")

    @app.task("stranger")
    async def stranger() -> str:
        return "known"

    async with running(app):
        done = await wait(task_id)
    assert (done.result, done.attempts, done.reason) == ("known", 1, None)


async def test_an_async_handler_is_cancelled_at_its_timeout(app, running, client, tables, soon):
    cancelled = asyncio.Event()
    seen = []

    @app.task("slow", timeout="50ms")
    async def slow(ctx: TaskContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append((ctx.cancelled, ctx.remaining()))
            cancelled.set()

    async with running(app):
        row = await tables.until_status(await client.enqueue("slow"), "failed")
    assert cancelled.is_set()
    assert seen == [(True, timedelta(0))]
    assert (row["reason"], row["last_error"]) == ("timeout", "timed out after 50ms")


async def test_a_timeout_is_a_failed_attempt_like_any_other(app, running, client, wait, tables):
    @app.task("slow", timeout="50ms", retry=RetryPolicy("0s", max_attempts=2))
    async def slow(ctx: TaskContext) -> None:
        if ctx.attempt == 1:
            await asyncio.Event().wait()

    async with running(app):
        done = await wait(await client.enqueue("slow"))
    assert done.attempts == 2
    assert await tables.events(done.id) == ["retried"]


async def test_a_thread_past_its_timeout_keeps_its_slot_and_its_row_until_it_ends(
    app, running, client, tables, wait
):
    timed_out, go_on = threading.Event(), threading.Event()

    @app.task("stubborn", timeout="50ms")
    def stubborn(ctx: TaskContext) -> str:
        while not ctx.cancelled:
            pass
        timed_out.set()
        go_on.wait(20)
        return "too late"

    @app.task("next")
    async def next_one() -> None: ...

    async with running(app, concurrency=1):
        task_id = await client.enqueue("stubborn")
        following = await client.enqueue("next")
        assert await asyncio.to_thread(timed_out.wait, 10)
        assert (await tables.task(task_id))["status"] == "running"
        assert (await tables.task(following))["status"] == "pending"
        go_on.set()
        row = await tables.until_status(task_id, "failed")
        await wait(following)
    assert (row["reason"], row["result"]) == ("timeout", None)


async def test_a_handler_that_swallows_its_cancellation_has_timed_out_all_the_same(
    app, running, client, tables, soon
):
    told, go_on = asyncio.Event(), asyncio.Event()

    @app.task("stubborn", timeout="50ms")
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.set()
        await go_on.wait()
        return "too late"

    async with running(app):
        task_id = await client.enqueue("stubborn")
        await soon(told)
        assert (await tables.task(task_id))["status"] == "running"
        go_on.set()
        row = await tables.until_status(task_id, "failed")
    assert (row["reason"], row["result"]) == ("timeout", None)


async def test_a_retry_function_that_raises_fails_the_task_with_its_message(app, running, client, tables):
    def broken(failures: int) -> timedelta:
        raise LookupError("no delay for you")

    @app.task("flaky", retry=RetryPolicy(broken))
    async def flaky() -> None:
        raise ValueError("first")

    async with running(app):
        row = await tables.until_status(await client.enqueue("flaky"), "failed")
    assert "first" in row["last_error"]
    assert "no delay for you" in row["last_error"]


async def test_a_retry_function_that_returns_a_negative_delay_fails_the_task_with_its_message(
    app, running, client, tables
):
    @app.task("flaky", retry=RetryPolicy(lambda _: timedelta(seconds=-1)))
    async def flaky() -> None:
        raise ValueError("first")

    async with running(app):
        row = await tables.until_status(await client.enqueue("flaky"), "failed")
    assert "first (not retried: the delay of retry policy" in row["last_error"]
    assert "must not be negative" in row["last_error"]


@pytest.mark.parametrize("policy", ["linear_10m", RetryPolicy(lambda n: timedelta(minutes=n))])
async def test_the_policy_of_the_app_holds_for_definitions_that_have_none(running, client, tables, policy):
    app = App(retry=policy)

    @app.task("plain")
    async def plain() -> None:
        raise ValueError("again")

    @app.task("own", retry=RetryPolicy("0s", max_attempts=1))
    async def own() -> None:
        raise ValueError("never again")

    async with running(app):
        retried = await tables.until_status(await client.enqueue("plain"), "scheduled")
        failed = await tables.until_status(await client.enqueue("own"), "failed")
        kept = await tables.until_status(await client.enqueue("plain", retry="1h,2h"), "scheduled")

    waits = (retried["run_at"] - retried["claimed_at"], kept["run_at"] - kept["claimed_at"])
    assert timedelta(minutes=1) <= waits[0] < timedelta(minutes=2)
    assert waits[1] >= timedelta(hours=1)
    assert failed["attempts"] == 1


async def test_an_exception_group_is_one_failure(app, running, client, tables):
    @app.task("many")
    async def many() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_fail("one"))
            group.create_task(_fail("two"))

    async with running(app):
        row = await tables.until_status(await client.enqueue("many"), "failed")
    assert "one" in row["last_error"]


async def _fail(why: str) -> None:
    raise ValueError(why)
