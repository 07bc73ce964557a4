"""The one way in: the SQL function, the client and its batches keep the same rules and give the same rows."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from asynctaskd import (
    Client,
    InvalidInputError,
    InvalidPayloadError,
    RetryPolicy,
    Task,
    TaskAlreadyExistsError,
    TaskRequest,
    TaskStatus,
)
from asynctaskd.definitions import rules
from asynctaskd.definitions.payload import check_payload
from asynctaskd.postgres.driver import StatementRefusedError, translated
from asynctaskd.postgres.records import DefinitionRow, Ended, Share, StrictLane, WorkerRow
from asynctaskd.postgres.store import Store
from asynctaskd.scheduling.retry import SPEC_PATTERN
from asynctaskd.task import Transition

if TYPE_CHECKING:
    from asyncpg import Connection, Pool, Record

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
NAME = re.escape(rules.NAME_PATTERN)

SQL_TYPES = {
    "priority": "integer", "weight": "integer", "labels": "text[]", "tags": "text[]", "serial_id": "bigint",
    "parent_id": "bigint", "delay": "text::interval", "run_at": "timestamptz", "deadline": "timestamptz",
    "deadline_after": "text::interval", "timeout": "text::interval", "max_attempts": "integer",
    "keep": "text::interval", "metadata": "jsonb",
}  # fmt: skip

by_examples = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class SQL:
    """The function, as psql, triggers and other languages call it. Errors come in our words."""

    def __init__(self, executor: Pool[Record] | Connection[Record]) -> None:
        self._executor = executor

    async def enqueue(self, name: str, payload: object = None, **options: Any) -> int:
        names, values = ["", ""], [name, json.dumps({} if payload is None else payload)]
        for option, value in _in_sql(options).items():
            values.append(value)
            names.append(f", {option} => ${len(values)}::{SQL_TYPES.get(option, 'text')}")
        with translated():
            statement = f"SELECT asynctaskd.enqueue($1, $2::text::jsonb{''.join(names)})"
            found: int = await self._executor.fetchval(statement, *values)
        return found


class Batch:
    """The client's `enqueue_many`, with the task in the middle of others."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def enqueue(self, name: str, payload: object = None, **options: Any) -> int:
        request = TaskRequest(name, payload, **options)
        [_, task_id, _] = await self._client.enqueue_many([TaskRequest("a"), request, TaskRequest("z")])
        return task_id


def _in_sql(options: dict[str, Any]) -> dict[str, Any]:
    given = dict(options)
    if isinstance(given.get("retry"), RetryPolicy):
        policy = given["retry"]
        given |= {"retry": policy.spec, "max_attempts": policy.max_attempts}
    if "deadline" in given and not isinstance(given["deadline"], datetime):
        given["deadline_after"] = given.pop("deadline")
    if "metadata" in given:
        given["metadata"] = json.dumps(given["metadata"])
    for option in ("delay", "timeout", "keep", "deadline_after"):
        if isinstance(given.get(option), timedelta):
            given[option] = f"{given[option].total_seconds()} seconds"
    return given


Door = SQL | Client | Batch


@pytest.fixture
def client(pool: Pool[Record]) -> Client:
    return Client(pool)


@pytest.fixture(params=["sql", "client", "batch"])
def door(request: pytest.FixtureRequest, pool: Pool[Record], client: Client) -> Door:
    return {"sql": SQL(pool), "client": client, "batch": Batch(client)}[request.param]


@pytest.fixture(params=["sql", "client"])
def single(request: pytest.FixtureRequest, pool: Pool[Record], client: Client) -> SQL | Client:
    return SQL(pool) if request.param == "sql" else client


@pytest.fixture
async def store(database: Any) -> AsyncIterator[Store]:
    opened = await Store.open(database.dsn, schema="asynctaskd")
    yield opened
    await opened.close()


@pytest.fixture
async def noon(connection: Connection[Record]) -> datetime:
    """It is noon, and stays it."""
    await set_clock(connection, NOON)
    return NOON


async def set_clock(connection: Connection[Record], moment: datetime) -> None:
    await connection.execute(
        "CREATE OR REPLACE FUNCTION asynctaskd.clock() RETURNS timestamptz"
        " LANGUAGE sql VOLATILE PARALLEL SAFE"
        f" RETURN timestamptz '{moment.isoformat()}'"
    )


async def worker(store: Store, *labels: str, idle: bool = False) -> Any:
    found = WorkerRow(
        uuid4(), uuid4(), uuid4(), None, "here", 1, "0", list(labels), [], 10, timedelta(seconds=30)
    )
    await store.register_worker(found)
    if idle:
        await store.set_idle(found.id, True)
    return found.id


async def claim(store: Store, worker_id: Any, *, slots: int = 10) -> list[int]:
    """Claim what is there without labels; the ids, in the order of claiming."""
    shares = [Share("", "default", slots, slots, 1, 0.0)]
    return [
        task.id
        for task in await store.claim(worker_id, [], strict=StrictLane(slots), slots=slots, shares=shares)
    ]


async def finish(store: Store, task_id: int, token: int = 1, status: str = "completed") -> set[int]:
    return await store.finalize([Ended(task_id, token, Transition(TaskStatus(status)), None)])


async def statuses(client: Client, *ids: int) -> list[str]:
    found = await client.statuses(ids)
    return [str(found[task_id]) for task_id in ids]


async def cancel(connection: Connection[Record], task_id: int) -> None:
    await connection.execute("SELECT asynctaskd.finish(ARRAY[$1::bigint], 'cancelled', 'test')", task_id)


# Options


