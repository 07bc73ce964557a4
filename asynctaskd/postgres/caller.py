"""Statements of `queries/` on a pool or connection of the caller's, or on a pool of one's own."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

import asyncpg

from asynctaskd.errors import (
    ConfigError,
    DatabaseUnavailableError,
    InvalidInputError,
    InvalidStateError,
    TaskNotFoundError,
)
from asynctaskd.postgres import embedded
from asynctaskd.postgres.driver import CONFLICTS, connect, open_sessions, query, translated
from asynctaskd.postgres.roles import role_for
from asynctaskd.postgres.sessions import LONG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from asynctaskd.postgres.sessions import Sessions

    # What `pool.acquire()` gives behaves like a connection, and is none for asyncpg's types.
    AnyConnection = asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]
    AnyDatabase = asyncpg.Pool[Any] | AnyConnection | str

# In seconds: how often whoever waits for rows to change looks at them.
_SHORTEST_LOOK = 0.02
_LONGEST_LOOK = 0.5


class Caller:
    """Whoever asks the database from outside a daemon.

    Args:
        database: an asyncpg pool or connection of the caller's, or a URL for a pool of its own, opened when
            first needed.
        schema: where asynctaskd's tables are.

    Raises:
        InvalidInputError: the database is nothing of that.
    """

    def __init__(self, database: AnyDatabase, *, schema: str) -> None:
        if not isinstance(database, str | asyncpg.Pool | asyncpg.Connection):
            raise InvalidInputError(
                "database must be a pool or connection of asyncpg's, or a URL, got "
                f"{type(database).__name__}"  # the value may hold a password
            )
        self._database = database
        self._schema = schema
        self._own_pool: Sessions | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # that of the pool and of the next lock
        self._opening = asyncio.Lock()
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its own pool, if it has one. A pool or connection of the caller's stays open."""
        self._settle_in_loop()
        if self._own_pool is not None:
            await self._own_pool.close()
            self._own_pool = self._loop = None
            self._opening = asyncio.Lock()

    @property
    def _is_in_transaction(self) -> bool:
        """Whether what is asked now belongs to a transaction of the caller's, which nobody else sees yet."""
        return self._connection is not None and self._connection.is_in_transaction()

    @property
    def _connection(self) -> AnyConnection | None:
        """The one connection that it was given; None for a pool or a URL."""
        return None if isinstance(self._database, str | asyncpg.Pool) else self._database

    async def _value(
        self,
        name: str,
        *arguments: Any,
        connection: AnyConnection | None = None,
        limit: float = LONG,
    ) -> Any:
        rows = await self._fetch(name, *arguments, connection=connection, limit=limit)
        return rows[0][0]

    async def _fetch(
        self,
        name: str,
        *arguments: Any,
        connection: AnyConnection | None = None,
        limit: float = LONG,
    ) -> list[asyncpg.Record]:
        statement, role = query(name, self._schema), self._role_for(name)
        if connection is None and self._connection is not None:
            # The client's own waits and calls take turns on the one connection it was given.
            async with self._turn:
                with translated(but=CONFLICTS, role=role):
                    return await self._connection.fetch(statement, *arguments)
        if connection is not None:
            # A conflict is for the owner of the transaction, who knows it by the driver's own error.
            with translated(but=CONFLICTS, role=role):
                return await connection.fetch(statement, *arguments)
        with translated(role=role):
            if isinstance(self._database, asyncpg.Pool):
                return await _fetch_from(self._database, statement, arguments, limit)
            sessions = await self._sessions()
            return await sessions.fetch(statement, *arguments, timeout=limit)

    def _role_for(self, statement: str) -> str:
        """The role that is named to whoever may not send a statement."""
        return role_for(statement, self._schema)

    @asynccontextmanager
    async def _listening(self, channel: str, hear: Callable[[str], None]) -> AsyncIterator[None]:
        """Within the block, call `hear` with the payload of each notice on a channel."""

        def on_notice(_connection: object, _pid: int, _channel: str, payload: object) -> None:
            hear(str(payload))

        async with AsyncExitStack() as stack:
            connection = await self._kept_connection(stack)
            if getattr(connection, "is_pooled", False):
                raise ConfigError(
                    "a pooler stands between, which can't pass on notices: give a URL past it (--database)"
                )
            with translated():
                async with self._turn:
                    await connection.add_listener(channel, on_notice)
            try:
                yield
            finally:
                if not connection.is_closed():
                    with translated():
                        async with self._turn:
                            await connection.remove_listener(channel, on_notice)

    async def _kept_connection(self, stack: AsyncExitStack) -> AnyConnection:
        """A connection to keep until the stack is closed; the caller's own, if it gave one."""
        if isinstance(self._database, str):
            dsn = await asyncio.to_thread(embedded.resolve, self._database)
            return await stack.enter_async_context(connect(dsn))
        if not isinstance(self._database, asyncpg.Pool):
            return self._database
        with translated():
            connection = await _free_connection(self._database)
        stack.push_async_callback(self._database.release, connection)
        return connection

    async def _sessions(self) -> Sessions:
        assert isinstance(self._database, str)  # noqa: S101  (whoever has something else doesn't come here)
        self._settle_in_loop()
        async with self._opening:
            if self._own_pool is None:
                dsn = await asyncio.to_thread(embedded.resolve, self._database)
                self._own_pool = await open_sessions(dsn, size=10)
        return self._own_pool

    def _settle_in_loop(self) -> None:
        """Have a pool of its own in this event loop: one of a loop that was closed can't even say goodbye.

        Raises:
            InvalidStateError: it has one in another loop, which may still use it.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            if not self._loop.is_closed():
                raise InvalidStateError(
                    "this client's connections belong to another event loop: make a client in each, "
                    "`async with Client(…) as client:`"
                )
            self._opening, self._own_pool = asyncio.Lock(), None
        self._loop = loop


async def _fetch_from(
    pool: asyncpg.Pool, statement: str, arguments: tuple[Any, ...], limit: float
) -> list[asyncpg.Record]:
    """The rows of a statement; `limit` is for the wait and the answer, and asyncpg has none for the wait."""
    deadline = monotonic() + limit
    connection = await _free_connection(pool)
    try:
        return await connection.fetch(statement, *arguments, timeout=deadline - monotonic())
    finally:
        await pool.release(connection)


async def _free_connection(pool: asyncpg.Pool) -> asyncpg.pool.PoolConnectionProxy:
    """A connection of the caller's pool, to be released.

    Raises:
        DatabaseUnavailableError: none came free in time, perhaps since this very caller holds them.
    """
    try:
        async with asyncio.timeout(LONG):
            return await pool.acquire()
    except TimeoutError:
        if pool.get_size() < pool.get_max_size():  # one was being opened, and the database didn't answer
            raise
        raise DatabaseUnavailableError(
            f"the database is unavailable: no connection of the pool came free within {LONG:g} s. "
            "Inside a transaction, pass its connection on: connection=…"
        ) from None


async def growing_pauses() -> AsyncIterator[None]:
    """Yields again and again, at once and then after longer and longer pauses of at most half a second."""
    pause = _SHORTEST_LOOK
    while True:
        yield
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_LOOK)


def not_found(task_id: int) -> TaskNotFoundError:
    """What is raised where a task has no record."""
    return TaskNotFoundError(
        f"there is no task {task_id}: it never existed, or its record was forgotten", task_id=task_id
    )
