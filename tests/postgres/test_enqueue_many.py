"""Many at once: what is looked at together is judged, and written, as if each had come alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from asynctaskd import App, Client, InvalidInputError, InvalidPayloadError, TaskRequest, UnknownTaskError
from asynctaskd.definitions.payload import MAX_BYTES

if TYPE_CHECKING:
    from asyncpg import Connection, Record

by_examples = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

# Every column but the id and what is never given at enqueue.
COLUMNS = (
    "run_at, deadline, priority, weight, max_attempts, timeout, keep, status, name, label_set, tags,"
    " unique_tag, serial_key, retry, payload, metadata, created_at"
)

DECLARE = """
    INSERT INTO asynctaskd.definitions (name, schema_hash, priority, weight, label_set, tags, delay, deadline,
                                        timeout, retry, max_attempts, keep)
    VALUES ('declared', 'x', 3, 4, 'l1,l2', '{t}', '1 h', '2 h', '3 h', '5s', 6, '7 h'),
           ('partly', 'x', NULL, NULL, 'l3', NULL, NULL, NULL, '1 h', NULL, 1, NULL)
"""

NOON = """
    CREATE OR REPLACE FUNCTION asynctaskd.clock() RETURNS timestamptz
    LANGUAGE sql VOLATILE PARALLEL SAFE RETURN timestamptz '2030-01-01 12:00:00+00'
"""

MANY = """
    SELECT asynctaskd.enqueue_many($1, $2::text[]::jsonb[], $3, $4, $5, $6::text[]::jsonb[])
"""

ONE = """
    SELECT asynctaskd.enqueue(
        $1, $2::text::jsonb, $3, $4, string_to_array($5, ','), asynctaskd.tags_of(option),
        delay => (option ->> 'delay')::interval, run_at => (option ->> 'run_at')::timestamptz,
        deadline => (option ->> 'deadline')::timestamptz,
        deadline_after => (option ->> 'deadline_after')::interval,
        timeout => (option ->> 'timeout')::interval, retry => option ->> 'retry',
        max_attempts => (option ->> 'max_attempts')::integer,
        keep => (option ->> 'keep')::interval, metadata => nullif(option -> 'metadata', 'null'))
    FROM (SELECT $6::text::jsonb) AS given(option)
