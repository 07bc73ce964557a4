"""Busy: whether steering gets through where the strict lane is closed and every slot is taken."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.contenders.asynctaskd import Asynctaskd
from benchmarks.noop import hold
from benchmarks.process import WorkerError
from benchmarks.steering.bench import expect_converged
from benchmarks.steering.converge import WORKERS, seconds_until_converged
from benchmarks.steering.question import Bound, Finding

if TYPE_CHECKING:
    from benchmarks.steering.bench import Bench, Fleet

SLOTS = 10
RUNNING = "SELECT id FROM asynctaskd.tasks WHERE status = 'running' AND name = 'hold' ORDER BY id LIMIT 1"
BOUND = Bound(most=1)


async def busy(bench: Bench) -> list[Finding]:
    """Updates and cancels in turn. Whatever leaves a slot is followed by the next in line at once."""
    times = bench.sizes.interventions
    async with bench.fleet(Asynctaskd(SLOTS, processes=WORKERS)) as fleet:
        expect_converged(await fleet.client.update_runtime_config(max_strict_percentage=0), WORKERS)
        bench.step(f"{times} updates and cancels")
        await fleet.client.enqueue_many([hold.request()] * (WORKERS * SLOTS + times))
        findings = []
        for weight in range(1, times + 1):
            await fleet.running(WORKERS * SLOTS)
            converged = await seconds_until_converged(fleet, WORKERS, weight)
            await fleet.running(WORKERS * SLOTS)
            findings += [
                Finding("an update converges", "s", converged, BOUND),
                Finding("a cancel has its receipt", "s", await cancelled(fleet), BOUND),
            ]
        return findings


async def cancelled(fleet: Fleet) -> float:
    """The seconds until the receipt says that a running task was stopped."""
    task_id = await fleet.connection.fetchval(RUNNING)
    began = time.perf_counter()
    receipt = await fleet.client.cancel(task_id)
    took = time.perf_counter() - began
    if [task.outcome for task in receipt.tasks] != ["stopped"]:
        raise WorkerError(f"not stopped: {receipt}")
    return took
