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
from asynctaskd.cli.output import counted, print_json, print_table, printable
from asynctaskd.cli.session import find_database, read_config
from asynctaskd.control.open_payloads import OpenPayloads, PayloadReport
from asynctaskd.errors import InvalidInputError
from asynctaskd.postgres.driver import connect

if TYPE_CHECKING:
    from asynctaskd.config import DaemonConfig
    from asynctaskd.definitions.registry import Registry
    from asynctaskd.definitions.spec.changes import Change
    from asynctaskd.definitions.spec.losses import Losses
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

    Exits with 1 where some couldn't, or where values in the queue would be dropped.
    """
    if new is None and not against_db:
        raise InvalidInputError(
            "one file can only be compared with the queue: give another one, or --against-db"
        )
    specs = [read_spec(path) for path in (old, new) if path is not None]
    changes, warnings = _compare(*specs) if new is not None else ([], [])
    report = _read_queue(read_config(database, schema, config), specs) if against_db else None
    if as_json:
        print_json(_as_json(changes, warnings, report))
    else:
        _print(changes, warnings, report)
    is_bad = changes if report is None else report.unreadable or report.dropped
    return ExitCode.FAILED if is_bad else ExitCode.FINE


def _compare(old: Spec, new: Spec) -> tuple[list[Change], list[Change]]:
    """What payloads may not survive, and what they may lose."""
    from asynctaskd.definitions.spec.changes import breaking_changes  # noqa: PLC0415  (an extra)
    from asynctaskd.definitions.spec.losses import properties_lost  # noqa: PLC0415

    return breaking_changes(old, new), properties_lost(old, new)


def _read_queue(config: DaemonConfig, specs: list[Spec]) -> PayloadReport:
    from asynctaskd.definitions.codegen.loading import app_of  # noqa: PLC0415  (an extra)
    from asynctaskd.definitions.spec.losses import Losses  # noqa: PLC0415

    new = specs[-1]
    app, dsn = app_of(new), find_database(config)
    losses = Losses(specs[0] if len(specs) > 1 else None, new)
    report = asyncio.run(_ask(dsn, config.database.schema_name, app, losses))
    if len(specs) > 1:
        # What neither file defines is declared elsewhere.
        ours = {task.name for spec in specs for task in spec.tasks}
        report.unreadable = [one for one in report.unreadable if one.name in ours]
    return report


async def _ask(dsn: str, schema: str, app: Registry, losses: Losses) -> PayloadReport:
    async with connect(dsn) as connection:
        payloads = OpenPayloads(connection, schema=schema)
        return await payloads.read_by(app, lost=losses.of, progress=_Progress())


class _Progress:
    """Says now and then how many tasks were looked at, where it takes long."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, checked: int) -> None:
        if time.monotonic() - self._told >= _PATIENCE:
            self._told = time.monotonic()
            typer.echo(f"{counted(checked, 'task')} read …", err=True)


def _as_json(changes: list[Change], warnings: list[Change], report: PayloadReport | None) -> dict[str, Any]:
    nothing = {"checked": None, "unreadable": None, "dropped": None}
    return {
        "changes": [asdict(change) for change in changes],
        "warnings": [asdict(warning) for warning in warnings],
        **(nothing if report is None else asdict(report)),
    }


def _print(changes: list[Change], warnings: list[Change], report: PayloadReport | None) -> None:
    for warning in warnings:
        typer.echo(printable(f"warning: {warning.task}: {warning.field} {warning.problem}"), err=True)
    if changes:
        print_table(("TASK", "FIELD", "CHANGE"), ((c.task, c.field, c.problem) for c in changes), fixed=3)
    if report is not None:
        _print_report(report)
    elif not changes:
        but = ", though not all that is in it" if warnings else ""
        typer.echo(f"every payload of the old file can be read by the new one{but}")


def _print_report(report: PayloadReport) -> None:
    concerned = report.unreadable + report.dropped
    if concerned:
        rows = ((one.name, one.count, one.ids, one.problem) for one in concerned)
        print_table(("TASK", "TASKS", "IDS", "PROBLEM"), rows, fixed=4)
    unreadable = sum(one.count for one in report.unreadable)
    but = "; values of others are dropped" if report.dropped else ""
    typer.echo(f"{counted(report.checked, 'task')} read, {unreadable:,} of them can't be read any more{but}")
