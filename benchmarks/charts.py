"""Charts of the measures that are seen better than read, each in colours for a light and for a dark page.

Two files each, because GitHub shows an image in the reader's theme only by `<picture>`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.results import values

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.results import Taken

WIDTH = 8.0
ROW = 0.42
"""Inches."""


@dataclass(frozen=True)
class Theme:
    """Colours that can be told apart on a page of this kind; the page's own shows through."""

    name: str
    ink: str
    faint: str
    ours: str
    theirs: str
    others: tuple[str, ...]


THEMES = (
    Theme("light", "#1f2328", "#d1d9e0", "#0969da", "#57606a", ("#bf3989", "#9a6700", "#1a7f37", "#8250df")),
    Theme("dark", "#e6edf3", "#3d444d", "#58a6ff", "#8b949e", ("#f778ba", "#d29922", "#3fb950", "#bc8cff")),
)


def draw(taken: dict[str, Taken], directory: Path) -> list[Path]:
    """Draw what was taken; returns the files."""
    mpl.use("svg")
    directory.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, painter in PAINTERS.items():
        if name in taken and taken[name].samples:
            drawn += [_drawn(painter, taken[name], theme, directory / f"bench-{name}") for theme in THEMES]
    return drawn


def _drawn(painter: Painter, taken: Taken, theme: Theme, stem: Path) -> Path:
    file = stem.with_name(f"{stem.name}-{theme.name}.svg")
    with plt.rc_context(_style(theme)):
        painter(taken, theme)
        # No date, and the salt above: the same figures give the same file.
        plt.savefig(file, transparent=True, bbox_inches="tight", metadata={"Date": None})
        plt.close("all")
    return file


def _style(theme: Theme) -> Any:
    return {
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "axes.edgecolor": theme.faint,
        "grid.color": theme.faint,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "svg.hashsalt": "asynctaskd",
    }


def _rates(figure: str, label: str) -> Painter:
    """Bars with the rounds' least and greatest."""

    def paint(taken: Taken, theme: Theme) -> None:
        groups = {_label(key): values(samples, figure) for key, samples in taken.groups().items()}
        _bars({name: found for name, found in groups.items() if found}, theme, label)

    return paint


def _bars(groups: dict[str, list[float]], theme: Theme, label: str) -> None:
    _, axes = plt.subplots(figsize=(WIDTH, 0.8 + ROW * len(groups)))
    names = list(groups)
    middles = [statistics.median(found) for found in groups.values()]
    errors = [
        [middle - min(found) for middle, found in zip(middles, groups.values(), strict=True)],
        [max(found) - middle for middle, found in zip(middles, groups.values(), strict=True)],
    ]
    colours = [theme.ours if name.startswith("asynctaskd") else theme.theirs for name in names]
    axes.barh(names, middles, xerr=errors, color=colours, ecolor=theme.ink, height=0.65)
    for place, middle in enumerate(middles):
        axes.annotate(
            f"{middle:,.0f}" if middle >= 100 else f"{middle:.1f}", (max(groups[names[place]]), place),
            xytext=(6, 0), textcoords="offset points", va="center",
        )  # fmt: skip
    axes.invert_yaxis()
    axes.margins(x=0.12)
    _finish(axes, x=label)


def _wakeup(taken: Taken, theme: Theme) -> None:
    """Medians as bars; a notice that is lost belongs to another scale."""
    groups = {
        subject: values(samples, "p50 ms")
        for (subject, case), samples in taken.groups().items()
        if case == "notices"
    }
    _bars(groups, theme, "from commit to start, median, ms")


def _curves(taken: Taken, theme: Theme) -> None:
    """The rate of each round while the horizon is pinned."""
    _, axes = plt.subplots(figsize=(WIDTH, 4))
    others = cycle(theme.others)
    for key, samples in taken.groups().items():
        rounds = [
            statistics.median(found) for found in zip(*(s.series["tasks/s"] for s in samples), strict=True)
        ]
        ours = key[0].startswith("asynctaskd")
        colour = theme.ours if ours else next(others)
        places = range(1, len(rounds) + 1)
        line, width = ("o--", 1.0) if key[1] else ("o-", 2.5 if ours else 1.5)
        axes.plot(places, rounds, line, color=colour, lw=width, label=_label(key))
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    axes.legend(frameon=False, labelcolor=theme.ink)
    _finish(axes, x="round, while a snapshot elsewhere stays open", y="tasks/s")


def _soak(taken: Taken, theme: Theme) -> None:
    """A small line for each series, one above another."""
    series = dict(taken.samples[-1].series)
    minutes = [second / 60 for second in series.pop("seconds")]
    _, rows = plt.subplots(len(series), 1, figsize=(WIDTH, 1.1 * len(series)), sharex=True, squeeze=False)
    for axes, (name, found) in zip(rows[:, 0], series.items(), strict=True):
        axes.plot(minutes, found, color=theme.ours)
        axes.set_ylim(bottom=0, top=1.2 * max(*found, 1e-9))
        _finish(axes)
        axes.set_title(name, loc="left", fontsize=9)
    rows[-1, 0].set_xlabel("minutes")
    plt.tight_layout()


def _finish(axes: Axes, *, x: str = "", y: str = "") -> None:
    axes.grid(axis="x" if x and not y else "y")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    thousands: Any = mpl.ticker.FuncFormatter(lambda value, _: f"{value:,.10g}")
    (axes.xaxis if x and not y else axes.yaxis).set_major_formatter(thousands)


def _label(key: tuple[str, str]) -> str:
    subject, case = key
    return f"{subject}, {case}" if case else subject


def _by_subject(figure: str, label: str) -> Painter:
    """Bars by subject alone: the case says something that the name does too."""

    def paint(taken: Taken, theme: Theme) -> None:
        _bars(
            {subject: values(found, figure) for (subject, _), found in taken.groups().items()}, theme, label
        )

    return paint


Painter = Callable[["Taken", Theme], None]

PAINTERS: dict[str, Painter] = {
    "bulk": _by_subject("rows/s", "enqueued in bulk, tasks/s"),
    "single": _rates("tasks/s", "enqueued one by one, tasks/s"),
    "drain": _by_subject("tasks/s", "drained, tasks/s"),
    "wakeup": _wakeup,
    "horizon": _curves,
    "fleet": _rates("tasks/s", "drained together, tasks/s"),
    "memory": _by_subject("MiB", "an idle worker, MiB"),
    "soak": _soak,
}
