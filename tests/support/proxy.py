"""A proxy between clients of PostgreSQL and the server, that breaks their connections on request.

    async with proxy_to(dsn) as proxy:
        connection = await asyncpg.connect(proxy.dsn)
        proxy.silence()

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
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs, urlsplit

STATEMENTS = {
    "commit": re.compile(r"\A\s*commit\b", re.IGNORECASE),
    # Of the lanes: claims of control tasks come beside them all the time, and find nothing.
    "claim": re.compile(r"\A-- Claim (?:up to|from) "),
    "finalize": re.compile(r"DELETE FROM \S*tasks AS t\s+USING (?:outcome|unnest)"),
    "renew": re.compile(r"SET expires_at = .* renewed_at = ", re.DOTALL),
    "enqueue": re.compile(r"\benqueue(_many)?\s*\("),
}
"""What tells one statement from the others, in its text. `any` is every one of them."""

MIDDLEMAN = "middleman"
"""The name of the asyncio tasks here and of the pooler's: they end when they hear that both sides have."""

_PROTOCOL_3 = 196608
_READY = b"Z\x00\x00\x00\x05"
_NO_ROWS = b"2\x00\x00\x00\x04C"  # bound, and complete already
_CHUNK = 65536
_STARTUP_HEAD = 8
_PID = re.compile(rb"chaos\.process\0([0-9]+)\0")
_LINGER_NOT = struct.pack("ii", 1, 0)  # closing sends RST

Part = Literal["request", "reply"]
Then = Literal["cut", "freeze", "silence"]
"""Reset that connection, let it fall silent, or let nothing through any more."""


@dataclass(eq=False)
class Loss:
    """Which part of the next such statement is lost, and what comes then."""

    what: str
    part: Part
    then: Then
    connection: Connection | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)
    is_forgotten: bool = False

    def concerns(self, sql: str) -> bool:
        """Whether this statement is the one."""
        kinds = STATEMENTS.values() if self.what == "any" else [STATEMENTS[self.what]]
        return not self.is_forgotten and any(kind.search(sql) for kind in kinds)

    def forget(self) -> None:
        """Lose nothing, if that hasn't happened yet."""
        self.is_forgotten = True


