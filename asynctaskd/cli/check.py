"""`asynctaskd check`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asynctaskd.cli.failures import ExitCode
from asynctaskd.cli.options import AsJson, ConfigFile, Database, Schema
from asynctaskd.cli.output import console, print_json
from asynctaskd.cli.probes import FAILURE, REACHABLE, WARNING, Finding, probe
from asynctaskd.cli.session import find_database, read_config
from asynctaskd.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from asynctaskd.config import DaemonConfig

_STYLES = {WARNING: "yellow", FAILURE: "red"}


def check(
    database: Database = None, schema: Schema = None, config: ConfigFile = None, as_json: AsJson = False
) -> int:
    """See whether configuration and database suit each other.

    Prints one line a finding: ok, warning or failure, with what to do. Exits with 0 without a failure, 1
    with one, and 69 if the database can't be reached.
    """
    findings = _found(read_config(database, schema, config))
    if as_json:
        print_json([finding.as_json() for finding in findings])
    else:
        _print(findings)
    return _exit_code(findings)


def _found(config: DaemonConfig) -> list[Finding]:
    try:
        dsn = find_database(config)
    except DatabaseUnavailableError as error:  # the embedded server doesn't come up
        return [Finding.unreachable(error)]
    return asyncio.run(probe(dsn, config))


def _print(findings: list[Finding]) -> None:
    from rich.text import Text  # noqa: PLC0415  (JSON doesn't need it)

    out = console()
    for finding in findings:
        status = Text(f"{finding.status:<8}", _STYLES.get(finding.status, "green"))
        remedy = f"; {finding.remedy}" if finding.remedy else ""
        out.print(status, f"{finding.check:<11} {finding.message}{remedy}", soft_wrap=True)


def _exit_code(findings: list[Finding]) -> ExitCode:
    failed = {finding.check for finding in findings if finding.status == FAILURE}
    if REACHABLE in failed:
        return ExitCode.UNAVAILABLE
    return ExitCode.FAILED if failed else ExitCode.FINE
