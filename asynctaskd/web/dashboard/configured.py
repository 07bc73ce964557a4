"""The dashboard as the configuration wants it, or an error that says why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctaskd.errors import ConfigError
from asynctaskd.web.dashboard import dashboard
from asynctaskd.web.dashboard.access import is_loopback
from asynctaskd.web.dashboard.token_file import CurrentTokens

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from asynctaskd.config import DaemonConfig
    from asynctaskd.definitions.registry import Registry

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def configured(
    config: DaemonConfig, dsn: str, *, host: str, may_write: bool, app: Registry | None = None
) -> Starlette:
    """An application for an address.

    Raises:
        ConfigError: anybody could reach it there, and no token is needed; or a token can't be read.
    """
    tokens = admitted(config, host)
    # A login belongs to a name, so that a foreign name gets nowhere; without logins there are only these.
    hosts = {*_THIS_MACHINE, host.strip("[]").lower(), *config.dashboard.hosts} if not tokens() else None
    return dashboard(
        dsn,
        app,
        schema=config.database.schema_name,
        tokens=tokens,
        may_write=may_write,
        shows_payloads=config.dashboard.show_payloads,
        hosts=hosts,
    )


def admitted(config: DaemonConfig, host: str) -> CurrentTokens:
    """Who is let in at an address; without tokens it is everybody there.

    Raises:
        ConfigError: as `configured` does.
    """
    tokens = CurrentTokens(config.dashboard)
    if not tokens() and not is_loopback(host):
        raise ConfigError(
            f"the dashboard at {host} could be reached by anybody: name those who are let in with "
            "dashboard.token_file (--token-file) or dashboard.tokens, or serve it at 127.0.0.1"
        )
    return tokens
