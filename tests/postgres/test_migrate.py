"""Migrating: from everywhere at once, in order, recorded, and refused where it can't end well."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import count, permutations
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4

import asyncpg
import pytest

from asynctaskd.client import Client
from asynctaskd.errors import DatabaseUnavailableError, SchemaVersionError
from asynctaskd.postgres import migrate as module
from asynctaskd.postgres.migrate import Migration, migrate, plan, require_version, shipped_migrations

if TYPE_CHECKING:
    from asyncpg import Connection, Record

RELATIONS = {
    "tasks", "finished_tasks", "unique_tags", "task_events", "definitions", "workers", "runtime_configs",
    "all_tasks", "migrations", "retention",
}  # fmt: skip

TABLES = ("definitions", "tasks", "workers", "runtime_configs")
WORKER = UUID(int=1)
READ_WORKERS = "SELECT count(*) FROM asynctaskd.workers"
ENQUEUE = ["SELECT asynctaskd.enqueue('a')", "SELECT asynctaskd.enqueue('a', '{}', priority => 1)"]
CLAIM = [
    f"""UPDATE asynctaskd.tasks SET status = 'running', worker_id = '{WORKER}', claim_token = claim_token + 1,
            claimed_at = clock_timestamp()
        WHERE id = ANY (ARRAY(SELECT id FROM asynctaskd.tasks WHERE status = 'pending' LIMIT 5
                              FOR UPDATE SKIP LOCKED))
          AND (SELECT asynctaskd.is_live(w) FROM asynctaskd.workers AS w WHERE id = '{WORKER}')""",
    f"UPDATE asynctaskd.workers SET renewed_at = clock_timestamp() WHERE id = '{WORKER}'",
    f"DELETE FROM asynctaskd.tasks WHERE worker_id = '{WORKER}'",
]

PROCESS = """
import asyncio, sys
from asynctaskd.postgres.migrate import migrate
print("ready", flush=True)
sys.stdin.readline()
print(len(asyncio.run(migrate(sys.argv[1]))), flush=True)
"""
"""A process that migrates as soon as it is told to, and says how many migrations it applied."""


# To alter it takes a lock that readers hold up, and the ownership of partitions that workers have made.
DEFINITION_OF_HISTORY = """
    SELECT attname::text, atttypid::regtype::text, attnotnull, conname::text
    FROM pg_attribute LEFT JOIN pg_constraint ON conrelid = attrelid AND attnum = ANY (conkey)
    WHERE attrelid = 'asynctaskd.finished_tasks'::regclass AND attnum > 0 ORDER BY attnum, conname
