"""Wake-up: how long a committed task waits for an idle worker."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.contenders.asynctaskd import Asynctaskd
from benchmarks.contenders.contender import leading
from benchmarks.measures.measure import Bench, Sample, percentiles
from benchmarks.process import worker_process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.contenders.contender import Contender
    from benchmarks.measures.measure import Subject
    from benchmarks.options import Options

PAUSE = 0.02
"""Seconds after each task: the worker is to have written it down, and to be idle again."""


class Wakeup:
    """One task after another. The clock is the machine's, for the one who enqueues and for the handler."""

    name: ClassVar[str] = "wakeup"
    by_default: ClassVar[bool] = True

    def title(self, options: Options) -> str:
        return f"from commit to start on an idle worker, {options.wakeups:,} tasks one after another"

    def subjects(self, contenders: list[Contender]) -> Sequence[Subject]:
        return leading(contenders)

    async def measure(self, bench: Bench, subject: Any) -> list[Sample]:
        samples = [await measured(bench, subject, bench.options.wakeups, "notices")]
        if isinstance(subject, Asynctaskd):
            deaf = replace(subject, listen="off")
            samples.append(await measured(bench, deaf, bench.options.lost, "every notice lost"))
        return samples


async def measured(bench: Bench, contender: Contender, tasks: int, case: str) -> Sample:
    """The waits of so many tasks."""
    bench.step(case)
    async with (
        bench.server.fresh(contender) as dsn,
        worker_process(contender, dsn, report="each") as worker,
        contender.producer(dsn) as producer,
    ):
        await worker.warm_up(producer)
        committed = []
        for place in range(1, tasks + 1):
            await asyncio.sleep(PAUSE)
            await producer.enqueue(sent_at=time.time())
            committed.append(time.time())
            await worker.started(place)
    from_commit = [started - at for (_, started), at in zip(worker.stamps, committed, strict=True)]
    from_call = [started - sent for sent, started in worker.stamps]
    calls = {f"from the call, {name}": value for name, value in percentiles(from_call, 50, 99).items()}
    longest = {"max ms": 1000 * max(from_commit)}
    return Sample(contender.name, case, percentiles(from_commit, 50, 95, 99) | longest | calls)
