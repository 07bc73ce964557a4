"""From the options of a command to a configuration, and to a client that answers one question."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, TypeVar

import typer
from typing_extensions import override

from asynctaskd.client import Client
from asynctaskd.config import DaemonConfig, load_config
from asynctaskd.config.exposure import REMEDY, exposed_files
from asynctaskd.control.looking import Looking
from asynctaskd.definitions.loader import load_app
from asynctaskd.postgres import embedded
from asynctaskd.postgres.driver import connect
from asynctaskd.postgres.urls import has_password, require_readable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from asynctaskd.definitions.registry import Registry
    from asynctaskd.postgres.connection import Connection

Answer = TypeVar("Answer")


class Reader(Looking, Client):
    """A client that tells a viewer's login what that may read.

    Args:
        steers: whether what it reads is for a change, which takes an operator's rights.
    """

    def __init__(
        self, database: Connection, app: Registry | None = None, *, schema: str, steers: bool = False
    ) -> None:
        super().__init__(database, app, schema=schema)
        self._steers = steers

    @override
    def _role_for(self, statement: str) -> str:
        return f"{self._schema}_operator" if self._steers else super()._role_for(statement)


def read_config(
    database: str | None, schema: str | None, path: Path | None, **worker: str | None
) -> DaemonConfig:
    """The configuration of this command: flags over the environment over the file over the defaults.

    `worker` are flags of the section `worker` by name.

    Raises:
        ConfigError: something in it is wrong; each line of the message is one problem.
    """
    warn_of_password(database)
    flags: dict[str, object] = {"database.url": database, "database.schema": schema}
    return load_config(path, os.environ, flags | {f"worker.{name}": value for name, value in worker.items()})


def warn_of_password(database: str | None) -> None:
    """Say so where `--database` shows a password to everybody on this machine."""
    if database is not None and has_password(database):
        typer.echo(
            "warning: everybody on this machine can read the password in --database while this runs: "
            "give the URL in ASYNCTASKD_DATABASE_URL, or --database file:PATH of a file that holds it",
            err=True,
        )


def warn_of_exposed(config: DaemonConfig) -> None:
    """Say so where everybody on this machine can read a file that holds a secret."""
    for one in exposed_files(config):
        typer.echo(f"warning: everybody on this machine can read {one}: {REMEDY}", err=True)


def find_database(config: DaemonConfig, *, progress: Callable[[str], None] | None = None) -> str:
    """A DSN to connect with; starts the embedded server where the configuration asks for it.

    Raises:
        ConfigError: no database is configured, its file can't be read, or the embedded server isn't
            installed.
        DatabaseUnavailableError: the embedded server doesn't come up.
    """
    url = config.database.require_url()
    require_readable(url)
    return embedded.resolve(url, progress=progress or _tell)


def app_given(path: str | None) -> Registry | None:
    """The App that `--app` names, if it was given; raises ConfigError like `load_app`."""
    return None if path is None else load_app(path)


def ask(
    config: DaemonConfig,
    question: Callable[[Reader], Awaitable[Answer]],
    *,
    app: Registry | None = None,
    steers: bool = False,
) -> Answer:
    """Connect, put a question to a client, and return its answer; raises what the client raises.

    `steers` says that a question which only reads at first is about a change.
    """

    async def asked(dsn: str) -> Answer:
        async with connect(dsn) as connection:
            return await question(Reader(connection, app, schema=config.database.schema_name, steers=steers))

    return asyncio.run(asked(find_database(config)))


def _tell(sentence: str) -> None:
    typer.echo(f"{sentence} …", err=True)
