"""procrastinate's App, which the harness enqueues with; run as a program (DSN), its worker."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import uvloop
from procrastinate import App, PsycopgConnector

from benchmarks.workers.tally import Tally

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CONCURRENCY = 30
CONNECTIONS = 10


@asynccontextmanager
async def connected(dsn: str, connections: int) -> AsyncIterator[App]:
    """The App with its tasks and a pool of so many connections."""
    app = App(connector=PsycopgConnector(conninfo=dsn, min_size=connections, max_size=connections))
    tally = Tally()

    @app.task(name="noop")
    async def noop(user_id: int, template_id: str) -> None:
        tally.tick()

    @app.task(name="stamp")
    async def stamp(sent_at: float) -> None:
        tally.stamp(sent_at)

    async with app.open_async():
        yield app


async def main(dsn: str) -> None:
    """Run a worker until the process is ended."""
    async with connected(dsn, CONNECTIONS) as app:
        await app.run_worker_async(concurrency=CONCURRENCY)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
