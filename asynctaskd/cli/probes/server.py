"""The server: what it is, how it is reached, whether notices come back."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from uuid import uuid4

from asynctaskd.cli.probes.capacity import connections_of
from asynctaskd.cli.probes.finding import FAILURE, OK, REACHABLE, WARNING, Finding
from asynctaskd.durations import format_duration
from asynctaskd.errors import AsynctaskdError, ConfigError
from asynctaskd.postgres import embedded
from asynctaskd.postgres.driver import connect, translated

if TYPE_CHECKING:
    import asyncpg

    from asynctaskd.cli.probes.ground import Ground
    from asynctaskd.config import DaemonConfig

OLDEST_SERVER = 15

_MOST_SKEW = 1.0
_NOTICE_TIMEOUT = 2.0


async def reachable(ground: Ground) -> Finding:
    """How fast the server answers."""
    return Finding(REACHABLE, OK, f"the server answers in {ground.server.seconds * 1000:.1f} ms")


async def version(ground: Ground) -> Finding:
    """Whether it is new enough."""
    server = ground.server
    if server.number >= OLDEST_SERVER * 10_000:
        return Finding("version", OK, f"PostgreSQL {server.version}")
    remedy = f"use PostgreSQL {OLDEST_SERVER} or newer"
    return Finding("version", FAILURE, f"PostgreSQL {server.version} is too old", remedy)


async def tls(ground: Ground) -> Finding:
    """Whether nobody between can listen, or be the server."""
    link = ground.connection.link
    if link.is_local:
        return Finding("tls", OK, "the connection doesn't leave this machine")
    if link.verified == "host":
        return Finding("tls", OK, f"{link.protocol}, the server's certificate and name are verified")
    if link.protocol is None:
        message = "the connection is not encrypted"
    elif link.verified == "nothing":
        message = f"{link.protocol}, but anybody could be the server: its certificate isn't verified"
    else:
        message = f"{link.protocol}, but any server of that authority would do: its name isn't verified"
    remedy = "give database.url sslmode=verify-full, and sslrootcert where the authority is your own"
    return Finding("tls", WARNING, message, remedy)


async def encoding(ground: Ground) -> Finding:
    """Whether every text can be stored."""
    if ground.server.encoding == "UTF8":
        return Finding("encoding", OK, "UTF8")
    remedy = "create a database WITH ENCODING 'UTF8' TEMPLATE template0 and use that"
    return Finding("encoding", FAILURE, f"{ground.server.encoding} can't hold every text", remedy)


async def primary(ground: Ground) -> Finding:
    """Whether the server takes writes."""
    if ground.server.is_standby:
        return Finding("primary", FAILURE, "this is a standby", "connect to the primary")
    if ground.server.is_read_only:
        remedy = "set default_transaction_read_only = off for this role and database"
        return Finding("primary", FAILURE, "transactions are read-only", remedy)
    return Finding("primary", OK, "takes writes")


async def clock(ground: Ground) -> Finding:
    """Whether both machines agree on the time; only a warning, since the database's clock decides."""
    skew = ground.server.skew
    side = "ahead of" if skew >= 0 else "behind"
    message = f"the database's clock is {abs(skew) * 1000:.0f} ms {side} this machine's"
    if abs(skew) <= _MOST_SKEW:
        return Finding("clock", OK, message)
    return Finding("clock", WARNING, message, "have both machines set their clocks by NTP")


async def pooler(ground: Ground) -> Finding:
    """Whether a pooler stands between, which takes a worker a few more round trips and its own NOTIFY."""
    if not ground.connection.is_pooled:
        return Finding("pooler", OK, "none: each connection has a session of its own")
    message = "a pooler stands between: each statement becomes a transaction of its own"
    remedy = (
        "give workers a URL past it; or have it open at least "
        f"{connections_of(ground.config)} server connections for each worker (default_pool_size)"
    )
    return Finding("pooler", WARNING, message, remedy)


async def notices(ground: Ground) -> Finding:
    """Whether a notice comes back, and how fast."""
    database, polls = ground.config.database, _polls(ground.config)
    if database.listen == "off":
        return Finding("notices", OK, f"not used (database.listen = off): {polls}")
    given = database.listen_url.get_secret_value() if database.listen_url else ground.dsn
    try:
        async with asyncio.timeout(_NOTICE_TIMEOUT):
            seconds = await _round_trip(ground.connection, await asyncio.to_thread(embedded.resolve, given))
    except (AsynctaskdError, TimeoutError) as error:
        reason = str(error) or f"none came back within {_NOTICE_TIMEOUT:g} s"
        remedy = "set database.listen_url to a URL past the pooler, or database.listen = off"
        status = FAILURE if database.listen == "on" else WARNING
        return Finding("notices", status, f"{reason}; {polls}", remedy)
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
        await heard.wait()
        return time.monotonic() - began
