"""`asynctaskd enqueue`."""

from __future__ import annotations

import re
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic_core import from_json
from typer.core import TyperCommand

from asynctaskd.cli.options import AsJson, ConfigFile, Database, OptionalApp, Schema, split
from asynctaskd.cli.output import print_json
from asynctaskd.cli.session import ask, read_config
from asynctaskd.cli.tasks import wait_for
from asynctaskd.definitions.loader import load_app
from asynctaskd.definitions.payload import check_payload
from asynctaskd.definitions.request import TaskRequest
from asynctaskd.definitions.rules import duration
from asynctaskd.durations import DURATION_PATTERN
from asynctaskd.errors import InvalidInputError, InvalidPayloadError
from asynctaskd.scheduling.retry import RetryPolicy

if TYPE_CHECKING:
    from datetime import timedelta

    from asynctaskd.client import Client

_FOR_EVER = "for ever"
_is_duration = re.compile(DURATION_PATTERN).fullmatch

Text = Annotated[str | None, typer.Option(show_default=False)]


def _option(metavar: str, text: str) -> Any:
    return typer.Option(metavar=metavar, help=text, show_default=False)


class EnqueueCommand(TyperCommand):
    """A command whose `--wait` may stand alone: then it waits for ever."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give every `--wait` a value."""
        return super().parse_args(ctx, list(_with_limits(args)))


def _with_limits(args: list[str]) -> list[str]:
    given: list[str] = []
    for arg in args:
        if given and given[-1] == "--wait":
            given[-1] = f"--wait={arg if _is_duration(arg) else _FOR_EVER}"
            given += [] if _is_duration(arg) else [arg]
        else:
            given.append(arg)
    if given and given[-1] == "--wait":
        given[-1] = f"--wait={_FOR_EVER}"
    return given


def enqueue(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The task's name.")],
    payload: Annotated[
        str, typer.Argument(metavar="JSON", help="The payload; - reads it from standard input.")
    ] = "{}",
    *,
    priority: Annotated[int | None, _option("N", "Above 0: the strict lane, the highest first.")] = None,
    weight: Annotated[int | None, _option("N", "Order within the group, the highest first.")] = None,
    labels: Annotated[
        list[str] | None, _option("A,B", "Only workers with all of these labels run it.")
    ] = None,
    tags: Annotated[list[str] | None, _option("A,B", "What operators select it by.")] = None,
    unique_tag: Annotated[
        str | None, _option("TEXT", "One task per tag: a second one is the first one's id.")
    ] = None,
    serial_key: Annotated[str | None, _option("TEXT", "Tasks of one key run one at a time.")] = None,
    serial_id: Annotated[int | None, _option("N", "Its place among the tasks of its key.")] = None,
    parent: Annotated[int | None, _option("ID", "The task that it is a child of.")] = None,
    delay: Annotated[str | None, _option("DURATION", "Not before this time has passed.")] = None,
    run_at: Annotated[str | None, _option("INSTANT", "Not before, such as 2026-01-31T12:00:00Z.")] = None,
    deadline: Annotated[
        str | None, _option("DURATION|INSTANT", "Not started after; it expires then.")
    ] = None,
    timeout: Annotated[str | None, _option("DURATION", "How long one execution may take.")] = None,
    retry: Annotated[str | None, _option("POLICY", "Pauses between executions, such as 1m,2m,4m.")] = None,
    max_attempts: Annotated[
        int | None, _option("N", "With --retry: executions at most; -1 is unlimited.")
    ] = None,
    keep: Annotated[str | None, _option("DURATION", "How long the finished record is kept.")] = None,
    metadata: Annotated[str | None, _option("JSON", "An object that travels with the task.")] = None,
    wait: Annotated[
        str | None, _option("[=30s]", "Wait until it has completed, for ever or so long.")
    ] = None,
    app: OptionalApp = None,
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Enqueue one task and print its id."""
    given = {
        "priority": priority,
        "weight": weight,
        "labels": split(labels),
        "tags": split(tags),
        "unique_tag": unique_tag,
        "serial_key": serial_key,
        "serial_id": serial_id,
        "parent_id": parent,
        "delay": delay,
        "run_at": _instant("--run-at", run_at),
        "deadline": _deadline(deadline),
        "timeout": timeout,
        "retry": _policy(retry, max_attempts),
        "keep": keep,
        "metadata": None if metadata is None else _parsed(metadata, "--metadata"),
    }
    request = TaskRequest(name, _payload(payload), **_named(given))
    limit = _limit(wait)
    settings = read_config(database, schema, config)

    async def enqueued(client: Client) -> None:
        task_id = await client.enqueue(request)
        print_json({"id": task_id} if as_json else task_id)
        if wait is not None:
            await wait_for(task_id, limit, client)

    ask(settings, enqueued, app=None if app is None else load_app(app))


def _named(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _payload(text: str) -> object:
    return _parsed(_standard_input() if text == "-" else text, "payload")


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise InvalidPayloadError(
            f"payload on standard input isn't UTF-8 text (byte {error.start})"
        ) from None


def _parsed(text: str, what: str) -> object:
    check_payload(text, what)
    return from_json(text)


def _policy(spec: str | None, max_attempts: int | None) -> RetryPolicy | None:
    if spec is None and max_attempts is not None:
        raise InvalidInputError("--max-attempts needs --retry: how long to wait between the executions")
    if spec is None:
        return None
    return RetryPolicy(spec) if max_attempts is None else RetryPolicy(spec, max_attempts=max_attempts)


def _deadline(text: str | None) -> datetime | str | None:
    return text if text is None or _is_duration(text) else _instant("--deadline", text)


def _instant(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            f"{option} must be an instant with a time zone such as 2026-01-31T12:00:00Z, got {text!r}"
        ) from None


def _limit(wait: str | None) -> timedelta | None:
    return None if wait is None or wait == _FOR_EVER else duration("--wait", wait)
