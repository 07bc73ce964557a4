"""Where a URL is kept, and where its password: files are read anew for each new connection."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from asynctaskd.config.values import IN_FILE
from asynctaskd.errors import ConfigError
from asynctaskd.postgres.tls import require_usable_tls

HOW_TO_WRITE_IT = (
    "write postgresql://host:5432/name; in a password, / ? # and @ have to be written as %2F %3F %23 and %40"
)
"""What helps where a URL can't be read. It isn't quoted: any part of it may be the password's."""

_FOR_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def require_readable(url: str) -> None:
    """Check the files that a URL rests on, so that what is wrong with them shows at the start.

    Raises:
        ConfigError: one can't be read, or asyncpg would pass over it with a mere warning; or `sslmode` is
            none that there is.
    """
    found = read_url(url)
    _require_usable_password_file(found)
    require_usable_tls(found)


def read_url(url: str) -> str:
    """The URL itself, or what the file holds by now that `file:PATH` names.

    Raises:
        ConfigError: the file can't be read, or holds something else.
    """
    if not url.startswith(IN_FILE):
        return url
    path = Path(url.removeprefix(IN_FILE))
    try:
        held = path.read_text(encoding="utf8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it isn't text"
        raise ConfigError(f"the file {path} with the database's URL can't be read: {reason}") from None
    if not held.startswith(("postgresql://", "postgres://")):
        raise ConfigError(
            f"the file {path} must hold a URL such as postgresql://user:password@host:5432/name"
        )
    return held


def has_password(url: str) -> bool:
    """Whether whoever reads the URL reads a password; of what is no URL, nobody knows."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return bool(parts.password or parse_qs(parts.query).keys() & {"password", "sslpassword"})


def _require_usable_password_file(url: str) -> None:
    try:
        named = parse_qs(urlsplit(url).query).get("passfile", [])
    except ValueError:  # connecting tells
        return
    if not named or has_password(url) or os.environ.get("PGPASSWORD"):
        return
    path = Path(named[-1])
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise ConfigError(f"the password file {path} can't be read: {error.strerror}") from None
    if mode & _FOR_OTHERS:
        raise ConfigError(
            f"others may read the password file {path} (mode {mode:04o}), so it isn't used: chmod 600 {path}"
        )
