"""Who may see the dashboard, and who may change something there."""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from hashlib import scrypt, sha256
from ipaddress import ip_address
from typing import TYPE_CHECKING

from asynctaskd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

_LEAST_LENGTH = 16
_LINE = re.compile(r"(?P<role>read|write) +(?P<name>[A-Za-z0-9_.@-]{1,64}) +(?P<secret>\S+)")

# So many wrong tokens of one address within a minute. All together have no limit, or a few strangers could
# lock everybody out; tokens are too long to be guessed. So many are remembered.
_MOST_OF_ONE = 5
_MOST_KEPT = 10_000
_MINUTE = 60.0


class Role(StrEnum):
    """What somebody may do."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Token:
    """A secret that lets somebody in; `name` is what the audit calls them. `repr` doesn't show the secret."""

    name: str
    role: Role
    secret: str = field(repr=False)


class Tokens:
    """The tokens there are; without any, everybody is let in, and so only from this machine."""

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._tokens = tuple(tokens)
        if len({one.name for one in self._tokens}) < len(self._tokens):
            raise ConfigError("two tokens of the dashboard have one name: give each a name of its own")
        if len({one.secret for one in self._tokens}) < len(self._tokens):
            raise ConfigError("two tokens of the dashboard have one secret: give each a secret of its own")

    @classmethod
    def read(cls, text: str, source: str) -> Tokens:
        """One token a line, `ROLE NAME SECRET`; empty lines and those that begin with # are left out.

        Raises:
            ConfigError: a line is something else. The message doesn't quote it.
        """
        lines = [(nth, line.strip()) for nth, line in enumerate(text.splitlines(), 1)]
        tokens = [_token(line, f"{source}, line {nth}") for nth, line in lines if line and line[0] != "#"]
        if not tokens:
            raise ConfigError(f"{source} holds no token: write a line such as `write ada SECRET`")
        return cls(tokens)

    def and_those(self, others: Tokens) -> Tokens:
        """These and others. Raises ConfigError where a name is given twice."""
        return Tokens((*self._tokens, *others._tokens))

    def __bool__(self) -> bool:
        return bool(self._tokens)

    @cached_property
    def session_key(self) -> bytes:
        """What cookies are signed with. Slow to compute (some 50 ms), once.

        It follows from the tokens: sessions end where one changes, and not where a server is started anew or
        another one answers. Strangers have a signed cookie too, so trying tokens on it has to be slow.
        """
        if not self._tokens:
            return secrets.token_bytes(32)
        text = "\n".join(f"{one.role} {one.name} {one.secret}" for one in self._tokens)
        return scrypt(text.encode(), salt=b"asynctaskd.dashboard", n=2**14, r=8, p=1, dklen=32)

    def by_secret(self, given: str) -> Token | None:
        """The token with this secret; it takes the same time whichever that is, or none."""
        wanted, found = sha256(given.encode()).digest(), None
        for token in self._tokens:
            if hmac.compare_digest(sha256(token.secret.encode()).digest(), wanted):
                found = token
        return found

    def by_name(self, name: str) -> Token | None:
        """The token of that name."""
        return next((token for token in self._tokens if token.name == name), None)


def _token(line: str, place: str) -> Token:
    parts = _LINE.fullmatch(line)
    if parts is None:
        raise ConfigError(
            f"{place}: write ROLE NAME SECRET, the role read or write, the name of letters, digits and _.@-"
        )
    if len(parts["secret"]) < _LEAST_LENGTH:
        raise ConfigError(f"{place}: the secret must have at least {_LEAST_LENGTH} characters")
    return Token(parts["name"], Role(parts["role"]), parts["secret"])


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Attempts:
    """Counts wrong tokens, so that nobody can try many."""

    def __init__(self) -> None:
        self._failed: deque[tuple[float, str]] = deque(maxlen=_MOST_KEPT)

    def is_too_many(self, address: str) -> bool:
        """Whether that address has failed too often of late."""
        oldest = time.monotonic() - _MINUTE
        while self._failed and self._failed[0][0] < oldest:
            self._failed.popleft()
        subscriber = _subscriber(address)
        return sum(one == subscriber for _, one in self._failed) >= _MOST_OF_ONE

    def note(self, address: str) -> None:
        """Count a wrong one."""
        self._failed.append((time.monotonic(), _subscriber(address)))


def _subscriber(address: str) -> str:
    """Whose an address is: of IPv6 everybody has 2⁶⁴ that begin alike."""
    try:
        found = ip_address(address)
    except ValueError:  # what a proxy calls it
        return address
    if found.version == 4:
        return str(found)
    return str(found.ipv4_mapped or int(found) >> 64)
