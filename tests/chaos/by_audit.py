"""Invariants that the audit alone decides: what the rows were, in exact order."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import pairwise

from tests.chaos.history import History, without
from tests.chaos.records import Change, LeaseRow, Story
from tests.chaos.verdicts import Verdict, invariant
from tests.chaos.workload import FOREVER, HOOK_FAILS, HOOKED

_INSTANT = 0.05
"""How far apart two instants may be that one transaction took at different moments, in seconds."""

_LATE = 0.25

_GIVEN_BACK = {"released", "snoozed", "expired"}
_ENDS = {"completed", "failed", "cancelled", "expired"}
_QUARANTINED_AFTER = 3


@invariant(
    "no task is lost or doubled: what leaves the live tasks arrives among the finished, in one transaction"
)
def conservation(history: History, verdict: Verdict) -> None:
    for task, story in history.stories.items():
        verdict.judged += 1
        removed = [change.txid for change in story.changes if change.op == "delete"]
        arrived = [end.txid for end in story.finishes]
        if story.birth.status in _ENDS:
            removed.insert(0, story.birth.txid)  # it was carried out where it was asked for
        if removed != arrived:
            verdict.violation(task, "left and arrived in other transactions", left=removed, arrived=arrived)
        left = {change.txid for change in story.changes if change.op == "forget"}
        for change in story.changes:
            if change.op == "revive" and change.txid not in left:
                verdict.violation(task, "is among the live and the finished ones", at=change.at)
    for change in history.changes:
        if change.task not in history.stories:
            verdict.violation(change.task, "changed, but was never born", at=change.at, op=change.op)


@invariant("every enqueue that was acknowledged is a task")
def acknowledged_is_kept(history: History, verdict: Verdict) -> None:
    for line in history.ledger:
        if line.outcome == "committed" and line.task is not None:
            verdict.judged += 1
            if line.task not in history.stories:
                verdict.violation(line.task, "was acknowledged, but is unknown", at=line.at)


@invariant("everything committed ends")
def everything_ends(history: History, verdict: Verdict) -> None:
    for task, story in history.stories.items():
        verdict.judged += 1
        if story.finish is None:
            last = story.changes[-1] if story.changes else None
            status = last.status if last else story.birth.status
            verdict.violation(task, f"is still {status}", name=story.birth.name, since=last and last.at)


@invariant("claim tokens of a task strictly grow")
def tokens_grow(history: History, verdict: Verdict) -> None:
    for task, story in history.stories.items():
        newest = 0
        for change in story.changes:
            token = change.token if change.token is not None else newest
            verdict.judged += change.is_claim
            if token < newest or (change.is_claim and token == newest):
                verdict.violation(task, f"token {token} after {newest}", at=change.at, txid=change.txid)
            newest = max(newest, token)


@invariant("one end, and nothing after it but an operator's retry")
def one_end(history: History, verdict: Verdict) -> None:
    for task, story in history.stories.items():
        retries = {
            one.closed.txid
            for one in history.receipts_of.get(task, ())
            if one.issued.action == "retry" and one.closed is not None and one.closed.outcome == "changed"
        }
        verdict.judged += bool(story.finishes)
        end: Change | None = None
        for change in story.changes:
            if end is not None and change.txid not in {end.txid, *retries} and change.op != "forget":
                verdict.violation(task, f"{change.op} after it was {end.status}", at=change.at, end=end.at)
            if change.op in ("finish", "revive"):
                end = change if change.op == "finish" else None


@invariant("who finishes a task holds its latest claim, and is that claim's worker")
def finish_by_latest_claim(history: History, verdict: Verdict) -> None:
    for story in history.stories.values():
        end = story.finish
        if end is None or not story.claims or story.claims[-1].left is None:
            continue
        latest, left = story.claims[-1], story.claims[-1].left
        verdict.judged += 1
        if end.token != latest.token:
            verdict.about(latest, f"finished with token {end.token}", at=end.at)
        if left.op == "delete" and not _wrote(history, left, latest.worker):
            verdict.about(latest, f"finished by process {left.process}", at=end.at)


def _wrote(history: History, change: Change, worker: str) -> bool:
    """Whether that worker's process made the change, as far as that is known."""
    known = history.workers.get(worker)
    return change.process is None or known is None or change.process == known.pid


