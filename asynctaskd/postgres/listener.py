"""LISTEN, with reconnect and proof of life. A notice is a hint: losing one costs at most a poll interval."""

from __future__ import annotations

import asyncio
import random
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from asynctaskd.errors import AsynctaskdError, ConfigError, DatabaseUnavailableError
from asynctaskd.postgres.connection import limited
from asynctaskd.postgres.driver import connect, open_connection, translated
from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asynctaskd.postgres.connection import Connection

PROBE_INTERVAL = 5.0
PROBE_TIMEOUT = 2.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0

# Of the server's queue of notices. When it is full, whoever sends a notice can't commit.
_CROWDED = 0.1

_PROBE = "SELECT pg_notify($1, ''), pg_notification_queue_usage()"

_POOLED = (
    "a pooler stands between, which can't pass on notices: set database.listen_url to a URL past it, "
    "or database.listen = off"
)


async def require_notices(dsn: str) -> None:
    """Check that notices can come that way.

    Raises:
        ConfigError: a pooler stands between.
        DatabaseUnavailableError: it can't be reached.
    """
    async with connect(dsn) as connection:
        if connection.is_pooled:
            raise ConfigError(f"database.listen = on, but {_POOLED}")


class _PooledError(Exception):
    """The connection has no session of its own."""


class Listener:
    """One connection that listens, replaced whenever it breaks or falls silent.

    `hear` maps channels to what is called with the payload of each notice, and `wake()` is called whenever
    listening has begun anew, since notices may have been missed until then.
    """

    def __init__(
        self, dsn: str, hear: Mapping[str, Callable[[str], None]], *, wake: Callable[[], None]
    ) -> None:
        self._dsn = dsn
        self._hear = hear
        self._wake = wake
        self._probe_channel = f"asynctaskd_probe_{uuid4().hex}"
        self._pause = _FIRST_PAUSE
        self._lost = asyncio.Event()
        self._echo = asyncio.Event()
        self.up = asyncio.Event()

    async def run(self) -> None:
        """Connect, listen, and on loss wait and repeat, until cancelled; ends where a pooler answers."""
        while True:
            try:
                await self._listen()
            except _PooledError:
                emit("listener.off", error=f"new tasks are found by the poll alone: {_POOLED}")
                return
            except AsynctaskdError as error:
                emit("listener.lost", error=str(error), retry_in=self._pause)
            await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311  (jitter, not a secret)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    async def _listen(self) -> None:
        connection = await open_connection(self._dsn)
        try:
            if connection.is_pooled:
                raise _PooledError
            await self._subscribe(connection)
            self._pause = _FIRST_PAUSE
            emit("listener.up", channels=list(self._hear))
            self._wake()
            await self._watch(connection)
        finally:
            self.up.clear()
            await connection.close()

    async def _subscribe(self, connection: Connection) -> None:
        self._lost.clear()
        connection.add_termination_listener(lambda _: self._lost.set())
        with translated():
            for channel in (*self._hear, self._probe_channel):
                listening = connection.add_listener(channel, self._on_notice)
                await limited(connection, listening, PROBE_TIMEOUT)
        self.up.set()

    async def _watch(self, connection: Connection) -> None:
        while True:
            await self._probe(connection)
            try:
                async with asyncio.timeout(PROBE_INTERVAL):
                    await self._lost.wait()
            except TimeoutError:
                continue
            emit("listener.lost", error="the server closed the connection", retry_in=0.0)
            return

    async def _probe(self, connection: Connection) -> None:
        # A frozen backend or a deaf proxy looks alive from here; only a notice that comes back proves it.
        # Asking for the usage makes the server forget what all have heard: a full queue doesn't by itself.
        self._echo.clear()
        began = monotonic()
        with translated():
            asking = connection.fetchval(_PROBE, self._probe_channel, column=1)
            usage = await limited(connection, asking, PROBE_TIMEOUT)
        if usage > _CROWDED:
            emit("notices.crowded", usage=usage)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                await self._echo.wait()
        except TimeoutError:
            connection.terminate()
            raise DatabaseUnavailableError(f"no notice came back within {PROBE_TIMEOUT:g} s") from None
        emit("listener.proved", seconds=monotonic() - began, usage=usage)

    def _on_notice(self, _: Any, __: int, channel: str, payload: object) -> None:
        if channel == self._probe_channel:
            self._echo.set()
        else:
            self._hear[channel](str(payload))
