"""pgqueuer's worker: DSN, how many instances, batch size."""

from __future__ import annotations

import asyncio
import json
import sys

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job

from benchmarks.workers.tally import Tally


async def main(dsn: str, instances: int, batch: int) -> None:
    """Run the instances until the process is ended."""
    tally = Tally()
    await asyncio.gather(*[run(dsn, batch, tally) for _ in range(instances)])


async def run(dsn: str, batch: int, tally: Tally) -> None:
    """One instance, on a connection of its own."""
    queue = PgQueuer(AsyncpgDriver(await asyncpg.connect(dsn)))

    @queue.entrypoint("noop")
    async def noop(job: Job) -> None:
        tally.tick()

    @queue.entrypoint("stamp")
    async def stamp(job: Job) -> None:
        assert job.payload is not None
        tally.stamp(json.loads(job.payload)["sent_at"])

    await queue.run(batch_size=batch)


uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
