"""What `check` finds out: small questions to the database, each answered by a Finding."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from asynctaskd.client import Client
from asynctaskd.durations import format_duration
from asynctaskd.errors import (
    AsynctaskdError,
    ConfigError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    InvalidStateError,
    SchemaVersionError,
)
from asynctaskd.postgres import embedded
from asynctaskd.postgres.driver import connect, query, translated
from asynctaskd.postgres.migrate import require_version
from asynctaskd.postgres.store import CONNECTIONS

if TYPE_CHECKING:
    import asyncpg

    from asynctaskd.config import DaemonConfig
    from asynctaskd.postgres.connection import Connection

Status = Literal["ok", "warning", "failure"]
OK: Status = "ok"
WARNING: Status = "warning"
FAILURE: Status = "failure"

REACHABLE = "reachable"
OLDEST_SERVER = 15

_MOST_SKEW = 1.0
_NOTICE_TIMEOUT = 2.0
_NAMES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: how it stands, and what to do where it isn't as it should be."""

    check: str
    status: Status
    message: str
    remedy: str | None = None

    @classmethod
    def unreachable(cls, error: DatabaseUnavailableError) -> Finding:
        """The finding that ends all looking."""
        return cls(REACHABLE, FAILURE, str(error), "start the server, or correct database.url")

    def as_json(self) -> dict[str, str | None]:
        """The finding by its fields."""
        return {
            "check": self.check,
            "status": self.status,
            "message": self.message,
            "remedy": self.remedy,
        }


async def probe(dsn: str, config: DaemonConfig) -> list[Finding]:
    """Look at everything, as far as the database lets us."""
    findings: list[Finding] = []
    try:
        async with connect(dsn) as connection:
            with translated():
                async for finding in _findings(connection, dsn, config):
                    findings.append(finding)  # noqa: PERF401  (what was found before an error counts)
    except DatabaseUnavailableError as error:
        findings.append(Finding.unreachable(error))
    except DatabaseRefusedError as error:
        remedy = "correct user, password and name in database.url, or that user's rights"
        findings.append(Finding("access", FAILURE, str(error), remedy))
    return [*findings, lease(config)]


async def _findings(connection: Connection, dsn: str, config: DaemonConfig) -> AsyncIterator[Finding]:
    server = await _ask_server(connection)
    for finding in (reachable(server), encoding(server), primary(server), clock(server)):
        yield finding
    yield pooler(connection, config)
    yield await notices(connection, dsn, config)
    schema = config.database.schema_name
    found = await schema_version(connection, schema)
    yield found
    if found.status == OK:
        yield await rights(connection, schema)
        yield await workers(connection, schema)
        yield await connections(connection, config)
        yield await unknown_names(connection, schema)
        yield await runtime(connection, schema)


@dataclass(frozen=True, slots=True)
class Server:
    """What the server says of itself.

    `seconds` is how long it took to say so, `skew` by how many seconds its clock is ahead of ours.
    """

    version: str
    number: int
    encoding: str
    is_standby: bool
    is_read_only: bool
    seconds: float
    skew: float


async def _ask_server(connection: asyncpg.Connection) -> Server:
    asked, began = datetime.now(UTC), time.monotonic()
    [row] = await connection.fetch(query("check_server", "asynctaskd"))
    seconds = time.monotonic() - began
    version, number, encoding_name, is_standby, is_read_only, now = row
    skew = (now - asked).total_seconds() - seconds / 2
    return Server(version, number, encoding_name, is_standby, is_read_only, seconds, skew)


def reachable(server: Server) -> Finding:
    """Whether a server answers that is new enough."""
    message = f"PostgreSQL {server.version} answers in {server.seconds * 1000:.1f} ms"
    if server.number >= OLDEST_SERVER * 10_000:
        return Finding(REACHABLE, OK, message)
    remedy = f"use PostgreSQL {OLDEST_SERVER} or newer"
    return Finding("version", FAILURE, f"{message}, but is too old", remedy)


def encoding(server: Server) -> Finding:
    """Whether every text can be stored."""
    if server.encoding == "UTF8":
        return Finding("encoding", OK, "UTF8")
    remedy = "create a database WITH ENCODING 'UTF8' TEMPLATE template0 and use that"
    return Finding("encoding", FAILURE, f"{server.encoding} can't hold every text", remedy)


def primary(server: Server) -> Finding:
    """Whether the server takes writes."""
    if server.is_standby:
        return Finding("primary", FAILURE, "this is a standby", "connect to the primary")
    if server.is_read_only:
        remedy = "set default_transaction_read_only = off for this role and database"
        return Finding("primary", FAILURE, "transactions are read-only", remedy)
    return Finding("primary", OK, "takes writes")


def clock(server: Server) -> Finding:
    """Whether both machines agree on the time; only a warning, since the database's clock decides."""
    side = "ahead of" if server.skew >= 0 else "behind"
    message = f"the database's clock is {abs(server.skew) * 1000:.0f} ms {side} this machine's"
    if abs(server.skew) <= _MOST_SKEW:
        return Finding("clock", OK, message)
    return Finding("clock", WARNING, message, "have both machines set their clocks by NTP")


def pooler(connection: Connection, config: DaemonConfig) -> Finding:
    """Whether a pooler stands between, which takes a worker a few more round trips and its own NOTIFY."""
    if not connection.is_pooled:
        return Finding("pooler", OK, "none: each connection has a session of its own")
    message = "a pooler stands between: each statement becomes a transaction of its own"
    remedy = (
        "give workers a URL past it; or have it open at least "
        f"{_connections_of(config)} server connections for each worker (default_pool_size)"
    )
    return Finding("pooler", WARNING, message, remedy)


