"""Bring a database's schema up to this version: plain SQL files, forward only, safe to run anywhere at once.

The schema has a major and a minor number, stated on the first line of each migration (`-- schema 1.0`). A
daemon runs on its own major with a minor at least as new as it needs: additions leave old daemons running.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from asynctaskd.errors import SchemaVersionError
from asynctaskd.postgres import roles as parts
from asynctaskd.postgres.driver import NotPrimaryError, RowsLockedError, connect, render, translated
from asynctaskd.postgres.roles import RoleChanges

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_HEADER = re.compile(r"-- schema (\d+)\.(\d+)\n")

# For how long to try to get all tables, and how long to let others work between two attempts, in seconds.
_PATIENCE = 5.0
_PAUSE = 0.1

# A statement that builds indexes takes as long as the table is large, in seconds.
_LONGEST = 24 * 3600.0

# What locks a table that may be in use: the statements of migrations, not the bodies of functions.
_ALTERS = re.compile(
    r"(?:^ALTER TABLE|^UPDATE|^CREATE (?:UNIQUE )?INDEX \w+ ON|^CREATE TRIGGER \w+ [^;]*? ON|\bREFERENCES)"
    r" asynctaskd\.(\w+)",
    re.MULTILINE,
)

# The order in which enqueue and claim take them: whoever comes later waits at the first.
_ORDER = ("definitions", "tasks", "workers", "runtime_configs")

# A session looks for deadlocks once, when it has waited for deadlock_timeout. Whose time comes soon could
# find itself in one with us, and give up its transaction for it. Those who wait for us now want to migrate.
_SOMEBODY_LOOKS_SOON = """
SELECT EXISTS (
    SELECT FROM pg_locks, (SELECT current_setting('deadlock_timeout')::interval) AS set (timeout)
    WHERE NOT granted AND waitstart > clock_timestamp() - 2 * timeout
      AND waitstart < clock_timestamp() - timeout / 2 AND pg_backend_pid() <> ALL (pg_blocking_pids(pid)))
