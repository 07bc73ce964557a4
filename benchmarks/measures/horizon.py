"""A pinned horizon: what becomes of the rate while dead rows can't be cleared away."""

from __future__ import annotations

import statistics
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.contenders.asynctaskd import Asynctaskd
from benchmarks.contenders.contender import leading
from benchmarks.measures.drain import drain, fill
from benchmarks.measures.measure import Bench, Sample
from benchmarks.server import pinned_horizon

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.contenders.contender import Contender
    from benchmarks.measures.measure import Subject
    from benchmarks.options import Options


class Horizon:
    """A transaction elsewhere keeps its snapshot; the queue is filled and drained again and again."""

    name: ClassVar[str] = "horizon"
    by_default: ClassVar[bool] = True

    def title(self, options: Options) -> str:
        return (
            f"a snapshot elsewhere stays open: {options.horizon_rounds} times {options.horizon_tasks:,} "
            "tasks (a tenth for those that are slow), enqueued and drained"
        )

    def subjects(self, contenders: list[Contender]) -> Sequence[Subject]:
        return leading(contenders)

    async def measure(self, bench: Bench, subject: Any) -> list[Sample]:
        samples = [await drains(bench, subject, pinned=True)]
        if isinstance(subject, Asynctaskd):
            # What of a decline is the machine's, which gets slower while it is busy.
            samples.append(await drains(bench, subject, pinned=False))
        return samples


async def drains(bench: Bench, contender: Contender, *, pinned: bool) -> Sample:
    """Fill and drain the same database again and again."""
    tasks = int(bench.options.horizon_tasks * contender.share)
    rates = []
    async with bench.server.fresh(contender) as dsn, pinned_horizon(dsn) if pinned else nullcontext():
        for place in range(1, bench.options.horizon_rounds + 1):
            bench.step(f"drain {place} of {bench.options.horizon_rounds}")
            await fill(contender, dsn, tasks)
            rates.append((await drain(bench, contender, dsn, tasks)).rate)
    # One drain takes half a second: on a shared machine a single one says little.
    first, last = statistics.median(rates[:3]), statistics.median(rates[-3:])
    figures = {
        "first three tasks/s": first,
        "last three tasks/s": last,
        "last/first": last / first,
        "median tasks/s": statistics.median(rates),
    }
    case = "" if pinned else "without the snapshot"
    return Sample(contender.name, case, figures, series={"tasks/s": rates})
