"""What an idle worker process costs: memory, and processor time."""

from __future__ import annotations

import asyncio

import psutil
import uvloop
from common import arguments, fresh_schema, report, worker_process


async def main() -> None:
    """Watch an idle worker for a while and report."""
    options = arguments(__doc__ or "", seconds=30)
    async with fresh_schema(options.database) as (dsn, _), worker_process(dsn) as pid:
        process = psutil.Process(pid)
        await asyncio.sleep(2)
        before = sum(process.cpu_times()[:2])
        await asyncio.sleep(options.seconds)
        used = sum(process.cpu_times()[:2]) - before
        memory = process.memory_info().rss / 2**20
    row: dict[str, object] = {
        "seconds": options.seconds,
        "memory MiB": round(memory, 1),
        "% of a core": round(100 * used / options.seconds, 2),
    }
    report("an idle worker process", list(row), [row], as_json=options.json)


uvloop.run(main())
