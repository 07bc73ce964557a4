"""What commands print: JSON for programs, tables and lists for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from asynctaskd.control.plain import plain

if TYPE_CHECKING:
    from rich.console import Console


_NO_EDGE = 10_000

NOT_SHOWN = "not shown to this login"
"""In the place of what a login may not read."""


def print_json(value: object) -> None:
    """Print one JSON text: durations as `30s`, instants in ISO 8601."""
    unicode = sys.stdout.encoding.lower() in ("utf-8", "utf8")
    typer.echo(json.dumps(value, ensure_ascii=not unicode, default=plain))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, fixed: int) -> None:
    """Print rows, one line each; where they don't fit, all columns but the first `fixed` are shortened."""
    from rich.table import Table  # noqa: PLC0415  (JSON doesn't need it)
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, column in enumerate(columns):
        table.add_column(column, no_wrap=place < fixed)
    for row in rows:
        # The text doesn't wrap, but its column may shrink: that gives one line and an ellipsis.
        table.add_row(*(Text(shown(value), no_wrap=True, overflow="ellipsis") for value in row))
    if sys.stdout.isatty():
        console().print(table)
        return
    lines = console()
    with lines.capture() as written:
        lines.print(table)
    # Columns are padded, which in the last one would make every line as long as the longest.
    typer.echo("\n".join(line.rstrip() for line in written.get().splitlines()))


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print one fact a line; those that are None or empty are left out."""
    given = {name: shown(value) for name, value in facts.items() if value not in (None, [], ())}
    width = max(map(len, given))
    for name, text in given.items():
        typer.echo(f"{name:<{width}}  {text}")


def progress_of(stored: Any) -> Any:
    """How far a task is, as people read it: `50 %, packing`."""
    match stored:
        case {"percent": int() | float() as percent, "message": str() as message}:
            return f"{percent:g} %, {message}" if message else f"{percent:g} %"
        case {"percent": int() | float() as percent, **rest} if not rest:
            return f"{percent:g} %"
    return stored


def shown(value: object) -> str:
    """A value on one line, without characters that a terminal would obey."""
    match value:
        case None:
            return ""
        case str():
            return printable(value)
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
        case list() | tuple() if all(isinstance(item, str) for item in value):
            return printable(",".join(value))
        case dict() | list() | tuple() | bool():
            return printable(json.dumps(value, ensure_ascii=False, default=plain))
    return printable(str(plain(value)))


def counted(number: int, word: str) -> str:
    """A number of things, in words."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """The text with every control character replaced by a space."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def console() -> Console:
    """A console that takes texts as they are; it has no colours where NO_COLOR is set.

    Only a terminal has an edge: what goes into a pipe or a file is never shortened.
    """
    from rich.console import Console  # noqa: PLC0415  (it takes a while to import)

    width = None if sys.stdout.isatty() else _NO_EDGE
    return Console(highlight=False, markup=False, emoji=False, width=width)
