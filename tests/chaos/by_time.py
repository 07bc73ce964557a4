"""Invariants about what has to happen in time, and in which order, where nothing was broken meanwhile."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator

from tests.chaos.history import History, without
from tests.chaos.records import Claim, Config, Span, Story, Worker
from tests.chaos.verdicts import Verdict, invariant

_WRITTEN_WITHIN = 12.0
"""How long an outcome may wait to be written, in seconds: one call's deadline and a few tries."""

_WOKEN_WITHIN = 3.0
"""How long a task may wait beside a free slot: a poll interval, and a busy machine."""

_SETTLES_WITHIN = 5.0
"""How long after a fault its consequences may show."""

_SEEN_WITHIN = 1.0
"""How long after its insert a task may be invisible to claims: until its transaction's commit is known."""

_KNOWN_WITHIN = 1.5
"""How long a worker that is busy may not know of a group's backlog: a poll interval, and a busy machine."""

_WINDOW = 1000
_TOLERANCE = 0.05
_BACKLOG = 100


def time_in(spans: list[Span]) -> float:
    """Their length together."""
    return sum(end - begin for begin, end in spans)


@invariant("what an execution came to is written, and soon while nothing is broken")
def results_written(history: History, verdict: Verdict) -> None:
    for claim in history.claims:
        ended = [one for one in claim.executions if one.how == "end" and one.end is not None]
        if not ended:
            continue
        verdict.judged += 1
        pid, end = ended[0].pid, ended[0].end or math.inf
        if _was_thrown_away(history, claim, end, pid):
            verdict.about(claim, "ended, and was put back as if it hadn't", end=end, pid=pid)
        if claim.left_at - end < _WRITTEN_WITHIN:
            continue
        until = min(claim.left_at, _gone_at(history, pid, end), history.ended_at)
        broken = history.disturbances(pid, settle=_SETTLES_WITHIN)
        waited = time_in(without((end, until), broken)) if end < until else 0.0
        if waited > _WRITTEN_WITHIN:
            verdict.about(claim, f"ended, and {waited:.1f} s later that wasn't written", end=end, pid=pid)


def _was_thrown_away(history: History, claim: Claim, end: float, pid: int) -> bool:
    """Whether its worker released it though it had ended; at a shutdown there may be no time to write."""
    if claim.left is None or "released" not in history.stories[claim.task].told_with(claim.left):
        return False
    return end < claim.left_at and not any(at < claim.left_at for at in history.told_to_go[pid])


def _gone_at(history: History, pid: int, after: float) -> float:
    """When a process was killed or told to stop after that moment, or gone."""
    told = [at for at in history.told_to_go[pid] if at >= after]
    return min([history.exits.get(pid, math.inf), *told])


@invariant("nothing that can run waits while a worker that may run it has a free slot")
def woken(history: History, verdict: Verdict) -> None:
    idle = [(worker, span) for worker in history.workers.values() for span in idle_spans(history, worker)]
    verdict.note = f"{time_in([span for _, span in idle]):.0f} worker-seconds with a free slot"
    for task, story in history.stories.items():
        labels = labels_of(story)
        for since, until, how in story.pending_spans():
            verdict.judged += 1
            if min(until, history.ended_at) - since <= _WOKEN_WITHIN or _is_suspect(story, since):
                continue
            for worker, (begin, end) in idle:
                waited = min(until, end, history.ended_at) - max(since, begin)
                if waited > _WOKEN_WITHIN and labels <= worker.labels:
                    span = max(since, begin), min(until, end, history.ended_at)
                    if _may_be_held_back(history, worker, story, span):
                        continue
                    verdict.violation(
                        task,
                        f"waited {waited:.1f} s beside an idle worker",
                        since=since,
                        until=until,
                        worker=worker.id,
                        how=how and how.status,
                    )
                    break


def labels_of(story: Story) -> frozenset[str]:
    """What a worker needs to run it."""
    return story.birth.labels


def _may_be_held_back(history: History, worker: Worker, story: Story, span: Span) -> bool:
    """Whether a version that this worker may apply in that time pauses, limits or caps such tasks."""
    return any(one.may_keep_waiting(story.birth) for one in history.in_force(worker.id, *span))


def _is_suspect(story: Story, at: float) -> bool:
    """Whether it had lost two workers in a row by then: such tasks wait for each other."""
    losses = [change.losses for change in story.changes if change.at <= at and change.losses is not None]
    return bool(losses) and losses[-1] >= 2


def idle_spans(
    history: History, worker: Worker, *, settle: float = _SETTLES_WITHIN, but: frozenset[str] = frozenset()
) -> list[Span]:
    """When a worker held its lease, had a free slot, and nothing of it was broken (`but` these kinds)."""
    begin = worker.since + 1.0  # it registers before it claims
    end = min(worker.valid_until, _gone_at(history, worker.pid, worker.since), history.ended_at)
    if begin >= end:
        return []
    broken = history.disturbances(worker.pid, settle=settle, but=but)
    free = _free_spans(history, worker, begin, end)
    return [left for span in free for left in without(span, broken)]


def _free_spans(history: History, worker: Worker, begin: float, end: float) -> Iterator[Span]:
    running, since = 0, begin
    for at, step in history.steps.get(worker.id, []):
        if running < worker.concurrency <= running + step and since < min(at, end):
            yield since, min(at, end)
        if running + step < worker.concurrency <= running:
            since = max(at, begin)
        running += step
    if running < worker.concurrency and since < end:
        yield since, end


