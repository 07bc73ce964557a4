"""What a chaos run leaves: rows of the audit and lines of the files, as plain records.

All instants are seconds since 1970 as floats, by one clock: the database, the handlers and the runner share a
machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Span = tuple[float, float]
"""From, to."""

HARMLESS = frozenset({"burst"})
"""Kinds in the fault log after which everything has to go on as ever."""

CONTROL = "!control"
"""The label set of control tasks: they take no slot."""

_FIRST_CONFIG: dict[str, Any] = {
    "max_strict_percentage": None,
    "default_weight": 1,
    "weights": {},
    "limits": {},
    "paused_labels": [],
    "paused_names": [],
}


class Birth(NamedTuple):
    """A task was inserted, by a transaction that was committed."""

    seq: int
    at: float
    txid: int
    task: int
    name: str = "quick"
    status: str = "pending"
    priority: int = 0
    max_attempts: int | None = None
    deadline: float | None = None
    label_set: str = ""
    serial_key: str | None = None
    unique_tag: str | None = None
    parent: int | None = None
    slot: float | None = None

    @property
    def labels(self) -> frozenset[str]:
        """What a worker needs to run it."""
        return frozenset(filter(None, self.label_set.split(",")))


class Change(NamedTuple):
    """A task's row changed: `op` is update, delete, finish (its arrival among the finished ones), forget (it
    leaves them), or revive (it is back among the live ones).
    """

    seq: int
    at: float
    asked_at: float  # when the server got the statement
    txid: int
    process: int | None  # who wrote it, where that is known
    op: str
    task: int
    old_status: str | None
    status: str | None
    old_token: int | None
    token: int | None
    old_worker: str | None
    worker: str | None
    old_attempts: int | None
    attempts: int | None
    old_failures: int | None
    failures: int | None
    old_losses: int | None
    losses: int | None
    reason: str | None
    old_requested: str | None = None
    requested: str | None = None

    @property
    def ends_a_claim(self) -> bool:
        """Whether the task doesn't run any more under the claim of before; a request changes nothing yet."""
        return self.old_status == "running" and (self.status != "running" or self.token != self.old_token)

    @property
    def is_claim(self) -> bool:
        """Whether it gave the task to a worker."""
        grown = self.old_status != "running" or self.token != self.old_token
        return self.op == "update" and self.status == "running" and grown


class Event(NamedTuple):
    """A row of `task_events`."""

    seq: int
    at: float
    txid: int
    task: int
    token: int
    kind: str


class LeaseRow(NamedTuple):
    """A worker's row as it was after a change of its lease."""

    seq: int
    at: float
    worker: str
    pid: int
    concurrency: int
    labels: tuple[str, ...]
    expires_at: float
    lost_at: float | None = None
    stopped_at: float | None = None


class Config(NamedTuple):
    """A version of the runtime configuration, as it was written; version 0 are the defaults."""

    seq: int
    at: float
    version: int
    content: dict[str, Any] = _FIRST_CONFIG

    def holds_back(self, birth: Birth) -> bool:
        """Whether nobody may claim such a task."""
        is_paused = birth.labels & set(self.content["paused_labels"])
        return bool(is_paused) or birth.name in self.content["paused_names"]

    def may_hold_back(self, birth: Birth) -> bool:
        """Whether such a task may have to wait: it is paused, or has a limit."""
        return self.holds_back(birth) or bool(birth.labels & self.content["limits"].keys())

    def may_keep_waiting(self, birth: Birth) -> bool:
        """The same, or the slots for strict tasks may be full."""
        is_capped = birth.priority > 0 and self.content["max_strict_percentage"] not in (None, 100)
        return is_capped or self.may_hold_back(birth)

    @property
    def weights(self) -> dict[str, int]:
        """Group → weight."""
        return {"default": self.content["default_weight"], **self.content["weights"]}

    @property
    def pauses(self) -> bool:
        """Whether some tasks aren't claimed at all."""
        return bool(self.content["paused_labels"] or self.content["paused_names"])

    @property
    def restricts(self) -> bool:
        """Whether some tasks may have to wait though a slot is free."""
        return self.pauses or bool(self.content["limits"])


class Ack(NamedTuple):
    """A worker says which version it applies."""

    seq: int
    at: float
    worker: str
    version: int


class ReceiptRow(NamedTuple):
    """A receipt as it was after a change of it."""

    seq: int
    at: float
    txid: int
    request: str
    task: int
    action: str
    status: str | None = None
    outcome: str | None = None
    reason: str | None = None
    worker: str | None = None
    token: int | None = None
    delivered_at: float | None = None
    stopped_at: float | None = None


