"""Invariants about commands: what is asked for, what is done, and what is said of it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from itertools import takewhile
from typing import Any

from tests.chaos.by_witness import _spans
from tests.chaos.history import History, without
from tests.chaos.records import Change, Receipt, ReceiptRow, Span, Story
from tests.chaos.verdicts import Verdict, invariant

_INSTANT = 0.005
"""How far apart two looks at the same clock may be, in seconds."""

_CLOSED_WITHIN = 6.0
"""How long a receipt may be open once its execution has stopped, while a worker is well: a poll, and a busy
machine.
"""

_SETTLES_WITHIN = 5.0

_ENDS_AS = {"cancel": "cancelled", "expire": "expired", "fail": "failed"}
_DONE = ("changed", "stopped")
_LIFTED_BY = {"pause": {"resume", "retry", "fail"}}


@invariant("what was paused or ended by a command isn't claimed again before another command lifts that")
def commands_hold(history: History, verdict: Verdict) -> None:
    for receipt in history.receipts:
        closed, action = receipt.closed, receipt.issued.action
        if closed is None or closed.outcome not in _DONE or action not in ("pause", *_ENDS_AS):
            continue
        if closed.status != _ENDS_AS.get(action, "paused"):
            continue  # nobody was there to run its failure hook
        verdict.judged += 1
        task = receipt.issued.task
        lifted_by = _LIFTED_BY.get(action, {"retry"})
        lifted = [
            one.issued.seq
            for one in history.receipts_of[task]
            if one.issued.action in lifted_by and one.issued.seq > receipt.issued.seq
        ]
        for claim in history.stories[task].claims if task in history.stories else ():
            if claim.change.seq > closed.seq and not any(seq < claim.change.seq for seq in lifted):
                verdict.about(claim, f"was claimed after {action} was carried out", at=closed.at)
                break


@invariant("nothing runs, and nothing is born alive, below a cancelled task")
def no_child_of_cancelled(history: History, verdict: Verdict) -> None:
    cancelled = {task: _cancelled_spans(story) for task, story in history.stories.items()}
    for task, story in history.stories.items():
        above = [(one, span) for one in _ancestors(history, story) for span in cancelled[one]]
        if not above:
            continue
        verdict.judged += 1
        birth = story.birth
        stillborn = any(end.txid == birth.txid and end.status == "cancelled" for end in story.finishes)
        for ancestor, (since, until) in above:
            if since < birth.seq < until and not (stillborn or _goes_on_below(history, story, ancestor)):
                verdict.violation(task, f"was born below the cancelled task {ancestor}", at=birth.at)
            for claim in story.claims:
                is_concerned = birth.seq < since < claim.change.seq < until
                if is_concerned and not story.revived_between(since, claim.change.seq):
                    verdict.about(claim, f"was claimed below the cancelled task {ancestor}")


def _goes_on_below(history: History, story: Story, ancestor: int) -> bool:
    """Whether one between a task and its ancestor lived when it was born, since it was retried."""
    between = takewhile(lambda one: one != ancestor, _ancestors(history, story))
    return any(_is_live_at(history.stories[one], story.birth.seq) for one in between)


def _is_live_at(story: Story, seq: int) -> bool:
    last = _last_before(story, seq)
    return last is None or last.op not in ("finish", "delete", "forget")


def _last_before(story: Story, seq: int) -> Change | None:
    return next((change for change in reversed(story.changes) if change.seq < seq), None)


def _ancestors(history: History, story: Story) -> list[int]:
    found: list[int] = []
    parent = story.birth.parent
    while parent is not None and parent in history.stories:
        found.append(parent)
        parent = history.stories[parent].birth.parent
    return found


def _cancelled_spans(story: Story) -> list[Span]:
    """When it was cancelled or about to be, in sequence numbers: until something else became of it."""
    spans: list[Span] = []
    since: float | None = None
    for change in story.changes:
        is_asked = change.op == "update" and change.requested == "cancelled"
        if is_asked or (change.op == "finish" and change.status == "cancelled"):
            since = change.seq if since is None else since
        elif since is not None and change.op in ("finish", "revive"):
            spans.append((since, change.seq))
            since = None
    return spans if since is None else [*spans, (since, math.inf)]


@invariant("what is born below a paused task is paused, unless it is cancelled")
def born_paused(history: History, verdict: Verdict) -> None:
    for task, story in history.stories.items():
        parent = history.stories.get(story.birth.parent or 0)
        if parent is None or not _is_paused_at(parent, story.birth.seq):
            continue
        verdict.judged += 1
        if story.birth.status != "paused":
            verdict.violation(task, f"was born {story.birth.status} below a paused task", at=story.birth.at)


def _is_paused_at(story: Story, seq: int) -> bool:
    """Whether an operator's pause of it was in force, or asked for, at a moment."""
    last = _last_before(story, seq)
    if last is None or not _is_live_at(story, seq):
        return False
    if last.requested is not None:
        return last.requested == "paused"
    return last.status == "paused" and last.reason != "name paused"


