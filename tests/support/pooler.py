"""A pooler as PgBouncer is in transaction mode: each transaction gets one of a few sessions, at random."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from tests.support.proxy import MIDDLEMAN, connect

KNOWN = {"user", "database", "client_encoding", "application_name", "DateStyle", "TimeZone"}
_SSL_REQUEST = 80877103
_PROTOCOL_3 = 196608

Message = tuple[bytes, bytes]


class Session:
    """A connection to the server, which whoever has a transaction uses for that long."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.greeting: list[Message] = []

    async def begin(self, database: str) -> None:
        """Log in; what the server says of itself is kept for the clients."""
        facts = b"".join(
            word.encode() + b"\0"
            for word in ("user", "postgres", "database", database, "application_name", "")
        )
        self.writer.write(struct.pack("!ii", len(facts) + 9, _PROTOCOL_3) + facts + b"\0")
        while (message := await read(self.reader))[0] != b"Z":
            self.greeting.append(message)


class Pooler:
    """Refuses settings it doesn't know, or with `ignores` drops them; that is all a client's session is."""

    def __init__(self, dsn: str, *, ignores: bool, sessions: int) -> None:
        self._url = urlsplit(dsn)
        self._ignores = ignores
        self._size = sessions
        self._free: list[Session] = []
        self._freed = asyncio.Condition()
        self._writers: list[asyncio.StreamWriter] = []
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def dsn(self) -> str:
        """What to connect with."""
        host, port = self._server.sockets[0].getsockname()
        return f"postgresql://postgres@{host}:{port}{self._url.path}"

    async def start(self) -> None:
        """Open the sessions, and listen."""
        for _ in range(self._size):
            self._free.append(await self._open())
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        """End everything."""
        self._server.close()
        while self._serving:
            for task in self._serving:
                task.cancel()
            await asyncio.wait(self._serving)
        for writer in self._writers:
            writer.transport.abort()

    async def take(self) -> Session:
        """Any session that is free."""
        async with self._freed:
            await self._freed.wait_for(lambda: self._free)
            return self._free.pop(random.randrange(len(self._free)))

    async def give_back(self, session: Session, *, is_clean: bool) -> None:
        """A transaction is over; where it was left open, its session ends."""
        if not is_clean:
            session.writer.transport.abort()
            session = await self._open()
        async with self._freed:
            self._free.append(session)
            self._freed.notify()

    async def _open(self) -> Session:
        streams = await connect(self._url.geturl())
        self._writers.append(streams[1])
        session = Session(*streams)
        await session.begin(self._url.path[1:])
        return session

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.set_name(MIDDLEMAN)
        self._serving.add(task)
        self._writers.append(writer)
        client = Client(self, reader, writer)
        try:
            with suppress(OSError, EOFError, asyncio.CancelledError):
                if await self._greet(reader, writer):
                    await client.serve()
        finally:
            writer.transport.abort()
            with suppress(asyncio.CancelledError, OSError):
                await client.leave()
            self._serving.discard(task)

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        code = _SSL_REQUEST
        while code == _SSL_REQUEST:
            length, code = struct.unpack("!ii", await reader.readexactly(8))
            facts = await reader.readexactly(length - 8)
            if code == _SSL_REQUEST:
                writer.write(b"N")
        if code != _PROTOCOL_3:  # a request to cancel
            return False
        strangers = {name.decode() for name in facts.split(b"\0")[:-2:2]} - KNOWN
        if strangers and not self._ignores:
            text = f"SFATAL\0C08P01\0Munsupported startup parameter: {min(strangers)}\0\0".encode()
            writer.write(packed((b"E", text)))
            await writer.drain()
            return False
        session = await self.take()
        for message in session.greeting:
            writer.write(packed(message))
        await self.give_back(session, is_clean=True)
        writer.write(packed((b"Z", b"I")))
        return True


class Client:
    """One client of the pooler, and the session it has for the time of a transaction."""

    def __init__(self, pooler: Pooler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._pooler, self._reader, self._writer = pooler, reader, writer
        self._session: Session | None = None
        self._answering: asyncio.Task[None] | None = None
        self._awaited = 0  # answers that are still to come

    async def serve(self) -> None:
        """Pass on what the client says, each transaction to some session."""
        while (message := await read(self._reader))[0] != b"X":
            if self._answering is not None and self._answering.done():
                await self._answering
                self._session = self._answering = None
            if self._session is None:
                self._session = await self._pooler.take()
            if message[0] in b"QS":
                self._awaited += 1
            self._session.writer.write(packed(message))
            if self._answering is None:
                self._answering = asyncio.create_task(self._answer(self._session), name=MIDDLEMAN)

    async def leave(self) -> None:
        """Give back the session, which is worth nothing within a transaction."""
        if self._answering is not None:
            is_clean = self._answering.done()
            self._answering.cancel()
            if self._session is not None and not is_clean:
                await self._pooler.give_back(self._session, is_clean=False)

    async def _answer(self, session: Session) -> None:
        while True:
            kind, body = await read(session.reader)
            self._writer.write(packed((kind, body)))
            if kind == b"Z":
                self._awaited -= 1
                if body == b"I" and not self._awaited:
                    await self._pooler.give_back(session, is_clean=True)
                    return


async def read(reader: asyncio.StreamReader) -> Message:
    """The next message: its kind and its body."""
    head = await reader.readexactly(5)
    return head[:1], await reader.readexactly(int.from_bytes(head[1:], "big") - 4)


def packed(message: Message) -> bytes:
    """A message as it travels."""
    kind, body = message
    return kind + struct.pack("!i", len(body) + 4) + body


@asynccontextmanager
async def pooler_to(dsn: str, *, ignores: bool = False, sessions: int = 3) -> AsyncIterator[Pooler]:
    """A pooler in front of a server, for a test."""
    pooler = Pooler(dsn, ignores=ignores, sessions=sessions)
    await pooler.start()
    try:
        yield pooler
    finally:
        await pooler.stop()
