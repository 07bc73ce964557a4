"""The answers: what was found in all rounds, as a table and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.table import Table

from asynctaskd.version import __version__
from benchmarks import results

if TYPE_CHECKING:
    from benchmarks.steering.question import Bound, Finding, Question


@dataclass
class Answer:
    """What became of a question; the run adds findings, or why there are none."""

    question: Question
    circumstances: dict[str, Any]
    findings: list[Finding] = field(default_factory=list)
    failed: str | None = None

    def figures(self) -> list[Figure]:
        """All values of each figure, in the order of the first round."""
        groups: dict[tuple[str, str], list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault((finding.case, finding.figure), []).append(finding)
        return [
            Figure(case, name, [finding.value for finding in found], found[0].bound)
            for (case, name), found in groups.items()
        ]


@dataclass(frozen=True)
class Figure:
    """All values of a figure, and what is to hold of them."""

    case: str
    name: str
    values: list[float]
    bound: Bound | None

    @property
    def verdict(self) -> str:
        """Whether the bound holds; nothing where there is none."""
        if self.bound is None:
            return ""
        return "holds" if self.bound.holds(self.values) else "NOT MET"


def table(answers: dict[str, Answer]) -> Table:
    """All of them."""
    made = Table("question", "case", "figure", title="what steering promises")
    for heading in ("values", "median", "least", "greatest", "bound"):
        made.add_column(heading, justify="right")
    made.add_column("")
    for answer in answers.values():
        for figure in answer.figures():
            made.add_row(answer.question.name, *_cells(figure))
        if answer.failed is not None:
            made.add_row(answer.question.name, "failed", answer.failed)
        made.add_section()
    return made


def as_json(answers: dict[str, Answer]) -> dict[str, Any]:
    """By question, each figure with its median, least, greatest and all of its values."""
    return {name: _answer_as_json(answer) for name, answer in answers.items()}


def circumstances(postgres: str, settings: dict[str, str], sizes: dict[str, int]) -> dict[str, Any]:
    """What the reader of a figure has to know."""
    return {
        "date": results.today(),
        "version": __version__,
        "machine": results.machine(postgres, settings),
        "sizes": sizes,
    }


def _cells(figure: Figure) -> list[str]:
    spread = results.spread(figure.values) or {}
    verdict = figure.verdict
    return [
        figure.case,
        figure.name,
        str(len(figure.values)),
        *(_number(spread[name]) for name in ("median", "min", "max")),
        "" if figure.bound is None else str(figure.bound),
        f"[bold red]{verdict}[/]" if verdict == "NOT MET" else verdict,
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _answer_as_json(answer: Answer) -> dict[str, Any]:
    rows = [_figure_as_json(figure) for figure in answer.figures()]
    failed = {} if answer.failed is None else {"failed": answer.failed}
    return {"title": answer.question.title} | answer.circumstances | failed | {"rows": rows}


def _figure_as_json(figure: Figure) -> dict[str, Any]:
    row: dict[str, Any] = {"case": figure.case, "figure": figure.name}
    if figure.bound is not None:
        row |= {"bound": str(figure.bound), "verdict": figure.verdict}
    return row | (results.spread(figure.values) or {})
