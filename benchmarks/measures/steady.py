"""Steady load: how long tasks wait while they keep coming, and whether they pile up."""

from __future__ import annotations

import statistics
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.contenders.contender import leading
from benchmarks.measures.drain import fill_and_drain
from benchmarks.measures.load import Sent, load
from benchmarks.measures.measure import Bench, Sample, percentiles
from benchmarks.process import Stamp, WorkerError, worker_process
from benchmarks.server import analyse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.contenders.contender import Contender
    from benchmarks.measures.measure import Subject
    from benchmarks.options import Options

SHARE = 0.7
CATCHING_UP = 10.0
"""Seconds that a worker has for what is left when the producer has ended."""


class Steady:
    """At a share of what each drains, and at one rate for all. The worker begins on an empty table."""

    name: ClassVar[str] = "steady"
    by_default: ClassVar[bool] = True

    def title(self, options: Options) -> str:
        return (
            f"from enqueue to start under a steady load for {options.seconds:g} s, "
            "a batch every 10 ms from another process"
        )

    def subjects(self, contenders: list[Contender]) -> Sequence[Subject]:
        return leading(contenders)

    async def measure(self, bench: Bench, subject: Any) -> list[Sample]:
        bench.step("its drain rate")
        own = SHARE * (await fill_and_drain(bench, subject)).rate
        return [
            await steady(bench, subject, own, f"{SHARE:.0%} of its own drain rate"),
            await steady(bench, subject, bench.options.rate, f"{bench.options.rate:,} a second"),
        ]


async def steady(bench: Bench, contender: Contender, rate: float, case: str) -> Sample:
    """One rate, from an empty table."""
    bench.step(case)
    async with bench.server.fresh(contender) as dsn:
        await analyse(dsn)
        async with worker_process(contender, dsn, report="often") as worker:
            async with contender.producer(dsn) as producer:
                await worker.warm_up(producer)
            async with load(contender, dsn, rate, bench.options.seconds) as ending:
                sent = await ending
            backlog = max(0, sent.tasks - len(worker.stamps))
            # Who can't keep up is judged by what it has started.
            with suppress(WorkerError):
                await worker.started(sent.tasks, patience=CATCHING_UP)
    waits = [started - sent_at for sent_at, started in worker.stamps]
    figures = {"offered/s": rate, "enqueued/s": sent.tasks / sent.seconds} | percentiles(waits, 50, 99)
    figures["backlog at the end"] = backlog
    return Sample(contender.name, case, figures, note=verdict(worker.stamps, backlog, sent, rate))


def verdict(stamps: list[Stamp], backlog: int, sent: Sent, rate: float) -> str:
    """What became of the load, in a few words."""
    if sent.tasks < 0.95 * rate * sent.seconds:
        return "the producer falls behind"
    # Reports come ten times a second, so what has started in the last tenth of one counts as backlog too.
    # What was a hiccup of the machine is over some time later; what builds goes on.
    is_large = backlog > rate / 4
    return "a backlog builds" if is_large and _grows(stamps) else "keeps up"


def _grows(stamps: list[Stamp]) -> bool:
    """Whether the last quarter waited much longer than the second."""
    waits = [started - sent_at for sent_at, started in sorted(stamps)]
    quarter = len(waits) // 4
    if not quarter:
        return True
    return statistics.median(waits[-quarter:]) > 1.5 * statistics.median(waits[quarter : 2 * quarter])
