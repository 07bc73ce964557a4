"""A connection that can't hang: a limit on every call, and a socket that notices when nobody is there."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import asyncpg

from asynctaskd.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

Answer = TypeVar("Answer")

CANCEL_TIMEOUT = 1.0
_FAREWELL = 1.0

# In seconds. When the other host is gone, an idle connection breaks after 3 + 3 × 1, a waiting one after 5.
_KEEPALIVE = {"TCP_KEEPIDLE": 3, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3}
_UNANSWERED = 5.0

# Types below it are PostgreSQL's own, and the same in every database of a major version. Rows of the
# catalog's tables are among them, and get columns with another one.
_FIRST_OTHER_TYPE = 10_000

# What asyncpg was told of them. It asks on every new connection: 7 ms of the server's time, and a fleet that
# reconnects asks on all at once.
_own_types: dict[tuple[int, frozenset[int]], Any] = {}

# No statement was made, so none has taken the place of another one.
_NOT_ASKED = SimpleNamespace(name="none")

# Where the event loop was blocked, an answer may have come in meanwhile: so long may it be read, in seconds.
_LAST_LOOK = 0.05


@dataclass(frozen=True, slots=True)
class Link:
    """What a connection goes through.

    Attributes:
        is_local: whether it stays on this machine.
        protocol: how it is encrypted, such as `TLSv1.3`; None: not at all.
        verified: what of the server's certificate was: `nothing`, its `authority`, or its `host` name too.
    """

    is_local: bool
    protocol: str | None
    verified: Literal["nothing", "authority", "host"]

    @classmethod
    def of(cls, transport: asyncio.BaseTransport) -> Link:
        """That of an open connection, whatever was asked for when it was opened."""
        is_local = _is_local(transport.get_extra_info("peername"))
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if tls is None:
            return cls(is_local, None, "nothing")
        if tls.context.verify_mode != ssl.CERT_REQUIRED:
            return cls(is_local, tls.version(), "nothing")
        return cls(is_local, tls.version(), "host" if tls.context.check_hostname else "authority")


def _is_local(peer: object) -> bool:
    # That of a Unix socket is a path.
    return not isinstance(peer, tuple) or ip_address(str(peer[0])).is_loopback


class Connection(asyncpg.Connection):
    """asyncpg's connection with keepalives, which ends where the server doesn't obey a cancellation.

    Attributes:
        link: what it goes through.
        is_pooled: whether a pooler stands between, so that nothing outlives a transaction.
    """

    is_pooled = False

    def __init__(self, protocol: Any, transport: asyncio.Transport, *arguments: Any) -> None:
        super().__init__(protocol, transport, *arguments)
        self.link = Link.of(transport)
        keep_alive(transport.get_extra_info("socket"))

    async def _introspect_types(self, typeoids: Iterable[int], timeout: float | None) -> tuple[Any, Any]:
        wanted = frozenset(typeoids)
        known = self.get_server_version().major, wanted
        if known in _own_types:
            return _own_types[known], _NOT_ASKED
        types, statement = await super()._introspect_types(wanted, timeout)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
        if max(wanted) < _FIRST_OTHER_TYPE:
            _own_types[known] = types
        return types, statement

    async def _cancel(self, *waiters: Any) -> None:
        # asyncpg waits for the server to obey, and so does the pool that the connection goes back to.
        end = asyncio.get_running_loop().call_later(CANCEL_TIMEOUT, self.terminate)
        try:
            await super()._cancel(*waiters)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
        finally:
            end.cancel()

    async def close(self, *, timeout: float | None = None) -> None:
        """Say goodbye, and end it by force where the server doesn't answer; raises nothing.

        asyncpg's own waits without end, and so do tasks of its pool, for connections it no longer wants.
        """
        with suppress(TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await super().close(timeout=_FAREWELL if timeout is None else timeout)

    def get_reset_query(self) -> str:
        """What cleans a session that goes back to its pool; behind a pooler there is none to clean."""
        return "" if self.is_pooled else super().get_reset_query()


def keep_alive(sock: socket.socket | None) -> None:
    """Have the kernel notice when the other side of a TCP connection is gone; leaves other sockets alone."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in {**_KEEPALIVE, "TCP_USER_TIMEOUT": int(_UNANSWERED * 1000)}.items():
        if (option := getattr(socket, name, None)) is not None:  # not every system has them all
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def limited(connection: asyncpg.Connection, call: Awaitable[Answer], seconds: float) -> Answer:
    """The answer to a call on that connection; if none comes within `seconds`, the connection is terminated.

    Unlike asyncpg's own timeout it needs no second connection to cancel the first, and so no time of its own.

    Raises:
        DatabaseUnavailableError: no answer came. What was asked may have happened all the same.
    """
    limit = _Limit(connection, seconds)
    try:
        return await call
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        if limit.was_passed:
            raise DatabaseUnavailableError(
                f"the database is unavailable: no answer within {seconds:.3g} s; "
                "what was asked may have been done all the same"
            ) from error
        raise
    finally:
        limit.lift()


class _Limit:
    __slots__ = ("_connection", "_loop", "_timer", "was_passed")

    def __init__(self, connection: asyncpg.Connection, seconds: float) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(seconds, self._look_once_more)
        self.was_passed = False

    def lift(self) -> None:
        self._timer.cancel()

    def _look_once_more(self) -> None:
        self._timer = self._loop.call_later(_LAST_LOOK, self._end)

    def _end(self) -> None:
        self.was_passed = True
        self._connection.terminate()