async def test_a_task_without_options_is_pending_with_every_default(
    door: Door, client: Client, noon: datetime
) -> None:
    task = await client.get_task(await door.enqueue("send:a/b.c-d", {"n": 1}))
    assert task == Task(
        id=task.id, name="send:a/b.c-d", payload={"n": 1}, status=TaskStatus.PENDING, priority=0, weight=1,
        labels=[], tags=[], unique_tag=None, serial_key=None, serial_id=None, parent_id=None, depends_on=[],
        run_at=None, deadline=None, timeout=None, attempts=0, losses=0, max_attempts=None, worker_id=None,
        claim_token=0, claimed_at=None, finished_at=None, created_at=noon, result=None, last_error=None,
        reason=None, progress=None, metadata=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    "options, columns",
    [
        ({"priority": 0}, {"priority": 0}),
        ({"priority": 2**31 - 1}, {"priority": 2**31 - 1}),
        ({"weight": 2**31 - 1}, {"weight": 2**31 - 1}),
        ({"labels": ["b", "a", "B", "a"]}, {"labels": ["B", "a", "b"]}),
        ({"labels": []}, {"labels": []}),
        ({"labels": [f"l{n:02}" for n in range(16)]}, {"labels": [f"l{n:02}" for n in range(16)]}),
        ({"labels": ["same"] * 17}, {"labels": ["same"]}),
        ({"labels": ["x" * 128]}, {"labels": ["x" * 128]}),
        ({"tags": ["z", "a,b", "ü"]}, {"tags": ["z", "a,b", "ü"]}),
        ({"tags": ["x" * 512]}, {"tags": ["x" * 512]}),
        ({"unique_tag": "u'u"}, {"unique_tag": "u'u"}),
        ({"unique_tag": "\U0001f600" * 512}, {"unique_tag": "\U0001f600" * 512}),
        ({"serial_key": "k"}, {"serial_key": "k", "serial_id": None}),
        ({"serial_key": "k", "serial_id": -(2**63)}, {"serial_id": -(2**63)}),
        ({"serial_key": "k", "serial_id": 2**63 - 1}, {"serial_id": 2**63 - 1}),
        ({"delay": "1h"}, {"status": "scheduled", "run_at": NOON + HOUR}),
        ({"delay": "1h30m"}, {"status": "scheduled", "run_at": NOON + 1.5 * HOUR}),
        ({"delay": "500ms"}, {"status": "scheduled", "run_at": NOON + timedelta(milliseconds=500)}),
        ({"delay": "36525d"}, {"status": "scheduled", "run_at": NOON + timedelta(days=36525)}),
        ({"delay": "0s"}, {"status": "pending", "run_at": NOON}),
        ({"run_at": NOON + HOUR}, {"status": "scheduled", "run_at": NOON + HOUR}),
        ({"run_at": NOON - HOUR}, {"status": "pending", "run_at": NOON - HOUR}),
        ({"run_at": datetime(9999, 12, 31, tzinfo=UTC)}, {"run_at": datetime(9999, 12, 31, tzinfo=UTC)}),
        ({"deadline": NOON + HOUR}, {"deadline": NOON + HOUR}),
        ({"deadline": NOON - HOUR}, {"deadline": NOON - HOUR, "status": "pending"}),
        ({"deadline": "1h"}, {"deadline": NOON + HOUR}),
        ({"timeout": "5s"}, {"timeout": timedelta(seconds=5)}),
        ({"timeout": "1ms"}, {"timeout": timedelta(milliseconds=1)}),
        ({"retry": "1m,2m,4m"}, {"max_attempts": 10}),
        ({"retry": RetryPolicy("1m", max_attempts=-1)}, {"max_attempts": -1}),
        ({"retry": RetryPolicy("1m", max_attempts=4)}, {"max_attempts": 4}),
        ({"metadata": {"a": [None]}}, {"metadata": {"a": [None]}}),
    ],
)
async def test_every_option_becomes_a_column(
    door: Door, client: Client, noon: datetime, options: dict[str, Any], columns: dict[str, Any]
) -> None:
    task = await client.get_task(await door.enqueue("a", **options))
    assert {name: getattr(task, name) for name in columns} == columns


@pytest.mark.parametrize(
    "options, columns",
    [
        ({"retry": "1m,2m,4m"}, {"retry": "1m,2m,4m"}),
        ({"retry": "linear_1m"}, {"retry": "linear_1m"}),
        (
            {"retry": "exponential(1s, 2, 1h) jitter 0.5"},
            {"retry": "exponential(1s, 2, 1h) jitter 0.5"},
        ),
        ({"keep": "0s"}, {"keep": timedelta(0)}),
        ({"keep": "36525d"}, {"keep": timedelta(days=36525)}),
    ],
)
async def test_options_that_no_record_shows_are_kept_too(
    door: Door, connection: Connection[Record], options: dict[str, Any], columns: dict[str, Any]
) -> None:
    task_id = await door.enqueue("a", **options)
    row = await connection.fetchrow("SELECT retry, keep FROM asynctaskd.tasks WHERE id = $1", task_id)
    assert row is not None
    assert {name: row[name] for name in columns} == columns


async def test_a_day_is_24_hours_in_whatever_zone(pool: Pool[Record], client: Client) -> None:
    async with pool.acquire() as session:
        await set_clock(session, datetime(2030, 3, 30, 12, tzinfo=UTC))  # the clocks change that night
        await session.execute("SET timezone = 'Europe/Berlin'")
        task_id = await SQL(session).enqueue("a", delay="1d", deadline="2d")
    task = await client.get_task(task_id)
    assert task.run_at == datetime(2030, 3, 31, 12, tzinfo=UTC)
    assert task.deadline == datetime(2030, 4, 1, 12, tzinfo=UTC)


