"""Converge: how long an update takes until every worker applies it, with LISTEN and without."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from asynctaskd.config import WorkerConfig
from benchmarks.contenders.asynctaskd import Asynctaskd
from benchmarks.steering.bench import expect_converged
from benchmarks.steering.question import Bound, Finding

if TYPE_CHECKING:
    from benchmarks.steering.bench import Bench, Fleet

WORKERS = 3
HEARD = Bound(most=0.2, of_median=True)
UNHEARD = Bound(most=WorkerConfig().renew_interval.total_seconds() + 1)


async def converge(bench: Bench) -> list[Finding]:
    """So many updates one after another, each awaited."""
    heard = await updated(bench, "auto", bench.sizes.updates)
    unheard = await updated(bench, "off", bench.sizes.updates_unheard)
    return [
        *(Finding("with LISTEN", "s", seconds, HEARD) for seconds in heard),
        *(Finding("without LISTEN", "s", seconds, UNHEARD) for seconds in unheard),
    ]


async def updated(bench: Bench, listen: str, updates: int) -> list[float]:
    """The seconds that each of so many took."""
    async with bench.fleet(Asynctaskd(10, listen=listen, processes=WORKERS)) as fleet:
        bench.step(f"{updates} updates, listen = {listen}")
        return [await seconds_until_converged(fleet, WORKERS, weight) for weight in range(1, updates + 1)]


async def seconds_until_converged(fleet: Fleet, workers: int, weight: int) -> float:
    """From the call until it returns the report that all workers apply it."""
    began = time.perf_counter()
    report = await fleet.client.update_runtime_config(weights={"mail": weight})
    took = time.perf_counter() - began
    expect_converged(report, workers)
    return took
