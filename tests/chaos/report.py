"""What a run found: shown as one readable report, and written as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from tests.chaos.run import Run


@dataclass
class Findings:
    options: dict[str, Any]
    wrong: list[str]
    faults: dict[str, int]
    skipped: list[str]
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    async def of(cls, run: Run) -> Findings:
        return cls(vars(run.options), run.wrong, dict(run.journal.faults), [f"{e.number} {e.kind}: {w}" for e, w in run.breaker.skipped],
          {"broke_for": run.broke_for, "drained_in": run.drained_in, "committed": run.enqueuer.committed, "unknown": run.enqueuer.unknown, "longest": run.enqueuer.longest_wait})

    @property
    def is_clean(self) -> bool:
        return not self.wrong

    def show(self, console: Console) -> None:
        console.print(vars(self))


def write_report(findings: Findings, path: Path) -> None:
    path.write_text(json.dumps(vars(findings), indent=2, default=str))
