"""Price: what a limit costs the drain of tasks that it never holds back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctaskd import Client
from benchmarks.contenders.asynctaskd import CHUNK, Asynctaskd
from benchmarks.contenders.contender import NOOP
from benchmarks.noop import app, noop
from benchmarks.process import worker_process
from benchmarks.server import analyse, connected, nothing_left
from benchmarks.steering.question import Bound, Finding

if TYPE_CHECKING:
    from benchmarks.steering.bench import Bench

WORKER = Asynctaskd(100, labels=("mail",))
LIMITS = {
    "no limit": {},
    "a limit on another label": {"video": 10},
    "a limit on their own label, never reached": {"mail": 1_000_000},
}
BOUNDS = {
    "a limit on another label": Bound(least=0.95, of_median=True),
    "a limit on their own label, never reached": Bound(least=0.9, of_median=True),
}


async def price(bench: Bench) -> list[Finding]:
    """One after another, forth in one round and back in the next, so that no place is the better one."""
    cases = list(LIMITS) if bench.turn % 2 == 0 else list(reversed(LIMITS))
    rates = {case: await drained(bench, case) for case in cases}
    return [
        *(Finding(case, "tasks/s", rates[case]) for case in LIMITS),
        *(Finding(case, "of no limit", rates[case] / rates["no limit"], BOUNDS[case]) for case in BOUNDS),
    ]


async def drained(bench: Bench, case: str) -> float:
    """Tasks a second, from the first start until nothing is left."""
    bench.step(case)
    tasks = bench.sizes.drained
    async with bench.server.fresh(WORKER) as dsn, connected(dsn) as connection:
        client = Client(connection, app)
        # No worker is there yet: that is written at once.
        await client.update_runtime_config(limits=LIMITS[case])
        for start in range(0, tasks, CHUNK):
            request = noop.request(**NOOP).with_options(labels=["mail"])
            await client.enqueue_many([request] * min(CHUNK, tasks - start))
        await analyse(dsn)
        async with worker_process(WORKER, dsn, tasks=tasks) as worker:
            first = await worker.event("first")
            await worker.event("all")
            ended_at = await nothing_left(connection, WORKER)
    return tasks / (ended_at - float(first["at"]))
