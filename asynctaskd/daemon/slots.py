"""The units of a worker's concurrency: which are taken, by which execution."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asynctaskd.daemon.execute import Execution


class Slots:
    """Taken by the claim loop, given back when an execution's outcome has been written."""

    def __init__(self, concurrency: int, *, freed: Callable[[], None]) -> None:
        self._concurrency = concurrency
        self._freed = freed
        self._taken: set[Execution] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.strict = 0

    def __iter__(self) -> Iterator[Execution]:
        return iter(tuple(self._taken))

    @property
    def concurrency(self) -> int:
        """How many there are."""
        return self._concurrency

    @property
    def taken(self) -> int:
        """How many are in use."""
        return len(self._taken)

    @property
    def free(self) -> int:
        """How many are not."""
        return self._concurrency - len(self._taken)

    def take(self, execution: Execution) -> None:
        """Give a slot to an execution that begins."""
        self._taken.add(execution)
        self.strict += execution.task.strict
        self._empty.clear()

    def give_back(self, execution: Execution) -> None:
        """Take the slot back; an execution that has none is ignored, so that it may be said twice."""
        if execution not in self._taken:
            return
        self._taken.remove(execution)
        self.strict -= execution.task.strict
        if not self._taken:
            self._empty.set()
        self._freed()

    async def wait_empty(self) -> None:
        """Until no slot is taken."""
        await self._empty.wait()
