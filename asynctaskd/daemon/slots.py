"""The units of a worker's concurrency: which are taken, by which execution."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from asynctaskd.daemon.execute import Execution


class Slots:
    """Who is being executed, and whose end isn't written yet.

    A slot is free again when its handler has ended, so that the next claim is under way while the last
    outcomes are being written. What isn't written counts all the same: at most twice the concurrency is held.
    """

    def __init__(self, concurrency: int, *, freed: Callable[[], None]) -> None:
        self.concurrency = concurrency
        self.running = 0
        self.strict = 0
        self.suspects = 0
        self.lost: set[Execution] = set()
        """Those whose lease was lost: their tasks may already be somebody else's."""
        self._freed = freed
        self._held: set[Execution] = set()
        self._emptied = asyncio.Event()

    def __iter__(self) -> Iterator[Execution]:
        """Everything that is held, running or not yet written."""
        return iter(tuple(self._held))

    def __len__(self) -> int:
        return len(self._held)

    @property
    def free(self) -> int:
        """How many tasks may be claimed."""
        return min(self.concurrency - self.running, 2 * self.concurrency - len(self._held))

    def take(self, execution: Execution) -> None:
        """An execution begins."""
        self._held.add(execution)
        self.running += 1
        self.strict += execution.task.strict
        self.suspects += execution.task.is_suspect

    def end(self, execution: Execution) -> None:
        """Its handler has ended; what it came to isn't written yet."""
        self.running -= 1
        self.strict -= execution.task.strict
        self.suspects -= execution.task.is_suspect
        self._freed()

    def let_go(self, executions: Iterable[Execution]) -> None:
        """What they came to is written."""
        self._held.difference_update(executions)
        self.lost &= self._held
        if not self._held:
            self._emptied.set()
        self._freed()

    def note_lease_lost(self) -> None:
        """The lease of all that is held was lost."""
        self.lost = set(self._held)

    async def wait_empty(self) -> None:
        """Until nothing is held."""
        while self._held:
            self._emptied.clear()
            await self._emptied.wait()
