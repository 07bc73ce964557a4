"""`asynctaskd tasks pause|resume|cancel|retry|expire|fail|run-now|purge|reprioritize`."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asynctaskd.cli.failures import ExitCode
from asynctaskd.cli.options import MAX_ID, AsJson, ConfigFile, Database, Schema, chosen_by
from asynctaskd.cli.output import counted, print_json, print_table
from asynctaskd.cli.session import ask, read_config
from asynctaskd.definitions.rules import duration
from asynctaskd.durations import format_duration, parse_duration
from asynctaskd.errors import InvalidInputError
from asynctaskd.task import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asynctaskd.client import Client
    from asynctaskd.control.receipts import Receipt

_SHOWN = 50
_LOOK = timedelta(seconds=2)
_ORDER = (None, "refused", "stopped", "changed")

_MOMENT = "an instant (2026-01-31T12:00:00Z), a time of day (02:00), or how long ago (2h)"


def _only(metavar: str, text: str) -> Any:
    return typer.Option(metavar=metavar, help=text, show_default=False)


Ids = Annotated[
    list[int] | None,
    typer.Argument(metavar="[ID]…", min=1, max=MAX_ID, help="The tasks.", show_default=False),
]
Tags = Annotated[list[str] | None, _only("A,B", "Only tasks with all of these tags.")]
ExceptTags = Annotated[
    list[str] | None, _only("A,B", "But none with all of these tags; may be repeated for several sets.")
]
UniqueTag = Annotated[str | None, _only("TEXT", "The task that holds this unique tag.")]
Name = Annotated[str | None, _only("NAME", "Only tasks of this name.")]
Status = Annotated[str | None, _only("STATUS", f"Only tasks that are {', '.join(TaskStatus)}.")]
Label = Annotated[list[str] | None, _only("LABEL", "Only tasks with this label, one.")]
Since = Annotated[
    str | None, _only("WHEN", f"Only tasks created (to retry or purge: ended) since then: {_MOMENT}.")
]
Until = Annotated[str | None, _only("WHEN", "Only tasks created (to retry or purge: ended) before then.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say which tasks it would be, and do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask before many tasks are changed.")]
Timeout = Annotated[str, typer.Option(metavar="30s", help="How long to wait for executions to stop.")]
Cascade = Annotated[bool, typer.Option(help="Reach all descendants too (pause, cancel and resume).")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="What is written as the error.")]


def commanded(action: str, says: str) -> Callable[..., int]:
    """The function of a command that chooses tasks and asks `action` of them."""

    def run(
        ids: Ids = None,
        *,
        tag: Tags = None,
        except_tag: ExceptTags = None,
        unique_tag: UniqueTag = None,
        name: Name = None,
        status: Status = None,
        label: Label = None,
        since: Since = None,
        until: Until = None,
        cascade: Cascade = True,
        dry_run: DryRun = False,
        yes: Yes = False,
        timeout: Timeout = "30s",
        database: Database = None,
        schema: Schema = None,
        config: ConfigFile = None,
        as_json: AsJson = False,
    ) -> int:
        selection: dict[str, Any] = {
            "ids": ids or None,
            "tags": chosen_by("--tag", tag),
            "except_tags": except_tag and [chosen_by("--except-tag", [one]) for one in except_tag],
            "unique_tag": unique_tag,
            "name": name,
            "status": status,
            "label": _one_label(chosen_by("--label", label)),
            **_range(since, until),
        }
        given = {key: value for key, value in selection.items() if value is not None}
        settings = read_config(database, schema, config)
        if dry_run or not (yes or ids or unique_tag):
            count, first = ask(settings, lambda client: client.selected(action, given, cascade=cascade))
            if dry_run or not _agreed(action, count):
                return _print_selected(action, count, first, as_json=as_json)
        options = {"cascade": cascade, "limit": duration("--timeout", timeout)}
        receipt = ask(settings, partial(_issue, action, given, options))
        return print_receipt(receipt, as_json=as_json)

    run.__doc__ = says
    return run


def fail(
    ids: Ids = None,
    *,
    reason: Reason = "failed by operator",
    timeout: Timeout = "30s",
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """End tasks as failed; their failure hooks run."""
    options = {"reason": reason, "limit": duration("--timeout", timeout)}
    receipt = ask(read_config(database, schema, config), partial(_issue, "fail", {"ids": ids or []}, options))
    return print_receipt(receipt, as_json=as_json)


def reprioritize(
    label: Annotated[
        list[str] | None, _only("A,B", "Tasks with any of these labels; left out: only those without labels.")
    ] = None,
    priority: Annotated[int | None, _only("N", "Above 0: the strict lane.")] = None,
    weight: Annotated[int | None, _only("N", "The order within a group.")] = None,
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Change priority or weight of all tasks that don't run and carry any of some labels."""
    labels = chosen_by("--label", label)
    changed = ask(
        read_config(database, schema, config),
        lambda client: client.reprioritize(labels or (), priority=priority, weight=weight),
    )
    if as_json:
        print_json({"changed": changed})
    else:
        typer.echo(f"changed {counted(changed, 'task')}")


