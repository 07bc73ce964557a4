"""Charts as SVG: what is drawn where. The templates draw, the style sheet colours."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a chart; `bad` is how much of its height, at the top, stands for what failed."""

    x: float
    y: float
    width: float
    height: float
    bad: float


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars in a box of `width` × `height`; `top` is what its upper edge stands for."""

    width: float
    height: float
    top: float
    bars: Sequence[Bar]


def bars(totals: Sequence[float], bad: Sequence[float], *, width: float, height: float) -> Chart:
    """A bar for each total, of which a part is bad."""
    top = _round_up(max(totals, default=0.0))
    step = width / max(len(totals), 1)
    drawn = [
        Bar(round(nth * step, 2), *_box(total, part, top, height, step * 0.8))
        for nth, (total, part) in enumerate(zip(totals, bad, strict=True))
    ]
    return Chart(width, height, top, [bar for bar in drawn if bar.height])


def _box(
    total: float, part: float, top: float, height: float, width: float
) -> tuple[float, float, float, float]:
    tall = max(height * total / top, 1.0) if total else 0.0
    short = max(height * part / top, 1.0) if part else 0.0
    return round(height - tall, 2), round(width, 2), round(tall, 2), round(min(short, tall), 2)


def _round_up(value: float) -> float:
    """The next number with one digit that counts; 1 for nothing at all."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** (ceil(log10(value)) - 1)
    return ceil(value / unit) * unit
