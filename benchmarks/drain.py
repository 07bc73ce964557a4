"""How fast one process drains a queue of no-op tasks, history kept."""

from __future__ import annotations

import time

import uvloop
from common import SCHEMA, arguments, fresh_schema, report, spread
from noop import app, noop

from asynctaskd import Client
from asynctaskd.config import load_config
from asynctaskd.daemon.supervisor import Daemon

CONCURRENCY = (10, 100, 1000)
CHUNK = 10_000


async def main() -> None:
    """Run the rounds, alternating between the concurrencies, and report medians."""
    options = arguments(__doc__ or "", tasks=50_000, rounds=3)
    rates: dict[int, list[float]] = {concurrency: [] for concurrency in CONCURRENCY}
    costs: dict[int, list[float]] = {concurrency: [] for concurrency in CONCURRENCY}
    for _ in range(options.rounds):
        for concurrency in CONCURRENCY:
            seconds, cpu = await drain(options.database, options.tasks, concurrency)
            rates[concurrency].append(options.tasks / seconds)
            costs[concurrency].append(cpu / options.tasks * 1e6)
    rows: list[dict[str, object]] = [
        {
            "concurrency": concurrency,
            "tasks/s": spread(rates[concurrency]),
            "CPU µs/task": spread(costs[concurrency], 1),
        }
        for concurrency in CONCURRENCY
    ]
    title = f"{options.tasks:,} no-op tasks, one process, history kept; median (min-max) of {options.rounds}"
    report(title, ["concurrency", "tasks/s", "CPU µs/task"], rows, as_json=options.json)


async def drain(url: str, tasks: int, concurrency: int) -> tuple[float, float]:
    """Fill a fresh queue and drain it; returns seconds, and the process's CPU seconds."""
    async with fresh_schema(url) as (dsn, connection):
        client = Client(connection, app, schema=SCHEMA)
        request = noop.request(1, "welcome")
        for start in range(0, tasks, CHUNK):
            await client.enqueue_many([request] * min(CHUNK, tasks - start))
        flags = {"worker.concurrency": concurrency, "database.schema": SCHEMA}
        daemon = Daemon(app, dsn, load_config(None, {}, flags))
        began, cpu = time.perf_counter(), time.process_time()
        await daemon.run(once=True)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        done = await connection.fetchval(
            f"SELECT count(*) FROM {SCHEMA}.finished_tasks WHERE status = 'completed'"
        )
    if done != tasks:
        raise SystemExit(f"{done} of {tasks} tasks completed")
    return seconds, cpu


uvloop.run(main())
