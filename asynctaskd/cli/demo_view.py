"""What one sees of the demo while it runs: a live view on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from asynctaskd.cli.demo_progress import Count, Shares, Snapshot

_COLOURS = {"packages": "cyan", "modules": "green", "extras": "magenta", "urgent": "yellow"}
_PLAIN_INTERVAL = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the demo is.

    Attributes:
        elapsed: seconds since the first task was enqueued.
        rate: tasks a second, of late.
        shares: those of the groups, since the weights were set.
    """

    snapshot: Snapshot
    elapsed: float
    rate: float
    shares: Shares


class View(Protocol):
    """Where the demo tells what happens."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def tell(self, text: str) -> None:
        """Say in a sentence what was done."""

    def update(self, progress: Progress) -> None:
        """Show how far it is."""


class SilentView:
    """For `--json`: stdout belongs to the summary."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def tell(self, text: str) -> None:
        """Not said."""

    def update(self, progress: Progress) -> None:
        """Not shown."""


class PlainView(SilentView):
    """A line a second, for pipes and log files."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_line = 0.0

    def tell(self, text: str) -> None:
        """One line, however long."""
        self._console.print(Text(text), soft_wrap=True)  # as it stands: `:1234:` would be an emoji

    def update(self, progress: Progress) -> None:
        """One line, unless the last one is less than a second old or the work is over."""
        if progress.elapsed >= self._next_line:
            self._next_line = progress.elapsed + _PLAIN_INTERVAL
            self.tell(plain_line(progress))


class LiveView(SilentView):
    """Bars that move, below the sentences told so far."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="visible")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def tell(self, text: str) -> None:
        """A line above the bars."""
        self._console.print(Text.assemble(("› ", "dim"), text))

    def update(self, progress: Progress) -> None:
        """Draw the bars anew."""
        self._live.update(render(progress), refresh=True)


def plain_line(progress: Progress) -> str:
    """How far it is, in one line."""
    done = progress.snapshot.all
    groups = compared(progress.shares)
    urgent, failed = progress.snapshot.urgent, progress.snapshot.failed
    return "  ".join(
        [
            f"{progress.elapsed:4.1f} s",
            f"{done.ended:,}/{done.tasks:,} done",
            f"{progress.rate:.0f}/s",
            groups,
            f"urgent {urgent.ended}/{urgent.tasks}, {progress.snapshot.retries} retries, {failed} failed",
        ]
    )


def render(progress: Progress) -> RenderableType:
    """How far it is, as bars."""
    return Group("", _bars(progress), "", _totals(progress))


def _bars(progress: Progress) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1), header_style="dim")
    table.add_column("lane")
    for title in ("weight", "wanted", "had"):
        table.add_column(title, justify="right")
    table.add_column("", ratio=1)
    table.add_column("done", justify="right", min_width=9)
    weights, wanted, had = progress.shares.weights, progress.shares.wanted, progress.shares.had
    for group, count in progress.snapshot.groups.items():
        shares = percent(wanted[group]), percent(had[group])
        table.add_row(Text(group, _COLOURS[group]), str(weights[group]), *shares, *_bar(group, count))
    table.add_row(
        Text("urgent", _COLOURS["urgent"]), "strict", "first", "", *_bar("urgent", progress.snapshot.urgent)
    )
    return table


def _bar(name: str, count: Count) -> tuple[ProgressBar, str]:
    colour = _COLOURS[name]
    bar = ProgressBar(
        total=max(count.tasks, 1),
        completed=count.ended,
        complete_style=colour,
        finished_style=f"bold {colour}",
    )
    return bar, f"{count.ended:,}/{count.tasks:,}"


def _totals(progress: Progress) -> RenderableType:
    snapshot, done = progress.snapshot, progress.snapshot.all
    first = Text.assemble(
        (f" {done.ended:,}", "bold"),
        f" of {done.tasks:,} done   ",
        (f"{progress.rate:,.0f}/s", "bold"),
        f"   {progress.elapsed:.0f} s   ",
        (f"{snapshot.retries}", "bold"),
        " retries   ",
        (f"{snapshot.failed}", "bold red" if snapshot.failed else "bold"),
        " failed for good",
    )  # fmt: skip  (a line of text a line)
    return Group(first, Text(f" {waits(snapshot)}", "dim"))


def waits(snapshot: Snapshot) -> str:
    """How long the two lanes wait, in a sentence; nothing where nobody has waited yet."""
    if snapshot.urgent_wait is None or snapshot.ordinary_wait is None:
        return ""
    ordinary, urgent = duration(snapshot.ordinary_wait), duration(snapshot.urgent_wait)
    return f"an urgent task starts after {urgent} (median), an ordinary one after {ordinary}"


def compared(shares: Shares) -> str:
    """What each group had of what it should have."""
    wanted = shares.wanted
    return ", ".join(f"{name} {percent(had)} of {percent(wanted[name])}" for name, had in shares.had.items())


def percent(share: float | None) -> str:
    """A share as people write it."""
    return "–" if share is None else f"{share:.0%}"


def late(seconds: float | None) -> str:
    """How long after; a dash for what never came."""
    return "–" if seconds is None else duration(seconds)


def duration(seconds: float) -> str:
    """Milliseconds below one second, seconds above."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