async def notices(connection: asyncpg.Connection, dsn: str, config: DaemonConfig) -> Finding:
    """Whether a notice comes back, and how fast."""
    database = config.database
    if database.listen == "off":
        return Finding("notices", OK, f"not used (database.listen = off): {_polls(config)}")
    given = database.listen_url.get_secret_value() if database.listen_url else dsn
    try:
        seconds = await _round_trip(connection, await asyncio.to_thread(embedded.resolve, given))
    except (AsynctaskdError, TimeoutError) as error:
        reason = str(error) or f"none came back within {_NOTICE_TIMEOUT:g} s"
        remedy = "set database.listen_url to a URL past the pooler, or database.listen = off"
        status = FAILURE if database.listen == "on" else WARNING
        return Finding("notices", status, f"{reason}; {_polls(config)}", remedy)
    return Finding("notices", OK, f"a notice comes back in {seconds * 1000:.1f} ms")


def _polls(config: DaemonConfig) -> str:
    return f"new tasks are found by the poll, every {format_duration(config.worker.poll_interval)}"


async def _round_trip(speaker: asyncpg.Connection, listen_dsn: str) -> float:
    """Seconds from a NOTIFY on one connection until another one hears it."""
    heard, channel = asyncio.Event(), f"asynctaskd_check_{uuid4().hex}"
    async with connect(listen_dsn) as listener:
        if listener.is_pooled:
            raise ConfigError("a pooler stands between, which can't pass on notices")
        with translated():
            await listener.add_listener(channel, lambda *_: heard.set())
            began = time.monotonic()
            await speaker.execute("SELECT pg_notify($1, '')", channel)
        async with asyncio.timeout(_NOTICE_TIMEOUT):
            await heard.wait()
        return time.monotonic() - began


async def schema_version(connection: asyncpg.Connection, schema: str) -> Finding:
    """Whether the schema is one that this version can work with."""
    try:
        major, minor = await require_version(connection, schema=schema)
    except SchemaVersionError as error:
        message, _, remedy = str(error).partition(": ")
        return Finding("schema", FAILURE, message, remedy or None)
    return Finding("schema", OK, f"{schema!r} has version {major}.{minor}")


async def rights(connection: asyncpg.Connection, schema: str) -> Finding:
    """Whether this role may do what a worker does."""
    missing = [row[0] for row in await connection.fetch(query("check_rights", schema))]
    if not missing:
        return Finding("rights", OK, "this role may do what a worker does")
    return Finding(
        "rights", FAILURE, f"this role lacks {_listed(missing)}", "have the schema's owner grant them"
    )


async def workers(connection: asyncpg.Connection, schema: str) -> Finding:
    """Whether anybody works."""
    known = await Client(connection, schema=schema).list_workers()
    live = sum(worker["status"] == "live" for worker in known)
    if live:
        return Finding("workers", OK, f"{live} live")
    return Finding(
        "workers", WARNING, "none is live: nothing runs", "start one with `asynctaskd run --app MODULE:APP`"
    )


async def connections(connection: Connection, config: DaemonConfig) -> Finding:
    """Whether the server has enough connections for all workers, if they are configured like this one."""
    known = await Client(connection, schema=config.database.schema_name).list_workers()
    live = sum(worker["status"] == "live" for worker in known)
    each, count = _connections_of(config), max(live, 1)
    [(allowed, taken)] = await connection.fetch(query("check_connections", "asynctaskd"))
    message = (
        f"{count} × {each} = {count * each} at most for {count} worker{'s' * (count > 1)}; "
        f"the server has {allowed}, {taken} are taken"
    )
    if connection.is_pooled or count * each <= allowed:
        return Finding("connections", OK, message)
    remedy = "raise max_connections, lower database.pool_size, or run fewer workers with more concurrency"
    return Finding("connections", WARNING, message, remedy)


def _connections_of(config: DaemonConfig) -> int:
    """How many connections a worker has at most: its own, the lease's, two that listen, and its tasks'."""
    listening = 0 if config.database.listen == "off" else 2
    return CONNECTIONS + 1 + listening + config.database.pool_size


async def unknown_names(connection: asyncpg.Connection, schema: str) -> Finding:
    """Whether tasks wait under names that no live worker knows."""
    waiting = [f"{name} ({count})" for name, count in await connection.fetch(query("check_unknown", schema))]
    if not waiting:
        return Finding("names", OK, "no task waits for a worker that knows its name")
    remedy = "start a worker whose App declares them"
    return Finding("names", WARNING, f"no live worker knows {_listed(waiting)}", remedy)


async def runtime(connection: asyncpg.Connection, schema: str) -> Finding:
    """Whether workers can read the newest version of the runtime configuration."""
    try:
        config = await Client(connection, schema=schema).runtime_config()
    except InvalidStateError as error:
        message, _, remedy = str(error).rpartition("; ")
        return Finding("runtime", FAILURE, message, f"{remedy} (`asynctaskd config rollback`)")
    return Finding("runtime", OK, f"version {config.version} of the runtime configuration can be read")


def lease(config: DaemonConfig) -> Finding:
    """How many renewals may fail before tasks go to others; the configuration refuses fewer than three."""
    worker = config.worker
    times = worker.lease / worker.renew_interval
    spelled = f"{format_duration(worker.lease)}, {times:.3g} × worker.renew_interval"
    return Finding("lease", OK, f"worker.lease is {spelled} ({format_duration(worker.renew_interval)})")


def _listed(items: list[str]) -> str:
    more = len(items) - _NAMES_SHOWN
    return ", ".join(items[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
