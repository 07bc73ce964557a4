"""The options of `asynctaskd enqueue`: how they are written, and what a request makes of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer
from pydantic_core import from_json
from typer.core import TyperCommand

from asynctaskd.cli.options import split
from asynctaskd.definitions.payload import check_payload
from asynctaskd.definitions.rules import duration
from asynctaskd.durations import DURATION_PATTERN
from asynctaskd.errors import InvalidInputError
from asynctaskd.scheduling.retry import RetryPolicy

_FOR_EVER = "for ever"
_is_duration = re.compile(DURATION_PATTERN).fullmatch


def _option(metavar: str, text: str) -> Any:
    return typer.Option(metavar=metavar, help=text, show_default=False)


Priority = Annotated[int | None, _option("N", "Above 0: the strict lane, the highest first.")]
Weight = Annotated[int | None, _option("N", "Order within the group, the highest first.")]
Labels = Annotated[list[str] | None, _option("A,B", "Only workers with all of these labels run it.")]
Tags = Annotated[list[str] | None, _option("A,B", "What operators select it by.")]
UniqueTag = Annotated[str | None, _option("TEXT", "One task per tag: a second one is the first one's id.")]
SerialKey = Annotated[str | None, _option("TEXT", "Tasks of one key run one at a time.")]
SerialId = Annotated[int | None, _option("N", "Its place among the tasks of its key.")]
Parent = Annotated[int | None, _option("ID", "The task that it is a child of.")]
DependsOn = Annotated[list[str] | None, _option("ID,ID", "Tasks that must complete first.")]
Delay = Annotated[str | None, _option("DURATION", "Not before this time has passed.")]
RunAt = Annotated[str | None, _option("INSTANT", "Not before, such as 2026-01-31T12:00:00Z.")]
Deadline = Annotated[str | None, _option("DURATION|INSTANT", "Not started after; it expires then.")]
Timeout = Annotated[str | None, _option("DURATION", "How long one execution may take.")]
Retry = Annotated[str | None, _option("POLICY", "Pauses between executions, such as 1m,2m,4m.")]
MaxAttempts = Annotated[int | None, _option("N", "With --retry: executions at most; -1 is unlimited.")]
Keep = Annotated[str | None, _option("DURATION", "How long the finished record is kept.")]
Cron = Annotated[str | None, _option("EXPR", "Again and again: the schedule of that name.")]
Metadata = Annotated[str | None, _option("JSON", "An object that travels with the task.")]
Wait = Annotated[str | None, _option("[=30s]", "Wait until it has completed, for ever or so long.")]

_AS_WRITTEN = (
    "priority", "weight", "unique_tag", "serial_key", "serial_id", "delay", "timeout", "keep", "cron",
)  # fmt: skip


class EnqueueCommand(TyperCommand):
    """A command whose `--wait` may stand alone: then it waits for ever."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give every `--wait` a value."""
        return super().parse_args(ctx, _with_limits(args))


def _with_limits(args: Iterable[str]) -> list[str]:
    given: list[str] = []
    for arg in args:
        if given and given[-1] == "--wait" and _is_duration(arg):
            given[-1] = f"--wait={arg}"
        else:
            given.append(arg)
    return [f"--wait={_FOR_EVER}" if arg == "--wait" else arg for arg in given]


def requested(params: Mapping[str, Any]) -> dict[str, Any]:
    """What a request takes, of the command's parameters by name; options left out are left out.

    Raises:
        InvalidInputError: one can't be read.
    """
    options = {name: params[name] for name in _AS_WRITTEN} | {
        "labels": split(params["labels"]),
        "tags": split(params["tags"]),
        "parent_id": params["parent"],
        "depends_on": _ids("--depends-on", params["depends_on"]),
        "run_at": instant("--run-at", params["run_at"]),
        "deadline": _deadline(params["deadline"]),
        "retry": _policy(params["retry"], params["max_attempts"]),
        "metadata": None if params["metadata"] is None else parsed(params["metadata"], "--metadata"),
    }
    return {name: value for name, value in options.items() if value is not None}


def parsed(text: str, what: str) -> object:
    """A JSON text under the rules of payloads; raises InvalidPayloadError."""
    check_payload(text, what)
    return from_json(text)


def limit_of(wait: str | None) -> timedelta | None:
    """How long to wait at most; None is for ever."""
    return None if wait is None or wait == _FOR_EVER else duration("--wait", wait)


def _ids(option: str, given: list[str] | None) -> list[int] | None:
    ids = split(given)
    try:
        return None if ids is None else [int(one) for one in ids]
    except ValueError:
        raise InvalidInputError(f"{option} must be ids such as 17,18, got {ids}") from None


def _policy(spec: str | None, max_attempts: int | None) -> RetryPolicy | None:
    if spec is None and max_attempts is not None:
        raise InvalidInputError("--max-attempts needs --retry: how long to wait between the executions")
    if spec is None:
        return None
    return RetryPolicy(spec) if max_attempts is None else RetryPolicy(spec, max_attempts=max_attempts)


def _deadline(text: str | None) -> datetime | str | None:
    return text if text is None or _is_duration(text) else instant("--deadline", text)


def instant(option: str, text: str | None) -> datetime | None:
    """An instant as people write it. Raises InvalidInputError."""
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            f"{option} must be an instant with a time zone such as 2026-01-31T12:00:00Z, got {text!r}"
        ) from None