@invariant("every receipt is complete once its task has stopped")
def receipts_complete(history: History, verdict: Verdict) -> None:
    for receipt in history.receipts:
        verdict.judged += 1
        issued, closed = receipt.issued, receipt.closed
        if closed is None:
            verdict.violation(issued.task, f"the receipt of {issued.action} is open", since=issued.at)
            continue
        answers = sorted({row.outcome for row in receipt.rows if row.outcome is not None})
        if len(answers) > 1:
            verdict.violation(issued.task, f"its {issued.action} was answered twice", answers=answers)
        if issued.action == "fail" or issued.task not in history.stories:
            continue  # its hook may take its time
        stopped_at = max(issued.at, _left_at(history, receipt))
        waited = _well_between(history, stopped_at, closed.at)
        if waited > _CLOSED_WITHIN:
            verdict.violation(
                issued.task,
                f"its {issued.action} was open for {waited:.1f} s after it had stopped",
                stopped_at=stopped_at,
                closed_at=closed.at,
            )


def _left_at(history: History, receipt: Receipt) -> float:
    """When the claim that a receipt is about was left; before it was issued where there was none."""
    issued = receipt.issued
    claims = [one for one in history.stories[issued.task].claims if one.token == issued.token]
    return claims[0].left_at if claims and issued.worker is not None else -math.inf


def _well_between(history: History, since: float, until: float) -> float:
    """For how many seconds at most one worker was well, from a moment on."""
    longest = 0.0
    for worker in history.workers.values():
        gone = [history.exits.get(worker.pid, math.inf), *history.told_to_go[worker.pid]]
        span = max(since, worker.since + 1.0), min(until, worker.valid_until, *gone)
        if span[0] < span[1]:
            broken = history.disturbances(worker.pid, settle=_SETTLES_WITHIN)
            longest = max([longest, *(end - begin for begin, end in without(span, broken))])
    return longest


@invariant("statuses and receipts agree: what is said to be done was done, and what was refused wasn't")
def receipts_agree(history: History, verdict: Verdict) -> None:
    for receipt in history.receipts:
        closed, issued = receipt.closed, receipt.issued
        story = history.stories.get(issued.task)
        if closed is None or story is None:
            continue
        verdict.judged += 1
        flaw = _flaw(story, issued, closed)
        if flaw:
            facts = {"outcome": closed.outcome, "reason": closed.reason, "at": closed.at}
            verdict.violation(issued.task, f"{issued.action}: {flaw}", **facts, request=issued.request)
    _ends_by_operator(history, verdict)