async def test_payloads_come_back_as_they_were_given(door: Door, client: Client) -> None:
    payload = {"text": "ü\n\"'\\ \U0001f600", "": [1, -1.5, True, None, {}], "deep": {"er": ["x"]}}
    assert (await client.get_task(await door.enqueue("a", payload))).payload == payload


@pytest.mark.parametrize("payload", [[], "text", 0, False, [[1]]])
async def test_a_payload_may_be_any_json_value(door: Door, client: Client, payload: Any) -> None:
    assert (await client.get_task(await door.enqueue("a", payload))).payload == payload


# Defaults from definitions


def definition(name: str = "known", **columns: Any) -> DefinitionRow:
    left_out = dict.fromkeys(DefinitionRow.__slots__)
    return DefinitionRow(**left_out | {"name": name, "schema_hash": "x", "has_hook": False} | columns)


DECLARED = definition(
    priority=3, weight=4, label_set="l1,l2", tags='["t"]', serial_key="k", unique_until="finished",
    delay=HOUR, deadline=2 * HOUR, timeout=3 * HOUR, retry="5s", max_attempts=6, keep=7 * HOUR,
)  # fmt: skip


async def test_an_option_left_out_takes_its_default_from_the_definition(
    door: Door, client: Client, connection: Connection[Record], store: Store, noon: datetime
) -> None:
    await store.register_definitions([DECLARED])
    task = await client.get_task(await door.enqueue("known", unique_tag="u"))
    assert (task.priority, task.weight, task.labels, task.tags) == (3, 4, ["l1", "l2"], ["t"])
    assert (task.serial_key, task.run_at, task.deadline) == ("k", noon + HOUR, noon + 2 * HOUR)
    assert (task.timeout, task.max_attempts, task.status) == (3 * HOUR, 6, "scheduled")
    [until] = await connection.fetchrow("SELECT until FROM asynctaskd.unique_tags") or [None]
    assert until == "finished"
    assert await connection.fetchval("SELECT keep FROM asynctaskd.tasks WHERE id = $1", task.id) == 7 * HOUR


async def test_defaults_apply_to_a_plain_batch_too(
    client: Client, connection: Connection[Record], store: Store, noon: datetime
) -> None:
    declared = {name: getattr(DECLARED, name) for name in DefinitionRow.__slots__} | {"serial_key": None}
    await store.register_definitions([DefinitionRow(**declared)])
    one = await client.get_task(await client.enqueue("known"))
    [other_id] = await client.enqueue_many([TaskRequest("known")])
    other = await client.get_task(other_id)
    differences = {
        name
        for name in Task.__slots__
        if getattr(one, name) != getattr(other, name)  # type: ignore[attr-defined]
    }
    assert differences == {"id"}
    rows = await connection.fetch("SELECT keep, retry FROM asynctaskd.tasks")
    assert len(rows) == 2
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    "options, columns",
    [
        ({"priority": 0}, {"priority": 0}),
        ({"weight": 1}, {"weight": 1}),
        ({"labels": []}, {"labels": []}),
        ({"labels": ["own"]}, {"labels": ["own"]}),
        ({"tags": []}, {"tags": []}),
        ({"delay": "0s"}, {"run_at": NOON, "status": "pending"}),
        ({"run_at": NOON + 9 * HOUR}, {"run_at": NOON + 9 * HOUR}),
        ({"deadline": "9h"}, {"deadline": NOON + 9 * HOUR}),
        ({"deadline": NOON + 9 * HOUR}, {"deadline": NOON + 9 * HOUR}),
        ({"timeout": "9h"}, {"timeout": 9 * HOUR}),
        ({"serial_key": "own"}, {"serial_key": "own"}),
        ({"serial_id": 5}, {"serial_key": "k", "serial_id": 5}),
        ({"retry": RetryPolicy("1s", max_attempts=2)}, {"max_attempts": 2}),
        ({"retry": "1s"}, {"max_attempts": 10}),
    ],
)
async def test_an_option_that_is_given_overrides_the_default(
    door: Door, client: Client, store: Store, noon: datetime, options: dict[str, Any], columns: dict[str, Any]
) -> None:
    await store.register_definitions([DECLARED])
    task = await client.get_task(await door.enqueue("known", **options))
    assert {name: getattr(task, name) for name in columns} == columns


async def test_max_attempts_alone_keeps_the_declared_policy(pool: Pool[Record], store: Store) -> None:
    await store.register_definitions([DECLARED])
    task_id = await SQL(pool).enqueue("known", max_attempts=2)
    row = await pool.fetchrow("SELECT retry, max_attempts FROM asynctaskd.tasks WHERE id = $1", task_id)
    assert row == (None, 2)  # without a text of its own, the definition's is used


async def test_a_definition_that_changes_changes_the_next_task(client: Client, store: Store) -> None:
    first = await client.enqueue("known")
    await store.register_definitions([definition(weight=2)])
    second = await client.enqueue("known")
    await store.register_definitions([definition(weight=3)])
    third = await client.enqueue("known")
    assert [(await client.get_task(each)).weight for each in (first, second, third)] == [1, 2, 3]


async def test_a_definition_that_stays_the_same_is_not_written_again(
    connection: Connection[Record], store: Store
) -> None:
    await store.register_definitions([DECLARED])
    before = await connection.fetchrow("SELECT xmin, * FROM asynctaskd.definitions")
    await store.register_definitions([DECLARED])
    assert await connection.fetchrow("SELECT xmin, * FROM asynctaskd.definitions") == before


# Bad input


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


