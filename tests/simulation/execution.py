"""One attempt at a task, and what it may come to."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from asynctaskd.daemon.execute import after_cut_off
from asynctaskd.task import (
    ClaimedTask,
    Completed,
    EventKind,
    Failed,
    Outcome,
    Released,
    Snoozed,
    TaskStatus,
    Transition,
)
from tests.simulation.rules import LEFT_BEHIND as LEFT_BEHIND_FOR

if TYPE_CHECKING:
    from tests.simulation.scenario import TaskSpec
    from tests.simulation.worker import Worker

SHUTDOWN, LEASE_LOST, TIMEOUT = "shutdown", "lease lost", "timeout"

SNOOZE = Snoozed(timedelta(seconds=3))
CUT_OFF = Failed("its connection was lost")
OUTCOMES: dict[str, Outcome] = {
    "fail": Failed("it failed"),
    "fatal": Failed("it failed for good", reason="terminated", fatal=True),
    "quiet": Failed("it failed quietly", quiet=True),
    "snooze": SNOOZE,
}
COMPLETED, RELEASED = Completed(), Released()
TIMED_OUT = Failed("timed out", reason="timeout")
GIVEN_BACK = Transition(TaskStatus.PENDING, attempt_spent=False, event=EventKind.RELEASED)
LEFT_BEHIND = Transition(
    TaskStatus.SCHEDULED,
    delay=timedelta(seconds=LEFT_BEHIND_FOR),
    attempt_spent=False,
    event=EventKind.RELEASED,
)
FAILED = Transition(TaskStatus.FAILED, error="lost?", reason="error", failed_execution=True)


class Execution:
    """One attempt at a task."""

    __slots__ = (
        "act",
        "began_at",
        "committing",
        "ended",
        "has_lost_its_lease",
        "interruption",
        "spec",
        "stored",
        "task",
        "transition",
        "tries",
        "was_cut_off",
        "worker",
        "worker_id",
    )

    def __init__(self, task: ClaimedTask, spec: TaskSpec, worker: Worker, worker_id: int) -> None:
        self.task = task
        self.spec = spec
        self.worker = worker
        self.worker_id = worker_id
        self.act = ""
        self.began_at = worker.mono()
        self.interruption: str | None = None
        self.has_lost_its_lease = False
        self.committing = False
        self.was_cut_off = False
        self.stored = False
        self.ended = False
        self.transition = GIVEN_BACK
        self.tries = task.hooks_lost

    @property
    def is_deaf(self) -> bool:
        """It swallows its cancellation, or is a thread."""
        return self.act.startswith("deaf")


def interrupted(execution: Execution, outcome: Outcome) -> Outcome:
    """What it comes to, once it was told to stop or lost its connection."""
    if execution.interruption is None:
        return after_cut_off(execution.task, CUT_OFF) if execution.was_cut_off else outcome
    if execution.interruption is TIMEOUT:
        return TIMED_OUT
    return outcome if isinstance(outcome, Completed | Snoozed) else RELEASED