@invariant(
    "no normal task is claimed while an older strict one could be, by a worker with a strict slot free"
)
def strict_first(history: History, verdict: Verdict) -> None:
    normal = [claim for claim in history.claims if history.stories[claim.task].birth.priority == 0]
    normal = [claim for claim in normal if (claim.change.losses or 0) < 2]
    asked = sorted((claim.change.asked_at, claim.change.seq, claim) for claim in normal)
    verdict.judged = len(asked)
    for task, story in history.stories.items():
        if story.birth.priority == 0:
            continue
        for since, until, _ in story.pending_spans():
            # Until its end, since whoever takes it holds its lock a little before.
            first, last = since + _SEEN_WITHIN, until - _SEEN_WITHIN
            if first >= last or _is_suspect(story, since):
                continue
            for _, _, claim in asked[bisect_left(asked, (first,)) : bisect_left(asked, (last,))]:
                if _could_have(history, story, claim, since):
                    verdict.about(
                        claim, f"went before the strict task {task}", strict_since=since, until=until
                    )
                    break


def _could_have(history: History, strict: Story, claim: Claim, since: float) -> bool:
    worker = history.workers.get(claim.worker)
    if worker is None or not labels_of(strict) <= worker.labels:
        return False
    span = since, claim.at
    if without(span, history.disturbances(None, settle=_SEEN_WITHIN)) != [span]:
        return False
    # A worker leaves alone what it lost and whose handler has not stopped.
    held = [one for one in strict.claims if one.at < claim.at and _is_of(history, one, worker.pid)]
    steered_by = history.in_force(worker.id, claim.change.asked_at, claim.at)
    if any(one.may_hold_back(strict.birth) for one in steered_by):
        return False
    cap = min(-(-worker.concurrency * _strict_percentage(history, one) // 100) for one in steered_by)
    return not held and _strict_running(history, claim.worker, claim.change.asked_at) < cap


def _strict_percentage(history: History, config: Config) -> int:
    own = config.content["max_strict_percentage"]
    return history.settings.strict_percentage if own is None else int(own)


def _is_of(history: History, claim: Claim, pid: int) -> bool:
    worker = history.workers.get(claim.worker)
    return worker is not None and worker.pid == pid


def _strict_running(history: History, worker: str, at: float) -> int:
    return sum(begin <= at < end for begin, end in history.strict_spans.get(worker, ()))


@invariant("groups share claims as their weights say, within 5 % of 1,000 claims, while all have a backlog")
def group_shares(history: History, verdict: Verdict) -> None:
    for weights in _contested(history):
        total = sum(weights.values())
        for claims in _saturated(history, weights):
            for start in range(0, len(claims) - _WINDOW + 1, _WINDOW):
                window = claims[start : start + _WINDOW]
                verdict.judged += 1
                got = Counter(group for _, group in window)
                for group, weight in weights.items():
                    if abs(got[group] / _WINDOW - weight / total) > _TOLERANCE:
                        share = f"{got[group]} of {_WINDOW} claims instead of {weight}/{total}"
                        since, until = window[0][0].at, window[-1][0].at
                        verdict.violation(
                            window[0][0].task, f"group {group!r} got {share}", since=since, until=until
                        )


def _contested(history: History) -> list[dict[str, int]]:
    """The different weights that there were, of more than one group."""
    found: list[dict[str, int]] = []
    for config in history.versions:
        if len(config.weights) > 1 and config.weights not in found:
            found.append(config.weights)
    return found


def _saturated(history: History, weights: dict[str, int]) -> Iterator[list[tuple[Claim, str]]]:
    """Normal claims one after the other, as long as every group has a backlog, and nothing but these weights
    is in force where they are made.
    """
    claims = {claim.change.seq: claim for claim in history.claims}
    backlog: Counter[str] = Counter()
    row: list[tuple[Claim, str]] = []
    since = math.inf
    for seq, at, group, step in _queue(history, weights):
        claim = claims.get(seq)
        goes_on = min(backlog[name] for name in weights) >= _BACKLOG
        if not goes_on or (claim is not None and not _is_steered_by(history, claim, weights)):
            if len(row) >= _WINDOW:
                yield row
            row, since = [], math.inf
        else:
            since = min(since, at)
            if claim is not None and at > since + _KNOWN_WITHIN:
                row.append((claim, group))
        backlog[group] += step
    if len(row) >= _WINDOW:
        yield row


def _is_steered_by(history: History, claim: Claim, weights: dict[str, int]) -> bool:
    """Whether its worker applied these weights, and nothing that holds tasks back."""
    steered_by = history.in_force(claim.worker, claim.change.asked_at, claim.at)
    return all(one.weights == weights and not one.restricts for one in steered_by)


def _queue(history: History, weights: dict[str, int]) -> list[tuple[int, float, str, int]]:
    """(seq, at, group, +1 or -1) whenever a normal task became or ceased to be claimable."""
    steps = []
    for story in history.stories.values():
        if story.birth.priority > 0:
            continue
        group = next((label for label in sorted(labels_of(story)) if label in weights), "default")
        was = story.birth.status == "pending"
        if was:
            steps.append((story.birth.seq, story.birth.at, group, 1))
        for change in story.changes:
            now = change.op in ("update", "revive") and change.status == "pending"
            if now != was and change.op in ("update", "delete", "revive"):
                steps.append((change.seq, change.at, group, 1 if now else -1))
                was = now
    return sorted(steps)
