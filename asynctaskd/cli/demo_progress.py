"""How far the demo is: what the database says at one moment, and the shares that follow from two of them."""

from __future__ import annotations

from collections import deque
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

from asynctaskd.cli.demo_files import WEIGHTS
from asynctaskd.postgres.driver import translated

if TYPE_CHECKING:
    from collections.abc import Mapping

    import asyncpg

_COUNTS = """
SELECT labels[1] AS name, priority > 0 AS is_urgent, count(*) AS tasks,
       count(*) FILTER (WHERE attempts = 0) AS untouched,
       sum(attempts)::integer AS claims,
       count(*) FILTER (WHERE finished_at IS NOT NULL) AS ended,
       count(*) FILTER (WHERE status = 'failed') AS failed,
       sum(greatest(attempts - 1, 0))::integer AS retries
FROM asynctaskd_demo.all_tasks WHERE name = 'index_file' GROUP BY 1, 2
"""

# Only first attempts: a retry's wait is its policy's.
_WAITS = """
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY claimed_at - created_at) FILTER (WHERE priority > 0),
       percentile_cont(0.5) WITHIN GROUP (ORDER BY claimed_at - created_at) FILTER (WHERE priority = 0)
FROM asynctaskd_demo.all_tasks WHERE name = 'index_file' AND attempts = 1
"""

_RATE_WINDOW = 2.0

TOLERANCE = 0.05
"""How far the share of a group may be from what its weight gives it: 5 points of 100."""


@dataclass(frozen=True, slots=True)
class Count:
    """Some tasks: how many there are, nobody has claimed, and have ended; and how many claims there were."""

    tasks: int = 0
    untouched: int = 0
    claims: int = 0
    ended: int = 0

    def __add__(self, other: Count) -> Count:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Count(*(one + another for one, another in pairs))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the database said at one moment.

    `groups` are the ordinary tasks of each; the waits are medians from enqueue to start, in seconds.
    """

    groups: Mapping[str, Count]
    urgent: Count
    failed: int = 0
    retries: int = 0
    urgent_wait: float | None = None
    ordinary_wait: float | None = None

    @property
    def all(self) -> Count:
        """Every task there is."""
        return sum(self.groups.values(), self.urgent)

    @property
    def is_saturated(self) -> bool:
        """Whether every group has tasks that wait, so that the weights alone decide who is next."""
        return all(count.untouched for count in self.groups.values())


async def take_snapshot(connection: asyncpg.Connection) -> Snapshot:
    """Ask the database how far it is."""
    with translated():
        rows = await connection.fetch(_COUNTS)
        waits = await connection.fetchrow(_WAITS)
    groups, urgent = dict.fromkeys(WEIGHTS, Count()), Count()
    for row in rows:
        count = Count(row["tasks"], row["untouched"], row["claims"], row["ended"])
        if row["is_urgent"]:
            urgent += count
        else:
            groups[row["name"]] = count
    failed, retries = sum(row["failed"] for row in rows), sum(row["retries"] for row in rows)
    return Snapshot(groups, urgent, failed, retries, *_seconds(waits))


def _seconds(waits: asyncpg.Record | None) -> list[float | None]:
    return [None if wait is None else wait.total_seconds() for wait in waits or ()]


class Shares:
    """What each group got of the ordinary claims, as long as every group had tasks that waited.

    Args:
        weights: by which they are to be shared.
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        self.weights = weights
        self._first: Snapshot | None = None
        self._last: Snapshot | None = None

    def observe(self, snapshot: Snapshot) -> None:
        """Take a later snapshot into account, if it counts."""
        if snapshot.is_saturated:
            self._first = self._first or snapshot
            self._last = snapshot

    @property
    def claims(self) -> Mapping[str, int]:
        """Claims of each group between the first look and the last one that counted."""
        if self._first is None or self._last is None:
            return dict.fromkeys(self.weights, 0)
        first, last = self._first.groups, self._last.groups
        return {group: last[group].claims - first[group].claims for group in self.weights}

    @property
    def counted(self) -> int:
        """How many claims that are."""
        return sum(self.claims.values())

    @property
    def had(self) -> Mapping[str, float | None]:
        """The share of each group, from 0 to 1; None as long as nothing was claimed."""
        total = self.counted
        return {group: claims / total if total else None for group, claims in self.claims.items()}

    @property
    def wanted(self) -> Mapping[str, float]:
        """The share that its weight gives each group, from 0 to 1."""
        total = sum(self.weights.values())
        return {group: weight / total for group, weight in self.weights.items()}

    @property
    def follow(self) -> bool:
        """Whether each group had what its weight gives it, give or take `TOLERANCE`."""
        had = self.had
        return self.counted > 0 and all(
            abs((had[group] or 0) - wanted) <= TOLERANCE for group, wanted in self.wanted.items()
        )


class Rate:
    """Tasks a second over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def observe(self, at: float, ended: int) -> float:
        """Take in how many have ended at a moment (in seconds); returns the rate up to it."""
        self._seen.append((at, ended))
        while at - self._seen[0][0] > _RATE_WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        return (ended - before) / (at - since) if at > since else 0.0