def of_size(octets: int) -> dict[str, str]:
    """A payload whose text in PostgreSQL has that many bytes."""
    return {"a": "x" * (octets - len('{"a": ""}'))}


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"priority": -1}, "priority must be at least 0, got -1"),
    ({"weight": 0}, "weight must be at least 1, got 0"),
    ({"weight": -5}, "weight must be at least 1, got -5"),
    ({"serial_id": 1}, "serial_id needs a serial_key"),
    ({"labels": ["a,b"]}, f"a label must match {NAME}, got .*a,b"),
    ({"labels": [""]}, f"a label must match {NAME}"),
    ({"labels": ["a", "", "b"]}, f"a label must match {NAME}"),
    ({"labels": ["ü"]}, f"a label must match {NAME}"),
    ({"labels": ["a\n"]}, f"a label must match {NAME}"),
    ({"labels": ["x" * 129]}, f"a label must match {NAME}"),
    ({"labels": [f"l{n}" for n in range(17)]}, "at most 16 labels are allowed, got 17"),
    ({"tags": [""]}, "a tag must have 1 to 512 characters"),
    ({"tags": ["a", "x" * 513]}, "a tag must have 1 to 512 characters"),
    ({"unique_tag": ""}, "unique_tag must have 1 to 512 characters, got 0"),
    ({"unique_tag": "x" * 513}, "unique_tag must have 1 to 512 characters, got 513"),
    ({"unique_tag": "u", "unique_until": "never"}, "unique_until must be finished or forgotten, got 'never'"),
    ({"unique_until": "never"}, "unique_until must be finished or forgotten, got 'never'"),
    ({"unique_tag": "u", "on_conflict": "ignore"}, "on_conflict must be return or raise, got 'ignore'"),
    ({"on_conflict": "ignore"}, "on_conflict must be return or raise, got 'ignore'"),
    ({"serial_key": ""}, "serial_key must have 1 to 512 characters, got 0"),
    ({"serial_key": "x" * 513}, "serial_key must have 1 to 512 characters, got 513"),
    ({"parent_id": 999}, "parent_id 999 is not a task"),
    ({"delay": "1s", "run_at": NOON}, "delay and run_at exclude each other"),
    ({"delay": timedelta(seconds=-1)}, "must not be negative"),
    ({"delay": timedelta(days=36526)}, "a duration must be at most 36525d"),
    ({"deadline": timedelta(0)}, "deadline(_after)? must be more than 0"),
    ({"deadline": timedelta(days=36526)}, "a duration must be at most 36525d"),
    ({"timeout": timedelta(0)}, "timeout must be more than 0"),
    ({"timeout": timedelta(days=36526)}, "a duration must be at most 36525d"),
    ({"keep": timedelta(seconds=-1)}, "must not be negative"),
    ({"keep": timedelta(days=36526)}, "a duration must be at most 36525d"),
    ({"retry": ""}, "malformed retry policy ''"),
    ({"retry": "soon"}, "malformed retry policy 'soon'"),
    ({"retry": "1m,"}, "malformed retry policy '1m,'"),
    ({"retry": "1m\n"}, "malformed retry policy"),
    ({"retry": "linear(1s, 1m, 1)"}, "malformed retry policy"),
    ({"retry": "1m,36526d"}, "must be at most 36525d"),
    ({"retry": "exponential(0s, 2, 1h)"}, "base of a retry policy must be longer than 0s and at most"),
    ({"retry": "exponential(2h, 2, 1h)"}, "base of a retry policy must be longer than 0s and at most"),
]


@pytest.mark.parametrize("options, message", BAD_OPTIONS)
async def test_an_option_that_breaks_a_rule_is_refused_and_nothing_is_written(
    door: Door, connection: Connection[Record], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        await door.enqueue("a", **options)
    assert await connection.fetchval("SELECT count(*) FROM asynctaskd.tasks") == 0
    assert await connection.fetchval("SELECT count(*) FROM asynctaskd.unique_tags") == 0


@pytest.mark.parametrize("name", ["", "a b", "ü", "a\n", "x" * 129, "a;drop"])
async def test_a_name_that_is_none_is_refused(door: Door, name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"task name must match {NAME}"):
        await door.enqueue(name)


@pytest.mark.parametrize(
    "payload, message",
    [
        (nested(65), "payload is nested"),
        ({"a": nested(64)}, "payload is nested"),
        ([1, {"x" * 500: nested(64)}], "payload is nested"),
        (2**63, "payload holds an integ.* beyond 64 bits"),
        (-(2**63) - 1, "payload holds an integ.* beyond 64 bits"),
        ({"n": [10**399]}, "payload holds an integ.* beyond 64 bits"),
        ({"n": 1e30}, "payload holds an integ.* beyond 64 bits"),
        ({"n": -1e300}, "payload holds an integ.* beyond 64 bits"),
        (of_size(2**20 + 1), "payload is 1048577 bytes; at most 1048576 are allowed"),
    ],
    ids=str,
)
async def test_a_payload_that_breaks_a_rule_is_refused(
    door: Door, client: Client, payload: Any, message: str
) -> None:
    with pytest.raises(InvalidPayloadError, match=message):
        await door.enqueue("a", payload)
    assert await client.list_tasks() == []


@pytest.mark.parametrize(
    "payload",
    [
        nested(64), {"a": nested(63)}, [nested(63)] * 70, "[" * 200, 2**63 - 1, -(2**63), 1e18, 1.5,
        0.1, 1e-300, str(2**63), {str(2**63): 1}, of_size(2**20),
    ],
    ids=lambda payload: str(payload)[:30],
)  # fmt: skip
async def test_a_payload_just_inside_the_rules_is_taken(door: Door, client: Client, payload: Any) -> None:
    assert (await client.get_task(await door.enqueue("a", payload))).payload == payload


@pytest.mark.parametrize("payload", [{"n": float("nan")}, [float("-inf")], "\x00", {"\x00": 1}, "\ud800"])
async def test_what_json_or_postgresql_does_not_have_is_refused(
    door: Door, client: Client, payload: Any
) -> None:
    with pytest.raises((InvalidPayloadError, StatementRefusedError)):
        await door.enqueue("a", payload)
    assert await client.list_tasks() == []


@pytest.mark.parametrize("option", ["delay", "timeout", "keep", "deadline"])
async def test_a_malformed_duration_is_refused(door: Door, client: Client, option: str) -> None:
    with pytest.raises(
        (InvalidInputError, StatementRefusedError), match="malformed duration|InvalidDatetimeFormat"
    ):
        await door.enqueue("a", **{option: "soon"})
    assert await client.list_tasks() == []


@pytest.mark.parametrize("option", ["run_at", "deadline"])
@pytest.mark.parametrize(
    "moment", ["infinity", "-infinity", "10000-01-01 00:00+00", "0044-03-15 00:00+00 BC"]
)
async def test_a_moment_that_no_worker_could_read_is_refused(
    pool: Pool[Record], option: str, moment: str
) -> None:
    with pytest.raises(asyncpg.PostgresError, match="must be finite|must lie between") as caught:
        await pool.execute(f"SELECT asynctaskd.enqueue('a', {option} => '{moment}')")
    assert caught.value.sqlstate == "ATD01"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("NULL", "task name must match"),
        ("'a', NULL", "payload must not be NULL"),
        ("'a', labels => '{NULL}'", "a label must not be NULL"),
        ("'a', tags => '{NULL}'", "a tag must not be NULL"),
        ("'a', max_attempts => -2", "max_attempts must be at least -1"),
        ("'a', delay => 'infinity'", "at most 36525d|invalid input"),
        ("'a', metadata => '[]'", "metadata must be an object"),
        ("'a', metadata => jsonb_build_object('n', 1e30)", "metadata holds an integer beyond 64 bits"),
        ("'a', '9223372036854775807.0'", None),
        ("'a', '9223372036854775808.5'", None),
        ("'a', '9223372036854775808.0'", "payload holds an integer beyond 64 bits"),
        ("'a', '1e400'", "payload holds an integer beyond 64 bits"),
        ("'a', '[1e19, \"x\"]'", "payload holds an integer beyond 64 bits"),
    ],
)
async def test_what_only_sql_can_say_keeps_the_rules_too(
    pool: Pool[Record], arguments: str, message: str | None
) -> None:
    if message is None:
        assert await pool.fetchval(f"SELECT asynctaskd.enqueue({arguments})") > 0
        return
    with pytest.raises(asyncpg.PostgresError, match=message):
        await pool.execute(f"SELECT asynctaskd.enqueue({arguments})")


