"""The rows of the model's tables, and the clock they are dated by."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from asynctaskd.task import EventKind, TaskStatus, Transition

if TYPE_CHECKING:
    from tests.simulation.scenario import TaskSpec

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

SCHEDULED, WAITING, PENDING, RUNNING = (
    TaskStatus.SCHEDULED,
    TaskStatus.WAITING,
    TaskStatus.PENDING,
    TaskStatus.RUNNING,
)
COMPLETED, FAILED, EXPIRED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.EXPIRED
TERMINAL = frozenset({COMPLETED, FAILED, TaskStatus.CANCELLED, EXPIRED})
HEADS = frozenset({PENDING, SCHEDULED, RUNNING})
RELEASED, SNOOZED = EventKind.RELEASED, EventKind.SNOOZED

STALE, RAISED, WRITTEN = "stale", "raised", "written"


UNKNOWN_NAME, QUIET_RETRY = "unknown name", "quiet retry"


def kind_of(transition: Transition) -> str:
    """What a transition says that an execution came to, in one word."""
    if transition.status in TERMINAL:
        return transition.status
    if transition.event is not None:
        return transition.event
    return UNKNOWN_NAME if transition.reason == "unknown_name" else QUIET_RETRY


def moment(seconds: float) -> datetime:
    """Seconds since the world began, as the aware datetime that the pure functions take."""
    return EPOCH + timedelta(seconds=seconds)


class Clock:
    """The database's clock, in seconds; the scheduler alone moves it."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = 0.0


class WorkerRow:
    """A row of `workers`, with those of `label_permits` that are its own: label → how many."""

    __slots__ = ("expires_at", "id", "lost", "permits", "process", "request", "stopped")

    def __init__(self, worker_id: int, process: int, expires_at: float) -> None:
        self.id = worker_id
        self.process = process
        self.expires_at = expires_at
        self.lost = False
        self.stopped = False
        self.permits: dict[str, int] = {}
        self.request = 0


class Row:
    """A row of `tasks`."""

    __slots__ = (
        "attempts",
        "claimed_at",
        "created_at",
        "deadline",
        "failures",
        "id",
        "label_set",
        "labels",
        "losses",
        "name",
        "priority",
        "reason",
        "run_at",
        "serial_id",
        "serial_key",
        "spec",
        "status",
        "token",
        "weight",
        "worker",
    )

    def __init__(self, task_id: int, spec: TaskSpec, now: float) -> None:
        self.id = task_id
        self.spec = spec
        self.name = spec.name
        self.label_set = spec.label_set
        self.labels = frozenset(spec.label_set.split(",")) if spec.label_set else frozenset()
        self.priority = spec.priority
        self.weight = spec.weight
        self.serial_key = spec.serial_key
        self.serial_id = spec.serial_id
        self.token = self.attempts = self.failures = self.losses = 0
        self.created_at = now
        self.claimed_at = 0.0
        self.run_at = now + spec.delay
        self.deadline = None if spec.deadline is None else now + spec.deadline
        self.reason: str | None = None
        self.worker: int | None = None
        self.status = SCHEDULED if spec.delay else PENDING

    @property
    def place_in_line(self) -> tuple[bool, int, int]:
        """Those with an id first, by id, then by creation."""
        return self.serial_id is None, self.serial_id or 0, self.id
