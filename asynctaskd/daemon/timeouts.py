"""Timeouts: one timer for all executions, which rings when the first of them is over its time."""

from __future__ import annotations

import asyncio
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctaskd.daemon.execution import Execution
    from asynctaskd.daemon.slots import Slots

# In seconds. Each ring looks at everything that runs, so rings keep apart.
_SHORTEST_PAUSE = 0.005


class Timeouts:
    """Tells executions when their time is up.

    A timer for each would be set and cancelled for nothing: most have ended long before. Here one that ends
    leaves the timer alone, and the ring finds it gone.
    """

    def __init__(self, slots: Slots, *, over: Callable[[Execution], None]) -> None:
        self._slots = slots
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = inf

    def watch(self, execution: Execution) -> None:
        """An execution began. Where it gets more time later, the ring finds that out."""
        if execution.ends_at < self._rings_at:
            self._ring_at(execution.ends_at)

    def look(self) -> None:
        """Time has leapt: tell those that are over theirs, and ring for the next anew."""
        self._ring()

    def close(self) -> None:
        """Ring no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = -inf

    def _ring_at(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = moment
        self._timer = self._loop.call_later(max(moment - monotonic(), _SHORTEST_PAUSE), self._ring)

    def _ring(self) -> None:
        now = monotonic()
        self._rings_at = inf
        for execution in self._slots:
            if execution.ends_at <= now:
                self._over(execution)
        first = min((one.ends_at for one in self._slots if one.ends_at > now), default=inf)
        if first < inf:
            self._ring_at(first)
