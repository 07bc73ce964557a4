"""Limit: how many tasks of a limited label run at once, by the instants in their rows."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from benchmarks.contenders.asynctaskd import Asynctaskd
from benchmarks.noop import rest
from benchmarks.steering.bench import expect_converged
from benchmarks.steering.question import Bound, Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.steering.bench import Bench

SLOTS = 10
SECONDS = 0.1
"""Of a task: at 0.02, ten processes and the server need more than two cores, and those are the limit."""
LABEL = "mail"

Span = tuple[float, float]
"""When a task was claimed, and when it was written down as finished."""

FINISHED = "SELECT count(*) FROM asynctaskd.finished_tasks WHERE name = 'rest'"
SPANS = """
    SELECT extract(epoch FROM claimed_at)::float8, extract(epoch FROM finished_at)::float8
    FROM asynctaskd.finished_tasks WHERE name = 'rest'
"""


async def limit(bench: Bench) -> list[Finding]:
    """Half of the fleet's slots may be taken."""
    workers, tasks = bench.sizes.limit_workers, bench.sizes.limited
    most = workers * SLOTS // 2
    async with bench.fleet(Asynctaskd(SLOTS, processes=workers, labels=(LABEL,))) as fleet:
        expect_converged(await fleet.client.update_runtime_config(limits={LABEL: most}), workers)
        bench.step(f"{tasks:,} tasks")
        await fleet.client.enqueue_many([rest.request(SECONDS).with_options(labels=[LABEL])] * tasks)
        await fleet.counted(FINISHED, tasks)
        spans = [(claimed, finished) for claimed, finished in await fleet.connection.fetch(SPANS)]
    case = f"a limit of {most}, {workers} workers of {SLOTS} slots"
    return [
        Finding(case, "most at once", most_at_once(spans), Bound(most=most)),
        Finding(case, "% of the limit in use", 100 * share_in_use(spans, most), Bound(least=90)),
    ]


def most_at_once(spans: Sequence[Span]) -> int:
    """The greatest number of spans that share an instant. The end of one is no part of it."""
    return max(running for _, running in levels(spans))


def share_in_use(spans: Sequence[Span], most: int) -> float:
    """How much of `most` is taken, on average over the time from the first claim to the last one.

    The last claim is where the backlog ends.
    """
    claims = [claimed for claimed, _ in spans]
    first, last = min(claims), max(claims)
    taken = sum(
        running * (min(until, last) - since)
        for (since, running), (until, _) in pairwise(levels(spans))
        if since < last
    )
    return taken / (most * (last - first))


def levels(spans: Sequence[Span]) -> list[tuple[float, int]]:
    """How many run from each instant at which a span begins or ends, in order; ends come first."""
    changes = sorted([(claimed, 1) for claimed, _ in spans] + [(finished, -1) for _, finished in spans])
    running = 0
    return [(at, running := running + change) for at, change in changes]
