"""What has outlived its keep goes, and nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest

from asynctaskd import Client
from asynctaskd.postgres.records import DuePartition, Ended, Share, StrictLane, WorkerRow
from asynctaskd.postgres.retention import NotDroppedError, Partitions, alone
from asynctaskd.postgres.store import Store
from asynctaskd.task import TaskStatus, Transition
from tests.support.pooler import pooler_to

if TYPE_CHECKING:
    from asyncpg import Connection, Pool, Record

NOON = datetime(2030, 1, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SOON = 20.0
AT_ONCE = 5.0
"""Seconds in which a statement is through that waits for nobody: fewer than a detach's patience."""

PARTITIONS = """
    SELECT relname::text FROM pg_class JOIN pg_inherits ON inhrelid = oid
    WHERE inhparent = 'asynctaskd.finished_tasks'::regclass AND NOT inhdetachpending ORDER BY 1
"""
PENDING = "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhdetachpending)"
WAITS_FOR_OTHERS = """
    SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity AS a USING (pid)
                   WHERE datname = current_database() AND locktype = 'virtualxid' AND NOT granted
                     AND query LIKE 'ALTER TABLE%DETACH%')
"""
WAITS_FOR_A_TABLE = """
    SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
                   WHERE datname = current_database() AND locktype = 'relation' AND NOT granted)
"""


async def set_clock(connection: Connection[Record], moment: datetime) -> None:
    await connection.execute(
        "CREATE OR REPLACE FUNCTION asynctaskd.clock() RETURNS timestamptz"
        f" LANGUAGE sql VOLATILE PARALLEL SAFE RETURN timestamptz '{moment.isoformat()}'"
    )


@pytest.fixture
async def noon(connection: Connection[Record]) -> datetime:
    """It is noon of a day far away, and stays it; there are no partitions yet."""
    for name in await partitions_of(connection):
        await connection.execute(f"DROP TABLE asynctaskd.{name}")
    await set_clock(connection, NOON)
    return NOON


@pytest.fixture
async def store(database: Any) -> AsyncIterator[Store]:
    opened = await Store.open(database.dsn, schema="asynctaskd")
    yield opened
    await opened.close()


@pytest.fixture
async def client(pool: Pool[Record]) -> Client:
    return Client(pool)


@pytest.fixture
async def another(database: Any) -> AsyncIterator[Connection[Record]]:
    """Another connection, of somebody who is in the way."""
    opened = await asyncpg.connect(database.dsn)
    yield opened
    await opened.close()


@pytest.fixture
def dropping(database: Any, store: Store) -> Callable[..., Any]:
    """What drops partitions; its patience is never the reason that something ends, unless a test says so."""

    @asynccontextmanager
    async def begin(patience: float = 8.0, dsn: str = database.dsn) -> AsyncIterator[Partitions]:
        async with alone(dsn, store, schema="asynctaskd", patience=patience) as partitions:
            assert partitions is not None
            yield partitions

    return begin


async def ensure(connection: Connection[Record], *days: date) -> None:
    for day in days:
        await connection.execute("SELECT asynctaskd.ensure_finished_partition($1)", day)


async def partitions_of(connection: Connection[Record]) -> list[str]:
    return [row[0] for row in await connection.fetch(PARTITIONS)]


async def exists(connection: Connection[Record], table: str) -> bool:
    return bool(await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"asynctaskd.{table}"))


async def until(connection: Connection[Record], question: str) -> None:
    async with asyncio.timeout(SOON):
        while not await connection.fetchval(question):  # noqa: ASYNC110  (rows tell nobody)
            await asyncio.sleep(0.01)


async def drop_all(partitions: Partitions) -> list[str]:
    return [due.name for due in await partitions._store.due_partitions() if await partitions.drop(due)]


async def claim_all(store: Store) -> list[int]:
    worker = WorkerRow(uuid4(), uuid4(), uuid4(), None, "here", 1, "0", [], [], 10, timedelta(days=9))
    await store.register_worker(worker)
    shares = [Share("", "default", 100, 100, 1, 0.0)]
    return [
        task.id for task in await store.claim(worker.id, [], strict=StrictLane(0), slots=100, shares=shares)
    ]


async def finish(store: Store, *task_ids: int, status: TaskStatus = TaskStatus.COMPLETED) -> set[int]:
    return await store.finalize([Ended(task_id, 1, Transition(status), None) for task_id in task_ids])


# Partitions


