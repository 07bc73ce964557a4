"""awa, by its Python bindings, on its queue storage."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.contenders import python_peer
from benchmarks.contenders.contender import NOOP, QUEUE, Command, with_host

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CHUNK = 10_000


@dataclass(frozen=True)
class Awa:
    """One worker process; `claim_batch_size` is its default of 512, which its documentation recommends."""

    leads: bool = True

    peer: ClassVar[str] = "awa"
    name: ClassVar[str] = "awa"
    left: ClassVar[str] = "SELECT EXISTS (SELECT FROM awa.jobs WHERE state <> 'completed')"
    settings: ClassVar[str] = "queue storage, COPY, max_workers 1,000, 50 connections"
    history: ClassVar[str] = "kept in a ring, which is pruned as it turns"
    share: ClassVar[float] = 1.0

    def install(self) -> None:
        python_peer.install(self.peer)

    def version(self) -> str:
        return metadata.version("awa-pg")

    async def prepare(self, dsn: str) -> None:
        from awa import AsyncClient

        client = AsyncClient(with_host(dsn))
        await client.migrate()
        # `awa` is the schema that workers take by default; elsewhere they would have to be told.
        await client.install_queue_storage(schema="awa", reset=True)
        await client.close()

    @asynccontextmanager
    async def producer(self, dsn: str, *, connections: int = 1) -> AsyncIterator[_Producer]:
        from awa import AsyncClient

        client = AsyncClient(with_host(dsn), max_connections=connections)
        try:
            yield _Producer(client)
        finally:
            await client.close()

    def worker(self, dsn: str) -> Command:
        return Command([sys.executable, "-m", "benchmarks.workers.awa_worker", with_host(dsn)])


class _Producer:
    def __init__(self, client: Any) -> None:
        self._client = client

    def requests(self, count: int, sent_at: float | None = None) -> list[Any]:
        return [_job(sent_at)] * count

    async def enqueue(self, sent_at: float | None = None) -> None:
        await self._client.insert(_job(sent_at), queue=QUEUE)

    async def enqueue_many(self, requests: list[Any]) -> None:
        for start in range(0, len(requests), CHUNK):
            await self._client.enqueue_many_copy(requests[start : start + CHUNK], queue=QUEUE)


def _job(sent_at: float | None) -> Any:
    from benchmarks.workers.awa_jobs import Noop, Stamp

    return Noop(**NOOP) if sent_at is None else Stamp(sent_at)
