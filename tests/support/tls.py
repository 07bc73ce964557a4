"""A server that speaks TLS, though the one behind it doesn't: its certificate is the test's to choose."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import trustme

_SSL_REQUEST = 80877103
_CHUNK = 65536
_PROTOCOL_VERSION = bytes.fromhex("15030100020246")  # a fatal alert


@dataclass
class TlsServer:
    """Where it listens, and what it says.

    Attributes:
        port: on the loopback interface.
        context: what the next connections meet; None offers no TLS.
        is_old: whether it knows no version of TLS that the client would speak.
        versions: the protocol of each connection that was made.
    """

    port: int = 0
    context: ssl.SSLContext | None = None
    is_old: bool = False
    versions: list[str | None] = field(default_factory=list)
    doing: set[asyncio.Task[None]] = field(default_factory=set)

    def reset(self) -> None:
        """End all connections."""
        for task in self.doing:
            task.cancel()

    def show(self, certificate: trustme.LeafCert | None) -> None:
        """What to meet the next connections with."""
        if certificate is None:
            self.context = None
            return
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self.context)


@asynccontextmanager
async def tls_to(dsn: str) -> AsyncIterator[TlsServer]:
    """A server with TLS before the one of that URL."""
    server = TlsServer()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        server.doing.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await _serve(server, dsn, reader, writer)
        finally:
            writer.close()
            server.doing.discard(task)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        server.reset()
        await asyncio.gather(*server.doing, return_exceptions=True)
        await listening.wait_closed()


async def _serve(
    server: TlsServer, dsn: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    head = await reader.readexactly(8)
    if int.from_bytes(head[4:], "big") == _SSL_REQUEST:
        writer.write(b"N" if server.context is None else b"S")
        await writer.drain()
        head = b""
        if server.is_old:
            await reader.read(_CHUNK)
            writer.write(_PROTOCOL_VERSION)
            return
        if server.context is not None:
            await writer.start_tls(server.context)
            server.versions.append(writer.get_extra_info("ssl_object").version())
    to_server_reader, to_server = await _behind(dsn)
    try:
        to_server.write(head)
        await asyncio.wait(
            [
                asyncio.create_task(_pump(reader, to_server)),
                asyncio.create_task(_pump(to_server_reader, writer)),
            ],
            return_when=asyncio.FIRST_COMPLETED,
        )
    finally:
        to_server.close()


async def _behind(dsn: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = urlsplit(dsn)
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    host, port = query.get("host") or url.hostname or "localhost", int(query.get("port") or url.port or 5432)
    if host.startswith("/"):
        return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
    return await asyncio.open_connection(host, port)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
