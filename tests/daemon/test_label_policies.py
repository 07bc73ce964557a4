"""What labels allow their tasks, and what an App declares of them."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from asynctaskd import App, InvalidDefinitionError, InvalidInputError, RetryPolicy, TaskContext


async def tell(client) -> dict:
    config = await client.runtime_config()
    return {
        "limits": config.limits,
        "max_run_times": config.max_run_times,
        "max_attempts": config.max_attempts,
    }


async def test_a_labels_run_time_ends_executions_that_would_be_allowed_longer(
    app, running, client, tables, configure
):
    @app.task("slow", timeout="1h", labels=["mail"])
    async def slow(payload: dict) -> None:
        await asyncio.Event().wait()

    await configure(max_run_times={"mail": "50ms", "other": "1ms"})
    async with running(app, labels=["mail"]):
        row = await tables.until_status(await client.enqueue("slow"), "failed")
    assert (row["reason"], row["last_error"]) == ("timeout", "timed out after 50ms")


async def test_a_handler_cant_extend_its_time_beyond_its_labels(app, running, client, tables, configure):
    @app.task("slow", timeout="10ms", labels=["mail"])
    async def slow(ctx: TaskContext) -> None:
        await ctx.extend("1h")
        await asyncio.Event().wait()

    await configure(max_run_times={"mail": "100ms"})
    async with running(app, labels=["mail"]):
        row = await tables.until_status(await client.enqueue("slow"), "failed")
    assert row["last_error"] == "timed out after 100ms"


async def test_of_several_labels_the_strictest_counts_and_a_shorter_timeout_stays(
    app, running, client, tables, configure
):
    timeouts = {}

    @app.task("seen", timeout="1h")
    async def seen(payload: dict, ctx: TaskContext) -> None:
        timeouts[payload["n"]] = ctx.remaining()

    await configure(max_run_times={"a": "20m", "b": "10m"})
    async with running(app, labels=["a", "b", "c"]):
        for number, options in enumerate(
            [{"labels": ["a", "b", "c"]}, {"labels": ["a"], "timeout": "5m"}, {"labels": ["c"]}, {}]
        ):
            await client.wait(await client.enqueue("seen", {"n": number}, **options), timeout="20s")
    minutes = [round(timeouts[number] / timedelta(minutes=1)) for number in range(4)]
    assert minutes == [10, 5, 60, 60]


@pytest.mark.parametrize(("own", "runs"), [(-1, 3), (5, 3), (2, 2), (0, 1)])
async def test_a_tasks_own_attempts_are_capped_by_its_labels(
    app, running, client, tables, configure, own, runs
):
    @app.task("broken", retry=RetryPolicy("0s", max_attempts=own), labels=["mail"])
    async def broken(payload: dict) -> None:
        raise ValueError("no")

    await configure(max_attempts={"mail": 3})
    async with running(app, labels=["mail"]):
        row = await tables.until_status(await client.enqueue("broken"), "failed")
    assert row["attempts"] == runs


async def test_a_cap_that_is_set_later_holds_for_tasks_that_wait_already(
    app, running, client, tables, configure, applied, recorder
):
    @app.task("broken", retry=RetryPolicy("0s", max_attempts=-1), labels=["mail"])
    async def broken(payload: dict) -> None:
        raise ValueError("no")

    task_id = await client.enqueue("broken", labels=["mail"])
    async with running(app, labels=["mail"]):
        await recorder.wait_for("task.retried", times=3)
        await configure(max_attempts={"mail": 2})
        report = await client.update_runtime_config(default_weight=2)
        assert report.status == "converged"
        await tables.until_status(task_id, "failed")


# Declared by an App


async def test_what_an_app_declares_is_written_where_nothing_was_said(app, running, client):
    app.label("EMAIL", max_running=50, max_run_time="1h", max_attempts=100)
    app.label("SMS", max_run_time=timedelta(minutes=2))
    async with running(app):
        assert await tell(client) == {
            "limits": {"EMAIL": 50},
            "max_run_times": {"EMAIL": "1h", "SMS": "2m"},
            "max_attempts": {"EMAIL": 100},
        }


async def test_what_operators_have_set_is_never_overwritten(app, running, client):
    await client.update_runtime_config(limits={"EMAIL": 5, "other": 1}, max_attempts={"EMAIL": 7})
    app.label("EMAIL", max_running=50, max_run_time="1h", max_attempts=100)
    async with running(app):
        assert await tell(client) == {
            "limits": {"EMAIL": 5, "other": 1},
            "max_run_times": {"EMAIL": "1h"},
            "max_attempts": {"EMAIL": 7},
        }


async def test_workers_that_start_together_write_one_version(app, running, client):
    app.label("EMAIL", max_running=50)
    async with AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(running(app)) for _ in range(5)))
        assert (await client.runtime_config()).version == 1
    async with running(app):
        assert (await client.runtime_config()).version == 1


async def test_definitions_without_a_policy_take_their_labels(app):
    app.label("EMAIL", retry="1m,2m")

    @app.task("a", labels=["EMAIL"])
    async def a() -> None: ...

    @app.task("b", labels=["EMAIL"], retry="5s")
    async def b() -> None: ...

    @app.task("c")
    async def c() -> None: ...

    policies = [one.retry and one.retry.spec for one in (a, b, c)]
    assert policies == ["1m,2m", "5s", None]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a b", {"max_running": 1}, "a label must match"),
        ("a b", {}, "a label must match"),
        ("default", {"max_running": 1}, "reserved"),
        ("a", {"max_running": -1}, r"limits\[a\] must be at least 0, got -1"),
        ("a", {"max_run_time": "soon"}, r"max_run_times\[a\].*malformed duration"),
        ("a", {"max_run_time": "0s"}, "more than 0"),
        ("a", {"max_attempts": 0}, r"max_attempts\[a\] must be at least 1, got 0"),
        ("a", {"retry": "soon"}, "retry"),
    ],
)
def test_a_policy_that_breaks_a_rule_is_refused(app, name, options, message):
    with pytest.raises(InvalidDefinitionError, match=f"label '{name}'.*{message}"):
        app.label(name, **options)


def test_a_label_is_declared_once_and_before_the_tasks_that_take_its_policy():
    app = App()
    app.label("a", max_running=1)
    with pytest.raises(InvalidDefinitionError, match="label 'a' is declared twice"):
        app.label("a")

    @app.task("ship", labels=["b"])
    async def ship() -> None: ...

    with pytest.raises(InvalidDefinitionError, match="declare label 'b' before task 'ship'"):
        app.label("b", retry="1m")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_run_times": {"a": "0s"}}, r"max_run_times\[a\]"),
        ({"max_run_times": {"a": 5}}, r"max_run_times\[a\]"),
        ({"max_run_times": ["a"]}, "max_run_times must map labels to durations"),
        ({"max_attempts": {"a": 0}}, r"max_attempts\[a\] must be at least 1"),
        ({"max_attempts": {"worker:1": 1}}, "reserved"),
    ],
)
async def test_python_and_sql_refuse_the_same(client, pool, change, message):
    with pytest.raises(InvalidInputError, match=message):
        await client.update_runtime_config(**change)
    with pytest.raises(Exception, match=message):
        await pool.fetchval("SELECT asynctaskd.update_runtime_config($1::text::jsonb)", json.dumps(change))


async def test_a_start_doesnt_end_a_canary_and_declares_when_that_is_over(
    app, running, client, tables, configure
):
    app.label("EMAIL", max_running=50)
    async with running(App()) as canary:
        await configure(weights={"a": 2}, reach="canary", canary_worker=canary.worker_id)
        async with running(app, poll_interval="20ms"):
            assert await tables.value("SELECT reach FROM asynctaskd.runtime_configs") == "canary"
            await tables.execute("SELECT asynctaskd.promote_runtime_config(gen_random_uuid())")
            await tables.until("SELECT bool_or(limits ? 'EMAIL') FROM asynctaskd.runtime_configs")
    assert (await client.runtime_config()).weights == {"a": 2}


async def test_a_start_doesnt_wait_for_whoever_changes_the_configuration(app, running, tables):
    app.label("EMAIL", max_running=50)
    async with tables.transaction() as connection:
        await connection.execute("SELECT asynctaskd.lock_runtime_configs()")
        async with running(app):
            assert await tables.value("SELECT count(*) FROM asynctaskd.runtime_configs") == 0
