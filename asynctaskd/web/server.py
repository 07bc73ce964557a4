"""How is a worker asked over HTTP? From a thread with an event loop of its own.

So a worker whose handlers block their loop can be asked how it is, and whoever asks slowly keeps no task
waiting.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, cast

import h11
import uvicorn
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

# So that whoever connects and doesn't ask leaves files for the process's own work.
_MOST_OPEN = 200

# At the end, in seconds: for answers under way, and for the thread as a whole.
_LAST_ANSWERS = 0.1
_LONGEST_END = 1.0

# Where uvicorn tells of an error.
_LOGGER = logging.getLogger("uvicorn.error")

_REMEDY = "the worker goes on without: give http.host an address of this machine, http.port a free port"


@contextmanager
def serving(site: Starlette, host: str, port: int) -> Iterator[None]:
    """Serve that application within the block, its lifespan included.

    Where the address can't be had, it isn't served; the log says so, and the block goes on without.
    """
    try:
        listening = listen(host, port)
    except (OSError, OverflowError) as error:  # taken, no address of ours, or past the last port
        emit("http.failed", host=host, port=port, error=f"{error}; {_REMEDY}")
        yield
        return
    emit("http.serving", host=host, port=listening.getsockname()[1])
    server = _Server(site, listening)
    server.start()
    try:
        yield
    finally:
        server.end()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there, over IPv4 or IPv6 as the address wants it.

    Raises:
        OSError: the address can't be had.
        OverflowError: there is no such port.
    """
    if port > 65_535:  # create_server would leave a socket behind
        raise OverflowError("ports end at 65535")
    family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, port), family=family)


class BoundedProtocol(H11Protocol):
    """HTTP for uvicorn, with an end to open connections: 200 at most, and none that never asks anything.

    One more takes the place of the one that has kept the server waiting longest, so that whoever opens many
    crowds no probe out. Where all are being answered it is let go itself.
    """

    heard_at: float
    """When its client sent something last, or was answered, by the loop's clock."""

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room; let whoever hasn't asked by then go, as uvicorn does between two requests."""
        super().connection_made(transport)
        self.heard_at = self.loop.time()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )
        if len(self.connections) > _MOST_OPEN:
            connections = cast("set[BoundedProtocol]", self.connections)
            waiting = filter(BoundedProtocol.waits_for_client, connections)
            min(waiting, key=lambda one: one.heard_at).let_go()  # this one is among them

    @override
    def data_received(self, data: bytes) -> None:
        """Note when that was."""
        self.heard_at = self.loop.time()
        super().data_received(data)

    @override
    def on_response_complete(self) -> None:
        """Note when that was: what was written may still be on its way."""
        self.heard_at = self.loop.time()
        super().on_response_complete()

    def waits_for_client(self) -> bool:
        """Whether nothing will happen here unless its client sends or reads something."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # none before the first request
        return cycle is None or cycle.response_complete or cycle.more_body or self.flow.write_paused

    def let_go(self) -> None:
        """Close it at once; it counts no more."""
        self.connections.discard(self)
        self.transport.abort()


class _NotTheirMistakes(logging.Filter):
    """A request that isn't HTTP is whoever sends it's mistake: nobody is to write into this log."""

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is an error of ours."""
        return not (record.exc_info and isinstance(record.exc_info[1], h11.ProtocolError))


_LOGGER.addFilter(_NotTheirMistakes())


class _Server(uvicorn.Server):
    def __init__(self, site: Starlette, listening: socket.socket) -> None:
        # Not its own log: an error of a page is told, and each request isn't worth a line.
        super().__init__(
            uvicorn.Config(
                site,
                http=BoundedProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
            )
        )
        self._site = site
        self._listening = listening
        # A daemon thread: nobody waits for it when the process ends in a hurry.
        self._thread = threading.Thread(target=self._live, name="asynctaskd-http", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Give the last answers; whoever hasn't asked or read by then is left."""
        self.should_exit = True
        self._thread.join(_LONGEST_END)

    def _live(self) -> None:
        host, port = self._listening.getsockname()[:2]
        with self._listening:
            try:
                asyncio.run(self._serve_site())
            except Exception as error:  # noqa: BLE001  (a worker that can't be asked goes on working)
                emit("http.failed", host=host, port=port, error=error)

    async def _serve_site(self) -> None:
        # Here, and not by uvicorn: it would leave out the end where it is told to hurry.
        async with self._site.router.lifespan_context(self._site):
            await self.serve(sockets=[self._listening])

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Unlike uvicorn's own, wait for nobody who is slow."""
        for server in self.servers:
            server.close()
        connections = self.server_state.connections
        for connection in list(connections):
            connection.shutdown()
        await asyncio.sleep(_LAST_ANSWERS)
        for connection in list(connections):
            with suppress(AttributeError):  # it has lost its transport meanwhile
                connection.transport.abort()
