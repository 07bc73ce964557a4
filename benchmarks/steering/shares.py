"""Shares: whether successive claims go by the weights, and how soon by new ones."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from benchmarks.contenders.asynctaskd import Asynctaskd
from benchmarks.noop import rest
from benchmarks.process import WorkerError
from benchmarks.steering.bench import expect_converged
from benchmarks.steering.question import Bound, Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from asynctaskd import Client
    from benchmarks.steering.bench import Bench, Fleet

WORKERS = 3
SLOTS = 10
SECONDS = 0.01
LABELS = ("mail", "orders", "reports")
BEFORE = {"mail": 6, "orders": 3, "reports": 1}
AFTER = {"mail": 1, "orders": 3, "reports": 6}
DEFAULT = {"default": 1}
"""The weight of tasks without a label, where nobody says otherwise."""

WINDOW = 200
TOLERANCE = 5.0
"""Percent of all claims: as far may a group be from its share."""

SOON = Bound(most=1)
SHOWN = f"s until the first {WINDOW} successive claims by the new weights"

Claim = tuple["datetime", str]
"""When a task was claimed, and its group."""

FINISHED = "SELECT count(*) FROM asynctaskd.finished_tasks WHERE name = 'rest'"
CLAIMS = """
    SELECT claimed_at, coalesce(nullif(label_set, ''), 'default')
    FROM asynctaskd.finished_tasks WHERE name = 'rest' ORDER BY claimed_at, id
"""


async def shares(bench: Bench) -> list[Finding]:
    """Every group has more backlog than is claimed; midway two weights change places."""
    enough = bench.sizes.claims
    async with bench.fleet(Asynctaskd(SLOTS, processes=WORKERS, labels=LABELS)) as fleet:
        expect_converged(await fleet.client.update_runtime_config(weights=BEFORE), WORKERS)
        bench.step(f"{enough:,} claims by each of two mappings of weights")
        await fill(fleet.client, bench.sizes.backlog)
        # Beyond what is looked at: the newest claims haven't finished.
        await fleet.counted(FINISHED, enough * 3 // 2)
        committed_at, converged_at = await changed(fleet)
        claims = await claims_with(fleet, enough, converged_at)
    before = [claim for claim in claims if claim[0] <= committed_at][-enough:]
    after = [claim for claim in claims if claim[0] > converged_at][:enough]
    shown_at = first_shown([claim for claim in claims if claim[0] > committed_at], AFTER | DEFAULT)
    return [
        _deviation("before the change", before, BEFORE | DEFAULT),
        _deviation("after the change", after, AFTER | DEFAULT),
        Finding("from the commit of the change", SHOWN, (shown_at - committed_at).total_seconds(), SOON),
    ]


async def changed(fleet: Fleet) -> tuple[datetime, datetime]:
    """When the change of weights was committed, and when all workers applied it."""
    change = await fleet.client.request_runtime_config(weights=AFTER)
    committed_at = await fleet.clock()
    expect_converged(await fleet.client.runtime_config_report(change), WORKERS)
    return committed_at, await fleet.clock()


async def fill(client: Client, tasks: int) -> None:
    """A quarter of so many for each group, in turn."""
    kinds = [rest.request(SECONDS).with_options(labels=[label]) for label in LABELS]
    await client.enqueue_many([*kinds, rest.request(SECONDS)] * (tasks // 4))


async def claims_with(fleet: Fleet, enough: int, since: datetime) -> list[Claim]:
    """All claims, as soon as half as many again as are looked at were made since then and are finished."""
    finished = await fleet.connection.fetchval(f"{FINISHED} AND claimed_at <= $1", since)
    await fleet.counted(FINISHED, finished + WORKERS * SLOTS + enough * 3 // 2)
    return [(at, group) for at, group in await fleet.connection.fetch(CLAIMS)]


def deviation(groups: Sequence[str], weights: Mapping[str, int]) -> float:
    """How far the group that is farthest from its share is from it, in percent of all claims."""
    counts, total = Counter(groups), sum(weights.values())
    return max(
        abs(100 * counts[group] / len(groups) - 100 * weight / total) for group, weight in weights.items()
    )


def first_shown(claims: Sequence[Claim], weights: Mapping[str, int]) -> datetime:
    """The last instant of the first `WINDOW` successive claims that deviate no further than `TOLERANCE`."""
    for start in range(len(claims) - WINDOW + 1):
        window = claims[start : start + WINDOW]
        if deviation([group for _, group in window], weights) <= TOLERANCE:
            return window[-1][0]
    raise WorkerError(f"no {WINDOW} of {len(claims):,} claims show the new weights")


def _deviation(case: str, claims: Sequence[Claim], weights: Mapping[str, int]) -> Finding:
    value = deviation([group for _, group in claims], weights)
    return Finding(case, f"% of {len(claims):,} claims that a group is off", value, Bound(most=TOLERANCE))
