"""What a worker sees of the fleet and the database, told to whoever counts.

Each worker looks for itself, so that no worker has to be there for the others. The more there are, the less
often each of them looks.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from asynctaskd.daemon.audience import STRICT
from asynctaskd.scheduling.lanes import DEFAULT_GROUP, group_of
from asynctaskd.telemetry.events import emit, is_watched

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asynctaskd.daemon.commands import Steering
    from asynctaskd.postgres.measures import MeasureStore, Waiting

INTERVAL = 10.0
"""How often a worker looks at what waits, in seconds, where there are few workers."""

# All workers together look twice a second at most, and none of them for more than a hundredth of its time.
_SPACING_OF_WORKERS = 0.5
_REST = 100

# Between two rounds, in seconds.
_PAUSE = 1.0


class Census:
    """Counts what only the database knows. Nothing else waits for it: a long look harms the metrics alone."""

    def __init__(self, store: MeasureStore, steering: Steering) -> None:
        self._store = store
        self._steering = steering
        self._next_look = 0.0

    async def step(self) -> float:
        """Tell what is asked for; returns the pause until then, in seconds."""
        if is_watched("notices.counted"):
            sent, saved = await self._store.count_notices()
            emit("notices.counted", sent=sent, saved=saved)
        if is_watched("config.lagging"):
            lagging, newest = await self._store.count_lagging()
            emit("config.lagging", workers=lagging, newest=newest)
        if is_watched("fleet.measured") and self._now() >= self._next_look:
            await self._look()
        return _PAUSE

    async def _look(self) -> None:
        began = self._now()
        self._next_look = began + INTERVAL  # also where there is no answer
        ready, fleet = await self._store.waiting(), await self._store.fleet()
        took = self._now() - began
        self._next_look = began + max(INTERVAL, _SPACING_OF_WORKERS * fleet.live_workers, _REST * took)
        waiting, oldest = self._by_group(ready)
        emit("fleet.measured", waiting=waiting, oldest=oldest, **fleet._asdict())

    def _by_group(self, ready: Iterable[Waiting]) -> tuple[dict[str, int], dict[str, float]]:
        """Group → how many tasks wait, and → for how long the one that has waited longest does."""
        groups = [*self._steering.config.weights, DEFAULT_GROUP, STRICT]
        waiting, oldest = Counter(dict.fromkeys(groups, 0)), dict.fromkeys(groups, 0.0)
        for one in ready:
            group = self._group(one.label_set)
            waiting[group] += one.tasks
            oldest[group] = max(oldest[group], one.oldest)
        return dict(waiting), oldest

    def _group(self, label_set: str | None) -> str:
        if label_set is None:
            return STRICT
        return group_of(label_set.split(","), self._steering.config.weights)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
