"""A pinned horizon: what becomes of the rate while dead rows can't be cleared away."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, ClassVar

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
        tasks = int(bench.options.horizon_tasks * subject.share)
        rates = []
        async with bench.server.fresh(subject) as dsn, pinned_horizon(dsn):
            for place in range(1, bench.options.horizon_rounds + 1):
                bench.step(f"drain {place} of {bench.options.horizon_rounds}")
                await fill(subject, dsn, tasks)
                rates.append((await drain(bench, subject, dsn, tasks)).rate)
        # One drain takes half a second: on a shared machine a single one says little.
        first, last = statistics.median(rates[:3]), statistics.median(rates[-3:])
        figures = {
            "first three tasks/s": first,
            "last three tasks/s": last,
            "last/first": last / first,
            "median tasks/s": statistics.median(rates),
        }
        return [Sample(subject.name, figures=figures, series={"tasks/s": rates})]
