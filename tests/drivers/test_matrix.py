"""The same calls by every driver: in the caller's transaction, with the same rows and the same errors."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asynctaskd import (
    App,
    Cron,
    InvalidInputError,
    InvalidPayloadError,
    RetryPolicy,
    SchemaVersionError,
    TaskAlreadyExistsError,
    TaskRequest,
    UnknownTaskError,
)
from asynctaskd.postgres.migrate import migrate
from asynctaskd.telemetry.metrics import Metrics
from tests.support.shop.background import add, app, divide, note
from tests.support.traces import Spans, is_child
from tests.support.ways import WAYS, Call, Way, many, one

if TYPE_CHECKING:
    WorkOff = Callable[[App], Awaitable[None]]

IN_KOLKATA = datetime(2031, 3, 1, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
AWKWARD = {"text": "100% :p1 $1 %s \\ ' \" ✓", ":p1": [1, 2.5, None, True, {"%s": []}], "large": 2**62}
FULL: dict[str, Any] = {
    "priority": 3,
    "weight": 7,
    "labels": ["mail", "eu"],
    "tags": ["a tag", "ünïcode", "100%", ":p1"],
    "unique_tag": "only one",
    "unique_until": "finished",
    "serial_key": "a key",
    "serial_id": 2**40,
    "run_at": IN_KOLKATA,
    "deadline": IN_KOLKATA + timedelta(days=1),
    "timeout": "1m500ms",
    "retry": RetryPolicy("1m,2m", max_attempts=4),
    "keep": timedelta(days=2, microseconds=1000),
    "metadata": {"who": "ops", "when": "12:30", "share": "50%"},
}
OTHERS = [way for way in WAYS if way != "asyncpg"]

by_every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
by_other_ways = pytest.mark.parametrize("way", [WAYS[name] for name in OTHERS], ids=OTHERS)


async def rows_of(look: asyncpg.Connection, schema: str = "asynctaskd") -> list[dict[str, Any]]:
    """The tasks, but for what differs between any two."""
    rows = await look.fetch(f"SELECT * FROM {schema}.tasks ORDER BY id")
    different = {"id", "root_id", "created_at"}
    return [{name: value for name, value in row.items() if name not in different} for row in rows]


@by_every_way
async def test_a_transaction_that_rolls_back_leaves_nothing(
    way: Way, dsn_of_shop: str, look: asyncpg.Connection, work_off: WorkOff
) -> None:
    [task_id, ids] = await way(
        dsn_of_shop, one(add, {"a": 1, "b": 2}), many(add.request(3, 4)), app=app, commit=False
    )
    assert (task_id > 0, len(ids)) == (True, 1)

    await work_off(app)
    assert await look.fetchval("SELECT count(*) FROM orders") == 0
    assert await look.fetchval("SELECT count(*) FROM asynctaskd.all_tasks") == 0


@by_every_way
async def test_a_transaction_that_commits_leaves_exactly_one_task_and_a_worker_runs_it(
    way: Way, dsn_of_shop: str, look: asyncpg.Connection, work_off: WorkOff
) -> None:
    [task_id] = await way(dsn_of_shop, one("add", {"a": 1, "b": 2}), app=app)

    assert await look.fetchval("SELECT count(*) FROM orders") == 1
    await work_off(app)
    assert [
        tuple(row) for row in await look.fetch("SELECT id, status, result FROM asynctaskd.all_tasks")
    ] == [(task_id, "completed", "3")]


@by_other_ways
async def test_every_option_arrives_as_it_does_with_asyncpg(
    way: Way, dsn_of_shop: str, look: asyncpg.Connection
) -> None:
    calls = [one("note", AWKWARD, **FULL), one("note"), one(note, labels=[], tags=[]), one("note", keep=0)]
    await WAYS["asyncpg"](dsn_of_shop, *calls)
    expected = await rows_of(look)
    await look.execute("TRUNCATE asynctaskd.tasks, asynctaskd.unique_tags")

    await way(dsn_of_shop, *calls)
    assert await rows_of(look) == expected
    assert (expected[0]["run_at"], expected[0]["keep"]) == (
        IN_KOLKATA,
        timedelta(days=2, microseconds=1000),
    )


@by_other_ways
async def test_every_option_of_many_arrives_as_it_does_with_asyncpg(
    way: Way, dsn_of_shop: str, look: asyncpg.Connection
) -> None:
    calls = [
        many(TaskRequest("note", AWKWARD, **FULL), TaskRequest("note"), TaskRequest("add", [1], tags=["x"]))
    ]
    await WAYS["asyncpg"](dsn_of_shop, *calls)
    expected = await rows_of(look)
    await look.execute("TRUNCATE asynctaskd.tasks, asynctaskd.unique_tags")

    [ids] = await way(dsn_of_shop, *calls)
    assert await rows_of(look) == expected
    assert ids == sorted(ids)
    assert len(ids) == 3


@by_every_way
async def test_a_payload_comes_back_as_it_was(way: Way, dsn_of_shop: str, look: asyncpg.Connection) -> None:
    await way(dsn_of_shop, one("note", AWKWARD, metadata=AWKWARD), many(TaskRequest("note", AWKWARD)))
    stored = await look.fetch("SELECT payload, metadata FROM asynctaskd.tasks ORDER BY id")
    assert [json.loads(row["payload"]) for row in stored] == [AWKWARD, AWKWARD]
    assert json.loads(stored[0]["metadata"]) == AWKWARD


@by_every_way
async def test_durations_count_from_the_databases_clock(
    way: Way, dsn_of_shop: str, look: asyncpg.Connection
) -> None:
    await way(dsn_of_shop, one("note", delay="1h", deadline=timedelta(hours=2)))
    [row] = await look.fetch(
        "SELECT run_at - created_at AS delay, deadline - created_at AS deadline FROM asynctaskd.tasks"
    )
    assert abs(row["delay"] - timedelta(hours=1)) < timedelta(minutes=1)
    assert abs(row["deadline"] - timedelta(hours=2)) < timedelta(minutes=1)


@by_every_way
async def test_tasks_of_one_transaction_may_depend_on_each_other(
    way: Way, dsn_of_shop: str, look: asyncpg.Connection
) -> None:
    [first] = await way(dsn_of_shop, one("note"))
    [child, later] = await way(dsn_of_shop, one("note", parent_id=first), one("note", depends_on=[first]))
    rows = await look.fetch("SELECT id, parent_id, depends_on, status FROM asynctaskd.all_tasks ORDER BY id")
    assert [tuple(row) for row in rows[1:]] == [
        (child, first, [], "pending"),
        (later, None, [first], "waiting"),
    ]


@by_every_way
async def test_a_unique_tag_gives_the_id_of_the_first(
    way: Way, dsn_of_shop: str, look: asyncpg.Connection
) -> None:
    [first, second] = await way(dsn_of_shop, one("note", unique_tag="t"), one("note", unique_tag="t"))
    assert first == second
    assert await look.fetchval("SELECT count(*) FROM asynctaskd.tasks") == 1


@by_every_way
async def test_many_may_be_none(way: Way, dsn_of_shop: str) -> None:
    assert await way(dsn_of_shop, many()) == [[]]


@by_every_way
async def test_the_option_cron_makes_a_schedule(way: Way, dsn_of_shop: str, look: asyncpg.Connection) -> None:
    cron = Cron("0 30 2 * * *", zone="Europe/Vienna", missed="all", limit=5, overlap="allow")
    [task_id] = await way(dsn_of_shop, one("report", {}, cron=cron, tags=["t"], deadline="1h"), app=app)
    row = await look.fetchrow("SELECT * FROM asynctaskd.schedules")
    assert (row["name"], row["task"], row["expression"], row["zone"]) == (
        "report", "report", "0 30 2 * * *", "Europe/Vienna",
    )  # fmt: skip
    assert (row["missed"], row["missed_limit"], row["overlap"]) == ("all", 5, "allow")
    assert (row["reserved_task"], json.loads(row["options"])["tags"]) == (task_id, ["t"])


@by_every_way
async def test_a_codec_encodes_what_is_sent_and_a_worker_decodes_it(
    way: Way, dsn_of_shop: str, look: asyncpg.Connection, work_off: WorkOff
) -> None:
    calls = [one("seal", {"text": "a"}), many(TaskRequest("seal", {"text": "b"}), TaskRequest("note"))]
    await way(dsn_of_shop, *calls, app=app)
    stored = await look.fetch("SELECT payload FROM asynctaskd.tasks WHERE name = 'seal'")
    assert [json.loads(row["payload"])[:8] for row in stored] == ["msgpack:"] * 2

    await work_off(app)
    assert await look.fetchval("SELECT bool_and(status = 'completed') FROM asynctaskd.all_tasks")


@by_every_way
async def test_functions_and_methods_of_targets_are_enqueued_too(
    way: Way, dsn_of_shop: str, look: asyncpg.Connection
) -> None:
    call = one(target="shop:Orders", method="ship", payload={"order": 7}, idempotence_token="t")
    first, second = await way(dsn_of_shop, call, call)
    await way(dsn_of_shop, one(divide, {"a": 7, "b": 2}), app=app)
    assert first == second
    assert await look.fetchval("SELECT array_agg(name ORDER BY id) FROM asynctaskd.tasks") == [
        "shop:Orders.ship", "divide",
    ]  # fmt: skip


@by_every_way
async def test_a_schema_of_another_name_will_do(way: Way, dsn_of_shop: str, look: asyncpg.Connection) -> None:
    await migrate(dsn_of_shop, schema="queue")
    await way(dsn_of_shop, one("note", priority=1), many(TaskRequest("note")), schema="queue")
    assert [row["name"] for row in await rows_of(look, "queue")] == ["note", "note"]
    assert await rows_of(look) == []


@by_every_way
async def test_a_schema_that_is_not_there_is_named(way: Way, dsn_of_shop: str) -> None:
    with pytest.raises(SchemaVersionError, match="nowhere.*asynctaskd migrate"):
        await way(dsn_of_shop, one("note"), schema="nowhere")


@by_every_way
async def test_what_is_no_name_of_a_schema_reaches_no_sql(way: Way, dsn_of_shop: str) -> None:
    with pytest.raises(InvalidInputError, match="schema must be 1 to 44 characters a-z 0-9 _"):
        await way(dsn_of_shop, one("note"), schema='a"; DROP SCHEMA asynctaskd CASCADE; --')


# Errors

BIG_FOR_THE_DATABASE = {"numbers": [1] * 520_000}
"""In Python's compact form less than 1 MiB, in PostgreSQL's more."""

REFUSED: dict[str, tuple[type[Exception], Call]] = {
    "a tag that is taken": (TaskAlreadyExistsError, one("note", unique_tag="taken", on_conflict="raise")),
    "a tag that is taken, of many": (
        TaskAlreadyExistsError,
        many(TaskRequest("note"), TaskRequest("note", unique_tag="taken", on_conflict="raise")),
    ),
    "a parent that isn't there": (InvalidInputError, one("note", parent_id=404)),
    "a dependency that isn't there": (InvalidInputError, one("note", depends_on=[404])),
    "an id in no line": (InvalidInputError, one("note", serial_id=1)),
    "a payload too large": (InvalidPayloadError, one("note", {"text": "x" * 2**20})),
    "a payload too large for the database": (InvalidPayloadError, one("note", BIG_FOR_THE_DATABASE)),
    "a payload too large for the database, of many": (
        InvalidPayloadError,
        many(TaskRequest("note"), TaskRequest("note", BIG_FOR_THE_DATABASE)),
    ),
    "a payload that doesn't fit": (InvalidPayloadError, one("add", {"a": 1})),
    "a payload that doesn't fit the definition given": (InvalidPayloadError, one(add, {"a": 1, "b": "x"})),
    "a name that the App doesn't know": (UnknownTaskError, one("nobody")),
    "such a name among many": (UnknownTaskError, many(TaskRequest("note"), TaskRequest("nobody"))),
    "what is no name": (InvalidInputError, one("no name")),
    "a naive moment": (InvalidInputError, one("note", run_at=datetime(2030, 1, 1))),  # noqa: DTZ001
    "an option that nobody knows": (InvalidInputError, one("note", prioritty=1)),
    "a priority below 0": (InvalidInputError, one("note", priority=-1)),
    "a payload beside that of a request": (InvalidInputError, one(add.request(1, 2), {"a": 1})),
    "a schedule of many": (InvalidInputError, many(TaskRequest("note", cron="@daily"))),
    "what is no request": (InvalidInputError, many("note")),  # type: ignore[arg-type]  # that is the point
    "a schedule whose tasks end at an instant": (
        InvalidInputError,
        one("note", cron="@daily", deadline=datetime(2030, 1, 1, tzinfo=UTC)),
    ),
    "a schedule whose payload doesn't fit": (InvalidPayloadError, one("add", cron="@daily")),
}


@by_other_ways
@pytest.mark.parametrize("kind, call", REFUSED.values(), ids=REFUSED.keys())
async def test_an_error_is_the_one_that_asyncpg_gets(
    way: Way, dsn_of_shop: str, look: asyncpg.Connection, kind: type[Exception], call: Call
) -> None:
    [taken] = await WAYS["asyncpg"](dsn_of_shop, one("note", unique_tag="taken"))
    with pytest.raises(kind) as expected:
        await WAYS["asyncpg"](dsn_of_shop, call, app=app)

    with pytest.raises(kind) as raised:
        await way(dsn_of_shop, call, app=app)
    assert type(raised.value) is type(expected.value)
    assert str(raised.value) == str(expected.value)
    assert vars(raised.value) == vars(expected.value)
    if kind is TaskAlreadyExistsError:
        assert raised.value.task_id == taken  # type: ignore[attr-defined]  # it has one
    assert await look.fetchval("SELECT count(*) FROM asynctaskd.tasks") == 1


@by_every_way
async def test_what_is_refused_before_it_is_sent_leaves_the_transaction_as_it_was(
    way: Way, dsn_of_shop: str, look: asyncpg.Connection
) -> None:
    def refused(enqueuer: Any, connection: Any) -> Any:
        with pytest.raises(InvalidInputError):
            enqueuer.enqueue(connection, "no name").send(None)
        return enqueuer.enqueue(connection, "note")

    await way(dsn_of_shop, refused)
    assert await look.fetchval("SELECT count(*) FROM asynctaskd.tasks") == 1


@by_every_way
async def test_what_befalls_the_transaction_is_told_in_the_drivers_own_words(
    way: Way, dsn_of_shop: str, look: asyncpg.Connection
) -> None:
    async with look.transaction():
        await look.execute("SELECT asynctaskd.enqueue('note', unique_tag => 'held')")
        with pytest.raises(way.error) as raised:
            await way(dsn_of_shop, one("note", unique_tag="held"), before="SET LOCAL lock_timeout = '20ms'")
    assert "lock timeout" in str(raised.value)


@by_every_way
async def test_a_definition_is_checked_without_an_app_too(way: Way, dsn_of_shop: str) -> None:
    with pytest.raises(InvalidPayloadError, match="'add'"):
        await way(dsn_of_shop, one(add, {"a": "x", "b": 1}))


@by_every_way
async def test_a_model_and_values_that_json_does_not_have_are_written(
    way: Way, dsn_of_shop: str, look: asyncpg.Connection
) -> None:
    await way(dsn_of_shop, one("report", {"day": date(2030, 1, 2)}), app=app)
    assert json.loads(await look.fetchval("SELECT payload FROM asynctaskd.tasks")) == {"day": "2030-01-02"}


@by_every_way
async def test_what_is_enqueued_in_a_span_belongs_to_it(
    way: Way, dsn_of_shop: str, look: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = Spans(monkeypatch)
    with spans.tracer.start_as_current_span("request") as request:
        await way(dsn_of_shop, one("add", {"a": 1, "b": 2}), many(TaskRequest("add", {"a": 1, "b": 2})))
    carried = [json.loads(row["metadata"])["traceparent"][3:52] for row in await rows_of(look)]
    sent = spans.named("send add")
    assert [span.attributes["messaging.destination.name"] for span in sent] == ["add", "add"]
    assert all(is_child(span, request) for span in sent)
    assert carried == [f"{span.context.trace_id:032x}-{span.context.span_id:016x}" for span in sent]


@by_every_way
async def test_what_every_driver_enqueues_is_counted(way: Way, dsn_of_shop: str) -> None:
    metrics = Metrics()
    await way(dsn_of_shop, one("add", {"a": 1, "b": 2}), many(*[TaskRequest("add", {"a": 1, "b": 2})] * 3))
    told = metrics.registry.get_sample_value("asynctaskd_tasks_enqueued_total", {"task": "add"})
    metrics.close()
    assert told == 4
