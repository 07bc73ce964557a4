"""A proxy before the server, for one test: it can fall silent, and lose a statement or the answer to it."""

from __future__ import annotations

import asyncio
import re
import struct
from contextlib import suppress
from typing import Literal
from urllib.parse import parse_qs, urlsplit

LONG_ENOUGH = 30.0

CLAIM = re.compile(r"^-- Claim up to ")
FINALIZE = re.compile(r"^-- Write what became of executions")
ENQUEUE = re.compile(r"\.enqueue\(")
COMMIT = re.compile(r"^COMMIT", re.IGNORECASE)

_READY_FOR_QUERY = b"Z\x00\x00\x00\x05"
_NO_ROWS = b"2\x00\x00\x00\x04C"  # bound, and complete already


class Proxy:
    """Carries what clients on a port of its own say to the server of that URL, and back.

    Silence is that of a network: nothing gets through, and what has waited arrives when it ends.
    """

    def __init__(self, dsn: str) -> None:
        self._url = urlsplit(dsn)
        self._through = asyncio.Event()
        self._through.set()
        self._order: tuple[re.Pattern[str], str, str] | None = None
        self._wanted = self._order
        self._carriers: set[asyncio.Task[None]] = set()
        self.lost = asyncio.Event()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for carrier in self._carriers:
            carrier.cancel()
        if self._carriers:
            await asyncio.wait(self._carriers)

    @property
    def dsn(self) -> str:
        """The same database, through here."""
        user = self._url.netloc.rpartition("@")[0]
        return f"postgresql://{user}@127.0.0.1:{self.port}{self._url.path}?sslmode=disable"

    def silence(self) -> None:
        self._through.clear()

    def restore(self) -> None:
        self._through.set()

    def lose(
        self,
        statement: re.Pattern[str],
        what: Literal["statement", "answer"],
        then: Literal["reset", "silence"] = "reset",
    ) -> None:
        """Lose the next such statement or, once the server has done it, its answer.

        Then reset that connection, or silence all of them. An answer that says that nothing was done passes.
        """
        self._wanted = self._order = statement, what, then

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carriers.add(task)
        task.add_done_callback(self._carriers.discard)
        try:
            with suppress(asyncio.CancelledError):  # asyncio asks such a task for its error
                await _Connection(self, reader, writer, *await self._open()).carry()
        finally:
            writer.transport.abort()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        query = parse_qs(self._url.query)
        if "host" in query:
            return await asyncio.open_unix_connection(f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}")
        return await asyncio.open_connection(self._url.hostname, self._url.port or 5432)

    def loses(self, sql: str) -> str | None:
        if self._wanted is None or not self._wanted[0].search(sql):
            return None
        (_, what, self._then), self._wanted = self._wanted, None
        return what

    def lose_the_next(self) -> None:
        self._wanted = self._order

    async def note_loss(self) -> None:
        self.lost.set()
        if self._then == "silence":
            self.silence()
        await self.passage()

    async def passage(self) -> None:
        await self._through.wait()


class _Connection:
    def __init__(
        self,
        proxy: Proxy,
        client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._client, self._to_client = client, to_client
        self._server, self._to_server = server, to_server
        self._prepared: dict[bytes, str] = {}
        self._losing = False

    async def carry(self) -> None:
        ways = [asyncio.create_task(self._requests()), asyncio.create_task(self._answers())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)
            self._to_server.transport.abort()

    async def _requests(self) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await self._pass_on(await self._startup())
            while True:
                head = await self._client.readexactly(5)
                body = await self._client.readexactly(struct.unpack("!i", head[1:])[0] - 4)
                sql = self._executed(head[:1], body)
                loss = None if sql is None else self._proxy.loses(sql)
                if loss == "statement":
                    await self._proxy.note_loss()
                    return
                self._losing = self._losing or loss == "answer"
                await self._pass_on(head + body)

    async def _startup(self) -> bytes:
        head = await self._client.readexactly(4)
        return head + await self._client.readexactly(struct.unpack("!i", head)[0] - 4)

    async def _pass_on(self, data: bytes) -> None:
        await self._proxy.passage()
        self._to_server.write(data)
        await self._to_server.drain()

    def _executed(self, kind: bytes, body: bytes) -> str | None:
        """The statement that this message executes, if it does."""
        if kind == b"Q":
            return body.decode(errors="replace")
        if kind == b"P":
            name, sql, _ = body.split(b"\0", 2)
            self._prepared[name] = sql.decode(errors="replace")
        if kind == b"B":
            _, name, _ = body.split(b"\0", 2)
            return self._prepared.get(name)
        return None

    async def _answers(self) -> None:
        tail = b""
        with suppress(OSError):
            while data := await self._server.read(65536):
                if self._losing and data.startswith(_NO_ROWS):
                    self._losing = False
                    self._proxy.lose_the_next()
                if not self._losing:
                    await self._proxy.passage()
                    self._to_client.write(data)
                    await self._to_client.drain()
                    continue
                tail = (tail + data)[-6:]
                if tail.startswith(_READY_FOR_QUERY):  # by now it has been done
                    await self._proxy.note_loss()
                    return
