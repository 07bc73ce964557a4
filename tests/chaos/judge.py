"""Judge a run: every invariant, how often it was put to the test, and every breach with its evidence."""

from __future__ import annotations

from tests.chaos import by_audit, by_command, by_config, by_schedule, by_time, by_witness
from tests.chaos.by_witness import duplicates
from tests.chaos.history import History
from tests.chaos.verdicts import JUDGES, Verdict, Violation

__all__ = ["INVARIANTS", "Verdict", "Violation", "duplicates", "judge", "violations"]

_BOOKS = (by_audit, by_witness, by_time, by_command, by_config, by_schedule)  # importing them fills JUDGES

INVARIANTS = {name: says for name, (says, _) in JUDGES.items()}
"""Every invariant by name, and what it says."""


def judge(history: History) -> list[Verdict]:
    """A verdict for every invariant."""
    verdicts = []
    for name, (says, decide) in JUDGES.items():
        verdict = Verdict(name, says)
        decide(history, verdict)
        verdicts.append(verdict)
    return verdicts


def violations(history: History) -> list[Violation]:
    """Every breach of every invariant."""
    return [one for verdict in judge(history) for one in verdict.violations]
