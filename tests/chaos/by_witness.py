"""Invariants for which the witness is asked: what handlers really did, against what the rows say."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import pairwise

from asynctaskd.postgres.connection import CANCEL_TIMEOUT
from tests.chaos.history import History
from tests.chaos.records import CONTROL, Claim, Execution, Span
from tests.chaos.verdicts import Verdict, invariant

_INSTANT = 0.005
"""How far apart two looks at the same clock may be, in seconds."""

_OBEYS_WITHIN = 0.5
"""How long after its lease an execution may be seen to end: a busy machine, not a handler that goes on."""

_DISOBEDIENT = frozenset({"stubborn", "threaded", "blocking"})
"""Handlers that can't be stopped at once, by design."""

_COMPLETES_INSIDE = frozenset({"effect"})
"""Handlers whose completion is committed before they return."""


def _spans(history: History, claim: Claim) -> list[tuple[Execution, Span]]:
    """When executions of a claim ran while the claim was theirs by lease.

    A release in the last statements of a shutdown ends it too: the process is about to go.
    """
    until = history.valid_until(claim.worker)
    if claim.left is not None and "released" in history.stories[claim.task].told_with(claim.left):
        until = min(until, claim.left_at)
    return [(one, (one.start, min(history.went_on_until(one), until))) for one in claim.executions]


@invariant("two executions of a task never overlap while the first one's lease holds")
def no_overlap(history: History, verdict: Verdict) -> None:
    for story in history.stories.values():
        spans = [(claim, span) for claim in story.claims for _, span in _spans(history, claim)]
        for (first, (_, until)), (second, (since, _)) in pairwise(spans):
            verdict.judged += 1
            if since < until - _INSTANT:
                verdict.about(
                    first,
                    f"ran again with token {second.token} {until - since:.3f} s too early",
                    runs_until=until,
                    again_from=since,
                    again_by=second.worker,
                )


@invariant("every execution has its claim, and every claim at most one execution")
def one_run_per_claim(history: History, verdict: Verdict) -> None:
    claims = {(claim.task, claim.token): claim for claim in history.claims}
    for claim in history.claims:
        verdict.judged += 1
        if len(claim.executions) > 1:
            starts = [(one.pid, one.start) for one in claim.executions]
            verdict.about(claim, "ran twice under one claim", starts=starts)
    for execution in history.executions:
        if (execution.task, execution.token) not in claims:
            verdict.violation(
                execution.task, "ran without a claim", token=execution.token, at=execution.start
            )


@invariant("what is written for a claim is what its own execution came to: no stale result is accepted")
def stale_never_accepted(history: History, verdict: Verdict) -> None:
    for claim in history.claims:
        if claim.left is None:
            continue
        story = history.stories[claim.task]
        told = story.told_with(claim.left)
        end = story.finish_with(claim.left) if claim.left.op == "delete" else None
        if end is None and not told & {"retried", "snoozed"}:
            continue
        verdict.judged += 1
        ended = [one for one in claim.executions if _has_ended(one, claim.left_at)]
        has_handler = story.birth.label_set != CONTROL
        if end is not None and not claim.executions and end.status == "completed" and has_handler:
            verdict.about(claim, "completed, though its handler never started", by_process=claim.left.process)
        elif claim.executions and not ended:
            ends = [one.end for one in claim.executions]
            verdict.about(claim, "was settled while its handler ran", ends=ends, by=claim.left.process)


def _has_ended(execution: Execution, by: float) -> bool:
    if execution.name in _COMPLETES_INSIDE:
        return execution.start <= by + _INSTANT
    return execution.end is not None and execution.end <= by + _INSTANT


@invariant("no execution begins when its lease is over")
def begins_with_lease(history: History, verdict: Verdict) -> None:
    for claim in history.claims:
        until = history.valid_until(claim.worker)
        for one in claim.executions:
            verdict.judged += 1
            if one.start > until + _OBEYS_WITHIN:
                verdict.about(claim, f"began {one.start - until:.3f} s after its lease", pid=one.pid)


@invariant("executions stop with their lease")
def stops_with_lease(history: History, verdict: Verdict) -> None:
    for claim in history.claims:
        until = history.valid_until(claim.worker)
        for one in claim.executions:
            if one.name in _DISOBEDIENT:
                continue
            verdict.judged += 1
            if one.end is not None and one.end > _obeys_by(history, one, until):
                verdict.about(
                    claim, f"went on {one.end - until:.3f} s after its lease", pid=one.pid, end=one.end
                )


