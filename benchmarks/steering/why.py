"""Why: what it takes to ask why a task isn't running, and how the fleet is, where many tasks wait."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from itertools import cycle, islice
from typing import TYPE_CHECKING

from benchmarks.contenders.asynctaskd import Asynctaskd
from benchmarks.contenders.contender import NOOP
from benchmarks.measures.backlog import PENDING
from benchmarks.measures.measure import percentile
from benchmarks.noop import hold, noop
from benchmarks.process import WorkerError
from benchmarks.steering.bench import expect_converged
from benchmarks.steering.question import Bound, Finding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.steering.bench import Bench, Fleet

SLOTS = 10
LIMIT = 5
LIMITED = "mail"
EACH = 20
"""Tasks of each kind, asked about in turn."""

BOUND = Bound(most=20)
SOME = "SELECT id FROM asynctaskd.tasks WHERE label_set LIKE 'set:%' ORDER BY random() LIMIT $1"


async def why(bench: Bench) -> list[Finding]:
    """About tasks that wait for different reasons; those in line are drawn from the many."""
    async with piled_up(bench) as fleet:
        kinds = await of_each_kind(fleet)
        findings = []
        for reason, ids in kinds.items():
            bench.step(f"{bench.sizes.asked} times about {reason}")
            times = await asked(fleet, reason, ids, bench.sizes.asked)
            findings += [
                Finding(reason, "p50 ms", 1000 * percentile(times, 0.5), BOUND),
                Finding(reason, "p99 ms", 1000 * percentile(times, 0.99), BOUND),
            ]
        bench.step(f"{bench.sizes.looks} times about the fleet")
        looks = [await looked(fleet) for _ in range(bench.sizes.looks)]
        return [*findings, *(Finding("top: one overview", "ms", 1000 * seconds) for seconds in looks)]


@asynccontextmanager
async def piled_up(bench: Bench) -> AsyncIterator[Fleet]:
    """A worker whose slots are all taken, one label at its limit, and many tasks that it might run."""
    sets = bench.sizes.label_sets
    labels = (LIMITED, *(f"set:{n}" for n in range(sets)))
    async with bench.fleet(Asynctaskd(SLOTS, processes=1, labels=labels)) as fleet:
        expect_converged(await fleet.client.update_runtime_config(limits={LIMITED: LIMIT}), 1)
        limited = hold.request().with_options(labels=[LIMITED])
        await fleet.client.enqueue_many([limited] * LIMIT + [hold.request()] * (SLOTS - LIMIT))
        await fleet.running(SLOTS)
        bench.step(f"inserting {bench.sizes.pending:,} tasks")
        await fleet.connection.execute(PENDING, bench.sizes.pending, sets)
        await fleet.connection.execute("VACUUM (ANALYZE, SKIP_DATABASE_STATS)")
        yield fleet


async def of_each_kind(fleet: Fleet) -> dict[str, list[int]]:
    """Some tasks each, by the reason that `why` is to name."""
    task = noop.request(**NOOP)
    enqueue_many = fleet.client.enqueue_many
    head, *waiting = await enqueue_many([task.with_options(serial_key="account-1")] * (EACH + 1))
    paused = await enqueue_many([task.with_options(tags=["import"])] * EACH)
    await fleet.client.pause_by_tags(["import"])
    return {
        "scheduled": await enqueue_many([task.with_options(delay="1d")] * EACH),
        "serial_key": waiting,
        "dependencies": await enqueue_many([task.with_options(depends_on=[head])] * EACH),
        "paused": paused,
        "limit": await enqueue_many([task.with_options(labels=[LIMITED])] * EACH),
        "in_line": [row[0] for row in await fleet.connection.fetch(SOME, EACH)],
    }


async def asked(fleet: Fleet, reason: str, ids: list[int], times: int) -> list[float]:
    """The seconds that each answer took."""
    took = []
    for task_id in islice(cycle(ids), times):
        began = time.perf_counter()
        answer = await fleet.client.why(task_id)
        took.append(time.perf_counter() - began)
        if answer.reason != reason:
            raise WorkerError(f"the reason was to be {reason}: {answer}")
    return took


async def looked(fleet: Fleet) -> float:
    """The seconds that one look takes."""
    began = time.perf_counter()
    await fleet.client.overview()
    return time.perf_counter() - began
