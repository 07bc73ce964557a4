"""What the benchmarks share: a database with a fresh schema, a worker process, and tables of medians."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from rich.console import Console
from rich.table import Table

from asynctaskd.postgres import embedded
from asynctaskd.postgres.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

SCHEMA = "asynctaskd_bench"


def arguments(description: str, **numbers: int) -> argparse.Namespace:
    """The command line: --database, --json, and a flag for each number with its default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--database", default="embedded", help="a PostgreSQL URL (default: embedded)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"(default: {default})")
    return parser.parse_args()


@asynccontextmanager
async def fresh_schema(url: str) -> AsyncIterator[tuple[str, asyncpg.Connection]]:
    """A migrated schema that is dropped at the end: its DSN and a connection."""
    dsn = await asyncio.to_thread(embedded.resolve, url)
    connection = await asyncpg.connect(dsn)
    try:
        await drop(connection)
        await migrate(dsn, schema=SCHEMA)
        yield dsn, connection
        await drop(connection)
    finally:
        await connection.close()


async def drop(connection: asyncpg.Connection) -> None:
    """Drop the benchmark's schema."""
    await connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")


@asynccontextmanager
async def worker_process(dsn: str, *flags: str, workers: int = 1, **settings: str) -> AsyncIterator[int]:
    """`asynctaskd run`, idle, all its workers with their leases; yields its process id."""
    environment = os.environ | {
        "ASYNCTASKD_DATABASE_URL": dsn,
        "ASYNCTASKD_DATABASE_SCHEMA": SCHEMA,
        "ASYNCTASKD_LOG_FORMAT": "json",
        "PYTHONPATH": str(Path(__file__).parent),
        **settings,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "asynctaskd", "run", "--app", "noop:app", *flags,
        env=environment, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        await _until_started(process, workers)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)  # at once: what it runs may never end
        await process.communicate()


async def _until_started(process: asyncio.subprocess.Process, workers: int) -> None:
    assert process.stderr is not None
    async for line in process.stderr:
        workers -= b"worker.started" in line
        if not workers:
            return
    raise SystemExit("the worker process ended before it had started")


def report(title: str, columns: Sequence[str], rows: list[dict[str, object]], *, as_json: bool) -> None:
    """Print rows as a table, or as JSON."""
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(str(row[column]) for column in columns))
    Console().print(table)


def spread(values: Sequence[float], digits: int = 0) -> str:
    """A median with its smallest and largest."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of values doesn't exceed."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]
