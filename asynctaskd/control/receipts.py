"""Receipts: what became of a command, task by task."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import asyncpg


_RESTING = ("pending", "scheduled", "waiting", "paused")

# What `why` says of a task that by now runs, or is just about to: it explains no refusal.
_FREE = ("running", "stopping", "blocked", "lost", "starting", "defect")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReceipt:
    """What became of a command for one task. Instants are by the database's clock.

    Attributes:
        task_id: the task's id.
        status: where it stands; None where there is no such task.
        outcome: `stopped` (its execution was), `changed` (it didn't run), `refused`, or None: it goes on.
        reason: why it was refused, or what is still to come.
        worker_id: the worker that ran it.
        requested_at: when it was asked.
        delivered_at: when that worker heard of it.
        stopped_at: when it was done.
    """

    task_id: int
    status: str | None
    outcome: str | None
    reason: str | None
    worker_id: UUID | None
    requested_at: datetime
    delivered_at: datetime | None
    stopped_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of a command.

    Attributes:
        request_id: by which `Client.receipt` finds it again.
        action: `pause`, `cancel`, `resume`, `retry`, `expire`, `fail`, `run_now` or `purge`.
        tasks: one receipt each, by id.
    """

    request_id: UUID
    action: str
    tasks: list[TaskReceipt]

    @property
    def open(self) -> list[TaskReceipt]:
        """Those of tasks that go on, though they were told to stop."""
        return [task for task in self.tasks if task.outcome is None]

    @property
    def refused(self) -> list[TaskReceipt]:
        """Those of tasks that were left as they are."""
        return [task for task in self.tasks if task.outcome == "refused"]


def receipt_of(request_id: UUID, rows: Sequence[asyncpg.Record]) -> Receipt:
    """The rows of `receipts.sql` as one receipt."""
    concerned = [row for row in rows if row["task_id"] is not None]
    tasks = [TaskReceipt(**{name: row[name] for name in TaskReceipt.__slots__}) for row in concerned]
    return Receipt(request_id=request_id, action=rows[0]["action"], tasks=tasks)


def unexplained(receipt: Receipt) -> list[int]:
    """The tasks that were to be run and rest all the same."""
    return [task.task_id for task in receipt.tasks if task.outcome is not None and task.status in _RESTING]


def explained(receipt: Receipt, reasons: Mapping[int, tuple[str, str]]) -> Receipt:
    """The receipt with what is known of why tasks rest: a word and a sentence, by id."""
    tasks = [_explained(task, *reasons.get(task.task_id, ("", ""))) for task in receipt.tasks]
    return replace(receipt, tasks=tasks)


def _explained(task: TaskReceipt, word: str, sentence: str) -> TaskReceipt:
    if task.outcome == "refused" and word and word not in _FREE:
        return replace(task, reason=sentence)
    return task