def _obeys_by(history: History, execution: Execution, until: float) -> float:
    """When it has to have stopped; a process that was frozen can't look at the clock before it wakes.

    In the middle of a call on a silent connection a handler only waits for that to be cancelled.
    """
    woke = [end for begin, end in history.frozen[execution.pid] if begin <= until + _OBEYS_WITHIN]
    waits = CANCEL_TIMEOUT if execution.name in _COMPLETES_INSIDE else 0.0
    return max([until, *woke]) + _OBEYS_WITHIN + waits


@invariant("tasks of a serial key never overlap while the first one's lease holds")
def serial_keys(history: History, verdict: Verdict) -> None:
    keys: dict[str, list[tuple[Span, Claim]]] = defaultdict(list)
    for claim in history.claims:
        key = history.stories[claim.task].birth.serial_key
        if key is not None:
            keys[key] += [(span, claim) for _, span in _spans(history, claim)]
    for key, runs in keys.items():
        runs.sort(key=lambda run: run[0])
        for ((_, until), first), ((since, _), second) in pairwise(runs):
            verdict.judged += 1
            if since < until - _INSTANT and first.task != second.task:
                verdict.about(
                    first,
                    f"ran beside task {second.task} of the key {key!r}",
                    runs_until=until,
                    other_from=since,
                )


@invariant("nothing starts after its deadline")
def deadlines_kept(history: History, verdict: Verdict) -> None:
    for claim in history.claims:
        story = history.stories[claim.task]
        deadline = story.birth.deadline
        if deadline is None or story.revived_between(0, claim.change.seq):
            continue
        verdict.judged += 1
        if claim.executions and claim.at > deadline + _INSTANT:
            verdict.about(claim, "ran after its deadline", deadline=deadline)


@invariant("what was rolled back never runs")
def rolled_back_never_ran(history: History, verdict: Verdict) -> None:
    started = {execution.task: execution for execution in reversed(history.executions)}
    # An enqueue whose unique tag is taken returns somebody else's task.
    kept = {line.task for line in history.ledger if line.outcome != "rolled_back"}
    for line in history.ledger:
        if line.outcome == "rolled_back" and line.task is not None and line.task not in kept:
            verdict.judged += 1
            if line.task in history.stories or line.task in started:
                seen = started.get(line.task)
                verdict.violation(line.task, "was rolled back, and is there", started=seen and seen.start)


@invariant("every run after an interrupted one is explained by a loss or a release of the first")
def duplicates_explained(history: History, verdict: Verdict) -> None:
    for first, second in repeats(history):
        verdict.judged += 1
        told = history.stories[first.task].told_with(first.left) if first.left is not None else set()
        is_explained = _failed_quietly(first) or _was_steered(history, first, second)
        if not told & {"lease_lost", "released", "retried", "snoozed"} and not is_explained:
            verdict.about(first, f"ran again with token {second.token}", told=sorted(told))


def repeats(history: History) -> list[tuple[Claim, Claim]]:
    """Claims of one task under which its handler started, and the next such claim."""
    return [
        pair
        for story in history.stories.values()
        for pair in pairwise(claim for claim in story.claims if claim.executions)
    ]


def _failed_quietly(claim: Claim) -> bool:
    return claim.left is not None and (claim.left.failures or 0) > (claim.left.old_failures or 0)


def _was_steered(history: History, first: Claim, second: Claim) -> bool:
    """Whether an operator paused the first run, or retried what came of it."""
    left = first.left
    is_paused = left is not None and left.status == "paused" and left.requested is not None
    return is_paused or history.stories[first.task].revived_between(first.change.seq, second.change.seq)


def duplicates(history: History) -> list[dict[str, object]]:
    """Runs that a retry or a snooze doesn't explain, each with the loss or release that does."""
    found: list[dict[str, object]] = []
    for first, second in repeats(history):
        told = history.stories[first.task].told_with(first.left) if first.left is not None else set()
        if told & {"retried", "snoozed"} or _failed_quietly(first) or _was_steered(history, first, second):
            continue
        found.append(
            {
                "task": first.task,
                "token": first.token,
                "started": first.executions[0].start,
                "ended": first.executions[0].end,
                "again": second.executions[0].start,
                "again_token": second.token,
                "because": next(iter(sorted(told & {"lease_lost", "released"})), None),
                "at": None if first.left_at == math.inf else first.left_at,
            }
        )
    return found
