"""The dashboard as the configuration wants it, or an error that says why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctaskd.errors import ConfigError
from asynctaskd.web.dashboard import dashboard
from asynctaskd.web.dashboard.access import Tokens, is_loopback

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from asynctaskd.config import DaemonConfig
    from asynctaskd.config.daemon import DashboardConfig
    from asynctaskd.definitions.registry import Registry

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def configured(
    config: DaemonConfig, dsn: str, *, host: str, may_write: bool, app: Registry | None = None
) -> Starlette:
    """An application for an address.

    Raises:
        ConfigError: anybody could reach it there, and no token is needed; or a token can't be read.
    """
    tokens = read_tokens(config.dashboard)
    if not tokens and not is_loopback(host):
        raise ConfigError(
            f"the dashboard at {host} could be reached by anybody: name those who are let in with "
            "dashboard.token_file (--token-file) or dashboard.tokens, or serve it at 127.0.0.1"
        )
    # A login belongs to a name, so that a foreign name gets nowhere; without logins there are only these.
    hosts = None if tokens else {*_THIS_MACHINE, host.strip("[]").lower(), *config.dashboard.hosts}
    return dashboard(
        dsn,
        app,
        schema=config.database.schema_name,
        tokens=tokens,
        may_write=may_write,
        shows_payloads=config.dashboard.show_payloads,
        hosts=hosts,
    )


def read_tokens(config: DashboardConfig) -> Tokens:
    """The tokens of the file and of the variable.

    Raises:
        ConfigError: the file can't be read, or a line breaks a rule.
    """
    found = Tokens()
    if config.token_file is not None:
        try:
            text = config.token_file.read_text("utf8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"dashboard.token_file {config.token_file} can't be read: {error}") from None
        found = found.and_those(Tokens.read(text, f"dashboard.token_file {config.token_file}"))
    if config.tokens is not None:
        found = found.and_those(Tokens.read(config.tokens.get_secret_value(), "dashboard.tokens"))
    return found
