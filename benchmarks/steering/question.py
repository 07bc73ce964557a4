"""What a question is, and what an answer to it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from benchmarks.steering.bench import Bench


@dataclass(frozen=True)
class Bound:
    """What is to hold of all values of a figure: of their median, or of each of them."""

    least: float | None = None
    most: float | None = None
    of_median: bool = False

    def holds(self, values: Sequence[float]) -> bool:
        """Whether it does."""
        judged = [statistics.median(values)] if self.of_median else values
        return all(
            (self.least is None or value >= self.least) and (self.most is None or value <= self.most)
            for value in judged
        )

    def __str__(self) -> str:
        relation = f"≤ {self.most:,g}" if self.least is None else f"≥ {self.least:,g}"
        return f"median {relation}" if self.of_median else relation


@dataclass(frozen=True)
class Finding:
    """One value of a figure, whose name has its unit."""

    case: str
    figure: str
    value: float
    bound: Bound | None = None


@dataclass(frozen=True)
class Question:
    """Something that is asked of asynctaskd once a round."""

    name: str
    title: str
    ask: Callable[[Bench], Awaitable[Iterable[Finding]]]
