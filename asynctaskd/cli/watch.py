"""`asynctaskd tasks watch`."""

from __future__ import annotations

from contextlib import aclosing, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asynctaskd.cli.options import AsJson, ConfigFile, Database, Schema, chosen_by
from asynctaskd.cli.output import console, print_json, printable, progress_of, shown
from asynctaskd.cli.session import ask, read_config
from asynctaskd.task import TaskStatus

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from asynctaskd.client import Client
    from asynctaskd.control.watching import TaskEvent

_COLOURS = {
    "enqueued": "dim",
    "claimed": "cyan",
    "progress": "cyan",
    "completed": "green",
    "failed": "bold red",
    "quarantined": "bold red",
    "hook_failed": "bold red",
    "retried": "yellow",
    "lease_lost": "yellow",
    "left_out": "yellow",
    "expired": "red",
    "cancelled": "magenta",
    "paused": "magenta",
}


def watch(
    *,
    name: Annotated[str | None, typer.Option(help="Only tasks of this name.", show_default=False)] = None,
    status: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Only events after which a task is {', '.join(TaskStatus)}; a,b or repeated.",
            show_default=False,
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Only tasks with all of these labels (a,b or repeated).", show_default=False),
    ] = None,
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what happens to tasks, a line each, until interrupted; with --json, an object a line.

    Workers tell of claims and completions while somebody watches, and only then.
    """
    screen = console()
    labels, statuses = chosen_by("--label", label) or (), chosen_by("--status", status) or ()

    async def shown_as_they_come(client: Client) -> None:
        events = client.watch(name=name, labels=labels, status=statuses)
        async with aclosing(events):
            async for event in events:
                _print(event, screen, as_json=as_json)

    with suppress(KeyboardInterrupt):
        ask(read_config(database, schema, config), shown_as_they_come)


def _print(event: TaskEvent, screen: Console, *, as_json: bool) -> None:
    if as_json:
        print_json(as_object(event))
    else:
        screen.print(line_of(event), soft_wrap=True)
    typer.get_text_stream("stdout").flush()  # whoever reads a pipe wants each line when it happens


def as_object(event: TaskEvent) -> dict[str, Any]:
    """An event by its fields."""
    return asdict(event) | {"labels": list(event.labels)}


def line_of(event: TaskEvent) -> Text:
    """An event as people read it."""
    from rich.text import Text  # noqa: PLC0415  (JSON doesn't need it)

    at = f"{event.at:%H:%M:%S}.{event.at.microsecond // 1000:03}Z"
    if event.task_id is None:
        return Text(f"{at}  {event.detail['events']} events came too fast to be shown", _COLOURS["left_out"])
    facts = [f"{key}={shown(value)}" for key, value in _facts(event).items()]
    return Text.assemble(
        (f"{at}  ", "dim"),
        (f"{event.kind:<12}", _COLOURS.get(event.kind, "")),
        f" {event.task_id}  {printable(event.name or '(forgotten)')}",
        ("  " + "  ".join(facts) if facts else "", "dim"),
    )


def _facts(event: TaskEvent) -> dict[str, Any]:
    progress = event.detail.get("progress")
    given = {
        "labels": list(event.labels) or None,
        "attempt": event.attempt,
        "worker": None if event.worker_id is None else str(event.worker_id)[:8],
        **event.detail,
        "progress": progress_of(progress),
    }
    return {name: value for name, value in given.items() if value is not None}
