"""`asynctaskd release`: say that a worker is gone, so that its tasks needn't wait for its lease."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from asynctaskd.cli.failures import ExitCode, complain
from asynctaskd.cli.options import AsJson, ConfigFile, Database, Schema
from asynctaskd.cli.output import print_json, print_table
from asynctaskd.cli.session import find_database, read_config
from asynctaskd.daemon.proof import Fate, fate_of
from asynctaskd.daemon.witness import put_back
from asynctaskd.postgres.store import Store

if TYPE_CHECKING:
    from asynctaskd.postgres.records import Namesake


def release(
    worker: Annotated[
        UUID,
        typer.Option("--worker", metavar="ID", help="A worker.id, or an id that `asynctaskd workers` shows."),
    ],
    force: Annotated[
        bool,
        typer.Option("--force", help="Also where that can't be seen from here: you say that it is gone."),
    ] = False,
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Put back the tasks of a worker that is gone, at once instead of at the end of its lease.

    A worker that still runs is refused. Made for ExecStopPost= of a systemd unit.
    """
    settings = read_config(database, schema, config)
    released, refused = asyncio.run(
        _release(find_database(settings), settings.database.schema_name, worker, force=force)
    )
    if as_json:
        print_json(released)
    elif released:
        rows = ((row["worker_id"], f"{row['hostname']}:{row['pid']}", row["tasks"]) for row in released)
        print_table(("WORKER", "HOST", "TASKS"), rows, fixed=3)
    elif not refused:
        typer.echo(f"nothing to release: no worker of {worker} is left that hasn't stopped", err=True)
    for reason in refused:
        complain(reason)
    return ExitCode.FAILED if refused else ExitCode.FINE


async def _release(
    dsn: str, schema: str, name: UUID, *, force: bool
) -> tuple[list[dict[str, object]], list[str]]:
    """What was released, and why other workers of that name weren't."""
    store = await Store.open(dsn, schema=schema, connections=1)
    try:
        found = [(one, fate_of(one.process, one.place)) for one in await store.find_workers(name)]
        gone = [one for one, fate in found if fate is Fate.GONE]
        believed = [one for one, fate in found if fate is Fate.UNKNOWN and force]
        tasks = await _put_back(store, gone, death_told_by_systemd(os.environ) or "its process is gone")
        tasks |= await _put_back(store, believed, "an operator said that it is gone")
    finally:
        await store.close()
    refused = [_refusal(one, fate) for one, fate in found if one not in (*gone, *believed)]
    return [_row(one, tasks.get(one.id, 0)) for one in (*gone, *believed)], refused


async def _put_back(store: Store, workers: list[Namesake], because: str) -> dict[UUID, int]:
    return await put_back(store, [one.id for one in workers], because) if workers else {}


def _row(worker: Namesake, tasks: int) -> dict[str, object]:
    return {"worker_id": worker.id, "hostname": worker.hostname, "pid": worker.pid, "tasks": tasks}


def _refusal(worker: Namesake, fate: Fate) -> str:
    if fate is Fate.ALIVE:
        return (
            f"worker {worker.id} still runs here, as process {worker.pid}, or a fork of that process does: "
            f"end it (kill {worker.pid}), then release it"
        )
    return (
        f"worker {worker.id} ran as process {worker.pid} on {worker.hostname}, and from here nobody can tell "
        "whether it still does: release it there, or say with --force that it is gone"
    )


def death_told_by_systemd(environ: Mapping[str, str]) -> str | None:
    """How a unit's main process ended, from what systemd tells ExecStopPost=; None outside of it."""
    result, how, status = (environ.get(name) for name in ("SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS"))
    if not result:
        return None
    if not how or not status:
        return f"systemd: {result}"
    death = f"exited with code {status}" if how == "exited" else f"killed by SIG{status.removeprefix('SIG')}"
    return f"{death} (systemd: {result})"