"""


@dataclass(frozen=True)
class Bare:
    """A database that was never migrated."""

    dsn: str
    connection: Connection[Record]

    async def relations(self, schema: str = "asynctaskd") -> set[str]:
        rows = await self.connection.fetch(
            "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE nspname = $1 AND relkind IN ('r', 'p', 'v')",
            schema,
        )
        return {row[0] for row in rows}


@pytest.fixture
async def bare(dsn: str) -> AsyncIterator[Bare]:
    name = f"asynctaskd_test_bare_{uuid4().hex}"
    server = await asyncpg.connect(dsn)
    await server.execute(f'CREATE DATABASE "{name}"')
    own = urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))
    connection = await asyncpg.connect(own)
    yield Bare(own, connection)
    await connection.close()
    await server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await server.close()


@pytest.fixture
def ship(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Migration]]:
    """Has the given migrations shipped after the real ones."""

    def shipped(*added: Migration) -> list[Migration]:
        together = [*shipped_migrations(), *added]
        monkeypatch.setattr(module, "shipped_migrations", lambda: together)
        return together

    return shipped


def later(major: int, minor: int, sql: str = "SELECT", places: int = 1) -> Migration:
    number = shipped_migrations()[-1].number + places
    return Migration(number, "later", major, minor, sql)


async def test_a_bare_database_becomes_the_schema(bare: Bare) -> None:
    assert await migrate(bare.dsn) == shipped_migrations()
    assert await bare.relations() >= RELATIONS


async def test_migrations_are_applied_in_order_and_recorded(bare: Bare) -> None:
    await migrate(bare.dsn)
    rows = await bare.connection.fetch(
        "SELECT number, name, major, minor FROM asynctaskd.migrations ORDER BY applied_at"
    )
    assert [tuple(row) for row in rows] == [
        (each.number, each.name, each.major, each.minor) for each in shipped_migrations()
    ]


def test_shipped_migrations_are_numbered_without_a_gap() -> None:
    numbers = [each.number for each in shipped_migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_a_second_time_there_is_nothing_to_do(bare: Bare) -> None:
    await migrate(bare.dsn)
    assert await migrate(bare.dsn) == []
    assert await plan(bare.dsn) == []


async def test_ten_connections_at_once_give_one_schema_and_no_error(bare: Bare) -> None:
    applied = await asyncio.gather(*(migrate(bare.dsn) for _ in range(10)))
    assert sorted(map(len, applied)) == [0] * 9 + [len(shipped_migrations())]


async def test_ten_processes_at_once_give_one_schema_and_no_error(bare: Bare) -> None:
    processes = [
        subprocess.Popen(  # noqa: ASYNC220  (ten that begin together; nothing waits here)
            [sys.executable, "-c", PROCESS, bare.dsn],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(10)
    ]
    for process in processes:
        assert process.stdout is not None
        assert (await asyncio.to_thread(process.stdout.readline)).strip() == "ready"
    answers = await asyncio.gather(*(asyncio.to_thread(process.communicate, "go\n") for process in processes))
    assert [answer[1] for answer in answers] == [""] * 10
    assert sorted(int(answer[0]) for answer in answers) == [0] * 9 + [len(shipped_migrations())]
    assert await bare.connection.fetchval("SELECT count(*) FROM asynctaskd.migrations") == len(
        shipped_migrations()
    )


async def test_a_plan_names_what_is_missing_and_changes_nothing(bare: Bare) -> None:
    assert await plan(bare.dsn) == shipped_migrations()
    assert await bare.relations() == set()
    assert (
        await bare.connection.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = 'asynctaskd'") == 0
    )


async def test_two_schemas_in_one_database_know_nothing_of_each_other(bare: Bare) -> None:
    await migrate(bare.dsn)
    assert await migrate(bare.dsn, schema="other") == shipped_migrations()
    assert await bare.relations("other") == await bare.relations()
    async with Client(bare.dsn, schema="other") as other, Client(bare.dsn) as first:
        task_id = await other.enqueue("a", unique_tag="t", keep="400d")
        assert (await other.get_task(task_id)).name == "a"
        assert await first.list_tasks() == []


async def test_another_schema_stands_without_the_first_one(bare: Bare) -> None:
    await migrate(bare.dsn, schema="other")
    assert await bare.relations() == set()
    bodies = await bare.connection.fetch(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'other'::regnamespace"
        " AND CASE WHEN prokind = 'f' THEN pg_get_functiondef(oid) END ~ 'asynctaskd[._]'"
    )
    assert [row[0] for row in bodies] == []


async def test_notices_of_another_schema_have_a_channel_of_their_own(bare: Bare) -> None:
    await migrate(bare.dsn, schema="other")
    body = await bare.connection.fetchval("SELECT pg_get_functiondef('other.tell'::regproc)")
    assert "'other_ready'" in body


async def test_what_is_new_is_applied_to_a_migrated_database(
    bare: Bare, ship: Callable[..., list[Migration]]
) -> None:
    await migrate(bare.dsn)
    [*_, new] = ship(later(1, 1, "CREATE TABLE asynctaskd.new (id integer)"))
    assert await plan(bare.dsn) == [new]
    assert await migrate(bare.dsn) == [new]
    assert "new" in await bare.relations()


async def test_a_migration_that_fails_leaves_nothing_behind(
    bare: Bare, ship: Callable[..., list[Migration]]
) -> None:
    ship(later(1, 1, "CREATE TABLE asynctaskd.new (id integer)"), later(1, 2, "SELECT 1/0", places=2))
    with pytest.raises(Exception, match="22012"):
        await migrate(bare.dsn)
    assert await bare.relations() == set()


async def test_a_table_that_stays_locked_ends_the_migration(
    bare: Bare, ship: Callable[..., list[Migration]], monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(bare.dsn)
    ship(later(1, 1, "ALTER TABLE asynctaskd.tasks ADD COLUMN new integer"))
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    async with bare.connection.transaction():
        await bare.connection.execute("LOCK TABLE asynctaskd.tasks IN ROW EXCLUSIVE MODE")
        with pytest.raises(DatabaseUnavailableError, match="lock timeout"):
            await migrate(bare.dsn)


@pytest.mark.parametrize("numbers", ["the same", "more"])
async def test_a_database_of_a_newer_major_is_refused(bare: Bare, numbers: str) -> None:
    await migrate(bare.dsn)
    next_number = shipped_migrations()[-1].number + 1
    await bare.connection.execute(
        "INSERT INTO asynctaskd.migrations (number, name, major, minor) VALUES ($1, 'next', 2, 0)",
        next_number,
    )
    if numbers == "the same":  # as after a squash: what we ship isn't there by number either
        await bare.connection.execute("DELETE FROM asynctaskd.migrations WHERE number = $1", next_number - 1)
    before = await bare.relations()
    with pytest.raises(SchemaVersionError, match="2.0, .*newer major version: upgrade asynctaskd"):
        await migrate(bare.dsn)
    with pytest.raises(SchemaVersionError, match="upgrade asynctaskd"):
        await require_version(bare.connection)
    assert await bare.relations() == before


async def test_a_missing_schema_says_what_to_run(bare: Bare) -> None:
    with pytest.raises(SchemaVersionError, match="'asynctaskd' is missing.*run `asynctaskd migrate`"):
        await require_version(bare.connection)
    async with Client(bare.dsn) as client:
        with pytest.raises(SchemaVersionError, match="run `asynctaskd migrate`"):
            await client.enqueue("a")


async def test_a_schema_too_old_says_what_to_run(bare: Bare, ship: Callable[..., list[Migration]]) -> None:
    await migrate(bare.dsn)
    newest = shipped_migrations()[-1]
    ship(later(1, newest.minor + 1))
    needed = f"is 1.{newest.minor}, but 1.{newest.minor + 1} is needed: run `asynctaskd migrate`"
    with pytest.raises(SchemaVersionError, match=needed):
        await require_version(bare.connection)


async def test_an_older_major_says_what_to_run(bare: Bare, ship: Callable[..., list[Migration]]) -> None:
    await migrate(bare.dsn)
    newest = shipped_migrations()[-1]
    ship(later(2, 0))
    with pytest.raises(
        SchemaVersionError, match=f"is 1.{newest.minor}, but 2.0 is needed: run `asynctaskd migrate`"
    ):
        await require_version(bare.connection)


async def test_a_newer_minor_will_do(bare: Bare) -> None:
    await migrate(bare.dsn)
    await bare.connection.execute("UPDATE asynctaskd.migrations SET minor = 99")
    assert await require_version(bare.connection) == (1, 99)


async def test_a_read_only_database_is_refused_and_unchanged(bare: Bare) -> None:
    name = urlsplit(bare.dsn).path[1:]
    await bare.connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    with pytest.raises(DatabaseUnavailableError, match="read-only"):
        await migrate(bare.dsn)
    assert await bare.relations() == set()


async def test_a_migration_without_its_version_is_refused(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("migrations")
    (folder / "0001_first.sql").write_text("SELECT 1;\n")
    monkeypatch.setattr(module, "_folder", lambda: folder)
    with pytest.raises(SchemaVersionError, match="0001_first.sql doesn't begin with"):
        shipped_migrations()


async def test_history_that_is_being_read_and_belongs_to_the_workers_is_left_alone_from_1_5_on(
    bare: Bare, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = shipped_migrations()
    monkeypatch.setattr(module, "shipped_migrations", lambda: everything[:7])
    await migrate(bare.dsn)
    monkeypatch.undo()
    before = await bare.connection.fetch(DEFINITION_OF_HISTORY)
    async with bare.connection.transaction():
        await bare.connection.fetch("SELECT FROM asynctaskd.finished_tasks")
        assert await migrate(bare.dsn) == everything[7:]
    assert await bare.connection.fetch(DEFINITION_OF_HISTORY) == before


# Beside workers and enqueuers of the version before


@pytest.fixture
async def older(bare: Bare, monkeypatch: pytest.MonkeyPatch) -> Bare:
    """A database as the release with nine migrations left it, with a worker and a definition in it."""
    everything = shipped_migrations()
    monkeypatch.setattr(module, "shipped_migrations", lambda: everything[:9])
    await migrate(bare.dsn)
    monkeypatch.undo()
    await bare.connection.execute("INSERT INTO asynctaskd.definitions (name, schema_hash) VALUES ('a', '')")
    await bare.connection.execute(
        "INSERT INTO asynctaskd.workers (id, name, hostname, pid, version, labels, names, concurrency,"
        " expires_at) VALUES ($1, $1, 'h', 1, '0', '{}', '{a}', 9, clock_timestamp() + interval '1 hour')",
        WORKER,
    )
    return bare


async def until(connection: Connection[Record], question: str) -> None:
    """Ask until the answer is yes."""
    async with asyncio.timeout(20):
        while not await connection.fetchval(question):  # noqa: ASYNC110  (who waits there tells nobody)
            await asyncio.sleep(0.005)


async def use(dsn: str, statements: list[str], done: asyncio.Event) -> int:
    """Run these statements in a transaction, again and again; returns how often."""
    connection = await asyncpg.connect(dsn)
    try:
        for times in count(1):
            async with connection.transaction():
                for statement in statements:
                    await connection.execute(statement)
            if done.is_set():
                return times
    finally:
        await connection.close()
    raise AssertionError


async def test_nobody_who_works_meanwhile_gets_into_a_deadlock(older: Bare) -> None:
    done = asyncio.Event()
    users = [ENQUEUE, ENQUEUE, ENQUEUE, [*ENQUEUE, READ_WORKERS], CLAIM, CLAIM]
    async with asyncio.TaskGroup() as group:
        using = [group.create_task(use(older.dsn, statements, done)) for statements in users]
        await until(older.connection, "SELECT last_value >= 100 FROM asynctaskd.task_ids")
        assert len(await migrate(older.dsn)) == len(shipped_migrations()) - 9
        done.set()
    assert min(one.result() for one in using) > 0


@pytest.mark.parametrize("held,wanted", list(permutations(TABLES, 2)))
async def test_it_lets_go_of_what_a_transaction_wants_that_holds_it_up(
    older: Bare, held: str, wanted: str
) -> None:
    migrating = None
    async with older.connection.transaction():
        await older.connection.execute(f"LOCK TABLE asynctaskd.{held} IN ROW EXCLUSIVE MODE")
        migrating = asyncio.create_task(migrate(older.dsn))
        watcher = await asyncpg.connect(older.dsn)
        await until(
            watcher,
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE datname = current_database() AND NOT granted AND locktype = 'relation'",
        )
        await watcher.close()
        await older.connection.execute(f"LOCK TABLE asynctaskd.{wanted} IN ROW EXCLUSIVE MODE")
    assert await migrating


async def test_it_begins_nothing_while_somebody_is_about_to_look_for_deadlocks(bare: Bare) -> None:
    holder, waiter = await asyncpg.connect(bare.dsn), await asyncpg.connect(bare.dsn)
    await bare.connection.execute("SET deadlock_timeout = '2s'")
    assert not await bare.connection.fetchval(module._SOMEBODY_LOOKS_SOON)
    async with holder.transaction():
        await holder.execute("SELECT pg_advisory_xact_lock(1)")
        waiting = asyncio.create_task(waiter.execute("SELECT pg_advisory_lock(1)"))
        await until(bare.connection, module._SOMEBODY_LOOKS_SOON)
    await waiting
    assert not await bare.connection.fetchval(module._SOMEBODY_LOOKS_SOON)
    await holder.close()
    await waiter.close()


@pytest.mark.parametrize("before", range(9, len(shipped_migrations())))
async def test_all_tables_that_migrations_alter_are_locked_first(
    bare: Bare, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = shipped_migrations()
    monkeypatch.setattr(module, "shipped_migrations", lambda: everything[:before])
    await migrate(bare.dsn)
    monkeypatch.undo()
    there = await bare.relations()
    async with bare.connection.transaction():
        await module._lock(
            bare.connection,
            await module._in_use(bare.connection, everything[before:], "asynctaskd"),
            "asynctaskd",
        )
        locked = await strongly_locked(bare)
        for migration in everything[before:]:
            await module._apply(bare.connection, migration, "asynctaskd")
        assert await strongly_locked(bare) & there == locked


async def strongly_locked(bare: Bare) -> set[str]:
    """The tables that nobody else can write now."""
    rows = await bare.connection.fetch(
        "SELECT DISTINCT relname::text FROM pg_locks JOIN pg_class c ON c.oid = relation"
        " WHERE pid = pg_backend_pid() AND relnamespace = 'asynctaskd'::regnamespace"
        " AND relkind IN ('r', 'p', 'v')"
        " AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')"
    )
    return {row[0] for row in rows}
