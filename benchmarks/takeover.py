"""How long a task waits until it runs again, where its worker is killed under a parent (`--processes N`)."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import uvloop
from common import SCHEMA, arguments, fresh_schema, percentile, report, worker_process

from asynctaskd import Client

if TYPE_CHECKING:
    import asyncpg

HELD = f"""
    SELECT w.pid, t.claim_token, t.claimed_at
    FROM {SCHEMA}.tasks AS t JOIN {SCHEMA}.workers AS w ON w.id = t.worker_id
    WHERE t.id = $1 AND t.claim_token > $2
"""


async def main() -> None:
    """Kill so often with another worker at hand, and with none, and report percentiles in seconds."""
    options = arguments(__doc__ or "", rounds=30)
    rows: list[dict[str, object]] = []
    for processes in (2, 1):
        async with fresh_schema(options.database) as (dsn, connection):
            waits = [await measure(dsn, connection, processes) for _ in range(options.rounds)]
        rows.append(
            {"processes": processes, "kills": len(waits)}
            | {f"p{p} s": round(percentile(waits, p / 100), 3) for p in (50, 99, 100)}
        )
    report("from kill -9 to the next claim", list(rows[0]), rows, as_json=options.json)


async def measure(dsn: str, connection: asyncpg.Connection, processes: int) -> float:
    """Kill the worker that holds a task; returns the seconds until it is claimed again."""
    async with worker_process(dsn, f"--processes={processes}", workers=processes):
        task_id = await Client(connection, schema=SCHEMA).enqueue("hold")
        pid, token, _ = await held(connection, task_id, after=0)
        killed_at = await connection.fetchval("SELECT clock_timestamp()")
        os.kill(pid, signal.SIGKILL)
        _, _, claimed_at = await held(connection, task_id, after=token)
    await connection.execute(f"DELETE FROM {SCHEMA}.tasks")
    return float((claimed_at - killed_at).total_seconds())


async def held(connection: asyncpg.Connection, task_id: int, *, after: int) -> asyncpg.Record:
    """Who holds the task, by a later claim than `after`."""
    while (row := await connection.fetchrow(HELD, task_id, after)) is None:  # noqa: ASYNC110  (rows tell nobody)
        await asyncio.sleep(0.002)
    return row


uvloop.run(main())
