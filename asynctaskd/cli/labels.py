"""`asynctaskd labels list|set`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asynctaskd.cli.config import Timeout, Wait, set_fields
from asynctaskd.cli.options import AsJson, ConfigFile, Database, Schema
from asynctaskd.cli.output import print_json, print_table
from asynctaskd.cli.session import ask, read_config
from asynctaskd.client import Client
from asynctaskd.errors import InvalidInputError

if TYPE_CHECKING:
    from asynctaskd.control.fleet import Overview

# Column → field of the runtime configuration.
_FIELDS: Mapping[str, str] = {
    "weight": "weights",
    "max_running": "limits",
    "max_run_time": "max_run_times",
    "max_attempts": "max_attempts",
}


def _option(flag: str, metavar: str, what: str) -> Any:
    return typer.Option(flag, metavar=metavar, help=f"{what}; an empty text for none.", show_default=False)


def list_labels(
    database: Database = None, schema: Schema = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """List the labels of which the runtime configuration says something.

    RUNNING is how many tasks of a label with MAX RUNNING run now in the whole fleet.
    """
    rows = _rows(ask(read_config(database, schema, config), Client.overview))
    if as_json:
        print_json(rows)
        return
    columns = ("LABEL", "WEIGHT", "RUNNING", "MAX RUNNING", "MAX RUN TIME", "MAX ATTEMPTS", "PAUSED")
    print_table(columns, ([_cell(value) for value in row.values()] for row in rows), fixed=1)


def set_label(
    label: Annotated[str, typer.Argument(help="The label.", show_default=False)],
    weight: Annotated[str | None, _option("--weight", "N", "Its share of the normal lane")] = None,
    max_running: Annotated[
        str | None, _option("--max-running", "N", "How many of its tasks run at once in the whole fleet")
    ] = None,
    max_run_time: Annotated[
        str | None, _option("--max-run-time", "1h", "How long one execution of its tasks may take")
    ] = None,
    max_attempts: Annotated[
        str | None, _option("--max-attempts", "N", "How often its tasks are run, retries included")
    ] = None,
    *,
    expires: Annotated[
        str | None,
        typer.Option(metavar="1h", help="Back to the values of before after this time.", show_default=False),
    ] = None,
    wait: Wait = True,
    timeout: Timeout = "30s",
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Change what the runtime configuration says of a label.

    Exits with 3 if not all live workers have answered by the timeout, and names them.
    """
    given = {
        "weight": weight,
        "max_running": max_running,
        "max_run_time": max_run_time,
        "max_attempts": max_attempts,
    }
    changes = [f"{_FIELDS[name]}.{label}={value}" for name, value in given.items() if value is not None]
    if not changes:
        raise InvalidInputError(f"nothing is said of {label}: give at least one of its limits, or a weight")
    return set_fields(
        changes,
        expires=expires,
        wait=wait,
        timeout=timeout,
        database=database,
        schema=schema,
        config=config,
        as_json=as_json,
    )


def _rows(overview: Overview) -> list[dict[str, Any]]:
    now = overview.config
    running = {one.label: one.running for one in overview.limits}
    fields = {column: getattr(now, field) for column, field in _FIELDS.items()}
    labels = sorted({*now.paused_labels, *(label for field in fields.values() for label in field)})
    return [
        {
            "label": label,
            "weight": fields["weight"].get(label),
            "running": running.get(label),
            "max_running": fields["max_running"].get(label),
            "max_run_time": fields["max_run_time"].get(label),
            "max_attempts": fields["max_attempts"].get(label),
            "paused": label in now.paused_labels,
        }
        for label in labels
    ]


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else value
