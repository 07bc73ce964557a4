"""`asynctaskd demo`."""

from __future__ import annotations

import asyncio
import io
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from asynctaskd.cli.failures import ExitCode
from asynctaskd.cli.output import console, print_json
from asynctaskd.config import EMBEDDED

if TYPE_CHECKING:
    from asynctaskd.cli.demo_summary import Summary
    from asynctaskd.cli.demo_view import View


def demo(
    database: Annotated[
        str,
        typer.Option(
            help='A PostgreSQL URL, or "embedded": a private server. What the configuration says does not '
            "count. The schema asynctaskd_demo is made anew; no other one is touched."
        ),
    ] = EMBEDDED,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print nothing but a summary, as one JSON object.")
    ] = False,
) -> int:
    """Watch two workers index Python's standard library, in under a minute.

    It shows weighted groups, an urgent lane, retries, a failure and its hook, and a transaction rolled back;
    weights that change while it runs, and a tree of tasks that is cancelled, with every worker's answer.
    The exit code is 0 only if every task ended as it should.
    """
    summary = _perform(database, as_json=as_json)
    if as_json:
        print_json(summary.as_json())
    else:
        _show(summary, database)
    return ExitCode.FINE if summary.is_well else ExitCode.FAILED


def _perform(database: str, *, as_json: bool) -> Summary:
    from asynctaskd.cli.demo_files import DemoFailedError  # noqa: PLC0415  (no other command needs them)
    from asynctaskd.cli.demo_setup import perform  # noqa: PLC0415

    try:
        return asyncio.run(perform(database, _view(as_json=as_json)))
    except DemoFailedError as error:
        typer.echo(error.log, err=True, nl=bool(error.log))
        raise
    except asyncio.CancelledError:  # a signal, after which all was stopped in order
        raise KeyboardInterrupt from None


def _view(*, as_json: bool) -> View:
    from asynctaskd.cli.demo_view import LiveView, PlainView, SilentView  # noqa: PLC0415

    if as_json:
        return SilentView()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without dashes and ticks gets question marks
    out = console()
    return LiveView(out) if out.is_terminal else PlainView(out)


def _show(summary: Summary, database: str) -> None:
    from asynctaskd.cli.demo_summary import show  # noqa: PLC0415

    show(console(), summary, database)
