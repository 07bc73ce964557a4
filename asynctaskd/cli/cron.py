"""`asynctaskd cron list|add|change|pause|resume|remove|slots|preview`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from asynctaskd.cli import enqueue_options as given
from asynctaskd.cli.options import AsJson, ConfigFile, Database, DecodingApp, OptionalApp, Schema
from asynctaskd.cli.output import print_json, print_table
from asynctaskd.cli.session import app_given, ask, read_config
from asynctaskd.definitions.cron import Cron
from asynctaskd.errors import InvalidInputError, InvalidStateError

if TYPE_CHECKING:
    from asynctaskd.cli.session import Reader
    from asynctaskd.client import Client
    from asynctaskd.scheduling.cron import Slot

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the schedule.")]
Expression = Annotated[
    str,
    typer.Argument(
        metavar="EXPR", help="Six fields, seconds first ('0 0 2 * * *'), five without them, or @every 10m."
    ),
]
NewExpression = Annotated[str | None, typer.Option("--cron", metavar="EXPR", help="Another expression.")]
Zone = Annotated[
    str | None,
    typer.Option("--tz", metavar="ZONE", help="The zone of its times of day.", show_default="UTC"),
]
Params = Annotated[
    str | None, typer.Option(metavar="JSON", help="The payload of its tasks.", show_default=False)
]
Missed = Annotated[
    str | None,
    typer.Option(metavar="skip|once|all", help="What becomes of missed slots.", show_default="once"),
]
Limit = Annotated[
    int | None, typer.Option(metavar="N", help="With `all`: the latest N slots at most.", show_default="100")
]
Overlap = Annotated[
    str | None,
    typer.Option(
        metavar="skip|allow", help="While the last task is pending or running.", show_default="skip"
    ),
]
Task = Annotated[
    str | None, typer.Option(metavar="NAME", help="The task's name, if it isn't the schedule's.")
]
Count = Annotated[int, typer.Option("--count", "-n", min=1, max=10_000, help="How many slots.")]


def list_schedules(
    app: DecodingApp = None,
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List the schedules, each with its next slot and what became of its last one.

    Secret fields of their params are shown as ***.
    """

    async def listed(client: Reader) -> list[dict[str, Any]]:
        found = await client.hide_secrets(await client.list_schedules())
        return found if client.sees_values else list(map(_without_values, found))

    read_by = app_given(app)
    schedules = ask(read_config(database, schema, config), listed, app=read_by)
    if as_json:
        print_json(schedules)
    elif not schedules:
        typer.echo("there are no schedules")
    else:
        columns = ("NAME", "CRON", "ZONE", "NEXT", "LAST", "STATE")
        print_table(columns, map(_line, schedules), fixed=5)


def add(
    ctx: typer.Context,
    name: Name,
    expression: Expression,
    *,
    task: Task = None,
    zone: Zone = None,
    params: Params = None,
    missed: Missed = None,
    limit: Limit = None,
    overlap: Overlap = None,
    priority: given.Priority = None,
    weight: given.Weight = None,
    labels: given.Labels = None,
    tags: given.Tags = None,
    serial_key: given.SerialKey = None,
    deadline: given.Deadline = None,
    timeout: given.Timeout = None,
    retry: given.Retry = None,
    max_attempts: given.MaxAttempts = None,
    keep: given.Keep = None,
    app: OptionalApp = None,
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
) -> None:
    """Create a schedule: at each of its slots one task is enqueued, with these options."""
    if limit is not None and missed != "all":
        raise InvalidInputError("--limit needs --missed all: it is how many missed slots are made up for")
    settings = {
        "zone": zone,
        "params": _parsed(params),
        "missed": missed,
        "limit": limit,
        "overlap": overlap,
    }
    wanted = Cron(expression, **cast("Any", _without_none(settings)))
    options = _options(ctx)

    async def added(client: Client) -> None:
        await client.add_schedule(name, wanted, task=task, **options)

    ask(read_config(database, schema, config), added, app=app_given(app))


