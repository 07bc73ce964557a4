"""Soak: whether anything grows under a load that one worker carries easily."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.contenders.asynctaskd import Asynctaskd
from benchmarks.contenders.contender import leading
from benchmarks.measures.load import load
from benchmarks.measures.measure import Bench, Sample, percentiles
from benchmarks.process import worker_process
from benchmarks.server import analyse, connected

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from benchmarks.contenders.contender import Contender
    from benchmarks.measures.measure import Subject
    from benchmarks.options import Options
    from benchmarks.process import WorkerProcess

EVERY = 10.0
"""Seconds between samples."""

TABLES = """
    SELECT (SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = 'asynctaskd.tasks'::regclass) AS dead,
           pg_total_relation_size('asynctaskd.tasks') AS tasks,
           (SELECT sum(pg_total_relation_size(relid))
            FROM pg_partition_tree('asynctaskd.finished_tasks') WHERE isleaf) AS finished_tasks,
           pg_total_relation_size('asynctaskd.task_events') AS task_events
"""

Series = dict[str, list[float]]


class Soak:
    """A sample every ten seconds; what is stated is the slope of a line through all of them."""

    name: ClassVar[str] = "soak"
    by_default: ClassVar[bool] = False

    def title(self, options: Options) -> str:
        return f"{options.soak_rate:,} tasks a second for {options.minutes:g} minutes"

    def subjects(self, contenders: list[Contender]) -> Sequence[Subject]:
        return leading([contender for contender in contenders if isinstance(contender, Asynctaskd)])

    async def measure(self, bench: Bench, subject: Any) -> list[Sample]:
        options = bench.options
        seconds = 60 * options.minutes
        async with bench.server.fresh(subject) as dsn, connected(dsn) as connection:
            await analyse(dsn)
            async with worker_process(subject, dsn, report="often") as worker:
                async with subject.producer(dsn) as producer:
                    await worker.warm_up(producer)
                async with load(subject, dsn, options.soak_rate, seconds) as ending:
                    series = await _watch(bench, connection, worker, ending)
        return [Sample(subject.name, figures=_slopes(series) | _last(series), series=series)]


async def _watch(
    bench: Bench, connection: asyncpg.Connection, worker: WorkerProcess, ending: asyncio.Task[Any]
) -> Series:
    series: Series = {}
    began = time.perf_counter()
    due = EVERY
    while not ending.done():
        bench.step(f"{due / 60:.1f} of {bench.options.minutes:g} minutes")
        await asyncio.wait([ending], timeout=max(0.0, began + due - time.perf_counter()))
        due += EVERY
        if not ending.done():
            for name, value in (await _sample(connection, worker)).items():
                series.setdefault(name, []).append(value)
            series.setdefault("seconds", []).append(time.perf_counter() - began)
    await ending
    return series


async def _sample(connection: asyncpg.Connection, worker: WorkerProcess) -> dict[str, float]:
    row = await connection.fetchrow(TABLES)
    waits = [started - sent for sent, started in worker.stamps]
    worker.stamps.clear()
    return {
        "worker MiB": worker.memory() / 2**20,
        "dead rows of tasks": float(row["dead"]),
        "tasks MiB": row["tasks"] / 2**20,
        "finished_tasks MiB": float(row["finished_tasks"] or 0) / 2**20,
        "task_events MiB": row["task_events"] / 2**20,
    } | {name: value or 0.0 for name, value in percentiles(waits, 50, 99).items()}


def _slopes(series: Series) -> dict[str, float | None]:
    seconds = series.get("seconds", [])
    if len(seconds) < 2:
        return {}
    hours = [second / 3600 for second in seconds]
    return {
        f"{name} an hour": statistics.linear_regression(hours, values).slope
        for name, values in series.items()
        if name != "seconds"
    }


def _last(series: Series) -> dict[str, float | None]:
    return {f"{name} at the end": values[-1] for name, values in series.items() if name != "seconds"}