async def test_partitions_whose_day_has_come_are_dropped_and_no_other(
    connection: Connection[Record], dropping: Any, noon: datetime
) -> None:
    today = noon.date()
    await ensure(connection, today - 2 * DAY, today - DAY, today, today + DAY, today + 2 * DAY)
    async with dropping() as partitions:
        dropped = await drop_all(partitions)
        assert await partitions._store.due_partitions() == []
    assert dropped == ["finished_tasks_20300108", "finished_tasks_20300109", "finished_tasks_20300110"]
    assert await partitions_of(connection) == ["finished_tasks_20300111", "finished_tasks_20300112"]
    assert not await exists(connection, "finished_tasks_20300110")


async def test_a_record_is_there_as_long_as_it_is_to_be_kept_and_then_it_is_not(
    client: Client, store: Store, connection: Connection[Record], dropping: Any, noon: datetime
) -> None:
    short, long = await client.enqueue("a", keep="1ms"), await client.enqueue("a", keep="2d")
    await claim_all(store)
    await finish(store, short, long)
    left = []
    for days in range(4):
        await set_clock(connection, noon + days * DAY)
        async with dropping() as partitions:
            await drop_all(partitions)
        left.append({task.id for task in await client.list_tasks()})
    assert left == [{short, long}, {long}, {long}, set()]


async def test_a_partition_of_more_days_than_its_name_says_stays_until_the_last(
    connection: Connection[Record], dropping: Any, noon: datetime
) -> None:
    await connection.execute(
        "CREATE TABLE asynctaskd.finished_tasks_20300101 PARTITION OF asynctaskd.finished_tasks"
        " FOR VALUES FROM ('2030-01-01') TO ('2030-01-12')"
    )
    async with dropping() as partitions:
        assert await partitions._store.due_partitions() == []
    await set_clock(connection, noon + DAY)
    async with dropping() as partitions:
        assert await drop_all(partitions) == ["finished_tasks_20300101"]


async def test_tables_of_other_names_and_days_to_come_are_left_alone(
    connection: Connection[Record], dropping: Any, noon: datetime
) -> None:
    for name in ("finished_tasks_2030", "finished_tasks_20200101_mine", "finished_tasks_20300111", "mine"):
        await connection.execute(f"CREATE TABLE asynctaskd.{name} (id integer)")
    await connection.execute("CREATE SCHEMA other; CREATE TABLE other.finished_tasks_20200101 (id integer)")
    async with dropping() as partitions:
        assert await partitions._store.due_partitions() == []


async def test_one_worker_drops_at_a_time(database: Any, store: Store, dropping: Any) -> None:
    async with dropping():
        async with alone(database.dsn, store, schema="asynctaskd") as second:
            assert second is None
        async with alone(database.dsn, store, schema="elsewhere") as other_schema:
            assert other_schema is not None
    async with alone(database.dsn, store, schema="asynctaskd") as next_one:
        assert next_one is not None


async def test_a_detached_table_that_was_not_dropped_is_found(
    connection: Connection[Record], dropping: Any, noon: datetime
) -> None:
    await ensure(connection, noon.date())
    await connection.execute(
        "ALTER TABLE asynctaskd.finished_tasks"
        " DETACH PARTITION asynctaskd.finished_tasks_20300110 CONCURRENTLY"
    )
    async with dropping() as partitions:
        assert await partitions._store.due_partitions() == [DuePartition("finished_tasks_20300110", None)]
        assert await drop_all(partitions) == ["finished_tasks_20300110"]
    assert not await exists(connection, "finished_tasks_20300110")


async def test_a_partition_in_use_stays_for_now_and_whoever_uses_it_is_named(
    connection: Connection[Record], another: Connection[Record], dropping: Any, noon: datetime
) -> None:
    await ensure(connection, noon.date(), noon.date() - DAY)
    async with dropping(patience=0.0) as partitions:
        async with another.transaction():
            await another.fetch("SELECT FROM asynctaskd.all_tasks")
            with pytest.raises(NotDroppedError) as caught:
                await drop_all(partitions)
            assert caught.value.blockers == [another.get_server_pid()]
            assert await connection.fetchval(PENDING)
        # The next round goes on from there, and the one that was interrupted comes first.
        assert await drop_all(partitions) == ["finished_tasks_20300109", "finished_tasks_20300110"]


