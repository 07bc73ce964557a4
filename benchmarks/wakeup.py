"""How long a committed task waits for an idle worker: with notices, and with every notice lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import uvloop
from common import SCHEMA, arguments, fresh_schema, percentile, report, worker_process
from noop import app, noop

from asynctaskd import Client

if TYPE_CHECKING:
    import asyncpg


async def main() -> None:
    """Measure both ways and report percentiles in milliseconds."""
    options = arguments(__doc__ or "", tasks=500, lost=20)
    rows: list[dict[str, object]] = []
    for name, listen, tasks in (("notices", "on", options.tasks), ("every notice lost", "off", options.lost)):
        waits = await measure(options.database, tasks, listen)
        rows.append(
            {"way": name, "tasks": tasks}
            | {f"p{p} ms": round(percentile(waits, p / 100), 2) for p in (50, 95, 99)}
        )
    report("from commit to start, one idle worker process", list(rows[0]), rows, as_json=options.json)


async def measure(url: str, tasks: int, listen: str) -> list[float]:
    """Enqueue one task after the other, each when the last has finished; returns the waits in ms."""
    async with fresh_schema(url) as (dsn, connection), worker_process(dsn, ASYNCTASKD_DATABASE_LISTEN=listen):
        client = Client(connection, app, schema=SCHEMA)
        ids = []
        for _ in range(tasks):
            ids.append(await client.enqueue(noop.request(1, "welcome")))
            await client.wait(ids[-1])
            await asyncio.sleep(0.005)  # the worker is to be idle again
        return await waits(connection, ids)


async def waits(connection: asyncpg.Connection, ids: list[int]) -> list[float]:
    """From creation (commit follows within the round trip) to claim, by the database's clock."""
    rows = await connection.fetch(
        f"SELECT 1000 * extract(epoch FROM claimed_at - created_at) FROM {SCHEMA}.all_tasks"
        " WHERE id = ANY ($1)",
        ids,
    )
    return [float(row[0]) for row in rows]


uvloop.run(main())
