"""What `asynctaskd top` draws: a function of a snapshot, and of what the operator has done."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from asynctaskd.cli.output import counted, printable
from asynctaskd.cli.top_keys import State, chosen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asynctaskd.control.fleet import (
        GroupState,
        HandlerState,
        LimitState,
        OpenCommand,
        Overview,
        WorkerState,
    )

_NOTHING = "–"

# A worker renews its lease every five seconds; who is silent for longer is shown so.
_SILENT = 10.0

_MOST_HANDLERS = 10

# A table's head, and the empty line below it.
_FRAME = 2

# A table that is cut has so many lines at least.
_LEAST = 3

# A screen of fewer columns has narrow gaps between those of its tables.
_NARROW = 80

HELP = """\
up, down   choose a group          +, -   change its weight by one
p          pause or unpause its label
enter      ask for what is pending  esc    drop it
?          these lines              q      leave
wanted: share of claims by weights, of the groups with something ready; had: of what was claimed of late"""

KEYS = "↑↓ group   + - weight   p pause   enter apply   esc drop   ? help   q quit"


def draw(
    overview: Overview, state: State | None = None, *, height: int | None = None, width: int | None = None
) -> RenderableType:
    """A snapshot as tables; with a state, the chosen group, pending changes and keys too.

    `height` is how many lines there are, of `width` characters: tables that are longer than their part of it
    say how much more there is.
    """
    first, lane = _headline(overview), _strict(overview)
    below = [*_notes(overview), *(() if state is None else _footer(state))]
    handlers = overview.handlers[:_MOST_HANDLERS]
    wanted = (len(overview.groups), max(len(overview.workers), 1), len(handlers))
    parts = _parts(wanted, [first, lane, *below], height, width)
    blocks: list[RenderableType] = [first, ""]
    blocks += [_groups(overview, state, parts[0], width), lane, ""]
    blocks += [_workers(overview, parts[1]), ""]
    if handlers:
        blocks += [_handlers(handlers, parts[2]), ""]
    return Group(*blocks, *below)


def _parts(
    wanted: Sequence[int], texts: Iterable[Text], height: int | None, width: int | None
) -> Sequence[int | None]:
    """How many rows each table has beside these texts; None: all of them."""
    if height is None:
        return (None,) * len(wanted)
    lines = [line for text in texts for line in text.plain.splitlines()]
    written = sum(1 if width is None else len(wrap(line, width)) for line in lines)
    tables = sum(1 for want in wanted if want)
    return shared(wanted, height - written - 1 - _FRAME * tables)


def shared(wanted: Sequence[int], lines: int) -> list[int | None]:
    """Equal parts of so many lines; what one doesn't need goes to the others. None: as many as it wants."""
    parts: dict[int, int] = {}
    for place in sorted(range(len(wanted)), key=wanted.__getitem__):
        part = max((lines - sum(parts.values())) // (len(wanted) - len(parts)), _LEAST)
        parts[place] = min(wanted[place], part)
    # Of a table that is cut, the last line says so.
    return [None if parts[place] == want else parts[place] - 1 for place, want in enumerate(wanted)]


def _headline(overview: Overview) -> Text:
    slots = sum(worker.concurrency for worker in overview.workers)
    running = sum(worker.running for worker in overview.workers)
    rate = _NOTHING if overview.rate is None else f"{overview.rate:,.0f}"
    return Text.assemble(
        ("asynctaskd ", "bold"),
        f"{overview.at:%H:%M:%SZ}   ",
        counted(len(overview.workers), "live worker"),
        f"   {running:,}/{slots:,} slots   {rate} claims/s   configuration {overview.config.version}",
    )


def _groups(overview: Overview, state: State | None, rows: int | None, width: int | None) -> RenderableType:
    gap = 1 if width is not None and width < _NARROW else 2
    table = _table("GROUP", "WEIGHT", "WANTED", "HAD", "READY", "RUNNING", "OLDEST", "", gap=gap)
    for place in _SHORTENED:
        table.columns[place].no_wrap = False
    mine = None if state is None else chosen(state, overview).name
    for group in _around(overview.groups, rows, mine):
        table.add_row(
            _short(("› " if group.name == mine else "  ") + printable(group.name)),
            _weight(group, state),
            _percent(group.wanted),
            _percent(group.had),
            _bounded(group.ready, is_more=group.is_more),
            f"{group.running:,}",
            _short(_oldest(group.oldest, group.oldest_age)),
            _pause(group, state),
            style="bold" if group.name == mine else "",
        )
    return _cut(table, len(overview.groups))


def _strict(overview: Overview) -> Text:
    lane = overview.strict
    return Text(
        f"  strict lane: {_bounded(lane.ready, is_more=lane.is_more)} ready, {lane.running:,} running of "
        f"{lane.cap:,} at most, oldest {_oldest(lane.oldest, lane.oldest_age)}"
    )


def _workers(overview: Overview, rows: int | None) -> RenderableType:
    if not overview.workers:
        return Text("no worker is live", "bold red")
    table = _table("WORKER", "HOST", "SLOTS", "STRICT", "SILENT", "CONFIG", "")
    for worker in overview.workers[:rows]:
        table.add_row(
            str(worker.id)[:8],
            _short(printable(worker.host)),
            f"{worker.running}/{worker.concurrency}",
            f"{worker.strict}/{worker.strict_cap}",
            Text(_duration(worker.silent), "red" if worker.silent > _SILENT else ""),
            _version(worker, overview),
            _trouble(worker),
        )
    return _cut(table, len(overview.workers))


def _handlers(handlers: Sequence[HandlerState], rows: int | None) -> RenderableType:
    table = _table("SLOWEST", "RUNNING", "LONGEST", "LAST MINUTE", "FAILED", "MEAN", "P95")
    for one in handlers[:rows]:
        longest = _NOTHING if one.longest is None else f"{_duration(one.longest)} ({one.longest_id})"
        table.add_row(
            _short(printable(one.name)),
            f"{one.running:,}",
            longest,
            f"{one.finished:,}",
            f"{one.failed:,}",
            _duration(one.mean),
            _duration(one.p95),
        )
    return _cut(table, len(handlers))


def _notes(overview: Overview) -> Iterator[Text]:
    config = overview.config
    if overview.config_problem is not None:
        yield Text(printable(overview.config_problem), "bold red")
    for limit in overview.limits:
        yield Text(_limit(limit), "yellow" if limit.running >= limit.limit else "")
    if config.paused_labels:
        yield Text(f"paused labels: {', '.join(config.paused_labels)}", "yellow")
    if config.paused_names:
        yield Text(f"paused names: {', '.join(config.paused_names)}", "yellow")
    for command in overview.commands:
        yield Text(_command(command, overview), "cyan")


def _limit(limit: LimitState) -> str:
    return f"limit of {limit.label}: {limit.running:,} of {limit.limit:,} run"


def _command(command: OpenCommand, overview: Overview) -> str:
    hosts = {worker.id: worker.host for worker in overview.workers}
    places = ", ".join(hosts.get(one, str(one)[:8]) for one in command.workers)
    age = (overview.at - command.requested_at).total_seconds()
    return printable(
        f"{command.action} by {command.requested_by}, {_duration(age)} ago: "
        f"{counted(command.open, 'task')} to go" + (f" on {places}" if places else "")
    )


def _footer(state: State) -> Iterator[Text]:
    if state.is_pending:
        yield Text("pending: press enter to ask for it, esc to drop it", "bold yellow")
    if state.said:
        yield Text(printable(state.said), "bold")
    yield Text(HELP if state.is_helping else KEYS, "dim")


def _weight(group: GroupState, state: State | None) -> Text:
    if state is None or group.name not in state.weights:
        return Text(str(group.weight))
    return Text(f"{group.weight} → {state.weights[group.name]}", "yellow")


def _pause(group: GroupState, state: State | None) -> Text:
    now = "paused" if group.is_paused else ""
    if state is None or group.name not in state.pauses:
        return _short(now, "yellow")
    return _short("→ paused" if state.pauses[group.name] else "paused → not", "yellow")


def _version(worker: WorkerState, overview: Overview) -> Text:
    newest = overview.config.version
    if worker.config_version < newest:
        return Text(f"{worker.config_version} of {newest}", "yellow")
    return Text(str(worker.config_version))


def _trouble(worker: WorkerState) -> Text:
    parts: list[str] = []
    if worker.stall is not None:
        parts.append(f"blocked {worker.stall['seconds']:.0f} s by {worker.stall['task']}")
    if worker.rejected is not None:
        parts.append(f"rejected {worker.rejected}: {worker.rejected_because}")
    return _short(printable("; ".join(parts)), "bold red")


def _table(*columns: str, gap: int = 2) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, no_wrap=True, justify="left" if column in _LEFT else "right")
    return table


