"""The tokens of a file that changes: read again by whoever asks next."""

from __future__ import annotations

import time
from hashlib import sha256
from typing import TYPE_CHECKING

from asynctaskd.errors import ConfigError
from asynctaskd.telemetry.events import emit
from asynctaskd.web.dashboard.access import Tokens

if TYPE_CHECKING:
    from pathlib import Path

    from asynctaskd.config.daemon import DashboardConfig

# In seconds: nobody looks at the file more often than that.
_PAUSE = 1.0


class CurrentTokens:
    """Who is let in now. Called at each request, it reads the file again where that has changed.

    A file that can't be read, was emptied or breaks a rule changes nothing, and the log says why: it may just
    be being written, and without tokens everybody would be let in.

    Raises:
        ConfigError: the tokens can't be read at the beginning.
    """

    def __init__(self, config: DashboardConfig) -> None:
        self._config = config
        self._content = _content_of(config.token_file)
        self._tokens = read_tokens(config)
        self._next_look = time.monotonic() + _PAUSE

    def __call__(self) -> Tokens:
        """The tokens."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _PAUSE
            self._look()
        return self._tokens

    def _look(self) -> None:
        # Before it is read: what comes in meanwhile is seen next.
        content = _content_of(self._config.token_file)
        if content == self._content:
            return
        self._content = content
        try:
            self._tokens = read_tokens(self._config)
        except ConfigError as error:
            emit("dashboard_tokens.refused", error=f"{error}; those that were read before hold")
        else:
            emit("dashboard_tokens.read")


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


def _content_of(path: Path | None) -> bytes | None:
    """What differs where a file holds something else; None: there is none, or it is closed to us.

    Its times don't tell: before Linux 6.13 they stand still for milliseconds, and whoever looks at a file
    between its emptying and its writing would have seen the last of it.
    """
    try:
        return None if path is None else sha256(path.read_bytes()).digest()
    except OSError:
        return None
