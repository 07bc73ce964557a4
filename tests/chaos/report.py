"""What a run found: one readable report, and the same as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from tests.chaos.measures import Figure
    from tests.chaos.verdicts import Verdict

_SHOWN = 20
"""Breaches printed in full; all are in the JSON."""


@dataclass
class Findings:
    """All that one run is judged by.

    `wrong` is what the runner saw itself: tasks that hang, processes that ended by themselves or didn't stop.
    """

    options: dict[str, Any]
    facts: dict[str, Any]
    faults: dict[str, int]
    skipped: list[str]
    wrong: list[str]
    verdicts: list[Verdict] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)
    duplicates: list[dict[str, Any]] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        """The names of the invariants that were broken."""
        return [verdict.invariant for verdict in self.verdicts if verdict.violations]

    @property
    def too_slow(self) -> list[Figure]:
        """The measures that missed their limit."""
        return [figure for figure in self.figures if figure.held is False]

    @property
    def is_clean(self) -> bool:
        """Whether every promise held."""
        return not (self.wrong or self.broken or self.too_slow)

    @property
    def summary(self) -> str:
        """The last line."""
        verdict = "every promise held" if self.is_clean else "NOT EVERY PROMISE HELD"
        seed = self.options["seed"]
        breaches = sum(len(one.violations) for one in self.verdicts)
        return (
            f"chaos: {verdict}: {self.counts.get('tasks', 0):,} tasks, {sum(self.faults.values()):,} faults, "
            f"{breaches} breaches, {len(self.wrong)} surprises, {len(self.too_slow)} figures too high, "
            f"{len(self.duplicates)} duplicates; seed {seed}"
        )

    def show(self, console: Console) -> None:
        """Print the report."""
        console.print(self._invariants())
        console.print(self._measures())
        console.print(_pairs("Faults by kind", self.faults))
        console.print(_pairs("What happened", self.facts | self.counts))
        console.print(_pairs("Duplicates, by what explains them", self._reasons()))
        for line in self._breaches():
            console.print(line, style="red", markup=False, highlight=False)
        console.print(self.summary, style="bold green" if self.is_clean else "bold red", highlight=False)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "summary": self.summary,
            "clean": self.is_clean,
            "options": self.options,
            "facts": self.facts | self.counts,
            "faults": self.faults,
            "skipped": self.skipped,
            "surprises": self.wrong,
            "invariants": [_verdict_row(verdict) for verdict in self.verdicts],
            "measures": [asdict(figure) for figure in self.figures],
            "duplicates": self.duplicates,
        }

    def _invariants(self) -> Table:
        table = Table("invariant", "says", "judged", "broken", title="Invariants")
        for one in self.verdicts:
            broken = len(one.violations)
            style = "red" if broken else ("dim" if not one.judged else "")
            table.add_row(one.invariant, one.says, f"{one.judged:,}", f"{broken:,}", style=style)
        return table

    def _measures(self) -> Table:
        columns = ["measure", "count", "p50", "p99", "p100", "limit", ""]
        table = Table(*columns, title="Measures (seconds)")
        for one in self.figures:
            values = [_number(value) for value in (one.p50, one.p99, one.p100)]
            verdict = {True: "ok", False: "TOO SLOW", None: ""}[one.held]
            table.add_row(one.name, str(one.count), *values, f"{one.bounded} ≤ {one.bound:g}", verdict)
        return table

    def _reasons(self) -> dict[str, Any]:
        return dict(Counter(one["because"] or "nothing" for one in self.duplicates))

    def _breaches(self) -> Iterable[str]:
        yield from self.wrong[:_SHOWN]
        for verdict in self.verdicts:
            yield from (str(one) for one in verdict.violations[:_SHOWN])


@dataclass(frozen=True)
class Caught:
    """Whether a mutant was caught: by which invariants that are meant to, and how often each was broken."""

    name: str
    what: str
    by: list[str]
    broken: dict[str, int]

    @property
    def verdict(self) -> str:
        """In words."""
        if self.by:
            return ", ".join(f"{name} ({self.broken[name]} times)" for name in self.by)
        return f"NOBODY (others: {', '.join(self.broken) or 'none'})"


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write a report as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, default=str) + "\n")


def _verdict_row(verdict: Verdict) -> dict[str, Any]:
    return {
        "invariant": verdict.invariant,
        "says": verdict.says,
        "judged": verdict.judged,
        "broken": len(verdict.violations),
        "note": verdict.note,
        "breaches": [str(one) for one in verdict.violations[:100]],
    }


def _pairs(title: str, values: dict[str, Any]) -> Table:
    table = Table("", "", title=title, show_header=False)
    for name, value in sorted(values.items()):
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