async def test_a_task_can_not_be_its_own_parent(door: Door, pool: Pool[Record]) -> None:
    last = await pool.fetchval("SELECT nextval('asynctaskd.task_ids')")
    for future in (last + 2, last + 50):  # its own id in a batch of three, and one that nobody has
        with pytest.raises(InvalidInputError, match="is not a task.*|parent"):
            await door.enqueue("a", parent_id=future)
    assert await pool.fetchval("SELECT count(*) FROM asynctaskd.tasks") == 0


duration_texts = st.from_regex(r"\A(?:[0-9]{1,6}d)?(?:[0-9]{1,3}h)?(?:[0-9]{1,3}m)?(?:[0-9]{1,3}ms)?\Z")
policies = st.one_of(
    st.from_regex(SPEC_PATTERN, alphabet=st.characters(codec="ascii", exclude_characters="\x00")),
    st.builds(
        "exponential({}, {}, {}){}".format,
        duration_texts,
        st.sampled_from(["1", "2", "0", "1.5", "10000", "1.1234567", "-1", "1e3"]),
        duration_texts,
        st.sampled_from(["", " jitter 0.5", " jitter 1.0", " jitter 1.1", " jitter", "jitter 0"]),
    ),
    st.builds("linear({}, {}, {})".format, duration_texts, duration_texts, st.integers(-1, 10_001)),
    st.lists(duration_texts, max_size=4).map(",".join),
    st.text("0159dhms, .()linearexpotjt_\n٣", max_size=24),
    st.builds(lambda text, at: text[:at] + text[at + 1 :], st.from_regex(SPEC_PATTERN), st.integers(0, 20)),
).filter(lambda text: "\x00" not in text and text.isprintable() | ("\n" in text))


@given(text=policies)
@example(text="exponential(1s, 2, 1s)")
@example(text="exponential(0ms, 2, 1h)")
@example(text="1h60m,3600s")
@example(text="36525d")
@example(text="36525d1ms")
@example(text="876600h")
@by_examples
async def test_a_retry_policy_is_accepted_by_sql_where_python_accepts_it(
    connection: Connection[Record], text: str
) -> None:
    problem = await connection.fetchval("SELECT asynctaskd.retry_problem($1)", text)
    try:
        RetryPolicy.parse(text)
    except InvalidInputError:
        assert problem is not None
    else:
        assert problem is None
    assert (problem or "").startswith("malformed") == (re.match(SPEC_PATTERN, text) is None)


@given(labels=st.lists(st.from_regex(re.compile(rules.NAME_PATTERN, re.ASCII), fullmatch=True), max_size=16))
@example(labels=["a.b", "a", "a-b", "aB", "Ab", "a/b", "a:b", "a_b", "0"])
@by_examples
async def test_labels_make_the_same_set_in_sql_and_in_python(
    connection: Connection[Record], labels: list[str]
) -> None:
    label_set = await connection.fetchval("SELECT asynctaskd.label_set($1)", labels)
    assert label_set == ",".join(rules.labels("labels", labels))


