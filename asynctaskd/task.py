"""The row, and what may become of it.

An execution produces an `Outcome` (a value); `scheduling.transitions.decide` turns it into a
`Transition` (a value); `daemon.finalize` writes transitions and nothing else does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID


class TaskStatus(StrEnum):
    """Where a task stands. See docs/reference/states.md for the diagram."""

    SCHEDULED = "scheduled"
    WAITING = "waiting"
    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing follows but an operator's explicit retry."""
        return self in _TERMINAL


_TERMINAL = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.EXPIRED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One row of the view `all_tasks`; its fields are that view's columns, in order.

    Instants are aware datetimes by the database's clock. `payload`, `result`, `progress` and
    `metadata` are decoded JSON. `max_attempts` is -1 for unlimited and, like `timeout`, None until a
    worker has told the database what the definition says.
    """

    id: int
    name: str
    payload: Any
    status: TaskStatus
    priority: int
    weight: int
    labels: list[str]
    tags: list[str]
    unique_tag: str | None
    serial_key: str | None
    serial_id: int | None
    parent_id: int | None
    depends_on: list[int]
    run_at: datetime | None
    deadline: datetime | None
    timeout: timedelta | None
    attempts: int
    losses: int
    max_attempts: int | None
    worker_id: UUID | None
    claim_token: int
    claimed_at: datetime | None
    finished_at: datetime | None
    created_at: datetime
    result: Any
    last_error: str | None
    reason: str | None
    progress: Any
    metadata: Any


class ClaimedTask(NamedTuple):
    """What a claim hands to the execution; a tuple, since a frozen dataclass of that size takes 3 µs to make.

    `payload` is the JSON text as stored. `failures` counts the executions that failed before this
    one; `attempts` counts every claim, this one included. `timeout`, `retry` and `max_attempts` are
    None where the definition's own value applies. `losses` counts the workers lost in a row.
    `created_at` is told only of a task whose name was unknown before: its delays grow with its age.
    `waited` is for how many seconds it was due by then: since it was created, or since its start or retry.
    `traceparent` and `tracestate` are what its metadata says of the enqueuer's trace, whatever that is.
    """

    id: int
    claim_token: int
    name: str
    payload: str
    label_set: str
    priority: int
    weight: int
    attempts: int
    failures: int
    losses: int
    max_attempts: int | None
    timeout: timedelta | None
    retry: str | None
    deadline: datetime | None
    claimed_at: datetime
    created_at: datetime | None
    serial_key: str | None
    unique_tag: str | None
    reason: str | None
    waited: float
    traceparent: str | None
    tracestate: str | None

    @property
    def strict(self) -> bool:
        """Whether it belongs to the strict lane."""
        return self.priority > 0

    @property
    def is_suspect(self) -> bool:
        """Whether it has lost its worker twice in a row, or is quarantined with only its hook left to run."""
        return self.losses >= 2

    @property
    def is_normal(self) -> bool:
        """Whether it came by the normal lane."""
        return not self.strict and not self.is_suspect

    @property
    def hooks_lost(self) -> int:
        """How many workers were lost while they told of its quarantine."""
        return max(self.losses - 3, 0)


@dataclass(frozen=True, slots=True)
class Completed:
    """The handler returned; `result` is JSON text, or None."""

    result: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The execution failed.

    `fatal` forbids a retry; `quiet` asks for no event unless the failure is final. `reason` is a
    machine-readable word: `error`, `timeout`, `terminated`, `invalid_payload`, `invalid_result`,
    `quarantined`, `connection_lost_again`.
    """

    error: str
    reason: str = "error"
    fatal: bool = False
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The handler asked to come back after `delay`, or its transaction was cut off; no attempt is spent."""

    delay: timedelta
    reason: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Released:
    """The worker gave the task back unfinished (a shutdown); no attempt is spent.

    It can be claimed at once, or after `delay`.
    """

    delay: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Unroutable:
    """This worker knows no handler of that name; the task is put back and waits, visibly."""


@dataclass(frozen=True, slots=True)
class Overdue:
    """The task was claimed after its deadline; it expires without having run."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """An operator asked for it: the execution was stopped, so that the task becomes `status`.

    That is `cancelled`, `expired` or `paused`; a pause gives the attempt back.
    """

    status: TaskStatus


Outcome = Completed | Failed | Snoozed | Released | Unroutable | Overdue | Stopped


class EventKind(StrEnum):
    """What is written to `task_events`: everything but the ordinary claim and completion."""

    RETRIED = "retried"
    SNOOZED = "snoozed"
    FAILED = "failed"
    HOOK_FAILED = "hook_failed"
    LEASE_LOST = "lease_lost"
    RELEASED = "released"
    QUARANTINED = "quarantined"
    STALE_RESULT = "stale_result"
    CANCELLED = "cancelled"
    PAUSED = "paused"
    RESUMED = "resumed"
    EXPIRED = "expired"
    REPRIORITIZED = "reprioritized"
    RETRIED_BY_OPERATOR = "retried_by_operator"


@dataclass(frozen=True, slots=True)
class Transition:
    """What finalize writes for one outcome.

    `status` is terminal, or `scheduled` with a `delay`, or `pending` to be claimable at once, or `paused`.
    `attempt_spent` is False where the attempt is given back; `failed_execution` is True where it
    counts against `max_attempts`.
    """

    status: TaskStatus
    delay: timedelta | None = None
    result: str | None = None
    error: str | None = None
    reason: str | None = None
    attempt_spent: bool = True
    failed_execution: bool = False
    event: EventKind | None = None


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """What a failure hook is told.

    `error` is the text of the last error, `reason` the word of `Failed.reason`, `payload` the decoded
    JSON as stored (also where it doesn't fit the definition).
    """

    task_id: int
    name: str
    attempts: int
    max_attempts: int
    error: str
    reason: str
    payload: Any