def change(
    ctx: typer.Context,
    name: Name,
    *,
    expression: NewExpression = None,
    zone: Zone = None,
    params: Params = None,
    missed: Missed = None,
    limit: Limit = None,
    overlap: Overlap = None,
    priority: given.Priority = None,
    weight: given.Weight = None,
    labels: given.Labels = None,
    tags: given.Tags = None,
    serial_key: given.SerialKey = None,
    deadline: given.Deadline = None,
    timeout: given.Timeout = None,
    retry: given.Retry = None,
    max_attempts: given.MaxAttempts = None,
    keep: given.Keep = None,
    app: OptionalApp = None,
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
) -> None:
    """Change a schedule; what is left out stays as it is."""
    changes = {
        "expression": expression,
        "zone": zone,
        "params": _parsed(params),
        "missed": missed,
        "limit": limit,
        "overlap": overlap,
    }
    options = _options(ctx) | _without_none(changes)

    async def changed(client: Client) -> None:
        await client.change_schedule(name, **options)

    ask(
        read_config(database, schema, config),
        changed,
        app=app_given(app),
        steers=True,
    )


def pause(name: Name, database: Database = None, schema: Schema = None, config: ConfigFile = None) -> None:
    """Let a schedule rest until it is resumed; what it has enqueued goes on."""
    ask(read_config(database, schema, config), lambda client: client.pause_schedule(name))


def resume(name: Name, database: Database = None, schema: Schema = None, config: ConfigFile = None) -> None:
    """Let a paused schedule go on, with slots from now on."""
    ask(read_config(database, schema, config), lambda client: client.resume_schedule(name))


def remove(name: Name, database: Database = None, schema: Schema = None, config: ConfigFile = None) -> None:
    """Remove a schedule; what it has enqueued goes on.

    A declared one is there again when a worker starts that declares it: pause it instead.
    """
    ask(read_config(database, schema, config), lambda client: client.remove_schedule(name))


def slots(
    name: Name,
    limit: Annotated[int, typer.Option(min=1, max=2**31 - 1, help="At most so many, the newest.")] = 100,
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what became of a schedule's slots in the last 30 days, the newest first."""
    question: Callable[[Client], Any] = partial(_slots_of, name, limit)
    rows: list[dict[str, Any]] = ask(read_config(database, schema, config), question)
    if as_json:
        print_json(rows)
    elif not rows:
        typer.echo(f"no slot of {name!r} has been decided")
    else:
        columns = ("SLOT", "OUTCOME", "TASK", "DECIDED", "REASON")
        lines = ((r["slot"], r["outcome"], r["task_id"], r["decided_at"], r["reason"]) for r in rows)
        print_table(columns, lines, fixed=4)


def preview(
    expression: Expression,
    zone: Zone = None,
    count: Count = 10,
    after: Annotated[
        str | None, typer.Option(metavar="INSTANT", help="Begin there, not now: 2026-03-28T12:00:00Z.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show when an expression is due, and what changes of the clock do to it. Needs no database.

    `@every` counts from the beginning of the preview.
    """
    cron = Cron(expression, zone=zone or "UTC")
    start = None if after is None else given.instant("--after", after)
    previewed = [(slot, _local(slot, cron)) for slot in cron.preview(start, count=count)]
    if as_json:
        print_json([{"at": slot.at, "local": local, "remark": slot.remark} for slot, local in previewed])
    else:
        rows = ((f"{local:%a %Y-%m-%d %H:%M:%S %z}", slot.at, slot.remark) for slot, local in previewed)
        print_table((cron.zone.upper(), "IN UTC", ""), rows, fixed=3)


def _local(slot: Slot, cron: Cron) -> datetime:
    return slot.at.astimezone(cron.timetable(slot.at).zone)


async def _slots_of(name: str, limit: int, client: Client) -> list[dict[str, Any]]:
    rows = await client.list_slots(name, limit=limit)
    # What was removed leaves its slots behind.
    if not rows and not await client.list_schedules(name):
        raise InvalidStateError(f"there is no schedule {name!r}; see `asynctaskd cron list`")
    return rows


def _options(ctx: typer.Context) -> dict[str, Any]:
    """What each task is enqueued with; an enqueue has more options than a schedule."""
    return given.requested(defaultdict(lambda: None, ctx.params))


def _parsed(params: str | None) -> object:
    return None if params is None else given.parsed(params, "--params")


def _without_values(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("params", "options")}


def _without_none(values: dict[str, object]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _line(row: dict[str, Any]) -> tuple[object, ...]:
    following = row["next"][0] if row["next"] else None
    return row["name"], row["expression"], row["zone"], following, row["last_slot"], _state(row)


def _state(row: dict[str, Any]) -> str:
    if row["paused_at"]:
        return f"paused: {row['paused_because']}" if row["paused_because"] else "paused"
    if not row["tended"]:
        return "rests: no live worker declares it"
    return ": ".join(filter(None, (row["last_outcome"], row["last_reason"])))
