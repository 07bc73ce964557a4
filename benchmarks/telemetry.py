"""What telemetry costs the drain of tasks that do nothing: metrics that are scraped every second, and traces.

All cases take turns, forth in one round and back in the next; each figure is divided by that of its round
without any. The worker's processor time says more than the rate where the machine has something else to do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, NamedTuple
from urllib.request import urlopen

import uvloop
from rich.console import Console
from rich.table import Table

from asynctaskd import Client
from asynctaskd.postgres import embedded
from benchmarks.contenders.asynctaskd import CHUNK, Asynctaskd
from benchmarks.contenders.contender import NOOP, Command
from benchmarks.noop import app, noop
from benchmarks.process import worker_process
from benchmarks.server import Server, analyse, connected, nothing_left

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CONCURRENCY = 100


class Drain(NamedTuple):
    """How fast tasks went, in tasks a second, and what the worker's processor time was, in µs a task."""

    rate: float
    cpu: float


@dataclass(frozen=True)
class Observed(Asynctaskd):
    """A worker that is scraped at a port, and traces a share of what it runs; None: it can't even trace."""

    port: int | None = None
    traces: float | None = None

    def worker(self, dsn: str) -> Command:
        command = super().worker(dsn)
        if self.port is not None:
            command.environment["ASYNCTASKD_HTTP_PORT"] = str(self.port)
        if self.traces is None:
            return command
        arguments = [
            "benchmarks.traced:app" if one == "benchmarks.noop:app" else one for one in command.arguments
        ]
        return replace(
            command, arguments=arguments, environment=command.environment | {"BENCH_TRACES": str(self.traces)}
        )


OFF = "nothing"
CASES = {
    OFF: Observed(CONCURRENCY),
    "OpenTelemetry imported, without a provider": Observed(CONCURRENCY, traces=0.0),
    "metrics": Observed(CONCURRENCY, port=0),
    "metrics, one trace in a hundred": Observed(CONCURRENCY, port=0, traces=0.01),
    "metrics, every trace": Observed(CONCURRENCY, port=0, traces=1.0),
}


async def drained(server: Server, worker: Observed, tasks: int) -> Drain:
    """From the first start until nothing is left."""
    if worker.port is not None:
        worker = replace(worker, port=_free_port())
    async with server.fresh(worker) as dsn, connected(dsn) as connection:
        client = Client(connection, app)
        for start in range(0, tasks, CHUNK):
            await client.enqueue_many([noop.request(**NOOP)] * min(CHUNK, tasks - start))
        await analyse(dsn)
        async with worker_process(worker, dsn, tasks=tasks) as running, _scraped(worker.port):
            first, before = await running.event("first"), running.cpu()
            await running.event("all")
            ended_at = await nothing_left(connection, worker)
            used = running.cpu() - before
    return Drain(tasks / (ended_at - float(first["at"])), 1e6 * used / tasks)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@asynccontextmanager
async def _scraped(port: int | None) -> AsyncIterator[None]:
    scraping = asyncio.create_task(_scrape(port)) if port is not None else None
    try:
        yield
    finally:
        if scraping is not None:
            scraping.cancel()


async def _scrape(port: int | None) -> None:
    while True:
        try:
            await asyncio.to_thread(lambda: urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read())
        except OSError:  # it doesn't serve yet
            await asyncio.sleep(0.05)
        else:
            await asyncio.sleep(1)


async def measured(dsn: str, rounds: int, tasks: int) -> dict[str, list[Drain]]:
    """Each case's drains, one a round."""
    drains: dict[str, list[Drain]] = {case: [] for case in CASES}
    async with Server.connected(dsn) as server:
        await drained(server, CASES[OFF], min(tasks, CHUNK))  # what comes first is never as fast
        for turn in range(rounds):
            for case in CASES if turn % 2 == 0 else reversed(CASES):
                drains[case].append(await drained(server, CASES[case], tasks))
    return drains


def compared(drains: dict[str, list[Drain]], case: str, field: str) -> list[float]:
    """A case's figures, each divided by that of the same round without telemetry."""
    pairs = zip(drains[case], drains[OFF], strict=True)
    return [getattr(one, field) / getattr(other, field) for one, other in pairs]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telemetry", description=__doc__)
    parser.add_argument("--rounds", type=int, default=4, help="how often each is measured (default: 4)")
    parser.add_argument("--tasks", type=int, default=20_000, help="how many are drained (default: 20,000)")
    parser.add_argument("--database", default="embedded", help="a server (default: embedded)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    drains = uvloop.run(measured(embedded.resolve(options.database), options.rounds, options.tasks))
    if options.json:
        print(json.dumps(drains))
        return
    table = Table("", "tasks/s", f"of {OFF}", "least to greatest", "µs a task", f"of {OFF}", box=None)
    for case, of_case in drains.items():
        rates, used = compared(drains, case, "rate"), compared(drains, case, "cpu")
        table.add_row(
            case,
            f"{median(one.rate for one in of_case):,.0f}",
            f"{median(rates):.3f}",
            f"{min(rates):.2f} to {max(rates):.2f}",
            f"{median(one.cpu for one in of_case):.0f}",
            f"{median(used):.3f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
