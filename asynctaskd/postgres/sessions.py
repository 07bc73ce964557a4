"""The few connections of the daemon's own statements: each call has a limit, none waits for a dead one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from asynctaskd.errors import DatabaseUnavailableError
from asynctaskd.postgres.connection import limited
from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from asynctaskd.postgres.connection import Connection

HOT = 3.0
"""The limit of a statement that tasks wait for, in seconds: looking up, claiming, finalizing, renewing."""

LONG = 8.0
"""The limit of a statement that may touch many rows, in seconds."""

_LOOK_INTERVAL = 1.0
_CLOSED = "the connections to the database were closed"

# The answer came, but the session is over, or won't do: it is read-only by now, or somebody cleared it.
_USELESS = (
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.DatabaseDroppedError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
)
_DOES_NOT_TELL = (
    asyncpg.FeatureNotSupportedError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.UndefinedFunctionError,
)


class Sessions:
    """At most `size` connections, opened when they are needed and kept.

    asyncpg's pool waits for the server when a call is cancelled or a connection comes back. Here whatever
    ends in doubt ends its connection, and with it those that idle, which probably died of the same.

    Args:
        open_another: opens a connection.
        size: how many calls may be under way at once.
        pinned: settings of each session; behind a pooler, of each transaction.
        patience: how long a call may wait for its turn, in seconds.
        history: where given, what has been seen of the database's log.
    """

    def __init__(
        self,
        open_another: Callable[[], Awaitable[Connection]],
        size: int,
        *,
        pinned: Mapping[str, str] | None = None,
        patience: float | None = None,
        history: History | None = None,
    ) -> None:
        self._open_another = open_another
        self._begin = _begin(pinned or {})
        self._size = size
        self._turns = asyncio.Semaphore(size)
        self._patience = patience
        self._history = history
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._next_look = 0.0
        self._is_closed = False

    async def open(self) -> None:
        """Open the first connection, so that what is wrong shows early."""
        self._give_back(await self._take())

    async def fetch(self, statement: str, *arguments: Any, timeout: float = LONG) -> list[asyncpg.Record]:
        """The rows of a statement.

        Raises:
            DatabaseUnavailableError: no answer within `timeout` seconds; it may have been done all the same.
            asyncpg.PostgresError: the server's own errors.
        """
        connection = await self._take()
        try:
            return await limited(connection, self._run(connection, statement, arguments), timeout)
        except BaseException as error:
            self._judge(connection, error)
            raise
        finally:
            self._give_back(connection)

    async def close(self) -> None:
        """Close the connections once their calls are over; no other begins."""
        self._is_closed = True
        for _ in range(self._size):
            await self._turns.acquire()
        self.terminate()
        for _ in range(self._size):
            self._turns.release()

    def terminate(self) -> None:
        """End all connections now; calls under way fail, and no other begins."""
        self._is_closed = True
        for connection in (*self._busy, *self._idle):
            connection.terminate()
        self._idle.clear()

    async def _run(
        self, connection: Connection, statement: str, arguments: tuple[Any, ...]
    ) -> list[asyncpg.Record]:
        if not connection.is_pooled or not self._begin:
            return await connection.fetch(statement, *arguments)
        try:
            await connection.execute(self._begin)
            rows = await connection.fetch(statement, *arguments)
        except asyncpg.PostgresError:
            await connection.execute("ROLLBACK")
            raise
        await connection.execute("COMMIT")
        return rows

    async def _take(self) -> Connection:
        await self._wait_for_turn()
        try:
            if self._is_closed:
                raise DatabaseUnavailableError(_CLOSED)
            connection = self._pop_idle() or await self._open_new()
        except BaseException:
            self._turns.release()
            raise
        self._busy.add(connection)
        try:
            await self._look(connection)
        except BaseException as error:
            self._judge(connection, error)
            self._give_back(connection)
            raise
        return connection

    def _pop_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    async def _open_new(self) -> Connection:
        connection = await self._open_another()
        if self._is_closed:  # meanwhile
            connection.terminate()
            raise DatabaseUnavailableError(_CLOSED)
        self._next_look = 0.0
        return connection

    async def _wait_for_turn(self) -> None:
        if not self._turns.locked():
            await self._turns.acquire()
            return
        try:
            async with asyncio.timeout(self._patience):
                await self._turns.acquire()
        except TimeoutError:
            raise DatabaseUnavailableError(
                f"the database is unavailable: no connection came free within {self._patience:g} s"
            ) from None

    def _judge(self, connection: Connection, error: BaseException) -> None:
        """After an error, keep the connection only where it is sound."""
        if isinstance(error, asyncpg.PostgresError) and not isinstance(error, _USELESS):
            return
        connection.terminate()
        if not isinstance(error, asyncio.CancelledError):
            for other in self._idle:
                other.terminate()
            self._idle.clear()

    def _give_back(self, connection: Connection) -> None:
        self._busy.discard(connection)
        if not connection.is_closed():
            self._idle.append(connection)
        self._turns.release()

    async def _look(self, connection: Connection) -> None:
        """Now and then, and on each new connection, see whether the database's log goes on where it was."""
        now = asyncio.get_running_loop().time()
        if self._history is None or now < self._next_look:
            return
        self._next_look = now + _LOOK_INTERVAL
        try:
            found = await limited(connection, connection.fetchrow(self._history.question), HOT)
        except _DOES_NOT_TELL:
            self._history = None
            return
        except asyncpg.ObjectNotInPrerequisiteStateError as error:  # it only replays another's log
            raise asyncpg.TargetServerAttributeNotMatched(str(error)) from error
        if found is not None:
            self._history.note(LogPosition(*found))


@dataclass(frozen=True, slots=True)
class LogPosition:
    """Where a server's write-ahead log is: which cluster, which timeline, how many bytes are safe on disk."""

    system: int
    timeline: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.bytes >> 32:X}/{self.bytes & 0xFFFFFFFF:X} on timeline {self.timeline}"


class History:
    """What was seen of a database's log, so that a server that lacks some of it doesn't go unnoticed."""

    def __init__(self, question: str) -> None:
        self.question = question
        self._latest: LogPosition | None = None
        self._sure: LogPosition | None = None

    def note(self, found: LogPosition) -> None:
        """Compare with what was seen before, and remember it."""
        sure = self._sure
        if sure is not None and (found.system != sure.system or found.bytes < sure.bytes):
            emit("database.stepped_back", before=str(sure), now=str(found), error=_why(sure, found))
            self._latest = None
        # Only what was there one look ago is compared: the newest bytes may not have been acknowledged by the
        # standbys that must have them, and nobody was told that they are safe.
        self._sure, self._latest = self._latest or found, found


def _why(before: LogPosition, now: LogPosition) -> str:
    if now.system != before.system:
        return "this is another database cluster than before; tasks it doesn't have won't be run"
    return (
        "the server lacks writes that were there before: a failover to a standby that was behind, or a "
        "restored backup; tasks enqueued since may be lost, and tasks that completed since run again"
    )


def _begin(pinned: Mapping[str, str]) -> str:
    """The one message that opens a transaction with those settings, by the simple protocol."""
    if not pinned:
        return ""
    settings = "".join(f"; SET LOCAL {name} = '{value}'" for name, value in pinned.items())
    return f"BEGIN ISOLATION LEVEL READ COMMITTED{settings}"
