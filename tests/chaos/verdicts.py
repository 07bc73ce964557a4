"""What a judgement is: an invariant, how often it was put to the test, and where it was broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.history import History
from tests.chaos.records import Claim


@dataclass(frozen=True, slots=True)
class Violation:
    """One breach: which task, in words, and the evidence (tokens, times, processes)."""

    invariant: str
    task: int | None
    sentence: str
    evidence: dict[str, Any]

    def __str__(self) -> str:
        facts = ", ".join(f"{name}={value}" for name, value in self.evidence.items())
        return f"{self.invariant}: task {self.task}: {self.sentence} [{facts}]"


@dataclass(slots=True)
class Verdict:
    """What became of one invariant. `judged` counts the cases looked at: 0 of 0 proves nothing."""

    invariant: str
    says: str
    judged: int = 0
    violations: list[Violation] = field(default_factory=list)
    note: str = ""

    def violation(self, task: int | None, sentence: str, **evidence: Any) -> None:
        """Write down a breach."""
        self.violations.append(Violation(self.invariant, task, sentence, evidence))

    def about(self, claim: Claim, sentence: str, **evidence: Any) -> None:
        """Write down a breach by, or of, one claim."""
        known = {
            "token": claim.token,
            "worker": claim.worker,
            "claimed_at": claim.at,
            "left_at": claim.left_at,
        }
        self.violation(claim.task, sentence, **known | evidence)


Judge = Callable[[History, Verdict], None]

JUDGES: dict[str, tuple[str, Judge]] = {}
"""Name → what the invariant says, and who judges it; in the order of their definition."""


def invariant(says: str) -> Callable[[Judge], Judge]:
    """Register a judge; its function's name is the invariant's."""

    def register(judge: Judge) -> Judge:
        JUDGES[judge.__name__] = says, judge
        return judge

    return register
