"""What this worker's claims and executions come to, told to whoever counts: many tasks at once.

While nobody listens, nothing is gathered.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from asynctaskd.daemon.audience import STRICT
from asynctaskd.scheduling.lanes import DEFAULT_GROUP, group_of, strict_cap
from asynctaskd.task import EventKind, TaskStatus
from asynctaskd.telemetry.events import emit, is_watched

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import asyncpg

    from asynctaskd.daemon.commands import Steering
    from asynctaskd.daemon.execution import Execution
    from asynctaskd.daemon.slots import Slots
    from asynctaskd.task import ClaimedTask, Transition

INTERVAL = 1.0
"""How often a worker tells how busy it is, in seconds."""

STALE = "stale"
"""The outcome of executions whose result came too late."""

_FINAL = frozenset({TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.EXPIRED, TaskStatus.PAUSED})


class Measures:
    """Tells of claims and ends as they are made, and once a second how busy this worker is."""

    def __init__(self, slots: Slots, steering: Steering, pool: asyncpg.Pool) -> None:
        self._slots = slots
        self._steering = steering
        self._pool = pool

    def claimed(self, tasks: Sequence[ClaimedTask]) -> None:
        """These were claimed just now."""
        if tasks and is_watched("claim.made"):
            first = [task for task in tasks if task.claim_token == 1]
            emit(
                "claim.made",
                tasks=Counter(task.name for task in tasks),
                waits=[
                    (self._group(task), (task.claimed_at - task.due_at).total_seconds()) for task in first
                ],
            )

    def ended(self, batch: Iterable[tuple[Execution, Transition]], stale: set[int]) -> None:
        """These were written just now, but for those whose claims were stale."""
        if is_watched("finalize.made"):
            emit(
                "finalize.made",
                ends=[
                    (
                        execution.task.name,
                        STALE if execution.task.id in stale else outcome_of(transition),
                        execution.took,
                    )
                    for execution, transition in batch
                ],
            )

    async def step(self) -> float:
        """Tell how busy this worker is; returns the pause until then, in seconds."""
        if is_watched("worker.measured"):
            slots = self._slots
            cap = strict_cap(slots.concurrency, self._steering.max_strict_percentage)
            emit(
                "worker.measured",
                running=slots.running,
                slots=slots.concurrency,
                unwritten=len(slots) - slots.running,
                strict_running=slots.strict,
                strict_cap=cap,
                strict_saturation=slots.strict / cap if cap else 0.0,
                pool_in_use=self._pool.get_size() - self._pool.get_idle_size(),
                pool_size=self._pool.get_max_size(),
            )
        return INTERVAL

    def _group(self, task: ClaimedTask) -> str:
        if task.strict:
            return STRICT
        weights = self._steering.config.weights
        return group_of(task.label_set.split(","), weights) if weights else DEFAULT_GROUP


def outcome_of(transition: Transition) -> str:
    """What an execution came to, in a word: a status where that is its end, else how it was put back."""
    if transition.status is TaskStatus.COMPLETED or transition.status in _FINAL:
        return transition.status
    if transition.failed_execution:
        return EventKind.RETRIED
    return EventKind.SNOOZED if transition.event is EventKind.SNOOZED else EventKind.RELEASED
