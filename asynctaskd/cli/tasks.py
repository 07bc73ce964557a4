"""`asynctaskd tasks list|show|why|timeline|wait`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, fields
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asynctaskd.cli.options import AsJson, ConfigFile, Database, DecodingApp, Schema, TaskId, chosen_by
from asynctaskd.cli.output import (
    NOT_SHOWN,
    print_facts,
    print_json,
    print_table,
    printable,
    progress_of,
    shown,
)
from asynctaskd.cli.session import app_given, ask, read_config
from asynctaskd.definitions.rules import duration
from asynctaskd.durations import format_duration
from asynctaskd.errors import AsynctaskdError, TaskCancelledError, TaskFailedError
from asynctaskd.task import Task, TaskStatus

if TYPE_CHECKING:
    from asynctaskd.cli.session import Reader
    from asynctaskd.client import Client
    from asynctaskd.control.explanations import Moment

_COLUMNS = tuple(field.name for field in fields(Task))

# What a task carries, and a viewer's login isn't told.
_VALUES = ("payload", "result", "last_error", "metadata")


def list_tasks(
    *,
    name: Annotated[str | None, typer.Option(help="Only tasks of this name.", show_default=False)] = None,
    status: Annotated[
        str | None, typer.Option(help=f"Only tasks that are {', '.join(TaskStatus)}.", show_default=False)
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Only tasks with all of these labels (a,b or repeated).", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=2**31 - 1, help="At most so many, the newest.")] = 100,
    app: DecodingApp = None,
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List tasks, the newest first. Secret fields are shown as ***."""
    labels = chosen_by("--label", label)

    async def listed(client: Reader) -> tuple[list[Task], bool]:
        found = await client.list_tasks(name=name, status=status, labels=labels, limit=limit)
        return await client.hide_secrets(found), client.sees_values

    read_by = app_given(app)
    tasks, sees_values = ask(read_config(database, schema, config), listed, app=read_by)
    if as_json:
        print_json([_told(task, sees_values) for task in tasks])
    else:
        _print_tasks(tasks, limit)


def show(
    task_id: TaskId,
    app: DecodingApp = None,
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show one task, and what happened to it.

    Secret fields are shown as ***. What a codec has encoded is read with the App that has it. A login that
    may not read payloads, results and errors is shown the rest.
    """
    read_by = app_given(app)
    settings = read_config(database, schema, config)
    task, events, sees_values = ask(settings, partial(_task_and_events, task_id), app=read_by)
    if as_json:
        print_json(_told(task, sees_values) | {"events": events})
        return
    facts = columns_of(task) | {"progress": progress_of(task.progress)}
    print_facts(facts if sees_values else facts | dict.fromkeys(_VALUES, NOT_SHOWN))
    if events:
        typer.echo("\nevents")
    for event in events:
        typer.echo(f"  {shown(event['at'])}  {event['kind']}  {shown(event['detail'])}")


def why(
    task_id: TaskId,
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Say the one reason why a task isn't running, and what would change it."""
    answer = ask(read_config(database, schema, config), lambda client: client.why(task_id))
    if as_json:
        print_json(asdict(answer))
        return
    typer.echo(f"task {task_id}: {printable(answer.explanation)}")
    if answer.remedy:
        typer.echo(f"  to change it: {printable(answer.remedy)}")


def timeline(
    task_id: TaskId,
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show everything that happened to a task, with the time between."""

    async def told(client: Reader) -> tuple[list[Moment], bool]:
        return await client.timeline(task_id), client.sees_values

    moments, sees_values = ask(read_config(database, schema, config), told)
    if as_json:
        print_json([asdict(moment) for moment in moments])
        return
    rows = ((moment.at, _elapsed(moment.after), moment.what, moment.detail or None) for moment in moments)
    print_table(("AT", "AFTER", "WHAT", "DETAIL"), rows, fixed=3)
    if not sees_values:
        typer.echo(f"errors and what handlers have said: {NOT_SHOWN}", err=True)


def wait(
    task_id: TaskId,
    timeout: Annotated[
        str | None, typer.Option(metavar="30s", help="How long at most; for ever if left out.")
    ] = None,
    app: DecodingApp = None,
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Wait until a task has completed.

    Exits with 0 if it completed, 1 if it failed, expired, was cancelled or isn't known, and 75 if it hasn't
    ended by the timeout. The JSON is the task's record, however it ended, and at the timeout too.
    """
    limit = None if timeout is None else duration("--timeout", timeout)
    read_by = app_given(app)
    waited_for = partial(_waited_for, task_id, limit, as_json=as_json)
    task = ask(read_config(database, schema, config), waited_for, app=read_by)
    if as_json:
        print_json(columns_of(task))
    else:
        typer.echo(f"task {task.name!r} ({task.id}) completed: {shown(task.result) or 'no result'}")


async def _waited_for(task_id: int, limit: timedelta | None, client: Client, *, as_json: bool) -> Task:
    try:
        task = await wait_for(task_id, limit, client)
    except (TaskFailedError, TaskCancelledError, TimeoutError):
        if as_json:
            with suppress(AsynctaskdError):  # whatever it is, what is raised says more
                [task] = await client.hide_secrets([await client.get_task(task_id)])
                print_json(columns_of(task))
        raise
    [task] = await client.hide_secrets([task])
    return task


async def wait_for(task_id: int, limit: timedelta | None, client: Client) -> Task:
    """Wait for a task; raises like `Client.wait`, with the task's status where the time is up."""
    try:
        return await client.wait(task_id, limit)
    except TimeoutError:
        task = await client.get_task(task_id)
        raise TimeoutError(
            f"task {task.name!r} ({task_id}) is still {task.status} after {shown(limit)}: "
            f"wait again, or see `asynctaskd tasks show {task_id}`"
        ) from None


def columns_of(task: Task) -> dict[str, Any]:
    """A task by the columns of `all_tasks`."""
    return {column: getattr(task, column) for column in _COLUMNS}


def _told(task: Task, sees_values: bool) -> dict[str, Any]:
    columns = columns_of(task)
    return columns if sees_values else {name: columns[name] for name in columns if name not in _VALUES}


async def _task_and_events(task_id: int, client: Reader) -> tuple[Task, list[dict[str, Any]], bool]:
    [task] = await client.hide_secrets([await client.get_task(task_id)])
    sees_values = client.sees_values  # of the task: events may be refused to who was granted tasks by hand
    return task, await client.events(task_id), sees_values


def _print_tasks(tasks: list[Task], limit: int) -> None:
    if not tasks:
        typer.echo("there are no such tasks")
        return
    rows = (
        (task.id, task.status.value, _attempts(task), task.created_at, task.name, task.labels)
        for task in tasks
    )
    print_table(("ID", "STATUS", "ATTEMPTS", "CREATED", "NAME", "LABELS"), rows, fixed=4)
    if len(tasks) == limit:
        typer.echo(f"these are the newest {limit}; --limit shows more", err=True)


def _elapsed(duration: timedelta | None) -> str:
    if duration is None:
        return ""
    return f"+{format_duration(duration - duration % timedelta(milliseconds=1))}"


def _attempts(task: Task) -> str:
    most = {None: "", -1: ""}.get(task.max_attempts, f"/{task.max_attempts}")
    return f"{task.attempts}{most}"
