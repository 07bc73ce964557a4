"""`asynctaskd demo`: two workers index Python's standard library, on a PostgreSQL of their own."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from asynctaskd.cli.demo_app import LIBRARY, TABLES
from asynctaskd.cli.demo_files import WEIGHTS, DemoFailedError, find_files, plan
from asynctaskd.cli.demo_run import SCHEMA, Demo
from asynctaskd.cli.demo_summary import Summary, show, summarize
from asynctaskd.cli.demo_view import LiveView, PlainView, SilentView, View
from asynctaskd.cli.demo_workers import Workers
from asynctaskd.config import EMBEDDED
from asynctaskd.postgres import embedded
from asynctaskd.postgres.driver import connect, translated
from asynctaskd.postgres.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import asyncpg

# At most half of the slots for urgent tasks: however many there are, the others move on.
_WEIGH = """
INSERT INTO asynctaskd_demo.runtime_configs (version, weights, max_strict_percentage) VALUES (1, $1, 50)
"""


def demo(
    database: Annotated[
        str,
        typer.Option(
            help=f'A PostgreSQL URL, or "embedded": a private server. The demo uses the schema {SCHEMA} '
            "there, which it drops first."
        ),
    ] = EMBEDDED,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print nothing but a summary, as one JSON object.")
    ] = False,
) -> None:
    """Watch two workers index Python's standard library: weighted groups, an urgent lane, retries, a failure.

    Without --database it uses the embedded server, whatever the configuration says. Exits with 0 only if
    every task ended as it should.
    """
    console = Console()
    try:
        summary = asyncio.run(_until_interrupted(database, _view(console, as_json=as_json)))
    except DemoFailedError as error:
        _complain(f"the demo failed: {error}")
        raise typer.Exit(1) from None
    except asyncio.CancelledError:
        _complain("the demo was interrupted; its workers have stopped")
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps(summary.as_json(), indent=2))
    else:
        show(console, summary, database)
    raise typer.Exit(0 if summary.is_well else 1)


def _view(console: Console, *, as_json: bool) -> View:
    if as_json:
        return SilentView()
    return LiveView(console) if console.is_terminal else PlainView(console)


def _complain(text: str) -> None:
    typer.echo(text, err=True)


async def _until_interrupted(database: str, view: View) -> Summary:
    with _interruptible(), view:
        return await _run(database, view)


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


async def _run(database: str, view: View) -> Summary:
    work = plan(await asyncio.to_thread(find_files, LIBRARY))
    dsn = await _dsn(database, view)
    async with _prepared(dsn) as connection:
        with TemporaryDirectory(prefix="asynctaskd-demo-") as directory:
            async with Workers(dsn, SCHEMA, Path(directory)) as workers:
                run = await workers.watch_over(Demo(dsn, connection, workers, work, view).run())
                await workers.stop()
        view.tell("both workers were told to stop, and ended in order")
        return await summarize(connection, run)


async def _dsn(database: str, view: View) -> str:
    if not embedded.is_embedded(database):
        return database
    return await asyncio.to_thread(embedded.start, database, progress=view.tell)


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
            await _publish_weights(connection)
        yield connection


async def _publish_weights(connection: asyncpg.Connection) -> None:
    await connection.execute(_WEIGH, json.dumps(dict(WEIGHTS)))