class Gate:
    """Open, or shut for any number of reasons."""

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
        self, proxy: Proxy, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._from_client, self._to_client = from_client, to_client
        self._prepared: dict[bytes, str] = {}
        self._loss: Loss | None = None
        self._pumps: list[asyncio.Task[None]] = []
        self._requests: asyncio.Queue[tuple[bytes, bytes] | None] = asyncio.Queue()
        self.gate = Gate()
        self.listens = False
        self.last_statement = ""
        self.asked_at: float | None = None  # when the client first wanted something of it since it is silent
        self.was_cut = False  # by us
        self.client_port: int = to_client.get_extra_info("peername")[1]
        self.pid: int | None = None  # the client's, where it says so
        self.left = asyncio.Event()  # the client closed it, whether or not anything gets through

    async def carry(self, server: str) -> None:
        """Carry bytes both ways until either side closes."""
        try:
            from_server, self._to_server = await connect(server)
        except OSError:
            reset(self._to_client)
            return
        pumps = self._take_requests(), self._carry_requests(), self._carry_replies(from_server)
        self._pumps = [asyncio.create_task(pump, name=MIDDLEMAN) for pump in pumps]
        if self._to_client.is_closing():
            self.cut()
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
        self.gate.shut(self)
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
        if self._loss is None or self._loss.part == "reply":
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
        withheld = b""
        with suppress(OSError):
            while chunk := await from_server.read(_CHUNK):
                withheld += chunk
                # ReadyForQuery is the end of a reply: by then whatever was to be committed is.
                if self._loss is not None and withheld[-6:-1] == _READY:
                    await self._judge(self._loss, withheld)
                if self._loss is None:
                    await self._send(self._to_client, withheld)
                    withheld = b""

    async def _judge(self, loss: Loss, reply: bytes) -> None:
        """Lose a reply, unless it says that nothing was done: then the loss waits for the next one."""
        if loss.is_forgotten or reply.startswith(_NO_ROWS):
            self._loss = None
            self._proxy.losses.append(loss)
        else:
            await self._finish_loss(loss)

    async def _finish_loss(self, loss: Loss) -> None:
        loss.connection = self
        loss.done.set()
        if loss.then == "cut":
            self.cut()
        else:
            (self if loss.then == "freeze" else self._proxy).gate.shut(loss)
        await self._open()

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
    """Listens on a port of its own and leads to the server that a URL names when a connection is opened.

    Faults last until `restore` is told the same reason, so that several may overlap.
    """

    def __init__(self, server: Callable[[], str]) -> None:
        self._url = server
        self._refusals: set[object] = set()
        self._detours: dict[object, str] = {}
        self.connections: dict[Connection, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self._socket: socket.socket | None = None
        self.losses: list[Loss] = []
        self.gate = Gate()
        self.delay = 0.0  # seconds, of whatever is sent
        self.accepted = 0  # connections so far

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
        while self.connections:
            self.cut()
            await asyncio.wait(self.connections.values())

    @property
    def dsn(self) -> str:
        """The same database, through here."""
        url = urlsplit(self._url())
        return f"postgresql://{url.netloc.rpartition('@')[0]}@{self.address}{url.path}?sslmode=disable"

    def refuse(self, reason: object = None) -> None:
        """Refuse new connections; the open ones go on."""
        self._refusals.add(reason)
        if self._server is not None:
            self._server.close()
            self._server = None
            # Bound and not listening: the kernel refuses, and nobody else gets the port.
            self._bind(self._port)

    def silence(self, reason: object = None) -> None:
        """Let nothing through, on old connections and new ones."""
        self.gate.shut(reason)

    def divert(self, server: str, reason: object = None) -> None:
        """Lead new connections to another server; where nobody answers there, they are reset."""
        self._detours[reason] = server

    async def restore(self, reason: object = None) -> None:
        """Deliver what has waited and take new connections again, unless there is another reason not to."""
        self.gate.open(reason)
        self._detours.pop(reason, None)
        self._refusals.discard(reason)
        if self._server is None and not self._refusals:
            await self._listen()

    def cut(self, only: Callable[[Connection], bool] = lambda _: True) -> int:
        """Reset the open connections; returns how many."""
        chosen = [one for one in self.connections if only(one)]
        for connection in chosen:
            connection.cut()
        return len(chosen)

    def freeze(
        self, reason: object = None, only: Callable[[Connection], bool] = lambda _: True
    ) -> list[Connection]:
        """Let the open connections fall silent, not those that come; each is opened or cut by itself."""
        chosen = [one for one in self.connections if only(one) and not one.left.is_set()]
        for connection in chosen:
            connection.gate.shut(reason)
            connection.asked_at = None
        return chosen

    def lose(self, what: str, part: Part = "reply", then: Then = "cut") -> Loss:
        """Lose the request or the reply of the next such statement; a reply that nothing was done passes."""
        loss = Loss(what, part, then)
        self.losses.append(loss)
        return loss

    def loss_for(self, sql: str) -> Loss | None:
        """The loss that concerns this statement, once."""
        for loss in self.losses:
            if loss.concerns(sql):
                self.losses.remove(loss)
                return loss
        return None

    @property
    def listeners(self) -> set[Connection]:
        """The connections on which a LISTEN has gone through, and which are open and not silent."""
        return {one for one in self.connections if one.listens and one.gate.is_open}

    async def _listen(self) -> None:
        # Nobody else gets a turn before it is known: they may refuse again, or restore.
        self._server = await asyncio.start_server(self._accept, sock=self._socket, start_serving=False)
        await self._server.start_serving()

    def _bind(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self._socket.setblocking(False)
        self._port = self._socket.getsockname()[1]
        self.address = f"127.0.0.1:{self._port}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = Connection(self, reader, writer)
        task = asyncio.current_task()
        assert task is not None
        task.set_name(MIDDLEMAN)
        self.connections[connection] = task
        try:
            await connection.carry(next(reversed(self._detours.values()), None) or self._url())
        finally:
            del self.connections[connection]


@asynccontextmanager
async def proxy_to(dsn: str) -> AsyncIterator[Proxy]:
    """A proxy to a server, for a test."""
    proxy = Proxy(lambda: dsn)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()


async def connect(dsn: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection to the server."""
    url = urlsplit(dsn)
    given = {name: values[-1] for name, values in parse_qs(url.query).items()}
    host, port = given.get("host") or url.hostname or "localhost", given.get("port") or url.port or 5432
    if host.startswith("/"):
        return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
    return await asyncio.open_connection(host, port)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST; what was written and not sent is lost."""
    opened = writer.get_extra_info("socket")
    with suppress(OSError, ValueError):
        if opened is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    writer.transport.abort()
