"""Tables of medians, each with its least and greatest."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from rich.table import Table

from benchmarks.results import values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.results import Taken

AT_MOST = 7
"""Figures in a row. Where there are more, as of a soak, each gets a line of its own."""


def table(name: str, taken: Taken, rounds: int) -> Table:
    """One measure as a table."""
    figures = list(dict.fromkeys(figure for sample in taken.samples for figure in sample.figures))
    spread = f"; median (min-max) of {rounds} rounds" if rounds > 1 else ""
    title = f"{name}: {taken.title}{spread}"
    return _wide(title, taken, figures) if len(figures) <= AT_MOST else _long(title, taken, figures)


def contenders(taken: Taken) -> Table:
    """Who took part, and how."""
    made = Table("contender", "version", "settings", "history", title="contenders")
    for name, facts in taken.contenders.items():
        made.add_row(name, facts["version"], facts["settings"], facts["history"])
    for name, reason in taken.skipped.items():
        made.add_row(name, "skipped", reason, "")
    return made


def _wide(title: str, taken: Taken, figures: list[str]) -> Table:
    made = Table("who", "case", title=title)
    for figure in figures:
        made.add_column(figure, justify="right")
    made.add_column("")
    for (subject, case), samples in taken.groups().items():
        cells = [_cell(values(samples, figure)) for figure in figures]
        made.add_row(subject, case, *cells, samples[-1].note)
    for subject, reason in taken.failed.items():
        made.add_row(subject, f"failed: {reason}")
    return made


def _long(title: str, taken: Taken, figures: list[str]) -> Table:
    made = Table("who", "figure", "value", title=title)
    for (subject, _), samples in taken.groups().items():
        for figure in figures:
            made.add_row(subject, figure, _cell(values(samples, figure)))
    for subject, reason in taken.failed.items():
        made.add_row(subject, "failed", reason)
    return made


def _cell(found: Sequence[float]) -> str:
    if not found:
        return "?"
    middle = _number(statistics.median(found))
    if len(found) == 1 or min(found) == max(found):
        return middle
    return f"{middle} ({_number(min(found))}-{_number(max(found))})"


def _number(value: float) -> str:
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
