"""`asynctaskd config show|set|history|rollback|promote`."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from asynctaskd.cli.config_output import (
    print_config,
    print_history,
    print_preview,
    print_report,
    print_unchanged,
    tell_progress,
)
from asynctaskd.cli.options import AsJson, ConfigFile, Database, Schema
from asynctaskd.cli.output import print_json
from asynctaskd.cli.session import ask, read_config
from asynctaskd.config.assignments import assigned, is_partial
from asynctaskd.config.runtime import RuntimeConfig
from asynctaskd.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from asynctaskd.client import Client
    from asynctaskd.config.convergence import ConfigReport
    from asynctaskd.control.runtime_config import ConfigChange, ConfigFields

# Who waits longer than this is told for whom, in seconds.
_PATIENCE = 2.0

Wait = Annotated[
    bool,
    typer.Option("--wait/--no-wait", help="Wait until all live workers apply it, or print the task's id."),
]
Timeout = Annotated[
    str, typer.Option(metavar="30s", help="How long the workers have to answer, a trial not counted.")
]


def show(
    database: Database = None, schema: Schema = None, config: ConfigFile = None, as_json: AsJson = False
) -> int:
    """Show what holds for all workers, and which of them apply it.

    Exits with 1 if that can't be read, and says what is wrong with it.
    """

    async def shown(client: Client) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        live = [one for one in await client.list_workers() if one["status"] == "live"]
        return await client.runtime_config_history(100), live

    return print_config(*ask(read_config(database, schema, config), shown), as_json=as_json)


def set_fields(
    assignments: Annotated[
        list[str],
        typer.Argument(
            metavar="FIELD=VALUE...",
            help="max_strict_percentage=20 default_weight=2 weights.mail=5 limits.mail=50 paused_labels+=eu",
        ),
    ],
    *,
    expires: Annotated[
        str | None,
        typer.Option(metavar="1h", help="Back to the values of before after this time.", show_default=False),
    ] = None,
    canary: Annotated[
        str | None,
        typer.Option(
            metavar="10m",
            help="Let one worker try it for this time; then all apply it, or it is rolled back.",
            show_default=False,
        ),
    ] = None,
    canary_worker: Annotated[
        str | None, typer.Option(metavar="ID", help="The worker that tries it.", show_default=False)
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Only show the shares and caps that would result.")
    ] = False,
    wait: Wait = True,
    timeout: Timeout = "30s",
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Change the runtime configuration of all workers.

    Fields that aren't named keep their value. weights.LABEL=N and limits.LABEL=N set one entry, and without N
    remove it; weights=a=5,b=1 sets the whole mapping. paused_labels and paused_names are lists: += adds, -=
    removes, and = sets all of it. A field without a value has its default again.

    Exits with 3 if not all live workers have answered by the timeout, and names them.
    """
    how = {"expires": expires, "canary": canary, "canary_worker": canary_worker}
    given = {name: value for name, value in how.items() if value is not None}
    if preview and given:
        raise InvalidInputError("--preview shows what fields come to; leave the other options out")

    async def changed(client: Client) -> int:
        has_entries = any(map(is_partial, assignments))
        now = await client.runtime_config() if has_entries else RuntimeConfig()
        fields = cast("ConfigFields", assigned(assignments, now))
        if preview:
            print_preview(await client.preview_runtime_config(**fields), as_json=as_json)
            return 0
        if not given and all(map(is_partial, assignments)) and await _is_said_already(client, fields, now):
            return print_unchanged(now.version, as_json=as_json)
        change = cast("ConfigChange", fields | given)
        whole = _whole(fields, now) if has_entries else ()
        return await _carry_out(client, change, whole, wait=wait, timeout=timeout, as_json=as_json)

    return ask(read_config(database, schema, config), changed, steers=not preview)


def history(
    limit: Annotated[int, typer.Option(min=1, max=2**31 - 1, help="At most so many, the newest.")] = 20,
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List the versions of the runtime configuration, the newest first."""

    async def listed(client: Client) -> list[dict[str, Any]]:
        return await client.runtime_config_history(limit)

    versions = ask(read_config(database, schema, config), listed)
    if as_json:
        print_json(versions)
    else:
        print_history(versions)


def rollback(
    version: Annotated[
        int | None,
        typer.Argument(
            metavar="[VERSION]",
            min=0,
            help="What to go back to; 0 are the defaults. Left out: the version before.",
            show_default=False,
        ),
    ] = None,
    wait: Wait = True,
    timeout: Timeout = "30s",
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Publish what an earlier version said as a new one."""
    change: ConfigChange = {"rollback_to": "previous" if version is None else version}

    async def changed(client: Client) -> int:
        return await _carry_out(client, change, wait=wait, timeout=timeout, as_json=as_json)

    return ask(read_config(database, schema, config), changed)


def promote(
    wait: Wait = True,
    timeout: Timeout = "30s",
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Let all workers apply now what one of them is trying (`config set --canary`)."""

    async def changed(client: Client) -> int:
        return await _carry_out(client, {"promote": True}, wait=wait, timeout=timeout, as_json=as_json)

    return ask(read_config(database, schema, config), changed)


async def _carry_out(
    client: Client,
    change: ConfigChange,
    notes: Iterable[str] = (),
    *,
    wait: bool,
    timeout: str,
    as_json: bool,
) -> int:
    task_id = await client.request_runtime_config(timeout=timeout, **change)
    for note in notes:
        typer.echo(note, err=True)
    if not wait:
        print_json({"id": task_id} if as_json else task_id)
        return 0
    return print_report(await _awaited(client, task_id), as_json=as_json)


async def _awaited(client: Client, task_id: int) -> ConfigReport:
    waiting = asyncio.create_task(client.runtime_config_report(task_id))
    while not (await asyncio.wait({waiting}, timeout=_PATIENCE))[0]:
        tell_progress(await client.runtime_config_report(task_id, timedelta()))
    return await waiting


async def _is_said_already(client: Client, fields: Mapping[str, Any], now: RuntimeConfig) -> bool:
    """Whether it is as it was. Not where something is to expire: that stays for good by being said again."""
    if any(value != getattr(now, name) for name, value in fields.items()):
        return False
    versions = await client.runtime_config_history(100)
    return all(one["expires_at"] is None or one["expired_at"] is not None for one in versions)


def _whole(fields: Mapping[str, Any], now: RuntimeConfig) -> Iterator[str]:
    """An entry can't be written alone: whoever changes the same field at the same moment may be overruled."""
    for name, value in fields.items():
        if isinstance(value, dict | list) and value != getattr(now, name):
            yield f"{name}, as of version {now.version}, is written as a whole"