async def _issue(
    action: str, selection: Mapping[str, Any], options: Mapping[str, Any], client: Client
) -> Receipt:
    """Issue a command and wait, saying every two seconds how many executions go on."""
    others = {key: value for key, value in options.items() if key != "limit"}
    left: timedelta = options["limit"]
    if action == "run_now":
        return await client.command(action, selection, timeout=left, **others)
    receipt = await client.command(action, selection, timeout=min(left, _LOOK), **others)
    while receipt.open and (left := left - _LOOK) > timedelta(0):
        of = counted(len(receipt.tasks), "task")
        typer.echo(f"{len(receipt.open)} of {of} still to stop …", err=True)
        receipt = await client.receipt(receipt.request_id, timeout=min(left, _LOOK))
    return receipt


def print_receipt(receipt: Receipt, *, as_json: bool) -> int:
    """Print a receipt; the exit code is 3 where executions go on, and 1 where anything was refused."""
    if as_json:
        print_json(asdict(receipt))
    else:
        _print_table(receipt)
    if receipt.open:
        return ExitCode.NOT_CONVERGED
    return ExitCode.FAILED if receipt.refused or not receipt.tasks else ExitCode.FINE


def _print_table(receipt: Receipt) -> None:
    if not receipt.tasks:
        typer.echo(f"{receipt.action}: no task fits")
        return
    rows = [
        (task.task_id, task.status, task.outcome or "goes on", _took(task), task.worker_id, task.reason)
        for task in sorted(receipt.tasks, key=lambda task: _ORDER.index(task.outcome))
    ]
    print_table(("ID", "STATUS", "OUTCOME", "TOOK", "WORKER", "REASON"), rows[:_SHOWN], fixed=4)
    counts = Counter(task.outcome or "goes on" for task in receipt.tasks)
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    more = f" (the first {_SHOWN} are shown)" if len(rows) > _SHOWN else ""
    typer.echo(f"{receipt.action}, request {receipt.request_id}: {told}{more}")


def _took(task: Any) -> str:
    if task.stopped_at is None:
        return ""
    milliseconds = round((task.stopped_at - task.requested_at) / timedelta(milliseconds=1))
    return format_duration(timedelta(milliseconds=milliseconds))


def _print_selected(action: str, count: int, first: list[int], *, as_json: bool) -> int:
    if as_json:
        print_json({"action": action, "count": count, "first": first})
    else:
        ids = ", ".join(map(str, first)) + (", …" if count > len(first) else "")
        told = counted(count, "task") + (": " if first else "")
        typer.echo(f"{action} would concern {told}{ids}; nothing was changed")
    return ExitCode.FINE


def _agreed(action: str, count: int) -> bool:
    if not count:
        return False
    if not sys.stdin.isatty():
        raise InvalidInputError(
            f"{action} would concern {counted(count, 'task')}, and there is nobody to ask: "
            "add --yes, or --dry-run to see them first"
        )
    return typer.confirm(f"{action} {counted(count, 'task')}?", err=True)


def _one_label(labels: list[str] | None) -> str | None:
    if labels is not None and len(labels) > 1:
        raise InvalidInputError(
            f"--label takes one label here, got {', '.join(labels)}: choose by --tag, which takes several"
        )
    return labels[0] if labels else None


def _range(since: str | None, until: str | None) -> dict[str, datetime | None]:
    first, last = _moment("--since", since), _moment("--until", until)
    if first and last and first >= last:
        raise InvalidInputError(f"--since must be before --until, got {since} and {until}")
    return {"since": first, "until": last}


def _moment(option: str, text: str | None) -> datetime | None:
    """An instant as written, the last time it was that time of day, or so long ago."""
    if text is None:
        return None
    now = datetime.now(UTC)
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    try:
        if "-" not in text:
            clock = datetime.strptime(text, "%H:%M").time()  # noqa: DTZ007  (of the day in the local zone)
            moment = datetime.combine(now.astimezone().date(), clock).astimezone()
            return moment if moment <= now else moment - timedelta(days=1)
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise InvalidInputError(f"{option} must be {_MOMENT}, got {text!r}") from None
