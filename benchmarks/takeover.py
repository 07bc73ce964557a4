"""How long a task waits until it runs again, where its worker is killed under a parent (`--processes N`)."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from typing import TYPE_CHECKING

import uvloop
from rich.console import Console
from rich.table import Table

from asynctaskd import Client
from asynctaskd.postgres import embedded
from benchmarks.contenders.asynctaskd import Asynctaskd
from benchmarks.measures.measure import percentile
from benchmarks.noop import app, hold
from benchmarks.process import worker_process
from benchmarks.server import Server, connected

if TYPE_CHECKING:
    import asyncpg

CONCURRENCY = 10

HELD = """
    SELECT w.pid, t.claim_token, t.claimed_at
    FROM asynctaskd.tasks AS t JOIN asynctaskd.workers AS w ON w.id = t.worker_id
    WHERE t.id = $1 AND t.claim_token > $2
"""


async def main(dsn: str, rounds: int) -> None:
    """Kill so often with another worker at hand, and with none, and print percentiles in seconds."""
    table = Table("processes", "kills", "p50 s", "p99 s", "max s", title="from kill -9 to the next claim")
    async with Server.connected(dsn) as server:
        for processes in (2, 1):
            fleet = Asynctaskd(CONCURRENCY, processes=processes)
            async with server.fresh(fleet) as database:
                waits = [await measure(database, fleet) for _ in range(rounds)]
            figures = (f"{percentile(waits, share):.3f}" for share in (0.5, 0.99, 1))
            table.add_row(str(processes), str(len(waits)), *figures)
    Console().print(table)


async def measure(dsn: str, fleet: Asynctaskd) -> float:
    """Kill the worker that holds a task; returns the seconds until it is claimed again."""
    async with worker_process(fleet, dsn), connected(dsn) as connection:
        await everybody(connection, fleet.processes)
        task_id = await Client(connection, app).enqueue(hold)
        pid, token, _ = await held(connection, task_id, after=0)
        killed_at = await connection.fetchval("SELECT clock_timestamp()")
        os.kill(pid, signal.SIGKILL)
        _, _, claimed_at = await held(connection, task_id, after=token)
        await connection.execute("DELETE FROM asynctaskd.tasks")
    return float((claimed_at - killed_at).total_seconds())


async def everybody(connection: asyncpg.Connection, processes: int) -> None:
    """Until so many workers have their leases."""
    live = "SELECT count(*) FROM asynctaskd.workers AS w WHERE asynctaskd.is_live(w)"
    while await connection.fetchval(live) < processes:  # noqa: ASYNC110  (rows tell nobody)
        await asyncio.sleep(0.02)


async def held(connection: asyncpg.Connection, task_id: int, *, after: int) -> asyncpg.Record:
    """Who holds the task, by a later claim than `after`."""
    while (row := await connection.fetchrow(HELD, task_id, after)) is None:  # noqa: ASYNC110  (rows tell nobody)
        await asyncio.sleep(0.002)
    return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.takeover", description=__doc__)
    parser.add_argument("--database", default="embedded", help="a PostgreSQL URL (default: embedded)")
    parser.add_argument("--rounds", type=int, default=30, help="kills (default: 30)")
    options = parser.parse_args()
    uvloop.run(main(embedded.resolve(options.database), options.rounds))