@invariant("only its own worker takes a task from a worker whose lease holds")
def lease_respected(history: History, verdict: Verdict) -> None:
    for claim in history.claims:
        if claim.left is None:
            continue
        verdict.judged += 1
        told = history.stories[claim.task].told_with(claim.left)
        taken = "lease_lost" in told or claim.left.is_claim or not _wrote(history, claim.left, claim.worker)
        if taken and claim.left_at < history.valid_until(claim.worker):
            verdict.about(
                claim,
                "was taken from a live worker",
                lease_until=history.valid_until(claim.worker),
                by_process=claim.left.process,
            )


@invariant("a worker claims only while its lease holds")
def claim_needs_lease(history: History, verdict: Verdict) -> None:
    for claim in history.claims:
        verdict.judged += 1
        until = history.valid_until(claim.worker)
        if claim.change.asked_at > until + _INSTANT:
            verdict.about(claim, "was claimed after its worker's lease", lease_until=until)


@invariant("a lease ends by the database's clock, one lease after it was asked for, and never comes back")
def lease_by_database_clock(history: History, verdict: Verdict) -> None:
    lease = history.settings.lease
    for worker in history.workers.values():
        disturbed = history.disturbances(worker.pid, settle=1.0)
        until, is_final = math.inf, False
        for row in worker.rows:
            verdict.judged += 1
            length = row.expires_at - row.at
            # A renewal that waited for a lock is written late, though it was asked for in time.
            late = bool(without((row.at, row.at + _INSTANT), disturbed))
            if length > lease + _INSTANT or (length < lease / 2 and late and not _is_over(row)):
                verdict.violation(
                    None, f"a lease of {length:.3f} s", worker=worker.id, at=row.at, lease=lease
                )
            if row.expires_at > until + lease / 1000 and (is_final or (late and row.at > until + _LATE)):
                verdict.violation(None, "renewed after its end", worker=worker.id, at=row.at, ended=until)
            until, is_final = min(row.expires_at, row.lost_at or math.inf), _is_over(row)


def _is_over(row: LeaseRow) -> bool:
    return row.lost_at is not None or row.stopped_at is not None


@invariant("between two runs of a task there is an event that says why")
def event_between_runs(history: History, verdict: Verdict) -> None:
    for claim in history.claims:
        if claim.left is None or claim.left.op == "delete":
            continue
        verdict.judged += 1
        failed_quietly = (claim.left.failures or 0) > (claim.left.old_failures or 0)
        told = history.stories[claim.task].told_with(claim.left)
        reasons = told & {"lease_lost", "released", "snoozed", "retried", "failed"}
        # What is paused has its event where the request is settled.
        is_paused = claim.left.status == "paused" and claim.left.requested is not None
        if not reasons and not failed_quietly and not is_paused:
            verdict.about(claim, f"became {claim.left.status} without an event", txid=claim.left.txid)


@invariant("failed if and only if the hook ran in the same transaction, or hook_failed says that it couldn't")
def hook_with_status(history: History, verdict: Verdict) -> None:
    ran = defaultdict(list)
    for mark in history.hooks:
        ran[mark.task].append(mark.txid)
    for task, story in history.stories.items():
        name = story.birth.name
        failures = [end for end in story.finishes if end.status == "failed" and name in HOOKED | HOOK_FAILS]
        verdict.judged += len(failures)
        excused = {end.txid for end in failures if "hook_failed" in story.told_with(end)}
        expected = {end.txid for end in failures if name in HOOKED}
        has_run = sorted(ran[task])
        if has_run != sorted(expected - excused) and has_run != sorted(expected):
            status = story.finish and story.finish.status
            verdict.violation(
                task, f"{status}, but its hook ran in {has_run}", name=name, expected=sorted(expected)
            )
        for end in story.finishes:
            told = story.told_with(end)
            must_be_told = end in failures and name in HOOK_FAILS
            if must_be_told != ("hook_failed" in told) and end.txid not in expected:
                verdict.violation(
                    task, "its hook raises, and no hook_failed stands beside its status", told=told
                )


