"""What telemetry costs the drain of tasks that do nothing: metrics that are scraped every second, and traces.

One worker in this process drains slice after slice, each with other telemetry, so that neither another
process nor another minute is compared; each figure is divided by that of the slice without any in its round.
Processor time says more than the rate where the machine has something else to do.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from random import Random
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import uvloop
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from rich.console import Console
from rich.table import Table

from asynctaskd import App
from asynctaskd.postgres import embedded
from asynctaskd.telemetry import tracing
from asynctaskd.telemetry.health import Health
from asynctaskd.telemetry.metrics import Metrics
from asynctaskd.web.server import serving
from asynctaskd.web.site import worker_site
from benchmarks.contenders.asynctaskd import Asynctaskd
from benchmarks.contenders.contender import NOOP
from benchmarks.server import Server, connected

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import asyncpg
    from opentelemetry.sdk.trace import ReadableSpan

CONCURRENCY = 100

# What gathers in a second is told within the next: that belongs to the slice.
TOLD = 1.2

# All tasks become visible at once, and cost this process nothing. Each carries what a producer has decided
# about its trace: one in so many is recorded.
ENQUEUE = """\
SELECT count(asynctaskd.enqueue('noop', $2::text::jsonb, metadata => CASE WHEN $3::float8 IS NOT NULL THEN
    jsonb_build_object('traceparent', format('00-%s-00f067aa0ba902b7-%s', md5(g::text),
        CASE WHEN random() < $3 THEN '01' ELSE '00' END)) END))
FROM generate_series(1, $1::int) AS g
"""

SCRAPE = """\
import sys, time, urllib.request
while True:
    urllib.request.urlopen(sys.argv[1], timeout=5).read()
    time.sleep(1)
"""


class Drain(NamedTuple):
    """How fast tasks went, in tasks a second, and what this process's time was, in µs a task."""

    rate: float
    cpu: float


@dataclass(frozen=True)
class Case:
    """Whether metrics are gathered and scraped, and which share of tasks is traced.

    None: OpenTelemetry isn't imported, as far as asynctaskd can see; 0: it is, and no provider is set.
    """

    metrics: bool = False
    traces: float | None = None

    @contextmanager
    def observing(self) -> Iterator[None]:
        """As long as this lasts."""
        with ExitStack() as stack:
            stack.enter_context(_traced(self.traces))
            if self.metrics:
                stack.enter_context(_scraped())
            yield


OFF = "nothing"
CASES = {
    OFF: Case(),
    "no provider": Case(traces=0.0),
    "metrics": Case(metrics=True),
    "and 1 % traced": Case(metrics=True, traces=0.01),
    "and all traced": Case(metrics=True, traces=1.0),
}

app = App()


class Countdown:
    """When the first and the last task of a slice began."""

    def __init__(self) -> None:
        self.left = 0
        self.began = self.ended = self.used = 0.0
        self.over = asyncio.Event()

    def set(self, tasks: int) -> None:
        """So many are to come."""
        self.left, self.began = tasks, 0.0
        self.over.clear()

    def tick(self) -> None:
        """One has begun."""
        if not self.began:
            self.began, self.used = time.perf_counter(), time.process_time()
        self.left -= 1
        if not self.left:
            self.ended = time.perf_counter()
            self.over.set()


countdown = Countdown()


@app.task("noop")
async def noop(user_id: int, template_id: str) -> None:
    """Do nothing."""
    countdown.tick()


class Nowhere(SpanExporter):
    """Takes spans at no cost of its own."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


PROVIDER = TracerProvider()  # records what the enqueuer has decided to record
PROVIDER.add_span_processor(BatchSpanProcessor(Nowhere()))


@contextmanager
def _traced(share: float | None) -> Iterator[None]:
    """Let asynctaskd find OpenTelemetry, with or without a provider, or not at all."""
    found = trace.get_tracer_provider
    if share is None:
        del sys.modules[trace.__name__]
    else:
        trace.get_tracer_provider = lambda: PROVIDER if share else found()  # a process can set but one
    tracing._source = tracing._Source()  # noqa: SLF001  (which otherwise keeps what it has found)
    try:
        yield
    finally:
        sys.modules[trace.__name__] = trace
        trace.get_tracer_provider = found


@contextmanager
def _scraped() -> Iterator[None]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with ExitStack() as stack:
        health, metrics = stack.enter_context(closing(Health(stall_limit=60))), Metrics(app)
        stack.callback(metrics.close)
        stack.enter_context(serving(worker_site(health, metrics.registry), "127.0.0.1", port))
        scraper = subprocess.Popen([sys.executable, "-c", SCRAPE, f"http://127.0.0.1:{port}/metrics"])
        stack.enter_context(scraper)
        stack.callback(scraper.terminate)
        yield


async def drained(connection: asyncpg.Connection, case: Case, tasks: int) -> Drain:
    """From the first start to the last; the processor's time until all is told."""
    countdown.set(tasks)
    with case.observing():
        await connection.execute("VACUUM (ANALYZE, SKIP_DATABASE_STATS)")
        await connection.execute(ENQUEUE, tasks, json.dumps(NOOP), case.traces or None)
        await countdown.over.wait()
        await asyncio.sleep(TOLD)
        used = time.process_time() - countdown.used
    return Drain(tasks / (countdown.ended - countdown.began), 1e6 * used / tasks)


async def measured(dsn: str, rounds: int, tasks: int) -> dict[str, list[Drain]]:
    """Each case's drains, one a round, in an order of that round's own: whoever comes after pays for some."""
    drains: dict[str, list[Drain]] = {case: [] for case in CASES}
    async with (
        Server.connected(dsn) as server,
        server.fresh(Asynctaskd(CONCURRENCY)) as fresh,
        connected(fresh) as connection,
        app.worker(fresh, concurrency=CONCURRENCY),
    ):
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)  # as `asynctaskd run` has it
        for first in CASES.values():  # what comes first is never as fast
            await drained(connection, first, 1_000)
        for turn in range(rounds):
            for case in Random(turn).sample(list(CASES), len(CASES)):
                drains[case].append(await drained(connection, CASES[case], tasks))
    return drains


def compared(drains: dict[str, list[Drain]], case: str, field: str) -> list[float]:
    """A case's figures, each divided by that of the same round without telemetry."""
    pairs = zip(drains[case], drains[OFF], strict=True)
    return [getattr(one, field) / getattr(other, field) for one, other in pairs]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telemetry", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="how often each is measured (default: 10)")
    parser.add_argument("--tasks", type=int, default=50_000, help="how many are drained (default: 50,000)")
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
            f"{median(one.cpu for one in of_case):.1f}",
            f"{median(used):.3f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
