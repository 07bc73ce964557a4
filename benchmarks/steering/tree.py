"""Tree: how long it takes to cancel a tree that runs, and whether every task of it is stopped."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.contenders.asynctaskd import Asynctaskd
from benchmarks.noop import hold
from benchmarks.steering.question import Bound, Finding

if TYPE_CHECKING:
    from asynctaskd import Client
    from benchmarks.steering.bench import Bench

WORKERS = 3
BRANCHES = 50


async def tree(bench: Bench) -> list[Finding]:
    """The root, its branches and their leaves take every slot when the root is cancelled."""
    tasks = bench.sizes.tree
    async with bench.fleet(Asynctaskd(tasks // WORKERS, processes=WORKERS)) as fleet:
        bench.step(f"{tasks:,} tasks start")
        root = await grown(fleet.client, tasks)
        await fleet.running(tasks)
        bench.step("cancel")
        began = time.perf_counter()
        receipt = await fleet.client.cancel(root, timeout="60s")
        took = time.perf_counter() - began
    stopped = sum(task.outcome == "stopped" for task in receipt.tasks)
    return [
        Finding(f"{tasks:,} running tasks", "s until all have receipts", took, Bound(most=5)),
        Finding(f"{tasks:,} running tasks", "stopped", stopped, Bound(least=tasks)),
    ]


async def grown(client: Client, tasks: int) -> int:
    """The root of a tree of so many."""
    root = await client.enqueue(hold)
    branches = await client.enqueue_many([hold.request().with_options(parent_id=root)] * BRANCHES)
    leaves = tasks - 1 - BRANCHES
    await client.enqueue_many(
        hold.request().with_options(parent_id=branches[leaf % BRANCHES]) for leaf in range(leaves)
    )
    return root
