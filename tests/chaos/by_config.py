"""Invariants about configurations: what they hold back, and how they reach the workers."""

from __future__ import annotations

import math
from itertools import pairwise

from tests.chaos.history import History, without
from tests.chaos.records import CONTROL, Claim, Config
from tests.chaos.verdicts import Verdict, invariant

_INSTANT = 0.005
"""How far apart two looks at the same clock may be, in seconds."""

_APPLIED_WITHIN = 4.0
"""How long a version may take to a worker of which nothing is broken: a renewal, and a busy machine."""

_SETTLES_WITHIN = 5.0
"""How long after a fault its consequences may show."""


@invariant("nothing is claimed while its label or its name is paused, or an operator wants it to stop")
def nothing_claimed_while_paused(history: History, verdict: Verdict) -> None:
    for claim in history.claims:
        birth, change = history.stories[claim.task].birth, claim.change
        if change.old_status not in ("pending", "running"):
            verdict.about(claim, f"was claimed while it was {change.old_status}")
        if change.old_requested not in (None, "failed"):  # for its failure hook somebody has to claim it
            verdict.about(claim, f"was claimed while it was to be {change.old_requested}")
        steered_by = history.in_force(claim.worker, change.asked_at, claim.at)
        verdict.judged += all(one.pauses for one in steered_by)
        if birth.label_set == CONTROL or _came_late(history, claim):
            continue
        if all(one.holds_back(birth) for one in steered_by):
            versions = [one.version for one in steered_by]
            verdict.about(claim, "was claimed while paused", labels=birth.label_set, versions=versions)


def _came_late(history: History, claim: Claim) -> bool:
    """Whether it may have been asked for long before, on a silent connection, and its worker gave it up."""
    worker = history.workers.get(claim.worker)
    if claim.executions or worker is None:
        return False
    broken = history.disturbances(worker.pid, settle=_SETTLES_WITHIN)
    return without((claim.at, claim.at + _INSTANT), broken) == []


@invariant("never more tasks of a limited label run than the limit allows, at any instant")
def limits_kept(history: History, verdict: Verdict) -> None:
    for label in sorted({label for one in history.versions for label in one.content["limits"]}):
        steps: list[tuple[float, int, Claim]] = []
        for claim in history.claims:
            if label in history.stories[claim.task].birth.labels:
                steps += [(claim.at, 1, claim), (claim.left_at, -1, claim)]
        running = 0
        for at, step, claim in sorted(steps, key=lambda one: one[:2]):
            running += step
            if step < 0:
                continue
            limits = [one.content["limits"].get(label) for one in _in_force_anywhere(history, claim)]
            if None in limits:
                continue
            verdict.judged += 1
            if running > max(limits):
                verdict.about(
                    claim, f"was one of {running} with the label {label!r}", limit=max(limits), at=at
                )


def _in_force_anywhere(history: History, claim: Claim) -> list[Config]:
    """The versions one of which some live worker applied when a task was claimed."""
    live = [
        one.id
        for one in history.workers.values()
        if one.since <= claim.at and one.valid_until > claim.change.asked_at
    ]
    found = {
        config.version: config
        for worker in live
        for config in history.in_force(worker, claim.change.asked_at, claim.at)
    }
    return list(found.values())


@invariant("what a worker acknowledges never goes back, and is there")
def versions_forward(history: History, verdict: Verdict) -> None:
    for worker, acks in history.acks_of.items():
        for before, after in pairwise(acks):
            verdict.judged += 1
            if after.version < before.version:
                verdict.violation(
                    None,
                    f"acknowledged version {after.version} after {before.version}",
                    worker=worker,
                    at=after.at,
                )
        known = {one.version: one.at for one in history.versions}
        for ack in acks:
            if known.get(ack.version, math.inf) > ack.at:
                verdict.violation(
                    None, f"acknowledged version {ack.version}, which isn't there", worker=worker, at=ack.at
                )
    for before, after in pairwise(sorted(history.configs)):
        if after.version < before.version:
            verdict.violation(None, f"version {after.version} came after {before.version}", at=after.at)


@invariant("a new version reaches every worker of which nothing is broken")
def versions_arrive(history: History, verdict: Verdict) -> None:
    for config in history.versions[1:]:
        by = config.at + _APPLIED_WITHIN
        for worker in history.workers.values():
            gone = [history.exits.get(worker.pid, math.inf), *history.told_to_go[worker.pid]]
            is_there = worker.since <= config.at and worker.valid_until > by and min(gone) > by
            broken = history.disturbances(worker.pid, settle=_SETTLES_WITHIN)
            if not is_there or by > history.ended_at or without((config.at, by), broken) != [(config.at, by)]:
                continue
            verdict.judged += 1
            applied = [ack.version for ack in history.acks_of[worker.id] if ack.at <= by]
            if max(applied, default=0) < config.version:
                verdict.violation(
                    None, f"version {config.version} didn't arrive in time", worker=worker.id, at=config.at
                )
