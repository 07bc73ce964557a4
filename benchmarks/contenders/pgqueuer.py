"""pgqueuer, as its own `tools/benchmark.py` runs it: asyncpg, uvloop, a connection for each instance."""

from __future__ import annotations

import json
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.contenders import python_peer
from benchmarks.contenders.contender import NOOP, Command
from benchmarks.server import lasting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pgqueuer.queries import Queries


@dataclass(frozen=True)
class Pgqueuer:
    """So many instances in one process, each with its batch size.

    Five instances of batch 10 is what its benchmark does by default; one of batch 500 was the quickest here.
    """

    instances: int
    batch: int
    leads: bool = False

    peer: ClassVar[str] = "pgqueuer"
    left: ClassVar[str] = "SELECT (SELECT id FROM pgqueuer ORDER BY id DESC LIMIT 1) IS NOT NULL"
    history: ClassVar[str] = "kept (pgqueuer_log)"
    share: ClassVar[float] = 1.0

    @property
    def name(self) -> str:
        return f"pgqueuer-{self.instances}x{self.batch}"

    @property
    def settings(self) -> str:
        return f"asyncpg, uvloop, {self.instances} × batch_size {self.batch}, autovacuum settings applied"

    def install(self) -> None:
        python_peer.install(self.peer)

    def version(self) -> str:
        return metadata.version("pgqueuer")

    async def prepare(self, dsn: str) -> None:
        async with _connected(dsn, 1) as queries:
            await queries.install()
            # The first line of its checklist for throughput.
            await queries.optimize_autovacuum()

    @asynccontextmanager
    async def producer(self, dsn: str, *, connections: int = 1) -> AsyncIterator[_Producer]:
        async with _connected(dsn, connections) as queries:
            yield _Producer(queries)

    def worker(self, dsn: str) -> Command:
        program = [sys.executable, "-m", "benchmarks.workers.pgqueuer_worker"]
        return Command([*program, dsn, str(self.instances), str(self.batch)])


@asynccontextmanager
async def _connected(dsn: str, connections: int) -> AsyncIterator[Queries]:
    from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
    from pgqueuer.queries import Queries

    async with lasting(dsn, connections) as database:
        yield Queries((AsyncpgPoolDriver if connections > 1 else AsyncpgDriver)(database))


class _Producer:
    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def requests(self, count: int, sent_at: float | None = None) -> list[Any]:
        name, payload = _task(sent_at)
        return [(name, payload, 0)] * count

    async def enqueue(self, sent_at: float | None = None) -> None:
        name, payload = _task(sent_at)
        await self._queries.enqueue(name, payload)

    async def enqueue_many(self, requests: list[Any]) -> None:
        # One call for all, as its benchmark fills the queue.
        names, payloads, priorities = map(list, zip(*requests, strict=True))
        await self._queries.enqueue(names, payloads, priorities)


def _task(sent_at: float | None) -> tuple[str, bytes]:
    if sent_at is None:
        return "noop", json.dumps(NOOP).encode()
    return "stamp", json.dumps({"sent_at": sent_at}).encode()