async def test_whoever_stops_while_a_detach_waits_leaves_it_to_the_next_one(
    connection: Connection[Record], another: Connection[Record], dropping: Any, noon: datetime
) -> None:
    await ensure(connection, noon.date())

    async def drop() -> None:
        async with dropping() as partitions:
            await drop_all(partitions)

    async with another.transaction():
        await another.fetch("SELECT FROM asynctaskd.all_tasks")
        stopped = asyncio.create_task(drop())
        await until(connection, WAITS_FOR_OTHERS)
        stopped.cancel()
        async with asyncio.timeout(SOON):
            assert isinstance(
                (await asyncio.gather(stopped, return_exceptions=True))[0], asyncio.CancelledError
            )
    await until(connection, f"SELECT NOT ({WAITS_FOR_OTHERS.strip()})")
    async with dropping() as partitions:
        assert await drop_all(partitions) == ["finished_tasks_20300110"]


# Nobody waits


async def test_all_goes_on_while_a_detach_waits(
    client: Client,
    store: Store,
    connection: Connection[Record],
    another: Connection[Record],
    dropping: Any,
    noon: datetime,
) -> None:
    await ensure(connection, noon.date())
    done, parent, unusual = [
        await client.enqueue("a", keep=keep) for keep in (timedelta(days=1), timedelta(days=1), 77 * DAY)
    ]
    assert await claim_all(store) == [done, parent, unusual]
    assert await finish(store, parent) == {parent}
    async with dropping() as partitions:
        async with another.transaction():
            await another.fetch("SELECT FROM asynctaskd.all_tasks")
            detaching = asyncio.create_task(drop_all(partitions))
            await until(connection, WAITS_FOR_OTHERS)
            async with asyncio.timeout(AT_ONCE):
                assert await finish(store, done) == {done}
                assert await finish(store, unusual) == {unusual}  # its partition is made on the spot
                child = await client.enqueue("a", parent_id=parent)
                assert await claim_all(store) == [child]
                expired = await client.enqueue("a", deadline="1ms", delay="1h")
                await set_clock(connection, noon + timedelta(seconds=1))
                await store.expire()
                assert len(await client.list_tasks()) == 5
                assert (await client.get_task(expired)).status is TaskStatus.EXPIRED
                assert await store.forget_events() == 1
                assert await store.forget_tags() == 0
            assert not await connection.fetchval(WAITS_FOR_A_TABLE)
            assert not detaching.done()
        assert await detaching == ["finished_tasks_20300110"]


@pytest.fixture
async def interrupted(
    connection: Connection[Record], another: Connection[Record], dropping: Any, noon: datetime
) -> AsyncIterator[None]:
    """A detach that was interrupted, and a transaction with an older snapshot that hasn't looked at it."""
    await ensure(connection, noon.date())
    async with another.transaction(isolation="repeatable_read"):
        await another.fetch("SELECT 1")
        async with dropping(patience=0.0) as partitions, connection.transaction():
            await connection.fetch("SELECT FROM asynctaskd.all_tasks")
            with pytest.raises(NotDroppedError):
                await drop_all(partitions)
        yield


@pytest.mark.usefixtures("interrupted")
async def test_a_reader_with_an_old_snapshot_goes_before_a_detach_that_is_to_be_finished(
    connection: Connection[Record], another: Connection[Record], dropping: Any
) -> None:
    """To its snapshot the partition is still there, and while the server waits for it, it is locked."""
    async with dropping() as partitions:
        finishing = asyncio.create_task(drop_all(partitions))
        await until(connection, WAITS_FOR_OTHERS)
        async with asyncio.timeout(AT_ONCE):
            assert await another.fetch("SELECT FROM asynctaskd.all_tasks") == []
        with pytest.raises(NotDroppedError) as caught:
            await finishing
    # Not a deadlock, which the server would find after a second, and which might end the reader.
    assert isinstance(caught.value.__cause__, asyncpg.QueryCanceledError)
    assert await connection.fetchval(PENDING)


@pytest.mark.usefixtures("interrupted")
async def test_a_partition_that_is_needed_at_once_goes_before_a_detach_that_is_to_be_finished(
    connection: Connection[Record], dropping: Any, noon: datetime
) -> None:
    async with dropping() as partitions:
        finishing = asyncio.create_task(drop_all(partitions))
        await until(connection, WAITS_FOR_OTHERS)
        async with asyncio.timeout(AT_ONCE):
            await ensure(connection, noon.date() + DAY)
        with pytest.raises(NotDroppedError):
            await finishing
    assert await partitions_of(connection) == ["finished_tasks_20300111"]


# Through a pooler


@pytest.fixture(params=[False, True], ids=["refuses", "ignores"])
async def pooler(request: pytest.FixtureRequest, database: Any) -> AsyncIterator[Any]:
    async with pooler_to(database.dsn, ignores=request.param) as opened:
        yield opened