"""

numbers = st.one_of(
    st.integers(-(2**64), 2**64),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([2**63, 2**63 - 1, -(2**63) - 1, 10**18, 1e18, 1e19]),
)
payloads = st.recursive(
    st.one_of(numbers, st.booleans(), st.none(), st.text('0123456789[{\\" eE.,:', max_size=30)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("09ab", max_size=25), inner, max_size=3)
    ),
    max_leaves=6,
)
# Numbers as others write them: with exponents that Python wouldn't choose, after any kind of blank.
written_numbers = st.sampled_from(["1e19", "1E+30", "-9.3e18", "1e-16383", "12e1", "1.0e400", "[1e2,\t1e20]"])
texts = st.one_of(
    payloads.map(json.dumps),
    payloads.map(lambda value: json.dumps(value, separators=(",", ":"))),
    written_numbers,
    written_numbers.map(lambda number: f'{{"n" :\n{number} }}'),
    st.integers(60, 70).map(lambda levels: "[" * levels + "]" * levels),
    st.integers(1, 40).map(lambda length: json.dumps({"x": "y" * 20 * length})),
)
plain_texts = payloads.filter(lambda value: "e" not in json.dumps(value)).map(json.dumps)
options = st.fixed_dictionaries(
    {},
    optional={
        "tags": st.lists(st.sampled_from(["a", "b,c", "", "x" * 513]), max_size=2),
        "delay": st.sampled_from(["0", "1 hour", "-1 s", "36526 days"]),
        "run_at": st.sampled_from(["2030-01-01 13:00+00", "2029-01-01 00:00+00", "infinity"]),
        "deadline": st.sampled_from(["2031-01-01 00:00+00", "-infinity"]),
        "deadline_after": st.sampled_from(["1 day", "0"]),
        "timeout": st.sampled_from(["5 s", "0"]),
        "retry": st.sampled_from(["1m,2m", "linear_1m", "soon"]),
        "max_attempts": st.sampled_from([-1, 3, -2]),
        "keep": st.sampled_from(["0", "3 days", "-1 s"]),
        "metadata": st.sampled_from([{"a": 1}, {}, {"n": 1e30}, [1], None]),
    },
)


def seldom(value: Any, *wrong: Any) -> st.SearchStrategy[Any]:
    """Mostly the first."""
    return st.sampled_from([value] * 8 + list(wrong))


requests = st.tuples(
    st.sampled_from(["a", "a", "declared", "partly", "b", "", "no name", "x" * 129, None])
    | st.sampled_from(["a", "declared", "partly"]),
    plain_texts | st.just("{}") | texts,
    seldom(None, 0, 7, -1),
    seldom(None, 1, 9, 0),
    seldom(None, "", "l1", "z,a,a", "a,,b", "!", ",".join(f"l{n}" for n in range(17))),
    st.none() | options.map(json.dumps),
)


async def written(connection: Connection[Record]) -> list[Any]:
    """The rows, in the order of their ids."""
    return await connection.fetch(f"SELECT {COLUMNS} FROM asynctaskd.tasks ORDER BY id")


async def alone(connection: Connection[Record], batch: list[Any]) -> tuple[str | None, list[Any]]:
    """What is wrong with the first request that breaks a rule, or the rows; nothing stays."""
    undone = connection.transaction()
    await undone.start()
    try:
        for place, request in enumerate(batch, 1):
            try:
                await connection.fetchval(ONE, *request)
            except asyncpg.PostgresError as error:
                return f"request {place}: {error}", []
        return None, await written(connection)
    finally:
        await undone.rollback()


async def together(connection: Connection[Record], batch: list[Any]) -> tuple[str | None, list[Any]]:
    """The same for all of them in one call."""
    undone = connection.transaction()
    await undone.start()
    try:
        columns: list[Any] = [list(column) for column in zip(*batch, strict=True)]
        columns[2:] = [None if set(column) == {None} else column for column in columns[2:]]
        ids = await connection.fetchval(MANY, *columns)
        assert ids == sorted(ids)
        return None, await written(connection)
    except asyncpg.PostgresError as error:
        return str(error), []
    finally:
        await undone.rollback()


@given(batch=st.lists(requests, min_size=1, max_size=4))
@example(batch=[("a", "{}", None, None, None, None), ("a", "1e400", None, None, None, None)])
@example(batch=[("a", "{}", 1, None, "a", None), ("a", "{}", -1, 0, "", '{"delay": "1 h"}')])
@by_examples
async def test_many_are_judged_and_written_as_if_each_had_come_alone(
    connection: Connection[Record], batch: list[Any]
) -> None:
    await connection.execute(f"TRUNCATE asynctaskd.definitions, asynctaskd.tasks; {DECLARE}; {NOON}")
    assert await together(connection, batch) == await alone(connection, batch)


@given(batch=st.lists(texts, min_size=1, max_size=5))
@by_examples
async def test_payloads_are_bad_together_where_one_is_bad_alone(
    connection: Connection[Record], batch: list[str]
) -> None:
    """Whether what is looked at are the texts as they came, or as the database writes them."""
    as_they_came, as_written, one_by_one = (
        await connection.fetchrow(
            """SELECT asynctaskd.is_one_bad(p, ARRAY['[' || array_to_string($1::text[], ',') || ']']),
                  asynctaskd.is_one_bad(p, ARRAY[array_to_string(p, ' ')]),
                  EXISTS (SELECT FROM unnest(p) AS one WHERE asynctaskd.payload_problem(one) IS NOT NULL)
           FROM (SELECT $1::text[]::jsonb[]) AS given(p)""",
            batch,
        )
        or ()
    )
    assert (as_they_came, as_written) == (one_by_one, one_by_one)


@given(text=texts)
@by_examples
async def test_a_payload_that_needs_no_closer_look_keeps_the_rules(
    connection: Connection[Record], text: str
) -> None:
    assert not await connection.fetchval(
        """SELECT NOT asynctaskd.may_break_a_rule(p, p::text) AND asynctaskd.payload_problem(p) IS NOT NULL
           FROM (SELECT $1::text::jsonb) AS given(p)""",
        text,
    )


async def test_ids_come_in_the_order_given_whatever_the_requests_have_in_common(
    connection: Connection[Record],
) -> None:
    given = [
        TaskRequest(f"name{n % 7}", {"n": n}, labels=[f"l{n % 3}"] if n % 2 else None, delay=f"{n % 5}s")
        for n in range(3000)
    ]
    ids = await Client(connection).enqueue_many(given)
    rows = await connection.fetch("SELECT id, name, label_set, payload FROM asynctaskd.tasks ORDER BY id")
    assert [row["id"] for row in rows] == ids
    assert [json.loads(row["payload"])["n"] for row in rows] == list(range(3000))
    assert all(row["name"] == request.name for row, request in zip(rows, given, strict=True))
    assert all(
        row["label_set"] == ",".join(request.options.labels or ())
        for row, request in zip(rows, given, strict=True)
    )


async def test_a_route_makes_only_its_own_names_go_one_by_one(connection: Connection[Record]) -> None:
    await connection.execute(
        """INSERT INTO asynctaskd.definitions (name, schema_hash, serial_key, codec)
           VALUES ('plain', 'x', NULL, NULL), ('mail:bulk', 'x', NULL, NULL),
                  ('mail:*', 'x', 'mailbox', NULL), ('sealed:*', 'x', NULL, 'aes')"""
    )
    client = Client(connection)

    async def turns(*names: str) -> int:
        async with connection.transaction():
            await connection.execute("SET LOCAL track_functions = 'pl'")
            await client.enqueue_many([TaskRequest(name) for name in names])
            return int(
                await connection.fetchval(
                    """SELECT coalesce(sum(calls), 0) FROM pg_stat_xact_user_functions
                       WHERE funcname = 'enqueue_in_turn'"""
                )
            )

    assert await turns("plain", "mail:bulk", "other") == 0
    assert await turns("plain", "mail:new") == 1
    with pytest.raises(InvalidInputError, match="codec"):
        await turns("sealed:x")


async def test_more_than_one_document_can_hold_arrives_whole(connection: Connection[Record]) -> None:
    filling = "x" * (MAX_BYTES - 100)
    ids = await Client(connection).enqueue_many([TaskRequest("a", {"n": n, "x": filling}) for n in range(19)])
    rows = await connection.fetch("SELECT id, (payload -> 'n')::integer FROM asynctaskd.tasks ORDER BY id")
    assert [tuple(row) for row in rows] == list(zip(ids, range(19), strict=True))


async def test_no_task_at_all_is_nothing_to_do(connection: Connection[Record]) -> None:
    assert await Client(connection).enqueue_many([]) == []
    assert await connection.fetchval("SELECT asynctaskd.enqueue_many('{}', '{}')") == []


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("'{a,b}', ARRAY['{}']::jsonb[]", "one element a task: names has 2, payloads has 1"),
        ("'{a}', NULL", "one element a task: names has 1, payloads has <NULL>"),
        ("NULL, ARRAY['{}']::jsonb[]", "one element a task: names has <NULL>, payloads has 1"),
        ("'{a}', ARRAY['{}']::jsonb[], '{1,2}'", "one element a task: names has 1, payloads has 1"),
        ("'{a}', ARRAY[NULL]::jsonb[]", "request 1: payload must not be NULL"),
        ("'{NULL}', ARRAY['{}']::jsonb[]", "request 1: task name must match"),
        ("'{a}', ARRAY['{}']::jsonb[], options => ARRAY['[]']::jsonb[]", "request 1: its options must be an"),
        (
            "'{a,b}', ARRAY['{}', '{}']::jsonb[], options => ARRAY[NULL, '{\"x\": 1}']::jsonb[]",
            "request 2: unknown option 'x'",
        ),
    ],
)
async def test_arrays_that_make_no_sense_are_refused(
    connection: Connection[Record], arguments: str, message: str
) -> None:
    with pytest.raises(asyncpg.PostgresError, match=message) as caught:
        await connection.execute(f"SELECT asynctaskd.enqueue_many({arguments})")
    assert caught.value.sqlstate == "ATD01"
    assert await connection.fetchval("SELECT count(*) FROM asynctaskd.tasks") == 0


# The client


@pytest.fixture
def app() -> App:
    app = App()

    @app.task("add")
    async def add(a: int, b: int | None = None) -> None: ...

    return app


@pytest.mark.parametrize("others", [{"a": 1}, {"a": 1, "b": None}], ids=["plain", "looked at closely"])
@pytest.mark.parametrize(
    "wrong, error, message",
    [
        (TaskRequest("ad", {"a": 1}), UnknownTaskError, "request 2: no task is named 'ad'.* Is it 'add'"),
        (
            TaskRequest("add", {"a": "x"}),
            InvalidPayloadError,
            "request 2: payload doesn't fit task 'add': a:",
        ),
        (
            TaskRequest("add", {"a": 2**64}),
            InvalidPayloadError,
            "request 2: payload holds an integral number",
        ),
        (TaskRequest("add", {"a": object()}), InvalidPayloadError, "request 2: payload can't be written"),
        (TaskRequest("add", {"a": float("nan")}), InvalidPayloadError, "request 2: payload holds NaN"),
    ],
)
async def test_an_app_refuses_the_first_request_that_does_not_fit(
    connection: Connection[Record],
    app: App,
    others: dict[str, Any],
    wrong: TaskRequest,
    error: type[InvalidInputError],
    message: str,
) -> None:
    right, last = TaskRequest("add", others), TaskRequest("add", {})
    with pytest.raises(error, match=message):
        await Client(connection, app).enqueue_many([right, wrong, last])
    assert await connection.fetchval("SELECT count(*) FROM asynctaskd.tasks") == 0
