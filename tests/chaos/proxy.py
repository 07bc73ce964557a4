"""A proxy between one client of PostgreSQL and the server, that breaks the connection on request.

Faults are switched on and off while connections are open: refuse new ones, reset, fall silent (half-open),
delay, and lose the request or the reply of one chosen statement. It understands just enough of the protocol
to know which statement is on its way and when its reply is complete.

Silence is that of a network: nothing is lost, everything waits. When it ends, what waited is delivered, so
that a zombie's late write does reach the server.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

STATEMENTS = {
    "commit": re.compile(r"\s*commit\b", re.IGNORECASE),
    "claim": re.compile(r"SET status = 'running', worker_id = \$1"),
    "finalize": re.compile(r"DELETE FROM \S*tasks AS t USING outcome"),
    "renew": re.compile(r"SET expires_at = .* renewed_at = ", re.DOTALL),
    "enqueue": re.compile(r"\benqueue(_many)?\s*\("),
}
"""What tells one statement from the others, in its text. `any` is every one of them."""

_PROTOCOL_3 = 196608
_READY = b"Z\x00\x00\x00\x05"
_CHUNK = 65536
_STARTUP_HEAD = 8
_PID = re.compile(rb"chaos\.process\0([0-9]+)\0")
_LINGER_NOT = struct.pack("ii", 1, 0)  # closing sends RST

Then = Literal["cut", "silence"]
Address = Path | tuple[str, int]
"""A Unix socket, or a host and a port."""


@dataclass(eq=False)
class Loss:
    """What to do to the next statement of a kind; `lose` is its request or its reply."""

    what: str
    lose: Literal["request", "reply"]
    then: Then
    connection: Connection | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def concerns(self, sql: str) -> bool:
        """Whether this statement is the one."""
        kinds = STATEMENTS.values() if self.what == "any" else [STATEMENTS[self.what]]
        return any(kind.search(sql) for kind in kinds)


class _Gate:
    """Open, or shut by any number of reasons."""

    def __init__(self) -> None:
        self._reasons: set[object] = set()
        self._open = asyncio.Event()
        self._open.set()

    def shut(self, reason: object) -> None:
        self._reasons.add(reason)
        self._open.clear()

    def open(self, reason: object) -> None:
        self._reasons.discard(reason)
        if not self._reasons:
            self._open.set()

    @property
    def is_open(self) -> bool:
        return not self._reasons

    async def wait(self) -> None:
        await self._open.wait()


class Connection:
    """One connection through the proxy."""

    def __init__(
        self, proxy: Proxy, client: tuple[asyncio.StreamReader, asyncio.StreamWriter], address: Address
    ) -> None:
        self._proxy = proxy
        self._from_client, self._to_client = client
        self._address = address
        self._prepared: dict[bytes, str] = {}
        self._loss: Loss | None = None
        self._tail = b""
        self._pumps: list[asyncio.Task[None]] = []
        self._requests: asyncio.Queue[tuple[bytes, bytes] | None] = asyncio.Queue()
        self.gate = _Gate()
        self.listens = False
        self.last_statement = ""
        self.asked_at: float | None = None  # when the client first wanted something of it since it is silent
        self.was_cut = False  # by us
        self.pid: int | None = None  # the client's, where it says so
        self.left = asyncio.Event()  # the client closed it, whether or not anything gets through

    async def run(self) -> None:
        """Carry bytes both ways until either side closes."""
        try:
            from_server, self._to_server = await connect(self._address)
        except OSError:
            reset(self._to_client)
            return
        pumps = self._take_requests(), self._carry_requests(), self._carry_replies(from_server)
        self._pumps = [asyncio.create_task(pump) for pump in pumps]
        try:
            # What the client sent before it left is still delivered, so the first of them may end alone.
            await asyncio.wait(self._pumps[1:], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.cut()
            reset(self._to_server)
        ends = await asyncio.gather(*self._pumps, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    def cut(self) -> None:
        """Reset both sides."""
        self.was_cut = self.was_cut or not self.left.is_set()
        reset(self._to_client)
        for pump in self._pumps:
            pump.cancel()

    async def _take_requests(self) -> None:
        """Read what the client sends, whether or not it gets through."""
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._take_startup()
                while True:
                    head = await self._from_client.readexactly(5)
                    body = await self._from_client.readexactly(int.from_bytes(head[1:], "big") - 4)
                    self.asked_at = self.asked_at or time.time()
                    self._requests.put_nowait((head, body))
        finally:
            self.left.set()
            self._requests.put_nowait(None)

    async def _take_startup(self) -> None:
        """Messages without a type: requests for encryption or cancellation, then the startup itself."""
        code = 0
        while code != _PROTOCOL_3:
            head = await self._from_client.readexactly(8)
            length, code = struct.unpack("!ii", head)
            body = await self._from_client.readexactly(length - 8)
            if pid := _PID.search(body):
                self.pid = int(pid[1])
            self._requests.put_nowait((head, body))

    async def _carry_requests(self) -> None:
        with suppress(OSError):
            while request := await self._requests.get():
                head, body = request
                if len(head) == _STARTUP_HEAD or await self._take_note(head[:1], body):
                    await self._send(self._to_server, head + body)
            # That the client left doesn't get through either.
            await self._open()

    async def _take_note(self, kind: bytes, body: bytes) -> bool:
        """Look for a statement that is to be lost; False where the request is to be lost."""
        sql = self._statement(kind, body)
        if sql is None or self._loss is not None:
            return True
        self.last_statement = sql
        self.listens = self.listens or sql.upper().startswith("LISTEN")
        self._loss = self._proxy.loss_for(sql)
        if self._loss is None or self._loss.lose == "reply":
            return True
        await self._finish_loss(self._loss)
        return False

    def _statement(self, kind: bytes, body: bytes) -> str | None:
        """The text of the statement that this message executes, if it does."""
        if kind == b"Q":
            return body[:-1].decode(errors="replace")
        if kind == b"P":
            name, sql, _ = body.split(b"\0", 2)
            self._prepared[name] = sql.decode(errors="replace")
        elif kind == b"B":
            _, name, _ = body.split(b"\0", 2)
            return self._prepared.get(name)
        return None

    async def _carry_replies(self, from_server: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while chunk := await from_server.read(_CHUNK):
                if self._loss is None:
                    await self._send(self._to_client, chunk)
                elif self._completes_reply(chunk):
                    await self._finish_loss(self._loss)

    def _completes_reply(self, chunk: bytes) -> bool:
        """ReadyForQuery is the end of it: by then whatever was to be committed is."""
        self._tail = (self._tail + chunk)[-6:]
        return self._tail[:5] == _READY

    async def _finish_loss(self, loss: Loss) -> None:
        loss.connection = self
        loss.done.set()
        if loss.then == "cut":
            self.cut()
        else:
            self.gate.shut(loss)
        await self.gate.wait()

    async def _send(self, to: asyncio.StreamWriter, data: bytes) -> None:
        if self._proxy.delay:
            await asyncio.sleep(self._proxy.delay)
        await self._open()
        to.write(data)
        await to.drain()

    async def _open(self) -> None:
        await self.gate.wait()
        await self._proxy.gate.wait()


class Proxy:
    """Listens on a port of its own and leads to whatever server `address` names when a connection is opened,
    or to the last of the `detours`.
    """

    def __init__(self, address: Callable[[], Address]) -> None:
        self._address = address
        self._refusals: set[object] = set()
        self.delay = 0.0
        self.detours: dict[object, Address] = {}
        self.gate = _Gate()
        self._losses: list[Loss] = []
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self._socket: socket.socket | None = None
        self.port = 0

    async def start(self) -> None:
        """Bind a port and accept connections."""
        self._bind(0)
        await self._listen()

    async def stop(self) -> None:
        """Reset all connections and give the port back."""
        if self._server is not None:
            self._server.close()
        elif self._socket is not None:
            self._socket.close()
        await self._end(list(self._connections))

    def dsn(self, database: str) -> str:
        """What to connect with."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}?sslmode=disable"

    def refuse(self, reason: object) -> None:
        """Refuse new connections until `accept` is told the same reason; the open ones go on."""
        self._refusals.add(reason)
        if self._server is not None:
            self._server.close()
            self._server = None
            # Bound and not listening: the kernel refuses, and nobody else gets the port.
            self._bind(self.port)

    async def accept(self, reason: object) -> None:
        """Take new connections again, unless there is another reason to refuse them."""
        self._refusals.discard(reason)
        if self._server is None and not self._refusals:
            await self._listen()

    def silence(self, reason: object) -> None:
        """Let nothing through, on old connections and new ones, until `restore` is told the same reason."""
        self.gate.shut(reason)

    def restore(self, reason: object) -> None:
        """Deliver what has waited."""
        self.gate.open(reason)

    def cut(self, only: Callable[[Connection], bool] = lambda _: True) -> int:
        """Reset the open connections; returns how many."""
        chosen = [one for one in self._connections if only(one)]
        for connection in chosen:
            connection.cut()
        return len(chosen)

    def freeze(self, reason: object, only: Callable[[Connection], bool] = lambda _: True) -> list[Connection]:
        """Let the open connections fall silent, not those that come; each is opened or cut by itself."""
        chosen = [one for one in self._connections if only(one) and not one.left.is_set()]
        for connection in chosen:
            connection.gate.shut(reason)
            connection.asked_at = None
        return chosen

    def lose(self, what: str, lose: Literal["request", "reply"], then: Then) -> Loss:
        """Lose the request or the reply of the next such statement."""
        loss = Loss(what, lose, then)
        self._losses.append(loss)
        return loss

    def forget(self, loss: Loss) -> None:
        """Lose it no more, if that hasn't happened yet."""
        if loss in self._losses:
            self._losses.remove(loss)

    def loss_for(self, sql: str) -> Loss | None:
        """The loss that concerns this statement, once."""
        for loss in self._losses:
            if loss.concerns(sql):
                self._losses.remove(loss)
                return loss
        return None

    @property
    def connections(self) -> list[Connection]:
        """The open ones."""
        return list(self._connections)

    @property
    def listeners(self) -> set[Connection]:
        """The connections on which a LISTEN has gone through, and which are open and not silent."""
        return {one for one in self._connections if one.listens and one.gate.is_open}

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._on_connection, sock=self._socket, backlog=128)

    def _bind(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = next(reversed(self.detours.values()), None) or self._address()
        connection = Connection(self, (reader, writer), address)
        task = asyncio.current_task()
        assert task is not None
        self._connections[connection] = task
        try:
            await connection.run()
        finally:
            del self._connections[connection]

    async def _end(self, connections: list[Connection]) -> None:
        tasks = [self._connections[one] for one in connections]
        for connection in connections:
            connection.cut()
        if tasks:
            await asyncio.wait(tasks)


async def connect(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection to the server."""
    if isinstance(address, Path):
        return await asyncio.open_unix_connection(str(address))
    return await asyncio.open_connection(*address)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST; what was written and not sent is lost."""
    opened = writer.get_extra_info("socket")
    with suppress(OSError, ValueError):
        if opened is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    writer.transport.abort()
