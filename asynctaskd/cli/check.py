"""`asynctaskd check`."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from asynctaskd.cli.failures import ExitCode
from asynctaskd.cli.options import AsJson, ConfigFile, Database, Schema
from asynctaskd.cli.output import console, print_json, printable
from asynctaskd.cli.probes import CHECKS, FAILURE, REACHABLE, WARNING, Finding, examine
from asynctaskd.cli.probes.timing import read_stop_timeout
from asynctaskd.cli.session import find_database, read_config
from asynctaskd.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctaskd.config import DaemonConfig

_STYLES = {WARNING: "yellow", FAILURE: "red"}
_WIDTH = max(map(len, CHECKS))


def check(
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    stop_timeout: Annotated[
        str | None,
        typer.Option(
            "--stop-timeout",
            metavar="DURATION",
            help="How long a worker that was told to stop is waited for before it is killed: TimeoutStopSec "
            "of its unit, terminationGracePeriodSeconds of its pod.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """See whether configuration and database suit each other.

    Prints one line a finding: ok, warning or failure, with what to do. Exits with 0 without a failure, 1
    with one, and 69 if the database can't be reached.
    """
    settings = read_config(database, schema, config)
    limit = None if stop_timeout is None else read_stop_timeout(stop_timeout)
    findings: list[Finding] = []
    show = findings.append if as_json else _shower(findings)
    _examine(settings, limit, show)
    if as_json:
        print_json([finding.as_json() for finding in findings])
    return _exit_code(findings)


def _examine(config: DaemonConfig, limit: timedelta | None, show: Callable[[Finding], None]) -> None:
    try:
        dsn = find_database(config)
    except DatabaseUnavailableError as error:  # the embedded server doesn't come up
        show(Finding.unreachable(error))
    else:
        asyncio.run(_show_each(dsn, config, limit, show))


async def _show_each(
    dsn: str, config: DaemonConfig, limit: timedelta | None, show: Callable[[Finding], None]
) -> None:
    async with aclosing(examine(dsn, config, stop_timeout=limit, tell=_tell)) as findings:
        async for finding in findings:
            show(finding)


def _tell(check: str) -> None:
    typer.echo(f"looking at {check} …", err=True)


def _shower(findings: list[Finding]) -> Callable[[Finding], None]:
    """What prints each finding as it comes, and notes it."""
    from rich.text import Text  # noqa: PLC0415  (JSON doesn't need it)

    out = console()

    def show(finding: Finding) -> None:
        findings.append(finding)
        status = Text(f"{finding.status:<8}", _STYLES.get(finding.status, "green"))
        remedy = f"; {finding.remedy}" if finding.remedy else ""
        out.print(status, printable(f"{finding.check:<{_WIDTH}} {finding.message}{remedy}"), soft_wrap=True)

    return show


def _exit_code(findings: list[Finding]) -> ExitCode:
    failed = {finding.check for finding in findings if finding.status == FAILURE}
    if REACHABLE in failed:
        return ExitCode.UNAVAILABLE
    return ExitCode.FAILED if failed else ExitCode.FINE