async def test_partitions_are_dropped_through_a_pooler_by_one_worker_at_a_time(
    connection: Connection[Record], store: Store, dropping: Any, pooler: Any, noon: datetime
) -> None:
    await ensure(connection, noon.date(), noon.date() - DAY)
    async with dropping(dsn=pooler.dsn) as partitions:
        async with alone(pooler.dsn, store, schema="asynctaskd") as second:
            assert second is None
        assert await drop_all(partitions) == ["finished_tasks_20300109", "finished_tasks_20300110"]


async def test_a_detach_through_a_pooler_is_given_up_too(
    connection: Connection[Record], another: Connection[Record], dropping: Any, pooler: Any, noon: datetime
) -> None:
    await ensure(connection, noon.date())
    async with dropping(patience=0.0, dsn=pooler.dsn) as partitions:
        async with another.transaction():
            await another.fetch("SELECT FROM asynctaskd.all_tasks")
            with pytest.raises(NotDroppedError) as caught:
                await drop_all(partitions)
            assert caught.value.blockers == [another.get_server_pid()]
        assert await drop_all(partitions) == ["finished_tasks_20300110"]


# Partitions that are made


async def test_no_partition_is_made_ahead_for_a_day_that_has_come(
    connection: Connection[Record], store: Store, noon: datetime
) -> None:
    await store.ensure_partitions()
    assert await store.due_partitions() == []
    assert (await partitions_of(connection))[0] == "finished_tasks_20300111"
    await set_clock(connection, noon + timedelta(hours=12, seconds=30))  # who began yesterday may still write
    assert await store.due_partitions() == []
    await set_clock(connection, noon + timedelta(hours=12, minutes=1))
    assert [due.name for due in await store.due_partitions()] == ["finished_tasks_20300111"]


@pytest.mark.parametrize("keep", [timedelta(microseconds=1), timedelta(hours=11), timedelta(hours=13)])
async def test_a_record_that_is_kept_for_less_than_a_day_finds_its_partition(
    client: Client, store: Store, noon: datetime, keep: timedelta
) -> None:
    task_id = await client.enqueue("a", keep=keep)
    await claim_all(store)
    assert await finish(store, task_id) == {task_id}
    assert (await client.get_task(task_id)).status is TaskStatus.COMPLETED


@pytest.mark.parametrize("how", ["CONCURRENTLY", "interrupted"])
async def test_a_day_that_comes_back_with_the_clock_has_its_partition_again(
    client: Client,
    store: Store,
    connection: Connection[Record],
    another: Connection[Record],
    dropping: Any,
    noon: datetime,
    how: str,
) -> None:
    first, second = await client.enqueue("a", keep="1s"), await client.enqueue("a", keep="1s")
    await claim_all(store)
    await finish(store, first)
    await set_clock(connection, noon + DAY)
    if how == "interrupted":
        async with dropping(patience=0.0) as partitions, another.transaction():
            await another.fetch("SELECT FROM asynctaskd.all_tasks")
            with pytest.raises(NotDroppedError):
                await drop_all(partitions)
    else:
        [due] = await store.due_partitions()
        await connection.execute(due.detach)
    await set_clock(connection, noon)
    assert await finish(store, second) == {second}
    assert {task.id for task in await client.list_tasks()} == {first, second}


async def test_a_table_that_became_a_partition_again_is_not_dropped(
    connection: Connection[Record], store: Store, noon: datetime
) -> None:
    await ensure(connection, noon.date())
    assert await store._value("drop_partition", "finished_tasks_20300110") is False
    assert await store._value("drop_partition", "nothing") is False
    assert await partitions_of(connection) == ["finished_tasks_20300110"]


async def test_what_vacuum_sees_of_a_partition_is_frozen_at_once(
    connection: Connection[Record], noon: datetime
) -> None:
    await ensure(connection, noon.date())
    options = await connection.fetch(
        "SELECT c.reloptions, t.reloptions FROM pg_class AS c JOIN pg_class AS t ON t.oid = c.reltoastrelid"
        " WHERE c.oid = 'asynctaskd.finished_tasks_20300110'::regclass"
    )
    assert [tuple(row) for row in options] == [(["autovacuum_freeze_min_age=0"],) * 2]


# Tags and events