"""

# So an attempt ends before anybody looks who begins to wait for it.
_LIMIT_ATTEMPT = """
SELECT set_config('statement_timeout', greatest(extract(epoch FROM timeout) * 250, 1)::integer::text, true)
FROM (SELECT current_setting('deadlock_timeout')::interval) AS set (timeout)
"""
_BOOKKEEPING = """
CREATE SCHEMA IF NOT EXISTS asynctaskd;
CREATE TABLE IF NOT EXISTS asynctaskd.migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    major integer NOT NULL,
    minor integer NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number and name, the schema version it leads to, and its SQL."""

    number: int
    name: str
    major: int
    minor: int
    sql: str


def shipped_migrations() -> list[Migration]:
    """Every migration that came with this version, in order."""
    return [_read(path) for path in sorted(_folder().glob("[0-9]*.sql"))]


def _folder() -> Path:
    packaged = Path(str(files("asynctaskd"))) / "migrations"
    return packaged if packaged.is_dir() else packaged.parent.parent / "migrations"


def _read(path: Path) -> Migration:
    sql = path.read_text(encoding="utf8")
    header = _HEADER.match(sql)
    if header is None:
        raise SchemaVersionError(f"{path.name} doesn't begin with a line such as '-- schema 1.0'")
    number, _, name = path.stem.partition("_")
    return Migration(int(number), name, int(header[1]), int(header[2]), sql)


async def plan(dsn: str, *, schema: str = "asynctaskd") -> list[Migration]:
    """The migrations that `migrate` would apply; changes nothing."""
    async with connect(dsn) as connection:
        with translated(), parts.may_migrate(schema):
            applied = await _applied(connection, schema)
        return [migration for migration in shipped_migrations() if migration.number not in applied]


async def migrate(dsn: str, *, schema: str = "asynctaskd") -> list[Migration]:
    """Apply what is missing, in one transaction under a lock; returns what was applied.

    However many processes call it at once, one applies and the others find nothing to do.

    Raises:
        DatabaseUnavailableError: the database can't be reached, or a table was in use for 5 s.
        DatabaseRefusedError: the role may not; the message says which one may.
        SchemaVersionError: the database was migrated by a newer major version.
    """
    async with connect(dsn) as connection:
        with translated(), parts.may_migrate(schema):
            async with connection.transaction(isolation="read_committed"):
                return await _apply_missing(connection, schema)


async def migrate_with_roles(dsn: str, *, schema: str = "asynctaskd") -> tuple[list[Migration], RoleChanges]:
    """Like `migrate`, and in the same transaction make the roles of this schema and give each its rights.

    However often it is called: what is there is left, and rights become what this version says.

    Raises:
        DatabaseRefusedError: the role that migrates may not make roles, or something belongs to another one.
    """
    async with connect(dsn) as connection:
        with translated(), parts.may_migrate(schema):
            async with connection.transaction(isolation="read_committed"):
                applied = await _apply_missing(connection, schema)
                return applied, await _divide(connection, schema)


async def plan_roles(dsn: str, *, schema: str = "asynctaskd") -> RoleChanges:
    """What `migrate_with_roles` would change beside the migrations; changes nothing."""
    async with connect(dsn) as connection:
        with translated():
            return await _role_changes(connection, schema)


async def _role_changes(connection: asyncpg.Connection, schema: str) -> RoleChanges:
    return RoleChanges(
        made=await parts.missing_roles(connection, schema),
        moved=await parts.tables_of_others(connection, schema),
        joined=await parts.enqueuers_by_hand(connection, schema),
    )


async def _divide(connection: asyncpg.Connection, schema: str) -> RoleChanges:
    await connection.execute("RESET ROLE")  # an owner makes no roles
    changes = await _role_changes(connection, schema)
    await parts.make_roles(connection, schema)
    with parts.ours_alone():
        await _lock(connection, _in_order(changes.moved), schema)
        await parts.hand_over(connection, schema)
    await parts.join_enqueuers(connection, schema, changes.joined)
    await parts.act_as_owner(connection, schema)
    await parts.grant_rights(connection, schema)
    return changes


async def _apply_missing(connection: asyncpg.Connection, schema: str) -> list[Migration]:
    await connection.execute(
        "SELECT pg_advisory_xact_lock(hashtext($1))", f"{schema}.migrations", timeout=_LONGEST
    )
    applied = await _applied(connection, schema)
    _refuse_newer_major(applied)
    missing = [migration for migration in shipped_migrations() if migration.number not in applied]
    if not missing:
        return []
    await parts.act_as_owner(connection, schema)
    await _lock(connection, await _in_use(connection, missing, schema), schema)
    if not applied:  # an owner who owns the schema alone may make no other
        await connection.execute(render(_BOOKKEEPING, schema))
    has_roles = await parts.has_roles(connection, schema)
    for migration in missing:
        await _apply(connection, migration, schema)
    if has_roles:
        await parts.grant_rights(connection, schema)
    return missing


def _in_order(tables: Iterable[str]) -> list[str]:
    """In the order in which to lock them."""
    given = set(tables)
    return [*(table for table in _ORDER if table in given), *sorted(given.difference(_ORDER))]


async def _in_use(connection: asyncpg.Connection, missing: Sequence[Migration], schema: str) -> list[str]:
    """The tables there are that these migrations alter, in the order in which to lock them."""
    altered = {table for migration in missing for table in _ALTERS.findall(migration.sql)}
    found = await connection.fetch(
        "SELECT name FROM unnest($1::text[]) WITH ORDINALITY AS one(name, nth)"
        " WHERE to_regclass(format('%I.%I', $2::text, name)) IS NOT NULL ORDER BY nth",
        _in_order(altered),
        schema,
    )
    return [row["name"] for row in found]


async def _lock(connection: asyncpg.Connection, tables: Sequence[str], schema: str) -> None:
    """Lock all of these tables, so that from here on nothing is waited for with a lock in hand.

    Transactions of users take them in any order. So what was got is let go again where the others don't come
    before anybody looks for deadlocks: it is never a user whose transaction is aborted.

    Raises:
        RowsLockedError: a table is in use all the time.
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + _PATIENCE
    while tables and not await _has_locked(connection, tables, schema):
        if loop.time() >= ends_at:
            raise RowsLockedError(
                f"{', '.join(tables)}: in use for {_PATIENCE:g} s (lock timeout), so nothing was changed: "
                "see pg_stat_activity for transactions that take long, and try again"
            )
        await asyncio.sleep(_PAUSE)