def _flaw(story: Story, issued: ReceiptRow, closed: ReceiptRow) -> str:
    """What a receipt says that isn't so, in words."""
    # A command and its task's changes are in one transaction, before or after each other.
    until = closed.seq
    seen = [one for one in story.changes if one.txid == closed.txid or one.seq <= until]
    since = [one for one in seen if one.txid == issued.txid or one.seq > issued.seq]
    became = {one.status for one in since if one.op in ("update", "finish", "revive")}
    earlier = [one for one in seen if one not in since]
    if earlier and earlier[-1].reason == "name paused":
        became.add(earlier[-1].status)  # it was put aside, and is paused for itself where it rests
    wanted = _ENDS_AS.get(issued.action, "paused" if issued.action == "pause" else None)
    ended = next((one.status for one in reversed(seen) if one.op == "finish"), None)
    if closed.outcome in _DONE:
        if wanted is not None and closed.status == wanted and wanted not in became:
            return f"is said to be {wanted}, and became {sorted(map(str, became)) or 'nothing'}"
        if issued.action == "retry" and not any(one.op == "revive" for one in since):
            return "is said to be retried, and wasn't"
    elif closed.reason == "finished first" and (ended is None or ended == wanted):
        return f"is said to have finished first, and is {ended or 'live'}"
    return ""


def _ends_by_operator(history: History, verdict: Verdict) -> None:
    """Whose end is an operator's has a receipt that says so."""
    by_status = {status: action for action, status in _ENDS_AS.items()}
    for task, story in history.stories.items():
        for end in story.finishes:
            action = by_status.get(end.status or "")
            if action is None or end.reason not in (f"{end.status} by operator", "failed_by_operator"):
                continue
            done = [
                one
                for one in history.receipts_of.get(task, ())
                if one.issued.action == action and one.closed is not None and one.closed.outcome in _DONE
            ]
            if not done:
                verdict.violation(task, f"was {end.status} by operator, and no receipt says so", at=end.at)


@invariant("a receipt says stopped only after the execution has stopped, as the witness saw it")
def stopped_after_end(history: History, verdict: Verdict) -> None:
    for receipt in history.receipts:
        closed, issued = receipt.closed, receipt.issued
        if closed is None or closed.outcome != "stopped" or issued.action not in ("pause", *_ENDS_AS):
            continue
        claims = history.stories[issued.task].claims if issued.task in history.stories else []
        for claim in claims:
            if claim.token != issued.token:
                continue
            for execution, (_, until) in _spans(history, claim):
                verdict.judged += 1
                if until > closed.at + _INSTANT:
                    verdict.about(
                        claim,
                        f"is said to have stopped {until - closed.at:.3f} s before it did",
                        said_at=closed.at,
                        end=until,
                        pid=execution.pid,
                    )


@invariant("what the operator was told is what is written")
def answers_kept(history: History, verdict: Verdict) -> None:
    written: dict[tuple[str, int], Receipt] = {
        (one.issued.request, one.issued.task): one for one in history.receipts
    }
    for answer in history.answers:
        for task, outcome in answer.get("tasks", ()):
            verdict.judged += 1
            receipt = written.get((answer["request"], task))
            if receipt is None:
                what = f"{answer['action']} was answered, and isn't written"
                verdict.violation(task, what, at=answer["at"])
            elif outcome is not None and outcome != receipt.known.outcome:
                told = {"told": outcome, "written": receipt.known.outcome, "at": answer["at"]}
                verdict.violation(task, f"{answer['action']} was answered otherwise", **told)
        version = answer.get("version")
        if version is not None:
            verdict.judged += 1
            _judge_report(history, verdict, answer, version)


def _judge_report(history: History, verdict: Verdict, answer: dict[str, Any], version: int) -> None:
    """Every worker that is said to apply a version has acknowledged it by then."""
    if version not in {one.version for one in history.versions}:
        verdict.violation(None, f"version {version} was reported, and isn't written", at=answer["at"])
    newest: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for ack in history.acks:
        newest[ack.worker].append((ack.at, ack.version))
    for worker in answer.get("applied", ()):
        acks = newest[worker]
        place = bisect_right(acks, (answer["at"], math.inf)) - 1
        if place < 0 or acks[place][1] < version:
            verdict.violation(
                None, f"is said to apply version {version}, and never said so", worker=worker, at=answer["at"]
            )
