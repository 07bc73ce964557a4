"""What PostgreSQL and asyncpg do, as far as promises of ours rest on it.

Where one of these fails with a new version, something of ours is wrong from then on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from asynctaskd import Client, TaskRequest
from asynctaskd.postgres import store as postgres
from asynctaskd.postgres.records import Ended, StrictLane
from asynctaskd.postgres.store import Store
from asynctaskd.task import TaskStatus, Transition

if TYPE_CHECKING:
    from tests.conftest import Connection, Database, Pool

LONG_ENOUGH = 60.0
MANY_LABELS = [f"{n:02}".ljust(128, "x") for n in range(16)]


@pytest.fixture
async def rows(connection: Connection) -> None:
    await connection.execute("CREATE TABLE rows (n integer PRIMARY KEY)")


async def numbers(connection: Connection) -> list[int]:
    return [row["n"] for row in await connection.fetch("SELECT n FROM rows ORDER BY n")]


@pytest.fixture
async def listening(database: Database) -> AsyncIterator[asyncio.Queue[str]]:
    """The payloads that come by on our channel."""
    ears = await asyncpg.connect(database.dsn)
    heard: asyncio.Queue[str] = asyncio.Queue()
    await ears.add_listener("asynctaskd_ready", lambda *notice: heard.put_nowait(notice[3]))
    yield heard
    await ears.close()


async def all_heard(heard: asyncio.Queue[str], connection: Connection) -> list[str]:
    """What was heard until now: notices keep their order."""
    await connection.execute("SELECT pg_notify('asynctaskd_ready', 'that is all')")
    said = []
    async with asyncio.timeout(LONG_ENOUGH):
        while (payload := await heard.get()) != "that is all":
            said.append(payload)
    return said


@pytest.fixture
async def idle_worker(connection: Connection) -> None:
    """A worker that has said that it is idle, so that enqueuers speak."""
    await pretend_idle(connection)


async def pretend_idle(connection: Connection) -> None:
    labels = ["a", "b", *MANY_LABELS]
    await connection.execute(
        "INSERT INTO asynctaskd.workers"
        " (id, name, process, hostname, pid, version, labels, names, concurrency, idle, expires_at)"
        " SELECT id, id, id, 'here', 1, '0', $1, '{x}', 1, true, clock_timestamp() + interval '1 day'"
        " FROM gen_random_uuid() AS id",
        labels,
    )


# Transactions


async def test_an_sql_error_swallowed_in_a_transaction_leaves_it_without_one_and_rolls_it_back(
    connection: Connection, rows: None
) -> None:
    async with connection.transaction():
        await connection.execute("INSERT INTO rows VALUES (1)")
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.execute("SELECT 1 / 0")
    assert await numbers(connection) == []


async def test_the_tag_of_a_commit_says_what_it_did(connection: Connection, rows: None) -> None:
    await connection.execute("BEGIN; INSERT INTO rows VALUES (1)")
    assert await connection.execute("COMMIT") == "COMMIT"
    await connection.execute("BEGIN")
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute("INSERT INTO rows VALUES (1)")
    assert await connection.execute("COMMIT") == "ROLLBACK"


async def test_a_savepoint_around_a_users_code_keeps_the_transaction_good(
    connection: Connection, rows: None
) -> None:
    async with connection.transaction():
        await connection.execute("INSERT INTO rows VALUES (1)")
        with pytest.raises(asyncpg.DivisionByZeroError):  # noqa: PT012  (the block is what rolls back)
            async with connection.transaction():
                await connection.execute("INSERT INTO rows VALUES (2)")
                await connection.execute("SELECT 1 / 0")
        await connection.execute("INSERT INTO rows VALUES (3)")
    assert await numbers(connection) == [1, 3]


async def test_a_plan_whose_columns_changed_is_made_again_outside_a_transaction_and_refused_inside(
    database: Database, connection: Connection, rows: None
) -> None:
    session = await asyncpg.connect(database.dsn)
    question = "SELECT * FROM rows"
    await session.fetch(question)
    await connection.execute("ALTER TABLE rows ADD COLUMN m integer")
    await session.fetch(question)
    await connection.execute("ALTER TABLE rows ADD COLUMN l integer")
    with pytest.raises(asyncpg.FeatureNotSupportedError):
        async with session.transaction():
            await session.fetch(question)
    await session.close()


# Clocks


async def test_now_is_as_old_as_its_transaction_and_a_lease_is_not(
    database: Database, connection: Connection, pool: Pool
) -> None:
    waiting = asyncio.create_task(pool.fetchrow("SELECT now(), pg_sleep(0.2), clock_timestamp()"))
    early, _, late = await waiting
    assert (late - early).total_seconds() >= 0.2
    bodies = await connection.fetch(
        "SELECT p.proname, pg_get_functiondef(p.oid) AS body FROM pg_proc AS p"
        " WHERE pronamespace = 'asynctaskd'::regnamespace"
    )
    assert [row["proname"] for row in bodies if "now()" in row["body"].lower()] == []
    queries = Path(postgres.__file__).parent / "queries"
    assert [path.name for path in queries.glob("*.sql") if "now()" in path.read_text().lower()] == []


async def test_a_claim_that_had_to_wait_is_dated_when_it_was_made(
    database: Database, connection: Connection, pool: Pool
) -> None:
    await pretend_idle(connection)
    worker = await connection.fetchval("SELECT id FROM asynctaskd.workers")
    await Client(connection).enqueue("x", priority=1)
    store = Store(pool, "asynctaskd")
    async with connection.transaction():
        await connection.execute("LOCK TABLE asynctaskd.tasks IN EXCLUSIVE MODE")
        claiming = asyncio.create_task(store.claim(worker, [], strict=StrictLane(1), slots=1, shares=[]))
        await until(
            pool,
            "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()",
        )
        released_at = await connection.fetchval("SELECT clock_timestamp()")
    [task] = await claiming
    assert task.claimed_at > released_at


async def until(pool: Pool, question: str) -> None:
    async with asyncio.timeout(LONG_ENOUGH):
        while not await pool.fetchval(question):  # noqa: ASYNC110  (rows tell nobody)
            await asyncio.sleep(0.005)


# Numbers


async def test_ids_go_on_past_2_to_the_31_and_past_what_a_double_holds(
    connection: Connection, pool: Pool
) -> None:
    client = Client(pool)
    store = Store(pool, "asynctaskd")
    await pretend_idle(connection)
    worker = await connection.fetchval("SELECT id FROM asynctaskd.workers")
    for beyond in (2**31 + 5, 2**53 + 1):
        await connection.execute(f"SELECT setval(pg_get_serial_sequence('asynctaskd.tasks', 'id'), {beyond})")
        task_id = await client.enqueue("x", priority=1)
        assert task_id == beyond + 1
        [task] = await store.claim(worker, [], strict=StrictLane(1), slots=1, shares=[])
        assert task.id == task_id
        await store.finalize([Ended(task.id, task.claim_token, Transition(TaskStatus.COMPLETED), None)])
        assert (await client.get_task(task_id)).status == "completed"


async def test_a_claim_token_goes_on_past_2_to_the_31(connection: Connection, pool: Pool) -> None:
    await pretend_idle(connection)
    worker = await connection.fetchval("SELECT id FROM asynctaskd.workers")
    await Client(connection).enqueue("x", priority=1)
    await connection.execute("UPDATE asynctaskd.tasks SET claim_token = 2147483647")
    [task] = await Store(pool, "asynctaskd").claim(worker, [], strict=StrictLane(1), slots=1, shares=[])
    assert task.claim_token == 2**31


# Notices


async def test_a_payload_of_7999_bytes_is_the_longest(connection: Connection) -> None:
    await connection.execute("SELECT pg_notify('x', repeat('y', 7999))")
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await connection.execute("SELECT pg_notify('x', repeat('y', 8000))")


async def test_the_longest_label_set_fits_into_a_notice(
    connection: Connection, listening: asyncio.Queue[str], idle_worker: None
) -> None:
    await Client(connection).enqueue("x", labels=MANY_LABELS)
    [payload] = await all_heard(listening, connection)
    assert payload == ",".join(MANY_LABELS)
    assert len(payload) < 8000


async def test_a_thousand_tasks_in_one_statement_are_one_notice(
    connection: Connection, listening: asyncio.Queue[str], idle_worker: None
) -> None:
    client = Client(connection)
    await client.enqueue_many([TaskRequest("x", labels=["a"]) for _ in range(1000)])
    assert await all_heard(listening, connection) == ["a"]
    await client.enqueue_many([TaskRequest("x", labels=[label]) for label in "ab" * 500])
    assert await all_heard(listening, connection) == ["*"]


async def test_equal_notices_of_one_transaction_are_one(
    connection: Connection, listening: asyncio.Queue[str], idle_worker: None
) -> None:
    client = Client(connection)
    async with connection.transaction():
        for _ in range(10):
            await client.enqueue("x", labels=["a"])
    assert await all_heard(listening, connection) == ["a"]


async def test_an_enqueue_that_nobody_waits_for_sends_no_notice_and_takes_no_lock_for_one(
    connection: Connection, listening: asyncio.Queue[str], idle_worker: None
) -> None:
    client = Client(connection)
    await client.enqueue("x", labels=["c"])  # the idle worker doesn't carry it
    await connection.execute("UPDATE asynctaskd.workers SET idle = false")
    await client.enqueue("x", labels=["a"])
    await connection.execute("UPDATE asynctaskd.workers SET idle = true, lost_at = clock_timestamp()")
    await client.enqueue("x", labels=["a"])
    assert await all_heard(listening, connection) == []


async def test_pg_notify_keeps_the_case_of_a_channel_and_notify_folds_it(database: Database) -> None:
    session = await asyncpg.connect(database.dsn)
    heard: asyncio.Queue[str] = asyncio.Queue()
    for channel in ("Mixed", "mixed"):
        await session.add_listener(channel, lambda *notice: heard.put_nowait(notice[2]))
    await session.execute("SELECT pg_notify('Mixed', '')")
    await session.execute("NOTIFY Mixed")
    assert [await heard.get(), await heard.get()] == ["Mixed", "mixed"]
    await session.close()