async def _has_locked(connection: asyncpg.Connection, tables: Sequence[str], schema: str) -> bool:
    if await connection.fetchval(_SOMEBODY_LOOKS_SOON):
        return False
    names = ", ".join(f'"{schema}"."{table}"' for table in tables)
    try:
        async with connection.transaction():
            await connection.execute(_LIMIT_ATTEMPT)
            await connection.execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
            await connection.execute("SET LOCAL statement_timeout = 0")
    except (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
        return False
    return True


async def _apply(connection: asyncpg.Connection, migration: Migration, schema: str) -> None:
    await connection.execute(render(migration.sql, schema), timeout=_LONGEST)
    await connection.execute(
        render(
            "INSERT INTO asynctaskd.migrations (number, name, major, minor) VALUES ($1, $2, $3, $4)", schema
        ),
        migration.number,
        migration.name,
        migration.major,
        migration.minor,
    )


async def _applied(connection: asyncpg.Connection, schema: str) -> dict[int, tuple[int, int]]:
    if await connection.fetchval("SELECT to_regclass($1)", f'"{schema}".migrations') is None:
        return {}
    rows = await connection.fetch(render("SELECT number, major, minor FROM asynctaskd.migrations", schema))
    return {number: (major, minor) for number, major, minor in rows}


def _refuse_newer_major(applied: dict[int, tuple[int, int]]) -> None:
    newest = max(applied.values(), default=(0, 0))
    if newest[0] > _needed()[0]:
        raise SchemaVersionError(
            f"the database's schema is {newest[0]}.{newest[1]}, of a newer major version: upgrade asynctaskd"
        )


def _needed() -> tuple[int, int]:
    newest = shipped_migrations()[-1]
    return newest.major, newest.minor


async def require_primary(dsn: str, *, schema: str = "asynctaskd") -> tuple[int, int]:
    """The schema's version, if a daemon can work there.

    Raises:
        DatabaseUnavailableError: it can't be reached, or it is a standby, which takes no writes.
        SchemaVersionError: its schema doesn't suit.
    """
    async with connect(dsn) as connection:
        with translated():
            is_standby = await connection.fetchval("SELECT pg_is_in_recovery()")
        if is_standby:
            raise NotPrimaryError("the database is a standby that takes no writes: connect to the primary")
        return await require_version(connection, schema=schema)


async def require_version(connection: asyncpg.Connection, *, schema: str = "asynctaskd") -> tuple[int, int]:
    """The schema's version, if this daemon can work with it.

    Raises:
        SchemaVersionError: it can't; the message says what to run.
    """
    with translated(role=f"{schema}_worker"):
        applied = await _applied(connection, schema)
    found, needed = max(applied.values(), default=(0, 0)), _needed()
    if found[0] > needed[0]:
        _refuse_newer_major(applied)
    if found < needed:
        state = f"is {found[0]}.{found[1]}" if applied else "is missing"
        raise SchemaVersionError(
            f"the database's schema {schema!r} {state}, but {needed[0]}.{needed[1]} is needed: "
            "run `asynctaskd migrate` with the same --database and --schema"
        )
    return found
