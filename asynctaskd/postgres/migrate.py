"""Bring a database's schema up to this version: plain SQL files, forward only, safe to run anywhere at once.

The schema has a major and a minor number, stated on the first line of each migration (`-- schema 1.0`). A
daemon runs on its own major with a minor at least as new as it needs: additions leave old daemons running.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from asynctaskd.errors import DatabaseUnavailableError, SchemaVersionError
from asynctaskd.postgres.driver import connect, render, translated

if TYPE_CHECKING:
    import asyncpg

_HEADER = re.compile(r"-- schema (\d+)\.(\d+)\n")
_LOCK_TIMEOUT = "5s"
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
        with translated():
            applied = await _applied(connection, schema)
        return [migration for migration in shipped_migrations() if migration.number not in applied]


async def migrate(dsn: str, *, schema: str = "asynctaskd") -> list[Migration]:
    """Apply what is missing, in one transaction under a lock; returns what was applied.

    However many processes call it at once, one applies and the others find nothing to do.

    Raises:
        DatabaseUnavailableError: the database can't be reached, or a table was locked for 5 s.
        SchemaVersionError: the database was migrated by a newer major version.
    """
    async with connect(dsn) as connection:
        with translated():
            async with connection.transaction(isolation="read_committed"):
                return await _apply_missing(connection, schema)


async def _apply_missing(connection: asyncpg.Connection, schema: str) -> list[Migration]:
    await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", f"{schema}.migrations")
    await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
    applied = await _applied(connection, schema)
    _refuse_newer_major(applied)
    missing = [migration for migration in shipped_migrations() if migration.number not in applied]
    if missing:
        await connection.execute(render(_BOOKKEEPING, schema))
    for migration in missing:
        await _apply(connection, migration, schema)
    return missing


async def _apply(connection: asyncpg.Connection, migration: Migration, schema: str) -> None:
    await connection.execute(render(migration.sql, schema))
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


async def require_primary(dsn: str, *, schema: str = "asynctaskd") -> None:
    """Check that a daemon can work there.

    Raises:
        DatabaseUnavailableError: it can't be reached, or it is a standby, which takes no writes.
        SchemaVersionError: its schema doesn't suit.
    """
    async with connect(dsn) as connection:
        with translated():
            is_standby = await connection.fetchval("SELECT pg_is_in_recovery()")
        if is_standby:
            raise DatabaseUnavailableError(
                "the database is a standby that takes no writes: connect to the primary"
            )
        await require_version(connection, schema=schema)


async def require_version(connection: asyncpg.Connection, *, schema: str = "asynctaskd") -> tuple[int, int]:
    """The schema's version, if this daemon can work with it.

    Raises:
        SchemaVersionError: it can't; the message says what to run.
    """
    with translated():
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
