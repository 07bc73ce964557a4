"""What happened in a chaos run: the audit, the witness, the faults and the ledger, in order."""

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
from typing import Any

from tests.chaos.reading import read_audit
from tests.chaos.records import (
    CONTROL,
    HARMLESS,
    Ack,
    Birth,
    Change,
    Claim,
    Config,
    Event,
    Execution,
    Fault,
    LeaseRow,
    LedgerLine,
    Mark,
    Receipt,
    ReceiptRow,
    Settings,
    Slot,
    Span,
    Story,
    Worker,
)


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
    configs: list[Config] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)
    receipt_rows: list[ReceiptRow] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)  # what the operator was told
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
        await read_audit(history, dsn)
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
            elif line.get("event") == "answered":
                self.answers.append(line)
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
                if story.claims and story.claims[-1].left is None and change.ends_a_claim:
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
    def versions(self) -> list[Config]:
        """Every version of the configuration, the defaults first."""
        first: dict[int, Config] = {0: Config(0, -math.inf, 0)}
        for config in self.configs:
            first.setdefault(config.version, config)
        return [first[version] for version in sorted(first)]

    @cached_property
    def acks_of(self) -> dict[str, list[Ack]]:
        """Worker → what it said, in order."""
        found = defaultdict(list)
        for ack in self.acks:
            found[ack.worker].append(ack)
        return found

    def in_force(self, worker: str, since: float, until: float) -> list[Config]:
        """The versions one of which this worker applies at any moment between: from what it had acknowledged
        before to the newest there was.
        """
        acks = self.acks_of.get(worker, [])
        place = bisect_right(acks, since, key=lambda ack: ack.at) - 1
        oldest = acks[place].version if place >= 0 else 0
        return [one for one in self.versions if one.version >= oldest and one.at <= until]

    @cached_property
    def receipts(self) -> list[Receipt]:
        """Every receipt, in the order in which they were issued."""
        rows = defaultdict(list)
        for row in self.receipt_rows:
            rows[row.request, row.task].append(row)
        return [Receipt(one) for one in rows.values()]

    @cached_property
    def receipts_of(self) -> dict[int, list[Receipt]]:
        """Task → its receipts, in the order in which they were issued."""
        found = defaultdict(list)
        for receipt in self.receipts:
            found[receipt.issued.task].append(receipt)
        return found

    @cached_property
    def steps(self) -> dict[str, list[tuple[float, int]]]:
        """Worker → +1 for every task it got, -1 for every one it was rid of, in order."""
        found = defaultdict(list)
        for claim in self.claims:
            if self.stories[claim.task].birth.label_set != CONTROL:
                found[claim.worker] += [(claim.at, 1), (claim.left_at, -1)]
        return {worker: sorted(steps) for worker, steps in found.items()}

    @cached_property
    def strict_spans(self) -> dict[str, list[Span]]:
        """Worker → when it held tasks of the strict lane."""
        found = defaultdict(list)
        for claim in self.claims:
            birth = self.stories[claim.task].birth
            if birth.priority > 0 and birth.label_set != CONTROL:
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
