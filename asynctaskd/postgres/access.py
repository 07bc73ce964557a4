"""How a database is reached: at which of its hosts, and directly or through a pooler."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, urlsplit

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from asynctaskd.errors import ConfigError, DatabaseUnavailableError
from asynctaskd.postgres.connection import Connection, limited
from asynctaskd.postgres.tls import UntrustedServerError, explained, named_hosts, split_port, tls_for
from asynctaskd.postgres.urls import HOW_TO_WRITE_IT, read_url

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECT_TIMEOUT = 3.0

_LAST_PORT = 65_535

# The server ends a statement whose client is gone; only some systems can tell it so.
_WATCH_CLIENT = {"client_connection_check_interval": "1s"}

# A setting of no consequence. A pooler that shares sessions refuses it, or it isn't there afterwards.
_OWN_SESSION = "asynctaskd.own_session"
_HAS_OWN_SESSION = f"SELECT WHERE current_setting('{_OWN_SESSION}', true) = 'on'"
_TAKES_WRITES = "SELECT WHERE NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off'"

_WRITES = (SessionAttribute.primary, SessionAttribute.read_write)

# With several hosts, the next one may do what this one doesn't.
_NEXT_HOST = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TargetServerAttributeNotMatched,
    asyncpg.TooManyConnectionsError,
    UntrustedServerError,
)


class UnknownParameterError(Exception):
    """A pooler refused a parameter of the connection: one of ours, or one that came with the URL."""


class Access:
    """The way to a database. It remembers what it found: the host that answered, and a pooler between.

    Names, the URL's own file, password files and certificates are read anew for every connection.

    Args:
        dsn: a PostgreSQL URL, which may name several hosts; or `file:PATH` of a file that holds it.
        settings: server settings of the sessions; behind a pooler they are left out.
        writes: whether only a server that takes writes will do, unless the URL says something else.
        call_timeout: asyncpg's own limit of each call, in seconds.
    """

    def __init__(
        self,
        dsn: str,
        *,
        settings: Mapping[str, str] | None = None,
        writes: bool = False,
        call_timeout: float | None = None,
    ) -> None:
        self._source = dsn
        self._settings = {**_WATCH_CLIENT, **(settings or {})}
        self._writes = writes
        self._dsn = ""
        self._read()
        self._call_timeout = call_timeout
        self.is_pooled = False
        self.was_open = False

    async def open(self) -> Connection:
        """A new connection, at the first host that will do; raises what asyncpg raises."""
        self._read()
        failure: Exception | None = None
        for host in list(self._hosts):
            try:
                connection = await self._open_at(host)
            except _NEXT_HOST as error:
                failure = failure or error
                continue
            self._hosts.remove(host)
            self._hosts.insert(0, host)
            self.was_open = True
            return connection
        assert failure is not None  # noqa: S101  (there is at least one host)
        raise failure

    def _read(self) -> None:
        """Take in the URL, where it has changed.

        Raises:
            DatabaseUnavailableError: its file can't be read. It may just be replaced.
        """
        try:
            dsn = read_url(self._source)
        except ConfigError as error:
            raise DatabaseUnavailableError(f"the database is unavailable: {error}") from error
        if dsn != self._dsn or not dsn:
            self._hosts = hosts_of(dsn)
            self._target = _target(dsn, writes=self._writes or len(self._hosts) > 1)
            self._dsn = dsn

    async def _open_at(self, host: Mapping[str, Any]) -> Connection:
        if not self.is_pooled:
            connection = await self._open_directly(host)
            if connection is not None:
                return connection
        connection = await self._open_pooled(host)
        connection.is_pooled = self.is_pooled = True
        return connection

    async def _open_directly(self, host: Mapping[str, Any]) -> Connection | None:
        """A connection with a session of its own; None behind a pooler."""
        settings = {"application_name": "asynctaskd", _OWN_SESSION: "on", **self._settings}
        try:
            connection = await self._connect(host, settings, self._target)
        except UnknownParameterError:
            return None
        except asyncpg.InvalidParameterValueError:
            if not self._settings.keys() & _WATCH_CLIENT.keys():
                raise
            self._settings = {k: v for k, v in self._settings.items() if k not in _WATCH_CLIENT}
            return await self._open_directly(host)
        if await _holds(connection, _HAS_OWN_SESSION):
            return connection
        connection.terminate()
        return None

    async def _open_pooled(self, host: Mapping[str, Any]) -> Connection:
        # Asked in a transaction, not by asyncpg: what the pooler tells of the server may be old or missing.
        connection = await self._connect(
            host, {"application_name": "asynctaskd"}, SessionAttribute.any, statement_cache_size=0
        )
        if self._target in _WRITES and not await _holds(connection, _TAKES_WRITES):
            connection.terminate()
            raise asyncpg.TargetServerAttributeNotMatched
        return connection

    async def _connect(
        self, host: Mapping[str, Any], settings: Mapping[str, str], target: SessionAttribute, **options: Any
    ) -> Connection:
        name = host.get("host") or named_hosts(self._dsn)[0]
        try:
            connection: Connection = await asyncpg.connect(
                self._dsn,
                timeout=CONNECT_TIMEOUT,
                command_timeout=self._call_timeout,
                server_settings=dict(settings),
                target_session_attrs=target,
                connection_class=Connection,
                ssl=cast("Any", tls_for(self._dsn, name)),  # any mode: asyncpg refuses what it doesn't know
                **host,
                **options,
            )
        except OSError as error:
            untrusted = explained(error, name)
            if untrusted is None:
                raise
            raise untrusted from error
        except asyncpg.ProtocolViolationError as error:  # poolers give it for much else
            if "unsupported startup parameter" not in str(error):
                raise
            raise UnknownParameterError(str(error)) from error
        return connection


def hosts_of(dsn: str) -> list[dict[str, Any]]:
    """What tells each of several hosts of a URL to asyncpg; one that says nothing where there is only one.

    asyncpg could try them all by itself, but with one limit for the whole: a host that swallows packets would
    use it up.
    """
    url = urlsplit(dsn)
    if url.scheme not in ("postgresql", "postgres"):
        raise ConfigError(f"database.url isn't one of PostgreSQL: {HOW_TO_WRITE_IT}")
    given = {name: values[-1] for name, values in parse_qs(url.query).items()}
    named = url.netloc.rpartition("@")[2] or given.get("host", "")
    if not named:  # what the environment says of hosts and ports goes together, and asyncpg reads it
        return [{}]
    hosts, ports = named.split(","), given.get("port", "").split(",")
    if len(ports) == 1:
        ports = ports * len(hosts)
    if len(ports) != len(hosts):
        raise ConfigError(
            f"database.url names {len(hosts)} hosts and {len(ports)} ports: "
            "name one port for all, or one for each"
        )
    found = [_host(host, port) for host, port in zip(hosts, ports, strict=True)]
    return found if len(hosts) > 1 else [{}]


def _host(host: str, port: str) -> dict[str, Any]:
    name, written = split_port(host)
    return {"host": name, "port": _port(written or port or os.environ.get("PGPORT") or "5432")}


def _port(written: str) -> int:
    if not written.isdecimal() or not 0 < int(written) <= _LAST_PORT:
        raise ConfigError(
            f"database.url has a port that is no number from 1 to {_LAST_PORT}: {HOW_TO_WRITE_IT}"
        )
    return int(written)


def _target(dsn: str, *, writes: bool) -> SessionAttribute:
    given = parse_qs(urlsplit(dsn).query).get("target_session_attrs", [])
    default = SessionAttribute.read_write if writes else SessionAttribute.any
    wanted = [os.environ.get("PGTARGETSESSIONATTRS", default), *given][-1]
    try:
        return SessionAttribute(wanted)
    except ValueError:
        where = "in database.url" if given else "PGTARGETSESSIONATTRS"
        raise ConfigError(
            f"target_session_attrs ({where}) must be {', '.join(SessionAttribute)}, got {wanted!r}"
        ) from None


async def _holds(connection: Connection, condition: str) -> bool:
    """Whether a SELECT finds a row: by the simple protocol, which works through every pooler."""
    try:
        return await limited(connection, connection.execute(condition), CONNECT_TIMEOUT) == "SELECT 1"
    except BaseException:
        connection.terminate()
        raise
