"""`asynctaskd enqueue`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from asynctaskd.cli import enqueue_options as given
from asynctaskd.cli.options import AsJson, ConfigFile, Database, OptionalApp, Schema
from asynctaskd.cli.output import print_json
from asynctaskd.cli.session import app_given, ask, read_config
from asynctaskd.cli.tasks import wait_for
from asynctaskd.definitions.request import TaskRequest
from asynctaskd.errors import InvalidPayloadError

if TYPE_CHECKING:
    from asynctaskd.client import Client

Name = Annotated[str, typer.Argument(metavar="NAME", help="The task's name.")]
Payload = Annotated[str, typer.Argument(metavar="JSON", help="The payload; - reads it from standard input.")]


def enqueue(
    ctx: typer.Context,
    name: Name,
    payload: Payload = "{}",
    *,
    priority: given.Priority = None,
    weight: given.Weight = None,
    labels: given.Labels = None,
    tags: given.Tags = None,
    unique_tag: given.UniqueTag = None,
    serial_key: given.SerialKey = None,
    serial_id: given.SerialId = None,
    parent: given.Parent = None,
    depends_on: given.DependsOn = None,
    delay: given.Delay = None,
    run_at: given.RunAt = None,
    deadline: given.Deadline = None,
    timeout: given.Timeout = None,
    retry: given.Retry = None,
    max_attempts: given.MaxAttempts = None,
    keep: given.Keep = None,
    metadata: given.Metadata = None,
    cron: given.Cron = None,
    wait: given.Wait = None,
    app: OptionalApp = None,
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Enqueue one task and print its id."""
    # The options declared above are read by name: passing on each of them would say everything twice.
    request = TaskRequest(name, _payload(payload), **given.requested(ctx.params))
    limit = given.limit_of(wait)

    async def enqueued(client: Client) -> None:
        task_id = await client.enqueue(request)
        print_json({"id": task_id} if as_json else task_id)
        if wait is not None:
            await wait_for(task_id, limit, client)

    ask(read_config(database, schema, config), enqueued, app=app_given(app))


def _payload(text: str) -> object:
    return given.parsed(_standard_input() if text == "-" else text, "payload")


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise InvalidPayloadError(
            f"payload on standard input isn't UTF-8 text (byte {error.start})"
        ) from None
