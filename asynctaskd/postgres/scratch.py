"""For tests: databases that are there in an instant, copies of a template that was migrated once.

The name of each says when its run began, so that what killed runs leave behind can be told and dropped.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from asynctaskd.postgres.migrate import migrate

PREFIX = "asynctaskd_test_"

_LEFT_OVER = 6 * 3600
"""Seconds after which a database belongs to a run that was killed. No run takes so long."""

_LATER_PARTITIONS = """
    SELECT asynctaskd.ensure_finished_partition((asynctaskd.clock() AT TIME ZONE 'UTC')::date + n)
    FROM generate_series(2, 9) AS n
"""


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of its own, as asyncpg makes it."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def run_script(dsn: str, script: str) -> None:
    """Run its statements in one go."""
    async with connected(dsn) as connection:
        await connection.execute(script)


def template_name(of: int) -> str:
    """A name for the template of a process, by the process's number."""
    return f"{PREFIX}{int(time.time())}_{of}"


async def make_template(dsn: str, name: str) -> None:
    """Make a migrated database to copy, with the partitions that each worker on a copy would make.

    But not tomorrow's: a run that goes on past midnight would find it due in each copy, and drop it.
    Nobody may be connected to it then.
    """
    await run_script(dsn, f'CREATE DATABASE "{name}"')
    template = with_database(dsn, name)
    await migrate(template)
    async with connected(template) as connection:
        await connection.execute(_LATER_PARTITIONS)


async def copy_template(dsn: str, template: str, name: str) -> str:
    """Make a copy; returns its URL."""
    async with connected(dsn) as connection:
        # Files are copied for a third of the work, but two checkpoints go with it, which wait for a disk
        # wherever data has to be safe.
        strategy = "FILE_COPY" if await connection.fetchval("SHOW fsync") == "off" else "WAL_LOG"
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY {strategy}')
    return with_database(dsn, name)


async def drop_database(dsn: str, name: str) -> None:
    """Drop a database, whoever is still connected to it."""
    await run_script(dsn, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


async def drop_left_over(dsn: str) -> None:
    """Drop what killed runs left behind."""
    async with connected(dsn) as connection:
        for (name,) in await connection.fetch(
            "SELECT datname FROM pg_database WHERE starts_with(datname, $1)", PREFIX
        ):
            began = name.removeprefix(PREFIX).partition("_")[0]
            if began.isdigit() and int(began) < time.time() - _LEFT_OVER:
                await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


async def forget_durability(dsn: str) -> None:
    """Let a server lose data in a power cut: only one that belongs to tests may."""
    await run_script(dsn, "ALTER SYSTEM SET fsync = off")
    await run_script(dsn, "ALTER SYSTEM SET full_page_writes = off")
    await run_script(dsn, "SELECT pg_reload_conf()")


def with_database(dsn: str, name: str) -> str:
    """The URL of another database of that server."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))
