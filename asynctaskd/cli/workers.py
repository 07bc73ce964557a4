"""`asynctaskd workers`."""

from __future__ import annotations

from typing import Any

from asynctaskd.cli.options import AsJson, ConfigFile, Database, Schema
from asynctaskd.cli.output import print_json, print_table
from asynctaskd.cli.session import ask, read_config
from asynctaskd.client import Client


def workers(
    database: Database = None, schema: Schema = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """List the workers, the newest first.

    A worker is live while its lease holds, stopped where it said goodbye, and lost otherwise; where a task
    blocks its event loop, or somebody saw it die, that is said instead. CONFIG is the version of the runtime
    configuration that it applies.
    """
    known = ask(read_config(database, schema, config), Client.list_workers)
    if as_json:
        print_json(known)
        return
    rows = (
        (
            row["id"],
            _status(row),
            f"{row['running']}/{row['concurrency']}",
            _config(row),
            _place(row),
            row["labels"],
        )
        for row in known
    )
    print_table(("ID", "STATUS", "SLOTS", "CONFIG", "HOST", "LABELS"), rows, fixed=1)


def _status(row: dict[str, Any]) -> str:
    if row["status"] == "live" and row["stall"]:
        return f"blocked {row['stall']['seconds']:.0f} s by {row['stall']['task']}"
    return row["lost_because"] or str(row["status"])


def _config(row: dict[str, Any]) -> str:
    """Which version of the runtime configuration it applies, and which newer one it couldn't read."""
    applied, rejected = row["applied_config_version"], row["rejected_config_version"]
    if rejected is None or rejected <= applied:
        return str(applied)
    return f"{applied}, rejected {rejected}: {row['rejected_because']}"


def _place(row: dict[str, object]) -> str:
    return f"{row['hostname']}:{row['pid']}"
