"""The PostgreSQL that everyone is measured on: a fresh database for each measurement, and what it costs."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncpg
import psutil

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.contenders.contender import Contender

DATABASE = "asynctaskd_bench"

PAUSE = 0.002
WRITING_DOWN = 60.0
"""Seconds that a worker has to write down what its handlers have done."""


class _Lasting(asyncpg.Connection):
    def get_reset_query(self) -> str:
        return ""


@asynccontextmanager
async def lasting(dsn: str, connections: int) -> AsyncIterator[asyncpg.Pool | asyncpg.Connection]:
    """A pool of so many connections, which go back to it as they are; or where one is asked for, that one.

    Cleaning them is a round trip that an application pays for each of its transactions, whatever it enqueues;
    and for one connection a pool has its price too.
    """
    async with asyncpg.create_pool(
        dsn, min_size=connections, max_size=connections, connection_class=_Lasting
    ) as pool:
        if connections > 1:
            yield pool
            return
        async with pool.acquire() as connection:
            yield connection


class Server:
    """A server, by a connection that makes and drops databases."""

    def __init__(self, dsn: str, connection: asyncpg.Connection, postmaster: psutil.Process | None) -> None:
        self._dsn = dsn
        self._connection = connection
        self._postmaster = postmaster
        self._prepared: set[str] = set()

    @classmethod
    @asynccontextmanager
    async def connected(cls, dsn: str) -> AsyncIterator[Server]:
        """Connected, and what it made is dropped at the end. One run at a time has a server."""
        connection = await asyncpg.connect(dsn)
        try:
            if not await connection.fetchval("SELECT pg_try_advisory_lock(hashtext($1))", DATABASE):
                raise SystemExit(
                    "another benchmark is running on this server; the figures of both would suffer"
                )
            server = cls(dsn, connection, _postmaster(await connection.fetchval("SELECT pg_backend_pid()")))
            try:
                yield server
            finally:
                for name in (DATABASE, *server._prepared):
                    await server._drop(name)
        finally:
            await connection.close()

    async def version(self) -> str:
        """Such as `18.0`."""
        return str(await self._connection.fetchval("SHOW server_version")).split()[0]

    async def settings(self) -> dict[str, str]:
        """Those that matter for the figures."""
        names = ["synchronous_commit", "fsync", "shared_buffers", "max_wal_size", "autovacuum"]
        return {name: await self._connection.fetchval(f"SHOW {name}") for name in names} | {
            "synchronous_commit": "on"
        }

    @asynccontextmanager
    async def fresh(self, contender: Contender) -> AsyncIterator[str]:
        """The DSN of an empty database with the contender's tables."""
        template = await self._template(contender)
        await self._drop(DATABASE)
        await self._connection.execute(f"CREATE DATABASE {DATABASE} TEMPLATE {template}")
        await self._connection.execute(f"ALTER DATABASE {DATABASE} SET synchronous_commit = on")
        # What the one before has left to write is not this one's business.
        with suppress(asyncpg.InsufficientPrivilegeError):
            await self._connection.execute("CHECKPOINT")
        yield self._dsn_of(DATABASE)

    async def _template(self, contender: Contender) -> str:
        """A database that the contender has prepared once, to be copied: that takes some of them seconds."""
        name = f"{DATABASE}_{contender.peer.replace('-', '_')}"
        if name not in self._prepared:
            await self._drop(name)
            await self._connection.execute(f"CREATE DATABASE {name}")
            await contender.prepare(self._dsn_of(name))
            self._prepared.add(name)
        # A template must have no sessions, and a pool may take its time.
        await self._connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", name
        )
        return name

    async def _drop(self, name: str) -> None:
        """Drop a database, whoever is connected to it."""
        await self._connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _dsn_of(self, database: str) -> str:
        return urlsplit(self._dsn)._replace(path=f"/{database}").geturl()

    def cpu(self) -> float | None:
        """Seconds that all its processes have used, ended ones included; None for a server elsewhere."""
        if self._postmaster is None:
            return None
        own = self._postmaster.cpu_times()
        total = own.user + own.system + own.children_user + own.children_system
        for process in self._postmaster.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it has just ended, and is among the ended ones
                used = process.cpu_times()
                total += used.user + used.system
        return float(total)


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a contender's database."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        # By force: the database may be gone.
        connection.terminate()


async def analyse(dsn: str) -> None:
    """Have the planner know what is in the tables."""
    async with connected(dsn) as connection:
        await connection.execute("VACUUM (ANALYZE, SKIP_DATABASE_STATS)")


async def nothing_left(connection: asyncpg.Connection, contender: Contender) -> float:
    """When the database first said that nothing is left, by the wall clock. Raises TimeoutError."""
    try:
        async with asyncio.timeout(WRITING_DOWN):
            while True:
                # What it says is true of the moment when the query began.
                asked_at = time.time()
                if not await connection.fetchval(contender.left):
                    return asked_at
                await asyncio.sleep(PAUSE)
    except TimeoutError:
        raise TimeoutError(f"all have run, and {WRITING_DOWN:.0f} s later not all is written") from None


@asynccontextmanager
async def pinned_horizon(dsn: str) -> AsyncIterator[None]:
    """A transaction elsewhere whose snapshot keeps every dead row from being cleared away."""
    async with connected(dsn) as connection, connection.transaction(isolation="repeatable_read"):
        await connection.fetchval("SELECT count(*) FROM pg_class")
        yield


def _postmaster(backend: int) -> psutil.Process | None:
    # A server on another machine has process ids too, and they mean somebody else here.
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(backend)
        if "postgres" in process.name():
            return process.parent()
    return None
