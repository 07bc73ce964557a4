"""Memory: what an idle worker process costs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.contenders.contender import leading
from benchmarks.measures.measure import Bench, Sample
from benchmarks.process import worker_process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.contenders.contender import Contender
    from benchmarks.measures.measure import Subject
    from benchmarks.options import Options

SETTLING = 2.0


class Memory:
    """It has run a few tasks, so that everything is loaded."""

    name: ClassVar[str] = "memory"
    by_default: ClassVar[bool] = True

    def title(self, options: Options) -> str:
        return f"an idle worker process, for {options.idle_seconds:g} s"

    def subjects(self, contenders: list[Contender]) -> Sequence[Subject]:
        return leading(contenders)

    async def measure(self, bench: Bench, subject: Any) -> list[Sample]:
        seconds = bench.options.idle_seconds
        async with bench.server.fresh(subject) as dsn, worker_process(subject, dsn, report="each") as worker:
            async with subject.producer(dsn) as producer:
                await worker.warm_up(producer)
            await asyncio.sleep(SETTLING)
            used = worker.cpu()
            await asyncio.sleep(seconds)
            used = worker.cpu() - used
            figures = {"MiB": worker.memory() / 2**20, "% of a core": 100 * used / seconds}
        return [Sample(subject.name, figures=figures)]
