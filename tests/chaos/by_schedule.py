"""Invariants about schedules: each slot is decided once, and has one task."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from tests.chaos.history import History
from tests.chaos.records import Birth, Slot
from tests.chaos.verdicts import Verdict, invariant

_COMPLETE = "ticking"
"""The schedule that is never paused, of which no slot may be left out; it has one each second."""


@invariant("each slot of a schedule has one row in the ledger, and one task or none, made together with it")
def one_task_per_slot(history: History, verdict: Verdict) -> None:
    born: dict[tuple[str, float], list[Birth]] = defaultdict(list)
    for birth in history.births:
        if birth.slot is not None:
            born[birth.name, birth.slot].append(birth)
    decided: dict[tuple[str, float], list[Slot]] = defaultdict(list)
    for slot in history.slots:
        decided[slot.schedule, slot.slot].append(slot)
    for key in born.keys() | decided.keys():
        verdict.judged += 1
        tasks = [(birth.task, birth.txid) for birth in born[key]]
        rows = [(slot.task, slot.txid) for slot in decided[key] if slot.task is not None]
        if len(tasks) > 1 or len(decided[key]) > 1 or tasks != rows:
            schedule, due = key
            task = tasks[-1][0] if tasks else None
            verdict.violation(
                task, f"a slot of {schedule} has {len(tasks)} tasks", slot=due, tasks=tasks, ledger=rows
            )


@invariant("no slot is left out, whoever dies meanwhile")
def slots_complete(history: History, verdict: Verdict) -> None:
    slots = sorted({one.slot for one in history.slots if one.schedule == _COMPLETE})
    verdict.judged = len(slots)
    for before, after in pairwise(slots):
        if after - before > 1:
            verdict.violation(None, f"{after - before - 1:g} slots are left out", after=before, before=after)
    for one in history.slots:
        if one.schedule == _COMPLETE and one.task is None:
            verdict.violation(None, f"a slot was {one.outcome}", slot=one.slot, at=one.at)
