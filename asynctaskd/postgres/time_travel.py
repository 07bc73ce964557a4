"""For tests: move the time that a schema sees. Everything in it reads `clock()`, which is replaced here.

Only forward, and only in a database that belongs to a test: whoever else uses it travels too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from asynctaskd.postgres.scratch import connected

_LONGEST_WAIT = "10s"

_DEFAULTS = """
    SELECT format(
        'ALTER TABLE %s ALTER COLUMN %I SET DEFAULT {schema}.clock()', a.attrelid::regclass, a.attname)
    FROM pg_attrdef AS d
    JOIN pg_attribute AS a ON (a.attrelid, a.attnum) = (d.adrelid, d.adnum)
    JOIN pg_class AS c ON c.oid = a.attrelid AND NOT c.relispartition
    WHERE c.relnamespace = '{schema}'::regnamespace AND pg_get_expr(d.adbin, d.adrelid) = 'clock_timestamp()'
"""

_OFFSET = "SELECT round(1000 * extract(epoch FROM {schema}.clock() - clock_timestamp()))::bigint"

_MOVE = """
    CREATE OR REPLACE FUNCTION {schema}.clock() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE
    RETURN clock_timestamp() + interval '{offset} milliseconds'
"""

_KEEP_ALIVE = """
    UPDATE {schema}.workers SET renewed_at = renewed_at + $2, expires_at = expires_at + $2
    WHERE id = ANY ($1) AND stopped_at IS NULL AND lost_at IS NULL
"""


async def read_clock(dsn: str, schema: str) -> datetime:
    """The time that the schema sees: an aware datetime."""
    async with connected(dsn) as connection:
        now: datetime = await connection.fetchval(f"SELECT {schema}.clock()")
    return now


async def make_movable(dsn: str, schema: str) -> None:
    """Let the columns that tell when a row was written read the schema's clock too."""
    async with connected(dsn) as connection:
        # One at a time: whoever holds one of these tables waits for none of the others.
        for (statement,) in await connection.fetch(_DEFAULTS.format(schema=schema)):
            await connection.execute(f"SET lock_timeout = '{_LONGEST_WAIT}'; {statement}")


async def move_clock(dsn: str, schema: str, by: timedelta, living: Iterable[UUID]) -> None:
    """Move the schema's time on. These workers have renewed their leases meanwhile, all others haven't.

    Raises:
        asyncpg.LockNotAvailableError: a transaction of the test's keeps the table of workers locked.
    """
    async with connected(dsn) as connection, _all_stopped(connection, schema):
        before: int = await connection.fetchval(_OFFSET.format(schema=schema))
        offset = before + by // timedelta(milliseconds=1)
        await connection.execute(_MOVE.format(schema=schema, offset=offset))
        await connection.execute(_KEEP_ALIVE.format(schema=schema), list(living), by)


@asynccontextmanager
async def _all_stopped(connection: asyncpg.Connection, schema: str) -> AsyncIterator[None]:
    """A transaction that no worker's statement overlaps: none may see the new time and its old lease."""
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = '{_LONGEST_WAIT}'")
        await connection.execute(f"LOCK TABLE {schema}.workers IN ACCESS EXCLUSIVE MODE")
        yield