@invariant("ctx.transaction() writes exactly once for a task that completed, and never for one that didn't")
def effect_once(history: History, verdict: Verdict) -> None:
    written = defaultdict(list)
    for mark in history.effects:
        written[mark.task].append((mark.token, mark.txid))
    for task, story in history.stories.items():
        if story.birth.name != "effect":
            continue
        verdict.judged += 1
        end = story.finish
        expected = [(end.token, end.txid)] if end is not None and end.status == "completed" else []
        if written[task] != expected:
            verdict.violation(task, f"wrote {written[task]} (token, txid)", expected=expected)


@invariant(
    "every claim counts an attempt, only what is given back is taken off, and failures keep to max_attempts"
)
def attempts_counted(history: History, verdict: Verdict) -> None:
    for task, story in history.stories.items():
        limit = story.birth.max_attempts
        for change in story.changes:
            grown = (change.attempts or 0) - (change.old_attempts or 0)
            if change.op == "update" and change.is_claim:
                verdict.judged += 1
                if grown != 1:
                    verdict.violation(
                        task, f"a claim counted {grown} attempts", token=change.token, at=change.at
                    )
            elif change.op == "update" and grown and not _was_given_back(story, change):
                verdict.violation(task, f"attempts changed by {grown}", token=change.token, at=change.at)
            if limit not in (None, -1) and (change.failures or 0) > max(limit or 0, 1):
                verdict.violation(task, f"failed {change.failures} times", max_attempts=limit, at=change.at)


def _was_given_back(story: Story, change: Change) -> bool:
    grown = (change.attempts or 0) - (change.old_attempts or 0)
    was_paused = change.status == "paused" and change.requested is not None
    return grown == -1 and (was_paused or bool(story.told_with(change) & _GIVEN_BACK))


@invariant("losses in a row are counted, and the third quarantines")
def losses_bounded(history: History, verdict: Verdict) -> None:
    for task, story in history.stories.items():
        in_a_row, before = 0, -1
        for claim in story.claims:
            if story.revived_between(before, claim.change.seq):
                in_a_row = 0  # whoever retries it begins anew
            before = claim.change.seq
            if in_a_row >= _QUARANTINED_AFTER and claim.executions:
                verdict.about(claim, f"ran after {in_a_row} losses in a row")
            if claim.left is None:
                break
            told = story.told_with(claim.left)
            if "lease_lost" in told or (claim.left.reason in ("lease_lost", "quarantined") and not told):
                verdict.judged += 1
                in_a_row += 1
                if claim.left.losses != in_a_row:
                    verdict.about(claim, f"loss {in_a_row} in a row is counted as {claim.left.losses}")
            elif claim.left.op == "update" and "released" not in told:
                in_a_row = 0
            end = story.finish_with(claim.left) if claim.left.op == "delete" else None
            if end is None:
                continue
            by_operator = "by operator" in (end.reason or "") or end.reason == "failed_by_operator"
            if not by_operator and (end.reason == "quarantined") != (in_a_row >= _QUARANTINED_AFTER):
                verdict.violation(
                    task, f"{end.status} ({end.reason}) after {in_a_row} losses in a row", at=end.at
                )


@invariant("a unique tag has one holder")
def unique_tags(history: History, verdict: Verdict) -> None:
    holders = defaultdict(list)
    for story in history.stories.values():
        if story.birth.unique_tag is not None:
            holders[story.birth.unique_tag] += _lives(story)
    for tag, lives in holders.items():
        verdict.judged += 1
        lives.sort()
        for (_, end, first), (since, _, second) in pairwise(lives):
            if first != second and (tag.startswith(FOREVER) or end > since):
                verdict.violation(second, f"has the tag {tag!r} of task {first}", since=since, until=end)


def _lives(story: Story) -> list[tuple[int, float, int]]:
    """From its birth, or a retry, to its end, in sequence numbers; and its id."""
    begins = [story.birth.seq, *(change.seq for change in story.changes if change.op == "revive")]
    ends = [*(end.seq for end in story.finishes), math.inf]
    return [(begin, end, story.birth.task) for begin, end in zip(begins, ends, strict=False)]
