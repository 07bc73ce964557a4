"""procrastinate, with the concurrency that its how-to names."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.contenders import python_peer
from benchmarks.contenders.contender import NOOP, Command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass(frozen=True)
class Procrastinate:
    """One worker process on psycopg."""

    leads: bool = True

    peer: ClassVar[str] = "procrastinate"
    name: ClassVar[str] = "procrastinate"
    left: ClassVar[str] = (
        "SELECT (SELECT id FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
        " ORDER BY id DESC LIMIT 1) IS NOT NULL"
    )
    settings: ClassVar[str] = "psycopg, uvloop, concurrency 30"
    history: ClassVar[str] = "kept (jobs and events)"
    share: ClassVar[float] = 0.1

    def install(self) -> None:
        python_peer.install(self.peer)

    def version(self) -> str:
        return metadata.version("procrastinate")

    async def prepare(self, dsn: str) -> None:
        from benchmarks.workers.procrastinate_app import connected

        async with connected(dsn, 1) as app:
            await app.schema_manager.apply_schema_async()

    @asynccontextmanager
    async def producer(self, dsn: str, *, connections: int = 1) -> AsyncIterator[_Producer]:
        from benchmarks.workers.procrastinate_app import connected

        async with connected(dsn, connections) as app:
            yield _Producer(app.tasks)

    def worker(self, dsn: str) -> Command:
        return Command([sys.executable, "-m", "benchmarks.workers.procrastinate_app", dsn])


class _Producer:
    def __init__(self, tasks: dict[str, Any]) -> None:
        self._tasks = tasks

    def requests(self, count: int, sent_at: float | None = None) -> list[Any]:
        return [_task(sent_at)] * count

    async def enqueue(self, sent_at: float | None = None) -> None:
        name, arguments = _task(sent_at)
        await self._tasks[name].defer_async(**arguments)

    async def enqueue_many(self, requests: list[Any]) -> None:
        name = requests[0][0]
        await self._tasks[name].batch_defer_async(*(arguments for _, arguments in requests))


def _task(sent_at: float | None) -> tuple[str, dict[str, Any]]:
    return ("noop", NOOP) if sent_at is None else ("stamp", {"sent_at": sent_at})
