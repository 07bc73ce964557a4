"""`asynctaskd workers`."""

from __future__ import annotations

from asynctaskd.cli.options import AsJson, ConfigFile, Database, Schema
from asynctaskd.cli.output import print_json, print_table
from asynctaskd.cli.session import ask, read_config
from asynctaskd.client import Client


def workers(
    database: Database = None, schema: Schema = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """List the workers, the newest first.

    A worker is live while its lease holds, stopped where it said goodbye, and lost otherwise.
    """
    known = ask(read_config(database, schema, config), Client.list_workers)
    if as_json:
        print_json(known)
        return
    rows = (
        (row["id"], row["status"], f"{row['running']}/{row['concurrency']}", _place(row), row["labels"])
        for row in known
    )
    print_table(("ID", "STATUS", "SLOTS", "HOST", "LABELS"), rows, fixed=3)


def _place(row: dict[str, object]) -> str:
    return f"{row['hostname']}:{row['pid']}"