numbers = st.one_of(
    st.integers(-(2**64), 2**64),
    st.sampled_from([2**63, 2**63 - 1, -(2**63), -(2**63) - 1]),
    st.floats(allow_nan=False, allow_infinity=False),
)
values = st.recursive(
    st.one_of(numbers, st.booleans(), st.none(), st.text('0123456789[{\\" eE.', max_size=30)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("09ab", max_size=25), inner)
    ),
    max_leaves=6,
)


@given(payload=values, levels=st.sampled_from([0, 0, 60, 62, 64, 66]))
@by_examples
async def test_a_payload_is_accepted_by_sql_where_python_accepts_it(
    connection: Connection[Record], payload: Any, levels: int
) -> None:
    for _ in range(levels):
        payload = [payload]
    text = json.dumps(payload)
    problem = await connection.fetchval("SELECT asynctaskd.payload_problem($1::text::jsonb)", text)
    try:
        check_payload(text)
    except InvalidPayloadError:
        assert problem is not None
    else:
        assert problem is None


# Transactions


async def test_what_was_enqueued_in_a_transaction_that_rolls_back_is_nowhere(
    connection: Connection[Record], client: Client
) -> None:
    transaction = connection.transaction()
    await transaction.start()
    await client.enqueue("a", unique_tag="u", serial_key="k", connection=connection)
    await SQL(connection).enqueue("b", unique_tag="v")
    await client.enqueue_many([TaskRequest("c"), TaskRequest("d")], connection=connection)
    await transaction.rollback()
    assert await client.list_tasks() == []
    assert await connection.fetchval("SELECT count(*) FROM asynctaskd.unique_tags") == 0


async def test_what_was_enqueued_is_seen_by_nobody_before_the_commit(
    connection: Connection[Record], client: Client, store: Store
) -> None:
    me = await worker(store)
    async with connection.transaction():
        task_id = await client.enqueue("a", connection=connection)
        assert await claim(store, me) == []
    assert await claim(store, me) == [task_id]


async def test_an_error_inside_a_savepoint_leaves_the_transaction_usable(
    connection: Connection[Record], client: Client
) -> None:
    async with connection.transaction():
        first = await client.enqueue("a", connection=connection)
        with pytest.raises(InvalidInputError):
            async with connection.transaction():
                await client.enqueue("b", parent_id=999, connection=connection)
    assert [task.id for task in await client.list_tasks()] == [first]


async def test_many_tasks_enqueued_in_one_session_keep_to_their_plans(connection: Connection[Record]) -> None:
    # plpgsql settles on generic plans after five executions
    for _ in range(12):
        await SQL(connection).enqueue("a", unique_tag="u", serial_key="k", serial_id=1, labels=["x"])
    assert await connection.fetchval("SELECT count(*) FROM asynctaskd.tasks") == 1


# Unique tags


async def test_a_second_enqueue_with_the_tag_returns_the_first_id_and_changes_nothing(
    door: Door, client: Client
) -> None:
    first = await door.enqueue("a", {"n": 1}, unique_tag="u")
    before = await client.get_task(first)
    assert await door.enqueue("b", {"n": 2}, unique_tag="u", priority=5) == first
    assert await client.get_task(first) == before
    assert await client.list_tasks(name="b") == []


async def test_a_conflict_that_is_to_be_raised_carries_the_id(door: Door, client: Client) -> None:
    first = await door.enqueue("a", unique_tag="it's")
    with pytest.raises(
        TaskAlreadyExistsError, match=f"unique_tag 'it''s' is taken by task {first}"
    ) as caught:
        await door.enqueue("b", unique_tag="it's", on_conflict="raise")
    assert caught.value.task_id == first
    assert await client.list_tasks(name="b") == []


async def test_of_64_clients_that_race_for_a_tag_one_wins_and_all_get_its_id(database: Any) -> None:
    async with AsyncExitStack() as stack:
        sessions = [await asyncpg.connect(database.dsn) for _ in range(64)]
        for session in sessions:
            stack.push_async_callback(session.close)
        ids = await asyncio.gather(*(Client(session).enqueue("a", unique_tag="u") for session in sessions))
        assert len(set(ids)) == 1
        assert await sessions[0].fetchval("SELECT array_agg(id) FROM asynctaskd.tasks") == ids[:1]


async def test_a_racer_waits_for_the_first_and_takes_over_where_that_rolls_back(
    database: Any, client: Client, connection: Connection[Record]
) -> None:
    first = connection.transaction()
    await first.start()
    lost = await client.enqueue("a", unique_tag="u", connection=connection)
    racer = asyncio.create_task(client.enqueue("b", unique_tag="u"))
    await until_somebody_waits(database)
    await first.rollback()
    won = await racer
    assert won != lost
    assert [task.id for task in await client.list_tasks()] == [won]


async def until_somebody_waits(database: Any, sessions: int = 1) -> None:
    """Until that many sessions of this database wait for a lock."""
    observer = await asyncpg.connect(database.dsn)
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    while await observer.fetchval(query) < sessions:  # noqa: ASYNC110  (the server tells nobody)
        await asyncio.sleep(0)
    await observer.close()


@pytest.mark.parametrize("until, freed", [("finished", True), ("forgotten", False), (None, False)])
async def test_a_tag_is_freed_when_the_task_ends_or_stays_with_its_record(
    door: Door, client: Client, store: Store, until: str | None, freed: bool
) -> None:
    first = await door.enqueue("b", unique_tag="u", unique_until=until)
    me = await worker(store)
    assert first in await claim(store, me)
    assert await door.enqueue("b", unique_tag="u") == first
    await finish(store, first)
    assert (await door.enqueue("b", unique_tag="u") != first) is freed


async def test_a_tag_stays_over_retries(client: Client, store: Store) -> None:
    first = await client.enqueue("a", unique_tag="u", unique_until="finished")
    await claim(store, await worker(store))
    again = Transition(TaskStatus.SCHEDULED, delay=timedelta(0), failed_execution=True)
    await store.finalize([Ended(first, 1, again, None)])
    assert await client.enqueue("a", unique_tag="u") == first


