"""Traces: from whoever enqueues a task to each of its attempts, and to what these enqueue."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from contextvars import copy_context
from functools import partial
from io import StringIO

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from asynctaskd import Client, FatalTaskError, RetryPolicy, SnoozeTask, TaskContext, TaskRequest
from asynctaskd.telemetry import tracing
from asynctaskd.telemetry.logs import configure_logging
from tests.support.traces import Spans, is_child, is_linked

A_PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans(monkeypatch):
    return Spans(monkeypatch)


@pytest.fixture
def metadata(tables):
    """What a task's metadata says."""

    async def read(task_id):
        text = await tables.value("SELECT metadata::text FROM asynctaskd.all_tasks WHERE id = $1", task_id)
        return text and json.loads(text)

    return read


async def test_an_attempt_is_a_child_of_the_enqueue_and_linked_to_it(app, running, client, wait, spans):
    @app.task("greet")
    async def greet() -> None: ...

    with spans.tracer.start_as_current_span("request") as request:
        task_id = await client.enqueue("greet")
    async with running(app):
        await wait(task_id)
    sent, processed = spans.one("send greet"), spans.one("process greet")
    assert is_child(sent, request)
    assert is_child(processed, sent)
    assert is_linked(processed, sent)
    assert (sent.kind, processed.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert dict(sent.attributes) == {
        "messaging.system": "asynctaskd",
        "messaging.operation.type": "send",
        "messaging.operation.name": "send",
        "messaging.destination.name": "greet",
        "messaging.message.id": str(task_id),
    }
    assert dict(processed.attributes) == {
        "messaging.system": "asynctaskd",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": "greet",
        "messaging.message.id": str(task_id),
        "messaging.asynctaskd.attempt": 1,
    }
    assert processed.status.status_code is StatusCode.UNSET
    assert processed.instrumentation_scope.name == "asynctaskd"


async def test_each_attempt_has_a_span_and_a_failed_one_its_kind_of_error(app, running, client, wait, spans):
    @app.task("flaky", retry=RetryPolicy("1ms", max_attempts=3))
    async def flaky(ctx: TaskContext) -> None:
        if ctx.attempt == 1:
            raise LookupError("the secret of the handler")
        if ctx.attempt == 2:
            await asyncio.Event().wait()

    async with running(app):
        await wait(await client.enqueue("flaky", timeout="50ms"))
    attempts = spans.named("process flaky")
    assert [span.attributes["messaging.asynctaskd.attempt"] for span in attempts] == [1, 2, 3]
    assert all(is_child(span, spans.one("send flaky")) for span in attempts)
    assert [span.attributes.get("error.type") for span in attempts] == ["LookupError", "timeout", None]
    failed = [span.status.status_code is StatusCode.ERROR for span in attempts]
    assert failed == [True, True, False]
    assert all(span.status.description is None and not span.events for span in attempts)


async def test_what_a_handler_raises_to_come_back_later_is_no_error(app, running, client, tables, spans):
    @app.task("later")
    async def later() -> None:
        raise SnoozeTask("1h")

    async with running(app):
        await tables.until_status(await client.enqueue("later"), "scheduled")
    assert "error.type" not in spans.one("process later").attributes


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_handlers_own_spans_and_what_it_enqueues_belong_to_its_attempt(
    app, running, client, wait, spans, kind
):
    @app.task("child")
    async def child() -> None: ...

    async def work() -> None:
        with spans.tracer.start_as_current_span("query"):
            pass

    if kind == "async":

        @app.task("parent")
        async def parent(ctx: TaskContext) -> int:
            await asyncio.create_task(work())
            return await ctx.enqueue("child")
    else:
        loop = asyncio.get_running_loop()

        @app.task("parent")
        def parent(ctx: TaskContext) -> int:
            with spans.tracer.start_as_current_span("query"):
                pass
            return asyncio.run_coroutine_threadsafe(ctx.enqueue("child"), loop).result()

    async with running(app):
        done = await wait(await client.enqueue("parent"))
        await wait(done.result)
    attempt = spans.one("process parent")
    assert is_child(spans.one("query"), attempt)
    assert is_child(spans.one("send child"), attempt)
    assert is_child(spans.one("process child"), spans.one("send child"))


async def test_many_tasks_have_one_span_that_each_of_them_is_linked_to(app, running, client, wait, spans):
    @app.task("one")
    async def one() -> None: ...

    @app.task("two")
    async def two() -> None: ...

    alike = await client.enqueue_many([TaskRequest("one"), TaskRequest("one", metadata={"who": "ops"})])
    mixed = await client.enqueue_many([TaskRequest("one"), TaskRequest("two")])
    async with running(app):
        for task_id in (*alike, *mixed):
            await wait(task_id)
    first, second = spans.one("send one"), spans.one("send")
    assert (first.attributes["messaging.batch.message_count"], first.kind) == (2, SpanKind.PRODUCER)
    assert "messaging.destination.name" not in second.attributes
    assert sum(is_linked(span, first) for span in spans.named("process one")) == 2
    assert is_linked(spans.one("process two"), second)


async def test_an_enqueue_that_fails_has_its_kind_of_error(app, client, spans):
    with pytest.raises(ValueError, match="priority"):
        await client.enqueue("greet", priority=-1)
    failed = spans.one("send greet")
    assert failed.attributes["error.type"] == "asynctaskd.errors.InvalidInputError"
    assert not trace.get_current_span().get_span_context().is_valid


async def test_a_trace_context_that_sql_gives_is_taken(app, running, tables, wait, spans):
    @app.task("greet")
    async def greet() -> None: ...

    metadata = json.dumps({"traceparent": A_PARENT, "tracestate": "vendor=1"})
    task_id = await tables.value(
        "SELECT asynctaskd.enqueue('greet', '{}', metadata => $1::text::jsonb)", metadata
    )
    async with running(app):
        await wait(task_id)
    span = spans.one("process greet")
    assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" == A_PARENT[3:-3]
    assert span.get_span_context().trace_state.get("vendor") == "1"


@pytest.mark.parametrize(
    "given",
    [
        '{"traceparent": "nonsense"}',
        '{"traceparent": "00-00000000000000000000000000000000-b7ad6b7169203331-01"}',
        '{"traceparent": 7}',
        '{"traceparent": null, "tracestate": "a=1"}',
        '{"traceparent": {"a": [1]}}',
        f'{{"traceparent": "{"0" * 100_000}", "tracestate": "{"x" * 100_000}"}}',
        '[1, "traceparent"]',
        '"traceparent"',
        "null",
    ],
    ids=lambda given: given[:40],
)
async def test_what_is_no_trace_context_is_ignored(app, running, tables, wait, spans, given):
    @app.task("greet")
    async def greet() -> None: ...

    task_id = await tables.value(
        "INSERT INTO asynctaskd.tasks (name, status, payload, metadata)"
        " VALUES ('greet', 'pending', '{}', $1::text::jsonb) RETURNING id",
        given,
    )
    async with running(app):
        await wait(task_id)
    span = spans.one("process greet")
    assert span.parent is None
    assert span.links == ()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(traceparent=st.none() | st.text(max_size=128), tracestate=st.none() | st.text(max_size=200))
def test_no_text_whatever_spoils_an_attempt(monkeypatch, traceparent, tracestate):
    with monkeypatch.context() as patch:
        spans = Spans(patch)
        # In a context of its own, as executions are: it stays current there.
        begin = partial(tracing.begin_processing, "greet", 1, 1, traceparent, tracestate)
        copy_context().run(begin).end(None)
        assert spans.one("process greet")


async def test_a_sampling_decision_of_the_enqueuer_holds(app, running, tables, wait, spans):
    @app.task("greet")
    async def greet() -> None: ...

    unsampled = json.dumps({"traceparent": A_PARENT[:-1] + "0"})
    task_id = await tables.value(
        "SELECT asynctaskd.enqueue('greet', '{}', metadata => $1::text::jsonb)", unsampled
    )
    async with running(app):
        await wait(task_id)
    assert spans.named("process greet") == []


async def test_metadata_that_somebody_gave_stays_beside_the_trace_context(client, spans, metadata):
    beside = await metadata(await client.enqueue("greet", metadata={"who": "ops", "n": [1]}))
    assert beside.pop("traceparent").startswith("00-")
    assert beside == {"who": "ops", "n": [1]}
    own = {"traceparent": A_PARENT, "who": "ops"}
    assert await metadata(await client.enqueue("greet", metadata=own)) == own


async def test_a_second_enqueue_under_one_tag_changes_nothing(client, spans, metadata):
    first = await client.enqueue("greet", unique_tag="once")
    carried = await metadata(first)
    assert await client.enqueue("greet", unique_tag="once") == first
    assert await metadata(first) == carried


async def test_what_a_failure_hook_enqueues_belongs_to_the_last_attempt(
    app, running, pool, wait, spans, tables
):
    @app.task("clean_up")
    async def clean_up() -> None: ...

    @app.task("ship")
    async def ship() -> None:
        raise FatalTaskError("no stock")

    client = Client(pool, app)

    @ship.on_failed
    async def ship_failed(params, failure, tx) -> None:
        await client.enqueue("clean_up", connection=tx)

    async with running(app):
        await client.enqueue("ship")
        await tables.until("SELECT count(*) = 1 FROM asynctaskd.finished_tasks WHERE name = 'clean_up'")
    assert is_child(spans.one("send clean_up"), spans.one("process ship"))
    assert is_child(spans.one("process clean_up"), spans.one("send clean_up"))


async def test_a_failure_task_belongs_to_the_last_attempt(app, running, client, spans, tables):
    @app.task("refund")
    async def refund(taskID: int) -> None: ...  # noqa: N803  (the name that it has in definitions)

    @app.task("ship", on_failed="refund")
    async def ship() -> None:
        raise FatalTaskError("no stock")

    async with running(app):
        await client.enqueue("ship")
        await tables.until("SELECT count(*) = 1 FROM asynctaskd.finished_tasks WHERE name = 'refund'")
    assert is_child(spans.one("process refund"), spans.one("process ship"))


async def test_a_schedule_that_is_made_in_a_span_is_no_part_of_it(app, client, spans, tables):
    with spans.tracer.start_as_current_span("request"):
        await client.enqueue("greet", cron="@daily")
    assert await tables.value("SELECT strpos(s::text, 'traceparent') FROM asynctaskd.schedules AS s") == 0


async def test_lines_of_a_task_name_its_trace(app, running, client, tables, spans, recorder):
    @app.task("talk")
    async def talk(ctx: TaskContext) -> None:
        ctx.log.info("by its context")
        structlog.get_logger().info("by structlog")
        logging.getLogger("shop").info("by the standard library")
        await asyncio.to_thread(logging.getLogger("shop").info, "in a thread")
        raise FatalTaskError("enough")

    stream = StringIO()
    logs = configure_logging("info", "json", stream)
    try:
        async with running(app) as daemon:
            task_id = await client.enqueue("talk")
            await tables.until_status(task_id, "failed")
            await recorder.wait_for("task.failed")
        logs.flush()
    finally:
        logs.close()
        structlog.reset_defaults()
    lines = {line["event"]: line for line in map(json.loads, stream.getvalue().splitlines())}
    trace_id = f"{spans.one('process talk').get_span_context().trace_id:032x}"
    whose = {
        "task_id": task_id,
        "task": "talk",
        "attempt": 1,
        "worker_id": str(daemon.worker_id),
        "trace_id": trace_id,
    }
    told = ("by its context", "by structlog", "by the standard library", "in a thread", "task.failed")
    for event in told:
        assert whose.items() <= lines[event].items(), event
    assert "trace_id" not in lines["worker.stopped"]


async def test_a_worker_that_was_started_in_a_span_is_no_part_of_it(app, database, client, wait, spans):
    @app.task("greet")
    async def greet() -> None: ...

    task_id = await client.enqueue("greet", metadata={"traceparent": "none"})
    with spans.tracer.start_as_current_span("startup"):
        async with app.worker(database.dsn):
            await wait(task_id)
    assert spans.one("process greet").parent is None


async def test_without_a_provider_nothing_is_written_or_traced(
    app, running, client, wait, metadata, monkeypatch
):
    monkeypatch.setattr(tracing, "_source", tracing._Source())
    found = []

    @app.task("greet")
    async def greet() -> None:
        found.append(trace.get_current_span().get_span_context().is_valid)

    task_id = await client.enqueue("greet")
    async with running(app):
        await wait(task_id)
    assert await metadata(task_id) is None
    assert found == [False]


def test_a_provider_that_is_set_later_is_found(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(tracing, "_source", tracing._Source())
    monkeypatch.setattr(tracing, "monotonic", lambda: clock[0])
    assert tracing.begin_sending("greet") is None
    source = tracing._source
    spans = Spans(monkeypatch)
    monkeypatch.setattr(tracing, "_source", source)
    assert tracing.begin_sending("greet") is None  # it looks once a second
    clock[0] += 1.0
    tracing.begin_sending("greet").end(None)
    assert spans.one("send greet")


def test_opentelemetry_is_not_imported_by_who_does_not_use_it():
    program = (
        "import sys, asynctaskd.client, asynctaskd.daemon.supervisor\n"
        "from asynctaskd.telemetry import tracing\n"
        "assert tracing.begin_sending('a') is None and tracing.current_context() == {}\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
