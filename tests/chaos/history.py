"""What happened in a chaos run: the audit, the witness, the faults and the ledger, as plain records in order.

All instants are seconds since 1970 as floats, by one clock: the database, the handlers and the runner share a
machine.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

import asyncpg

Span = tuple[float, float]
"""From, to."""

HARMLESS = frozenset({"burst"})
"""Kinds in the fault log after which everything has to go on as ever."""


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


class Change(NamedTuple):
    """A task's row changed: `op` is update, delete, or finish (its arrival among the finished ones)."""

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
        """Its arrival among the finished tasks."""
        return next((change for change in self.changes if change.op == "finish"), None)

    def told_with(self, change: Change) -> set[str]:
        """The kinds of the events that were written in the same transaction."""
        return {event.kind for event in self.events if event.txid == change.txid}

    def pending_spans(self) -> Iterator[tuple[float, float, Change | None]]:
        """When it could be claimed: from, to, and what ended it (None: nothing did)."""
        since = self.visible_at if self.birth.status == "pending" else None
        for change in self.changes:
            if change.op == "update" and change.status == "pending":
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


@dataclass
class History:
    """One run. The lists are in the order of their sequence numbers or times."""

    births: list[Birth] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    leases: list[LeaseRow] = field(default_factory=list)
    hooks: list[Mark] = field(default_factory=list)
    effects: list[Mark] = field(default_factory=list)
    executions: list[Execution] = field(default_factory=list)
    ledger: list[LedgerLine] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    exits: dict[int, float] = field(default_factory=dict)  # pid → when the process was seen to be gone
    weights: dict[str, int] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    ended_at: float = math.inf

    @classmethod
    async def load(
        cls, dsn: str, *, witness: Path, faults: Path, ledger: Path, settings: Settings | None = None
    ) -> History:
        """Read a run: the audit from its database, the rest from files of JSON lines."""
        history = cls()
        history.take_journal(read_lines(faults))
        history.executions = executions(read_lines(witness))
        history.ledger = [
            LedgerLine(line["at"], line.get("task"), line["outcome"]) for line in read_lines(ledger)
        ]
        if settings is not None:
            history.settings = settings
        await _read_audit(history, dsn)
        return history

    def take_journal(self, lines: Iterable[dict[str, Any]]) -> None:
        """Sort the runner's lines into faults, their ends, exits of processes and the settings."""
        by_number: dict[int, list[Fault]] = defaultdict(list)
        has_drained = False
        for line in lines:
            self.ended_at = self.ended_at if has_drained else line["at"]
            if "fault" in line:
                fault = Fault(line["at"], line["fault"], line.get("n"), line.get("pid"), line)
                self.faults.append(fault)
                if fault.number is not None:
                    by_number[fault.number].append(fault)
            elif line.get("event") in ("over", "accepting", "found", "moot", "asked"):
                _mend(by_number[line["n"]], line)
            elif line.get("event") == "exited":
                self.exits[line["pid"]] = line["at"]
            elif line.get("event") == "run_began":
                known = {name: line[name] for name in Settings.__dataclass_fields__ if name in line}
                self.settings = Settings(**known)
            elif line.get("event") == "drained":
                has_drained = True

    @cached_property
    def stories(self) -> dict[int, Story]:
        """Task → what happened to it. Changes of tasks that were never born are in `unborn`."""
        stories = {birth.task: Story(birth, visible_at=birth.at) for birth in self.births}
        for line in self.ledger:
            if line.task in stories and line.outcome == "committed":
                story = stories[line.task]
                story.visible_at = max(story.visible_at, line.at)
        for change in self.changes:
            if change.task in stories:
                stories[change.task].changes.append(change)
        for event in self.events:
            if event.task in stories:
                stories[event.task].events.append(event)
        self._claim(stories)
        return stories

    def _claim(self, stories: dict[int, Story]) -> None:
        seen = defaultdict(list)
        for execution in self.executions:
            seen[execution.task, execution.token].append(execution)
        for story in stories.values():
            for change in story.changes:
                if story.claims and story.claims[-1].left is None and change.old_status == "running":
                    story.claims[-1].left = change
                if change.is_claim:
                    story.claims.append(Claim(change, executions=seen[change.task, change.token or 0]))

    @cached_property
    def claims(self) -> list[Claim]:
        """Every claim, in order."""
        found = [claim for story in self.stories.values() for claim in story.claims]
        return sorted(found, key=lambda claim: claim.change.seq)

    @cached_property
    def claims_of(self) -> dict[int, list[Claim]]:
        """Process → the claims of its workers, in order."""
        found = defaultdict(list)
        for claim in self.claims:
            if claim.worker in self.workers:
                found[self.workers[claim.worker].pid].append(claim)
        return found

    @cached_property
    def workers(self) -> dict[str, Worker]:
        """Identity → its lease."""
        rows = defaultdict(list)
        for row in self.leases:
            rows[row.worker].append(row)
        return {worker: Worker(worker, changes) for worker, changes in rows.items()}

    def valid_until(self, worker: str) -> float:
        """When a worker's claims ended; a worker that never registered has none."""
        found = self.workers.get(worker)
        return -math.inf if found is None else found.valid_until

    def went_on_until(self, execution: Execution) -> float:
        """When an execution was over at the latest: its process may have been gone before it could say so."""
        if execution.end is not None:
            return execution.end
        return self.exits.get(execution.pid, math.inf)

    def disturbances(
        self, pid: int | None, *, settle: float, but: frozenset[str] = frozenset()
    ) -> list[Span]:
        """When something was broken that concerned this process, and `settle` seconds after; merged."""
        asked = pid, settle, but
        if asked not in self._disturbances:
            self._disturbances[asked] = merged(
                (fault.at, fault.span[1] + settle)
                for fault in self.faults
                if fault.kind not in HARMLESS | but and (fault.pid is None or fault.pid == pid)
            )
        return self._disturbances[asked]

    @cached_property
    def _disturbances(self) -> dict[tuple[int | None, float, frozenset[str]], list[Span]]:
        return {}

    @cached_property
    def frozen(self) -> dict[int, list[Span]]:
        """Process → when it was stopped by SIGSTOP."""
        spans = defaultdict(list)
        for fault in self.faults:
            if fault.kind == "sigstop" and fault.pid is not None:
                spans[fault.pid].append((fault.at, math.inf if fault.over is None else fault.over))
        return spans

    @cached_property
    def told_to_go(self) -> dict[int, list[float]]:
        """Process → when it was killed, or told to stop."""
        times = defaultdict(list)
        for fault in self.faults:
            if fault.kind in ("sigkill", "sigterm") and fault.pid is not None:
                times[fault.pid].append(fault.at)
        return times

    @cached_property
    def steps(self) -> dict[str, list[tuple[float, int]]]:
        """Worker → +1 for every task it got, -1 for every one it was rid of, in order."""
        found = defaultdict(list)
        for claim in self.claims:
            found[claim.worker] += [(claim.at, 1), (claim.left_at, -1)]
        return {worker: sorted(steps) for worker, steps in found.items()}

    @cached_property
    def strict_spans(self) -> dict[str, list[Span]]:
        """Worker → when it held tasks of the strict lane."""
        found = defaultdict(list)
        for claim in self.claims:
            if self.stories[claim.task].birth.priority > 0:
                found[claim.worker].append((claim.at, claim.left_at))
        return found