@dataclass(slots=True)
class Receipt:
    """What became of one command for one task, from its issue to what is known of it last."""

    rows: list[ReceiptRow]

    @property
    def issued(self) -> ReceiptRow:
        return self.rows[0]

    @property
    def known(self) -> ReceiptRow:
        return self.rows[-1]

    @property
    def closed(self) -> ReceiptRow | None:
        """How it was when its outcome became known."""
        return next((row for row in self.rows if row.outcome is not None), None)


class Slot(NamedTuple):
    """What was decided of a slot of a schedule; `slot` is when it was due."""

    seq: int
    at: float
    txid: int
    schedule: str
    slot: float
    task: int | None
    outcome: str


class Mark(NamedTuple):
    """A row that a handler or a hook wrote in the transaction it was given; hooks don't know their token."""

    task: int
    token: int | None
    txid: int


@dataclass(slots=True)
class Execution:
    """One call of a handler, as the witness saw it; `end` is None where nobody saw one."""

    task: int
    token: int
    name: str
    pid: int
    start: float
    end: float | None = None
    how: str | None = None


class LedgerLine(NamedTuple):
    """What the enqueuer knows of one order."""

    at: float
    task: int | None
    outcome: str


@dataclass(slots=True)
class Fault:
    """Something that was broken on purpose. `over` is when it was mended; None where it has no duration."""

    at: float
    kind: str
    number: int | None
    pid: int | None
    facts: dict[str, Any]
    over: float | None = None
    found: float | None = None
    moot: bool = False  # a silent connection of which nobody wanted anything, or that ended in another way
    asked: float | None = None  # when somebody first did

    @property
    def connection(self) -> str | None:
        """The one connection that it is about."""
        return self.facts.get("conn")

    @property
    def span(self) -> Span:
        """While it lasted."""
        return self.at, self.over if self.over is not None else self.at


@dataclass(slots=True)
class Claim:
    """One claim of a task: who got it, how it was left, and what the witness saw of it."""

    change: Change
    left: Change | None = None
    executions: list[Execution] = field(default_factory=list)

    @property
    def task(self) -> int:
        return self.change.task

    @property
    def token(self) -> int:
        return self.change.token or 0

    @property
    def worker(self) -> str:
        return self.change.worker or ""

    @property
    def at(self) -> float:
        return self.change.at

    @property
    def left_at(self) -> float:
        """When its row stopped running under this claim; infinite where it never did."""
        return math.inf if self.left is None else self.left.at


@dataclass(slots=True)
class Story:
    """All that happened to one task, in order."""

    birth: Birth
    changes: list[Change] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    visible_at: float = 0.0  # from then on it was certainly committed

    @property
    def finish(self) -> Change | None:
        """Its last arrival among the finished tasks, unless it was revived since."""
        ends = (change for change in reversed(self.changes) if change.op in ("finish", "revive"))
        last = next(ends, None)
        return last if last is not None and last.op == "finish" else None

    @property
    def finishes(self) -> list[Change]:
        """All its arrivals among the finished tasks: one more than it was revived."""
        return [change for change in self.changes if change.op == "finish"]

    def finish_with(self, change: Change) -> Change | None:
        """Its arrival among the finished tasks in the transaction of a change."""
        return next((end for end in self.finishes if end.txid == change.txid), None)

    def revived_between(self, first: int, last: int) -> bool:
        """Whether it was brought back to life between two sequence numbers."""
        return any(change.op == "revive" and first < change.seq < last for change in self.changes)

    def told_with(self, change: Change) -> set[str]:
        """The kinds of the events that were written in the same transaction."""
        return {event.kind for event in self.events if event.txid == change.txid}

    def pending_spans(self) -> Iterator[tuple[float, float, Change | None]]:
        """When it could be claimed: from, to, and what ended it (None: nothing did)."""
        since = self.visible_at if self.birth.status == "pending" else None
        for change in self.changes:
            if change.op in ("update", "revive") and change.status == "pending":
                since = change.at if since is None else since
            elif since is not None and change.op in ("update", "delete"):
                yield since, max(since, change.at), change
                since = None
        if since is not None:
            yield since, math.inf, None


@dataclass(slots=True)
class Worker:
    """One identity and its lease."""

    id: str
    rows: list[LeaseRow]

    @property
    def pid(self) -> int:
        return self.rows[0].pid

    @property
    def concurrency(self) -> int:
        return self.rows[0].concurrency

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(self.rows[0].labels)

    @property
    def since(self) -> float:
        """When it registered."""
        return self.rows[0].at

    @property
    def valid_until(self) -> float:
        """When its claims ended: by expiry, by being declared lost, or by its goodbye."""
        last = self.rows[-1]
        return min(last.expires_at, last.lost_at or math.inf, last.stopped_at or math.inf)


@dataclass(frozen=True)
class Settings:
    """What the workers were told, in seconds."""

    lease: float = 30.0
    grace: float = 30.0
    strict_percentage: int = 100
