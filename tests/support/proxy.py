"""A proxy between clients and a server that can break the network between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit


class Proxy:
    """Carries bytes both ways, until it is told to refuse, to reset or to fall silent."""

    def __init__(self, dsn: str) -> None:
        self._url = urlsplit(dsn)
        self._open = asyncio.Event()
        self._open.set()
        self._carrying: set[asyncio.Task[None]] = set()
        self._refuses = False
        self.connections = 0  # asked for so far

    @property
    def dsn(self) -> str:
        """What to connect with."""
        return f"postgresql://postgres@{self.address}{self._url.path}?sslmode=disable"

    @property
    def address(self) -> str:
        """The host and port where it listens."""
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    async def start(self) -> None:
        """Listen on a port of its own."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Reset everything."""
        self._server.close()
        self.reset()
        while self._carrying:
            await asyncio.wait(self._carrying)

    def silence(self) -> None:
        """Let nothing through any more, old or new: a host that was unplugged."""
        self._open.clear()

    def restore(self) -> None:
        """Deliver what waited, and take connections again."""
        self._open.set()
        self._refuses = False

    def refuse(self) -> None:
        """Reset every connection, and every new one."""
        self._refuses = True
        self.reset()

    def reset(self) -> None:
        """End every connection at once."""
        for task in self._carrying:
            task.cancel()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        writers = [writer]
        try:
            if self._refuses:
                return
            from_server, to_server = await self._connect()
            writers.append(to_server)
            pumps = self._pump(reader, to_server), self._pump(from_server, writer)
            async with asyncio.TaskGroup() as group:
                for pump in pumps:
                    group.create_task(pump)
        except* (OSError, EOFError):
            pass
        except* asyncio.CancelledError:
            pass
        finally:
            for one in writers:
                one.transport.abort()
            self._carrying.discard(task)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        given = {name: values[-1] for name, values in parse_qs(self._url.query).items()}
        port = int(given.get("port") or self._url.port or 5432)
        host = given.get("host") or self._url.hostname or "localhost"
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        raise EOFError


@asynccontextmanager
async def proxy_to(dsn: str) -> AsyncIterator[Proxy]:
    """A proxy to a server, for a test."""
    proxy = Proxy(dsn)
    await proxy.start()
    try:
        yield proxy
    finally:
        with suppress(OSError):
            await proxy.stop()
