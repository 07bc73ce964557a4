"""`asynctaskd dashboard`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asynctaskd.cli.options import ConfigFile, Database, DecodingApp, Schema, setting_help
from asynctaskd.cli.session import app_given, find_database, warn_of_exposed, warn_of_password
from asynctaskd.config import load_config
from asynctaskd.config.values import without_brackets
from asynctaskd.definitions.extras import DASHBOARD, require_extra
from asynctaskd.errors import ConfigError
from asynctaskd.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from asynctaskd.config.daemon import LogConfig

_HOST, _PORT = "127.0.0.1", 9480


def dashboard(
    host: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help=f"The address to answer at ({_HOST}).", show_default=False),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help=f"The port ({_PORT}); 0 takes any that is free.", show_default=False
        ),
    ] = None,
    *,
    write: Annotated[
        bool, typer.Option("--write", help="Let tasks, schedules and the configuration be changed.")
    ] = False,
    show_payloads: Annotated[
        bool | None, typer.Option("--show-payloads", help=setting_help("dashboard.show_payloads"))
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=setting_help("dashboard.token_file"), show_default=False),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help=setting_help("dashboard.hosts"), show_default=False),
    ] = None,
    app: DecodingApp = None,
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
) -> None:
    """Serve the dashboard: what waits, runs and fails, and why.

    Without tokens it answers to this machine alone, and to everybody there. It changes nothing unless it was
    started with --write.
    """
    require_extra("dashboard", DASHBOARD)
    from asynctaskd.web.dashboard.configured import configured  # noqa: PLC0415  (it is an extra)

    warn_of_password(database)
    flags: dict[str, object] = {
        "database.url": database,
        "database.schema": schema,
        "dashboard.token_file": token_file,
        "dashboard.show_payloads": show_payloads,
        "dashboard.hosts": allow_host or None,
    }
    settings = load_config(config, os.environ, flags)
    warn_of_exposed(settings)
    known = app_given(app)
    address = without_brackets(host or _HOST)
    site = configured(settings, find_database(settings), host=address, may_write=write, app=known)
    _serve(
        site,
        address,
        _PORT if port is None else port,
        note="" if write else " (read only; --write lets it change things)",
        log=settings.log,
    )


def _serve(site: Starlette, host: str, port: int, *, note: str, log: LogConfig) -> None:
    import uvicorn  # noqa: PLC0415  (it takes a while to import)

    from asynctaskd.web.server import BoundedProtocol, listen  # noqa: PLC0415  (so does this)

    try:
        listener = listen(host, port)
    except OSError as error:
        because = error.strerror or error
        raise ConfigError(f"the dashboard can't answer at {host}, port {port}: {because}") from error
    with listener:
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"dashboard at http://{shown}:{listener.getsockname()[1]}/{note}", err=True)
        configure_logging(log.level, log.format)
        # Its own log would have a line for each look.
        settings = uvicorn.Config(
            site, http=BoundedProtocol, log_level="warning", access_log=False, server_header=False
        )
        uvicorn.Server(settings).run(sockets=[listener])
