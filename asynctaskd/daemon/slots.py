"""The units of a worker's concurrency: which are taken, by which execution."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from asynctaskd.daemon.execution import Execution


class Slots:
    """Who is being executed, and whose end isn't written yet.

    A slot is free again when its handler has ended, so that the next claim is under way while the last
    outcomes are being written. What isn't written counts all the same: at most twice the concurrency is held.
    """

    def __init__(self, concurrency: int, *, freed: Callable[[], None]) -> None:
        self.concurrency = concurrency
        """How many may run; lowered, it stops nothing."""
        self.running = 0
        self.strict = 0
        self.suspects = 0
        self.finished = 0
        """Executions that have completed or failed since this worker is there, and in `failed` the latter."""
        self.failed = 0
        self.departed = 0
        """Executions that are held no more, whatever became of them."""
        self.lost: set[Execution] = set()
        """Those whose lease was lost: their tasks may already be somebody else's."""
        self.by_set: defaultdict[str, int] = defaultdict(int)  # a Counter takes three times as long
        """How many are held of each label set, while that is asked for; 0 may stand there too."""
        self._counts_sets = False
        self._freed = freed
        self._held: set[Execution] = set()
        self._aside: set[Execution] = set()
        self._emptied = asyncio.Event()

    def __iter__(self) -> Iterator[Execution]:
        """Everything that is held, running or not yet written, with or without a slot."""
        return iter((*self._held, *self._aside))

    def __len__(self) -> int:
        return len(self._held)

    @property
    def room(self) -> int:
        """How many more may be held, if what runs ends before that is written."""
        return 2 * self.concurrency - len(self._held)

    @property
    def free(self) -> int:
        """How many tasks may be claimed."""
        return max(min(self.concurrency - self.running, self.room), 0)  # it may have been lowered

    def take(self, execution: Execution) -> None:
        """An execution begins."""
        self._held.add(execution)
        if self._counts_sets:
            self.by_set[execution.task.label_set] += 1
        self.running += 1
        self.strict += execution.task.strict
        self.suspects += execution.task.is_suspect

    def take_aside(self, execution: Execution) -> None:
        """An execution begins that takes no slot: that of a control task."""
        self._aside.add(execution)

    @property
    def aside(self) -> list[int]:
        """The ids of the tasks that are executed without a slot."""
        return [execution.task.id for execution in self._aside]

    def end(self, execution: Execution) -> None:
        """Its handler has ended; what it came to isn't written yet."""
        self.running -= 1
        self.strict -= execution.task.strict
        self.suspects -= execution.task.is_suspect
        self._freed()

    def let_go(self, executions: Collection[Execution]) -> None:
        """What they came to is written."""
        if self._counts_sets:
            for one in executions:
                self.by_set[one.task.label_set] -= 1
        self.departed += len(executions)
        self._held.difference_update(executions)
        self._aside.difference_update(executions)
        self.lost &= self._held
        if not self._held:
            self._emptied.set()
        self._freed()

    def count(self, finished: int, failed: int) -> None:
        """So many executions have completed or failed, and so many of them failed."""
        self.finished += finished
        self.failed += failed

    def count_sets(self, counts: bool) -> None:
        """Whether to count what is held of each label set."""
        self._counts_sets = counts
        self.by_set.clear()
        for one in self._held if counts else ():
            self.by_set[one.task.label_set] += 1

    def note_lease_lost(self) -> None:
        """The lease of all that is held was lost."""
        self.lost = set(self._held)

    async def wait_empty(self, *, aside: bool = False) -> None:
        """Until nothing is held in a slot; with `aside`, nor without one."""
        while self._held or (aside and self._aside):
            self._emptied.clear()
            await self._emptied.wait()
