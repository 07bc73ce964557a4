"""What a measure is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.contenders.contender import Contender
    from benchmarks.options import Options
    from benchmarks.server import Server


@dataclass(frozen=True)
class Bench:
    """What every measurement needs."""

    server: Server
    options: Options
    step: Callable[[str], None]
    """Told what the measurement is at, where it takes long."""


@dataclass(frozen=True)
class Sample:
    """What one measurement brought.

    Args:
        subject: who was measured.
        case: under which circumstances.
        figures: by name with its unit, such as `tasks/s`; None where it can't be known.
        series: figures that belong in a row, by name.
        note: what a figure can't say.
    """

    subject: str
    case: str = ""
    figures: Mapping[str, float | None] = field(default_factory=dict)
    series: dict[str, list[float]] = field(default_factory=dict)
    note: str = ""


class Subject(Protocol):
    """Who is measured: a contender, or a reference."""

    @property
    def name(self) -> str:
        """What it is called in tables."""


class Measure(Protocol):
    """One question, asked of each subject in turn."""

    name: ClassVar[str]
    by_default: ClassVar[bool]

    def title(self, options: Options) -> str:
        """What the figures are."""

    def subjects(self, contenders: list[Contender]) -> Sequence[Subject]:
        """Whom to ask, of the contenders chosen."""

    async def measure(self, bench: Bench, subject: Subject) -> list[Sample]:
        """Ask one of them, once."""


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of values doesn't exceed."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def percentiles(values: Sequence[float], *shares: int) -> dict[str, float | None]:
    """Percentiles of seconds, in milliseconds."""
    return {f"p{share} ms": 1000 * percentile(values, share / 100) if values else None for share in shares}
