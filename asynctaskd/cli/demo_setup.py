"""The demo from end to end: a schema of its own, two workers, one run, and everything stopped again."""

from __future__ import annotations

import asyncio
import platform
import signal
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from asynctaskd import Client
from asynctaskd.cli.demo_app import LIBRARY, TABLES
from asynctaskd.cli.demo_files import WEIGHTS, DemoFailedError, find_files, plan
from asynctaskd.cli.demo_run import SCHEMA, Demo
from asynctaskd.cli.demo_summary import Summary, summarize
from asynctaskd.cli.demo_workers import Workers
from asynctaskd.postgres import embedded
from asynctaskd.postgres.driver import connect, translated
from asynctaskd.postgres.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import asyncpg

    from asynctaskd.cli.demo_view import View


async def perform(database: str, view: View) -> Summary:
    """Run the demo in that database.

    Raises:
        DemoFailedError: it couldn't go on; ConfigError, DatabaseUnavailableError: it couldn't begin.
        CancelledError: a signal asked to stop. The workers have ended by then.
    """
    with _interruptible(), view:
        return await _perform(database, view)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have this task cancelled by a signal, so that what it began is ended in order."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101  (a coroutine runs in one)
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def _perform(database: str, view: View) -> Summary:
    work = plan(await asyncio.to_thread(find_files, LIBRARY))
    view.tell(f"{work.files:,} files of Python {platform.python_version()}'s standard library to index")
    dsn = await asyncio.to_thread(embedded.resolve, database, progress=view.tell)
    async with _prepared(dsn) as connection:
        with TemporaryDirectory(prefix="asynctaskd-demo-") as directory:
            async with Workers(dsn, SCHEMA, Path(directory)) as workers:
                run = await workers.watch_over(Demo(dsn, connection, workers, work, view).run())
                await workers.stop()
        view.tell("both workers were told to stop, and ended in order")
        return await summarize(connection, run)


@asynccontextmanager
async def _prepared(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """The demo's schema, made anew, for this demo alone."""
    async with connect(dsn) as connection:
        with translated():
            if not await connection.fetchval("SELECT pg_try_advisory_lock(hashtext($1))", SCHEMA):
                raise DemoFailedError("another demo is running in this database; wait until it has ended")
            await connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
        await migrate(dsn, schema=SCHEMA)
        with translated():
            await connection.execute(TABLES)
        # At most half of the slots for urgent tasks: however many there are, the others move on.
        client = Client(connection, schema=SCHEMA)
        await client.update_runtime_config(weights=WEIGHTS, max_strict_percentage=50)
        yield connection