def _mend(faults: list[Fault], line: dict[str, Any]) -> None:
    for fault in faults:
        if line.get("conn", fault.connection) != fault.connection:
            continue
        if line["event"] == "found":
            fault.found = line["at"] if fault.found is None else fault.found
        elif line["event"] == "moot":
            fault.moot = True
        elif line["event"] == "asked":
            fault.asked = line["at"]
        else:
            fault.over = line["at"]


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same times as spans that don't touch, in order."""
    result: list[Span] = []
    for begin, end in sorted(spans):
        if result and begin <= result[-1][1]:
            result[-1] = result[-1][0], max(result[-1][1], end)
        else:
            result.append((begin, end))
    return result


def without(span: Span, gaps: list[Span]) -> list[Span]:
    """What is left of a span outside of some merged ones."""
    begin, end = span
    left = []
    first = max(bisect_right(gaps, (begin, math.inf)) - 1, 0)
    for gap_begin, gap_end in gaps[first:]:
        if gap_begin >= end:
            break
        if gap_begin > begin:
            left.append((begin, gap_begin))
        begin = max(begin, gap_end)
    if begin < end:
        left.append((begin, end))
    return left


def executions(lines: Iterable[dict[str, Any]]) -> list[Execution]:
    """The witness's lines, each start together with its end."""
    found: list[Execution] = []
    running: dict[tuple[int, int, int], Execution] = {}
    for line in lines:
        key = line["task"], line["token"], line["pid"]
        if line["what"] == "start":
            running[key] = Execution(
                line["task"], line["token"], intern(line["name"]), line["pid"], line["at"]
            )
            found.append(running[key])
        elif key in running:
            execution = running.pop(key)
            execution.end, execution.how = line["at"], intern(line["what"])
    return found


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines. One that isn't there is empty; the last line may be cut off."""
    if not path.exists():
        return
    with path.open(encoding="utf8") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


