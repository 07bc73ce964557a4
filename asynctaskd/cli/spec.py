"""`asynctaskd spec diff`."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asynctaskd.cli.failures import ExitCode
from asynctaskd.cli.generate import read_spec
from asynctaskd.cli.options import AsJson, ConfigFile, Database, Schema
from asynctaskd.cli.output import counted, print_json, print_table
from asynctaskd.cli.session import find_database, read_config
from asynctaskd.control.open_payloads import OpenPayloads, PayloadReport
from asynctaskd.errors import InvalidInputError
from asynctaskd.postgres.driver import connect

if TYPE_CHECKING:
    from asynctaskd.config import DaemonConfig
    from asynctaskd.definitions.registry import Registry
    from asynctaskd.definitions.spec.changes import Change
    from asynctaskd.definitions.spec.spec import Spec

# In seconds: what takes longer says how far it is.
_PATIENCE = 2.0

Old = Annotated[Path, typer.Argument(metavar="OLD", help="The file as it was; the new one, if it is alone.")]
New = Annotated[Path | None, typer.Argument(metavar="NEW", help="The file as it is to be.")]
AgainstDatabase = Annotated[
    bool, typer.Option("--against-db", help="Decide by reading the tasks that are in the queue now.")
]


def diff(
    old: Old,
    new: New = None,
    against_db: AgainstDatabase = False,
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> ExitCode:
    """See whether tasks that were enqueued could still be read after a change.

    Exits with 1 where some couldn't.
    """
    if new is None and not against_db:
        raise InvalidInputError(
            "one file can only be compared with the queue: give another one, or --against-db"
        )
    specs = [read_spec(path) for path in (old, new) if path is not None]
    changes = _changes(*specs) if new is not None else []
    report = _read_queue(read_config(database, schema, config), specs) if against_db else None
    if as_json:
        print_json(_as_json(changes, report))
    else:
        _print(changes, report)
    return ExitCode.FAILED if (changes if report is None else report.unreadable) else ExitCode.FINE


def _changes(old: Spec, new: Spec) -> list[Change]:
    from asynctaskd.definitions.spec.changes import breaking_changes  # noqa: PLC0415  (an extra)

    return breaking_changes(old, new)


def _read_queue(config: DaemonConfig, specs: list[Spec]) -> PayloadReport:
    from asynctaskd.definitions.codegen.loading import app_of  # noqa: PLC0415  (an extra)

    app, dsn = app_of(specs[-1]), find_database(config)
    report = asyncio.run(_ask(dsn, config.database.schema_name, app))
    if len(specs) > 1:
        # What neither file defines is declared elsewhere.
        ours = {task.name for spec in specs for task in spec.tasks}
        report.unreadable = [one for one in report.unreadable if one.name in ours]
    return report


async def _ask(dsn: str, schema: str, app: Registry) -> PayloadReport:
    async with connect(dsn) as connection:
        return await OpenPayloads(connection, schema=schema).read_by(app, progress=_Progress())


class _Progress:
    """Says now and then how many tasks were looked at, where it takes long."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, checked: int) -> None:
        if time.monotonic() - self._told >= _PATIENCE:
            self._told = time.monotonic()
            typer.echo(f"{counted(checked, 'task')} read …", err=True)


def _as_json(changes: list[Change], report: PayloadReport | None) -> dict[str, Any]:
    read = {"checked": None, "unreadable": None} if report is None else asdict(report)
    return {"changes": [asdict(change) for change in changes], **read}


def _print(changes: list[Change], report: PayloadReport | None) -> None:
    if changes:
        print_table(("TASK", "FIELD", "CHANGE"), ((c.task, c.field, c.problem) for c in changes), fixed=3)
    if report is None:
        typer.echo(
            "" if changes else "every payload of the old file can be read by the new one", nl=not changes
        )
        return
    rows = ((one.name, one.count, one.ids, one.problem) for one in report.unreadable)
    if report.unreadable:
        print_table(("TASK", "TASKS", "IDS", "PROBLEM"), rows, fixed=4)
    unreadable = sum(one.count for one in report.unreadable)
    typer.echo(f"{counted(report.checked, 'task')} read, {unreadable:,} of them can't be read any more")
