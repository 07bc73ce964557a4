"""What every question needs: workers that run, and a hand that steers them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asynctaskd import Client
from benchmarks.noop import app
from benchmarks.process import WorkerError, worker_process
from benchmarks.server import connected
from benchmarks.takeover import everybody

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

    import asyncpg

    from asynctaskd.config.convergence import ConfigReport
    from benchmarks.contenders.asynctaskd import Asynctaskd
    from benchmarks.server import Server
    from benchmarks.steering.options import Sizes

PATIENCE = 120.0
"""Seconds. What hasn't come by then has failed."""

LOOK = 0.02

RUNNING = "SELECT count(*) FROM asynctaskd.tasks WHERE worker_id IS NOT NULL AND label_set <> '!control'"


@dataclass(frozen=True)
class Fleet:
    """Workers that run, and who steers them."""

    connection: asyncpg.Connection
    client: Client

    async def running(self, tasks: int) -> None:
        """Until so many run."""
        await self.counted(RUNNING, tasks)

    async def counted(self, query: str, least: int) -> None:
        """Until the query counts so many."""
        async with asyncio.timeout(PATIENCE):
            while await self.connection.fetchval(query) < least:  # noqa: ASYNC110  (rows tell nobody)
                await asyncio.sleep(LOOK)

    async def clock(self) -> datetime:
        """The time that rows are stamped by."""
        now: datetime = await self.connection.fetchval("SELECT clock_timestamp()")
        return now


@dataclass(frozen=True)
class Bench:
    """What every question needs."""

    server: Server
    sizes: Sizes
    turn: int
    """Which round this is, from 0."""
    step: Callable[[str], None]
    """Told what is going on, where it takes long."""

    @asynccontextmanager
    async def fleet(self, workers: Asynctaskd) -> AsyncIterator[Fleet]:
        """Workers with their leases, on a fresh database."""
        self.step("starting workers")
        async with (
            self.server.fresh(workers) as dsn,
            connected(dsn) as connection,
            worker_process(workers, dsn),
        ):
            async with asyncio.timeout(PATIENCE):
                await everybody(connection, workers.processes)
            yield Fleet(connection, Client(connection, app))


def expect_converged(report: ConfigReport, workers: int) -> None:
    """Raises WorkerError, unless so many apply it."""
    if report.status != "converged" or len(report.applied) != workers:
        raise WorkerError(f"not converged with {workers} workers: {report}")