async def test_a_tag_is_free_once_its_record_is_due_to_be_forgotten(
    door: Door, client: Client, store: Store, connection: Connection[Record], noon: datetime
) -> None:
    first = await door.enqueue("b", unique_tag="u", keep="2d")
    await claim(store, await worker(store))
    await finish(store, first)
    await set_clock(connection, noon + timedelta(days=2))
    assert await door.enqueue("b", unique_tag="u") == first
    await set_clock(connection, noon + timedelta(days=3))
    second = await door.enqueue("b", unique_tag="u", unique_until="finished")
    assert second != first
    assert await door.enqueue("b", unique_tag="u") == second
    assert await connection.fetchrow("SELECT * FROM asynctaskd.unique_tags") == (
        "u",
        second,
        "finished",
        None,
    )


async def test_a_record_that_is_not_kept_keeps_no_tag(client: Client, store: Store) -> None:
    first = await client.enqueue("a", unique_tag="u", keep=0)
    await claim(store, await worker(store))
    await finish(store, first)
    assert await client.enqueue("a", unique_tag="u") != first


async def test_a_tag_taken_over_is_not_freed_by_the_end_of_another(client: Client, store: Store) -> None:
    first = await client.enqueue("a", unique_tag="u")
    other = await client.enqueue("a", unique_tag="other", unique_until="finished")
    await claim(store, await worker(store))
    await finish(store, other)
    assert await client.enqueue("a", unique_tag="u") == first


async def test_finalize_never_waits_for_a_transaction_that_met_the_tag(
    client: Client, store: Store, connection: Connection[Record]
) -> None:
    task_id = await client.enqueue("a", unique_tag="u")
    await claim(store, await worker(store))
    async with connection.transaction():
        assert await client.enqueue("b", unique_tag="u", connection=connection) == task_id
        async with asyncio.timeout(5):
            assert await finish(store, task_id) == {task_id}


async def test_two_that_race_for_a_forgotten_tag_get_one_id(
    database: Any, client: Client, store: Store, connection: Connection[Record], noon: datetime
) -> None:
    old = await client.enqueue("a", unique_tag="u", keep="1d")
    await claim(store, await worker(store))
    await finish(store, old)
    await set_clock(connection, noon + timedelta(days=5))
    async with connection.transaction():
        first = await client.enqueue("a", unique_tag="u", connection=connection)
        racer = asyncio.create_task(client.enqueue("a", unique_tag="u"))
        await until_somebody_waits(database)
    assert await racer == first
    assert first != old


async def test_above_read_committed_a_race_for_a_tag_is_a_serialization_failure(
    client: Client, connection: Connection[Record]
) -> None:
    transaction = connection.transaction(isolation="repeatable_read")
    await transaction.start()
    await connection.fetch("SELECT FROM asynctaskd.tasks")  # the snapshot is taken
    await client.enqueue("a", unique_tag="u")
    with pytest.raises(asyncpg.SerializationError):
        await connection.execute("SELECT asynctaskd.enqueue('b', unique_tag => 'u')")
    await transaction.rollback()


# Serial keys


async def run_line(client: Client, store: Store, count: int) -> list[int]:
    """Run the tasks of all lines one after the other; the ids, in the order in which they ran."""
    me, order = await worker(store), []
    for _ in range(count):
        claimed = await claim(store, me)
        for task_id in claimed:
            [row] = await store._fetch("get_tasks", [task_id])
            await finish(store, task_id, row["claim_token"])
        order += claimed
        await store.promote_serial()
    return order


async def test_tasks_of_one_key_run_one_at_a_time_in_the_order_of_creation(
    door: Door, client: Client, store: Store
) -> None:
    ids = [await door.enqueue("b", serial_key="k") for _ in range(4)]
    assert await statuses(client, *ids) == ["pending", "waiting", "waiting", "waiting"]
    ran = await run_line(client, store, 4)
    assert [task_id for task_id in ran if task_id in ids] == ids


async def test_tasks_with_an_id_run_first_and_in_its_order(client: Client, store: Store) -> None:
    given = [None, 5, None, -3, 7, 5, None]
    ids = [await client.enqueue("a", serial_key="k", serial_id=each) for each in given]
    assert await run_line(client, store, 7) == [ids[n] for n in (3, 1, 5, 4, 0, 2, 6)]


async def test_tasks_of_different_keys_do_not_wait_for_each_other(door: Door, client: Client) -> None:
    ids = [await door.enqueue("b", serial_key=f"k{n}") for n in range(3)]
    assert await statuses(client, *ids) == ["pending"] * 3


@pytest.mark.parametrize(
    "head, newcomer, heads",
    [(5, 3, "new"), (None, 3, "new"), (5, 5, "old"), (5, 7, "old"), (5, None, "old"), (None, None, "old")],
)
async def test_an_unclaimed_head_gives_way_to_a_smaller_id(
    door: Door, client: Client, head: int | None, newcomer: int | None, heads: str
) -> None:
    old = await door.enqueue("b", serial_key="k", serial_id=head)
    new = await door.enqueue("b", serial_key="k", serial_id=newcomer)
    expected = ["waiting", "pending"] if heads == "new" else ["pending", "waiting"]
    assert await statuses(client, old, new) == expected


async def test_a_scheduled_head_gives_way_to_a_smaller_id_and_keeps_its_time(
    client: Client, store: Store, noon: datetime
) -> None:
    old = await client.enqueue("a", serial_key="k", serial_id=5, delay="1h")
    new = await client.enqueue("a", serial_key="k", serial_id=3)
    assert await statuses(client, old, new) == ["waiting", "pending"]
    assert await run_line(client, store, 2) == [new]
    assert await statuses(client, old) == ["scheduled"]