def _cut(table: Table, of: int) -> RenderableType:
    hidden = of - table.row_count
    return Group(table, Text(f"  and {hidden:,} more", "dim")) if hidden else table


def _short(text: str, style: str = "") -> Text:
    """A text that ends in an ellipsis where its column is too narrow."""
    return Text(text, style, no_wrap=True, overflow="ellipsis")


# The columns of the groups that are narrowed first: the name, the oldest task, and the last one.
_SHORTENED = (0, 6, 7)

_LEFT = ("GROUP", "WORKER", "HOST", "SLOWEST", "")


def _around(groups: Sequence[GroupState], rows: int | None, mine: str | None) -> Sequence[GroupState]:
    """So many groups, the chosen one among them."""
    if rows is None or len(groups) <= rows:
        return groups
    place = next((n for n, group in enumerate(groups) if group.name == mine), 0)
    first = min(max(place - rows // 2, 0), len(groups) - rows)
    return groups[first : first + rows]


def _bounded(number: int, *, is_more: bool) -> str:
    return f"{number:,}{'+' if is_more else ''}"


def _oldest(task_id: int | None, age: float | None) -> str:
    return _NOTHING if task_id is None else f"{_duration(age)} ({task_id})"


def _percent(share: float | None) -> str:
    return _NOTHING if share is None else f"{share:.1%}"


def _duration(seconds: float | None) -> str:
    """Two significant parts at most, as people read them."""
    if seconds is None:
        return _NOTHING
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"