async def test_tags_of_forgotten_records_are_freed_in_batches_and_no_other(
    client: Client, store: Store, connection: Connection[Record], noon: datetime
) -> None:
    for tag, keep in {"a": "1d", "b": "1d", "c": "1d", "later": "2d"}.items():
        await client.enqueue("a", unique_tag=tag, keep=keep)
    await finish(store, *await claim_all(store))
    await client.enqueue("a", unique_tag="live")
    await set_clock(connection, noon + 2 * DAY)
    assert [await store.forget_tags(2) for _ in range(3)] == [2, 1, 0]
    assert await column(connection, "SELECT tag FROM asynctaskd.unique_tags ORDER BY 1") == ["later", "live"]


async def test_a_tag_that_somebody_is_taking_over_is_skipped(
    client: Client,
    store: Store,
    connection: Connection[Record],
    another: Connection[Record],
    noon: datetime,
) -> None:
    await client.enqueue("a", unique_tag="a", keep="1d")
    await finish(store, *await claim_all(store))
    await set_clock(connection, noon + 2 * DAY)
    async with another.transaction():
        taken = await client.enqueue("a", unique_tag="a", connection=another)
        assert await store.forget_tags() == 0
    assert await store.forget_tags() == 0
    assert await client.enqueue("a", unique_tag="a") == taken


async def column(connection: Connection[Record], question: str) -> list[Any]:
    return [row[0] for row in await connection.fetch(question)]


EVENTS_OF = "SELECT DISTINCT task_id FROM asynctaskd.task_events ORDER BY 1"


async def tell(connection: Connection[Record], *task_ids: int) -> None:
    for task_id in task_ids:
        await connection.execute(
            "INSERT INTO asynctaskd.task_events (task_id, claim_token, kind, at)"
            " VALUES ($1, 1, 'stale_result', asynctaskd.clock())",
            task_id,
        )


async def test_events_go_a_day_after_the_task_of_which_nothing_is_known(
    client: Client, store: Store, connection: Connection[Record], noon: datetime
) -> None:
    kept, gone = await client.enqueue("a", keep="30d"), await client.enqueue("a", keep=0)
    await finish(store, *await claim_all(store))
    live = await client.enqueue("a")
    await tell(connection, kept, gone, live, gone)
    await set_clock(connection, noon + 0.9 * DAY)
    assert await store.forget_events() == 4
    assert await column(connection, EVENTS_OF) == [kept, gone, live]
    assert await store.forget_events() == 0  # it is through for today
    await set_clock(connection, noon + 2 * DAY)
    assert await store.forget_events() == 4
    assert await column(connection, EVENTS_OF) == [kept, live]


async def test_events_of_a_dropped_partition_go(
    client: Client, store: Store, connection: Connection[Record], dropping: Any, noon: datetime
) -> None:
    task_id = await client.enqueue("a", keep="1d")
    await claim_all(store)
    await finish(store, task_id)
    await tell(connection, task_id)
    await set_clock(connection, noon + 3 * DAY)
    assert await store.forget_events() == 1
    assert await column(connection, EVENTS_OF) == [task_id]
    async with dropping() as partitions:
        await drop_all(partitions)
    await set_clock(connection, noon + 5 * DAY)
    assert await store.forget_events() == 1
    assert await column(connection, EVENTS_OF) == []


async def test_a_pass_goes_on_where_the_batch_before_ended_whoever_made_it(
    store: Store, connection: Connection[Record], noon: datetime, database: Any
) -> None:
    await tell(connection, *range(1, 6))
    await set_clock(connection, noon + 2 * DAY)
    assert await store.forget_events(2) == 2
    other = await Store.open(database.dsn, schema="asynctaskd", connections=1)
    assert await other.forget_events(2) == 2
    await other.close()
    assert await column(connection, EVENTS_OF) == [5]
    assert await store.forget_events(2) == 1
    assert await store.forget_events(2) == 0


async def test_a_batch_of_events_that_another_worker_has_in_hand_is_not_waited_for(
    store: Store, connection: Connection[Record], another: Connection[Record], noon: datetime
) -> None:
    await tell(connection, 1)
    await set_clock(connection, noon + 2 * DAY)
    async with another.transaction():
        await another.execute("SELECT FROM asynctaskd.retention FOR UPDATE")
        assert await store.forget_events() == 0
    assert await store.forget_events() == 1


async def test_a_clock_that_went_ahead_for_a_while_does_not_put_a_pass_off_for_ever(
    store: Store, connection: Connection[Record], noon: datetime
) -> None:
    await set_clock(connection, noon + 1000 * DAY)
    await store.forget_events()
    await set_clock(connection, noon)
    await tell(connection, 1)
    await set_clock(connection, noon + 2 * DAY)
    assert await store.forget_events() == 1
    assert await column(connection, EVENTS_OF) == []