async def test_a_running_head_is_not_overtaken(client: Client, store: Store) -> None:
    old = await client.enqueue("a", serial_key="k", serial_id=5)
    assert await claim(store, await worker(store)) == [old]
    new = await client.enqueue("a", serial_key="k", serial_id=3)
    assert await statuses(client, old, new) == ["running", "waiting"]
    assert await store.promote_serial() == 0


async def test_a_scheduled_head_blocks_its_line(
    client: Client, store: Store, connection: Connection[Record], noon: datetime
) -> None:
    head = await client.enqueue("a", serial_key="k", delay="1h")
    mate = await client.enqueue("a", serial_key="k")
    assert await store.promote_serial() == 0
    assert await store.promote_due() == (0, 3600.0)
    assert await statuses(client, head, mate) == ["scheduled", "waiting"]
    await set_clock(connection, noon + HOUR)
    assert await store.promote_due() == (1, None)
    assert await statuses(client, head, mate) == ["pending", "waiting"]


async def test_a_head_that_waits_for_its_retry_blocks_its_line(client: Client, store: Store) -> None:
    head = await client.enqueue("a", serial_key="k")
    mate = await client.enqueue("a", serial_key="k")
    await claim(store, await worker(store))
    again = Transition(TaskStatus.SCHEDULED, delay=HOUR, failed_execution=True)
    await store.finalize([Ended(head, 1, again, None)])
    assert await store.promote_serial() == 0
    assert await statuses(client, head, mate) == ["scheduled", "waiting"]


@pytest.mark.parametrize("how", ["cancelled", "expired", "paused"])
async def test_a_head_that_ended_or_is_paused_lets_the_next_one_go(
    client: Client, store: Store, connection: Connection[Record], how: str
) -> None:
    head = await client.enqueue("a", serial_key="k")
    mate = await client.enqueue("a", serial_key="k")
    if how == "paused":
        await connection.execute("UPDATE asynctaskd.tasks SET status = 'paused' WHERE id = $1", head)
    else:
        await connection.execute("SELECT asynctaskd.finish(ARRAY[$1::bigint], $2, 'test')", head, how)
    await store.promote_serial(["k"])
    assert await statuses(client, head, mate) == [how, "pending"]


async def test_key_mates_of_two_open_transactions_never_both_go(
    database: Any, client: Client, store: Store
) -> None:
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(session(database)) for _ in range(2)]
        first, second = one.transaction(), two.transaction()
        await first.start()
        await second.start()
        head = await client.enqueue("a", serial_key="k", connection=one)
        mate = await client.enqueue("a", serial_key="k", connection=two)
        await second.commit()
        assert await store.promote_serial() == 0  # the head that isn't committed yet comes first
        await first.commit()
        assert await statuses(client, head, mate) == ["pending", "waiting"]
        assert await run_line(client, store, 2) == [head, mate]


async def test_a_head_that_rolls_back_lets_its_key_mate_go(
    database: Any, client: Client, store: Store
) -> None:
    async with session(database) as one:
        first = one.transaction()
        await first.start()
        await client.enqueue("a", serial_key="k", connection=one)
        mate = await client.enqueue("a", serial_key="k")
        await first.rollback()
    assert await statuses(client, mate) == ["waiting"]
    assert await store.promote_serial() == 1
    assert await statuses(client, mate) == ["pending"]


def session(database: Any) -> Any:
    """A connection that rather fails than waits for a lock."""
    return (
        asyncpg.create_pool(
            database.dsn, min_size=1, max_size=1, server_settings={"lock_timeout": "5s"}
        ).acquire()
        if False
        else _Session(database.dsn)
    )


class _Session:
    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def __aenter__(self) -> Connection[Record]:
        self._opened = await asyncpg.connect(self._dsn, server_settings={"lock_timeout": "5s"})
        return self._opened

    async def __aexit__(self, *_: object) -> None:
        await self._opened.close()


@pytest.mark.parametrize(
    "default",
    [
        "priority = -1", "weight = 0", "max_attempts = -2", "delay = '-1s'", "deadline = '0s'",
        "timeout = '0s'", "keep = '-1s'",
    ],
)  # fmt: skip
async def test_no_definition_has_a_default_that_no_task_may_have(
    connection: Connection, default: str
) -> None:
    await connection.execute("INSERT INTO asynctaskd.definitions (name, schema_hash) VALUES ('a', '')")
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(f"UPDATE asynctaskd.definitions SET {default}")


@pytest.mark.parametrize(
    "option",
    [
        "unique_tag => 'u'",
        "serial_id => 1, serial_key => 'k'",
        "run_at => now()",
        "deadline => now() + interval '1 h'",
    ],
)
async def test_an_option_of_a_single_task_is_refused_beside_cron(
    connection: Connection[Record], option: str
) -> None:
    with pytest.raises(asyncpg.PostgresError) as error:
        await connection.fetchval(f"SELECT asynctaskd.enqueue('a', '{{}}', cron => '@hourly', {option})")
    assert error.value.sqlstate == "ATD01"
    assert await connection.fetchval("SELECT count(*) FROM asynctaskd.schedules") == 0


async def test_a_schedule_keeps_the_options_of_its_enqueue(connection: Connection[Record]) -> None:
    await connection.fetchval(
        "SELECT asynctaskd.enqueue('a', '{}', cron => '@hourly', serial_key => 'k', deadline_after => '1 h',"
        """ metadata => '{"none": null}')"""
    )
    options = json.loads(await connection.fetchval("SELECT options FROM asynctaskd.schedules"))
    assert options == {"serial_key": "k", "deadline_after": "01:00:00", "metadata": {"none": None}}