_BIRTHS = """SELECT seq, extract(epoch FROM at)::float8, txid, task_id, name, status, priority, max_attempts,
    extract(epoch FROM deadline)::float8, label_set, serial_key, unique_tag FROM chaos.births ORDER BY seq"""
_CHANGES = """SELECT seq, extract(epoch FROM at)::float8, extract(epoch FROM asked_at)::float8, txid, process,
    op, task_id, old_status, status, old_token, token, old_worker::text, worker::text, old_attempts, attempts,
    old_failures, failures, old_losses, losses, reason FROM chaos.changes ORDER BY seq"""
_EVENTS = """SELECT seq, extract(epoch FROM at)::float8, txid, task_id, token, kind
    FROM chaos.events ORDER BY seq"""
_LEASES = """SELECT seq, extract(epoch FROM at)::float8, worker::text, pid, concurrency, labels,
    extract(epoch FROM expires_at)::float8, extract(epoch FROM lost_at)::float8,
    extract(epoch FROM stopped_at)::float8 FROM chaos.leases ORDER BY seq"""


async def _read_audit(history: History, dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            history.births = [Birth(*row) async for row in _shared(connection, _BIRTHS)]
            history.changes = [Change(*row) async for row in _shared(connection, _CHANGES)]
            history.events = [Event(*row) async for row in _shared(connection, _EVENTS)]
            history.leases = [LeaseRow(*row) async for row in _shared(connection, _LEASES)]
            marks = "SELECT task_id, {}, txid FROM chaos.{}"
            history.hooks = [Mark(*row) for row in await connection.fetch(marks.format("NULL", "hooks"))]
            history.effects = [Mark(*row) for row in await connection.fetch(marks.format("token", "effects"))]
            weights = await connection.fetchval(
                "SELECT weights::text FROM asynctaskd.runtime_configs ORDER BY version DESC LIMIT 1"
            )
            history.weights = json.loads(weights) if weights else {}
    finally:
        await connection.close()


async def _shared(connection: Any, query: str) -> Any:
    """Rows whose equal texts are one object: a million of them have but a few words."""
    words: dict[Any, Any] = {}
    async for row in connection.cursor(query, prefetch=5000):
        yield [words.setdefault(value, value) if isinstance(value, str) else _plain(value) for value in row]


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
