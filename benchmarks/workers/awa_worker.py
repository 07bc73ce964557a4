"""awa's worker: DSN."""

from __future__ import annotations

import asyncio
import sys

import uvloop
from awa import AsyncClient, Job

from benchmarks.contenders.contender import QUEUE
from benchmarks.workers.awa_jobs import Noop, Stamp
from benchmarks.workers.tally import Tally

WORKERS = 1000
CONNECTIONS = 50


async def main(dsn: str) -> None:
    """Run a worker until the process is ended."""
    client = AsyncClient(dsn, max_connections=CONNECTIONS)
    tally = Tally()

    @client.task(Noop, queue=QUEUE)
    async def noop(job: Job[Noop]) -> None:
        tally.tick()

    @client.task(Stamp, queue=QUEUE)
    async def stamp(job: Job[Stamp]) -> None:
        tally.stamp(job.args.sent_at)

    await client.start([(QUEUE, WORKERS)])
    await asyncio.Event().wait()


uvloop.run(main(sys.argv[1]))
