"""asynctaskd, by its public client and `asynctaskd run`."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from asynctaskd import Client
from asynctaskd.postgres.migrate import migrate
from asynctaskd.version import __version__
from benchmarks.contenders.contender import NOOP, Command
from benchmarks.noop import app, noop, stamp
from benchmarks.server import lasting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asynctaskd.definitions.request import TaskRequest

CHUNK = 10_000


@dataclass(frozen=True)
class Asynctaskd:
    """One worker process.

    Args:
        concurrency: how many tasks run at once.
        keep: how long finished records are kept; None is the default, a week.
        leads: whether it stands for asynctaskd.
        listen: whether notices wake it.
        processes: how many worker processes a parent has; with 0 there is one, and no parent.
        labels: what each of them offers.
    """

    concurrency: int
    keep: str | None = None
    leads: bool = False
    listen: str = "auto"
    processes: int = 0
    labels: tuple[str, ...] = ()

    peer: ClassVar[str] = "asynctaskd"
    left: ClassVar[str] = "SELECT (SELECT id FROM asynctaskd.tasks ORDER BY id DESC LIMIT 1) IS NOT NULL"
    share: ClassVar[float] = 1.0

    @property
    def name(self) -> str:
        return f"asynctaskd-{self.concurrency}" + ("-keep0" if self.keep == "0s" else "")

    @property
    def settings(self) -> str:
        return f"concurrency {self.concurrency:,}"

    @property
    def history(self) -> str:
        return "not kept (keep=0)" if self.keep == "0s" else "kept"

    def install(self) -> None:
        """The harness runs in an environment that has it."""

    def version(self) -> str:
        return __version__

    async def prepare(self, dsn: str) -> None:
        await migrate(dsn, schema="asynctaskd")

    @asynccontextmanager
    async def producer(self, dsn: str, *, connections: int = 1) -> AsyncIterator[_Producer]:
        async with lasting(dsn, connections) as database:
            yield _Producer(Client(database, app))

    def worker(self, dsn: str) -> Command:
        command = [
            sys.executable,
            "-m",
            "asynctaskd",
            "run",
            "--app",
            "benchmarks.noop:app",
        ]
        if self.processes:
            command += ["--processes", str(self.processes)]
        environment = {
            "ASYNCTASKD_DATABASE_URL": dsn,
            "ASYNCTASKD_DATABASE_LISTEN": self.listen,
            "ASYNCTASKD_WORKER_CONCURRENCY": str(self.concurrency),
            "ASYNCTASKD_WORKER_LABELS": ",".join(self.labels),
        }
        return Command(command, environment | ({"BENCH_KEEP": self.keep} if self.keep else {}))


class _Producer:
    def __init__(self, client: Client) -> None:
        self._client = client

    def requests(self, count: int, sent_at: float | None = None) -> list[TaskRequest]:
        return [_request(sent_at)] * count

    async def enqueue(self, sent_at: float | None = None) -> None:
        await self._client.enqueue(_request(sent_at))

    async def enqueue_many(self, requests: list[Any]) -> None:
        for start in range(0, len(requests), CHUNK):
            await self._client.enqueue_many(requests[start : start + CHUNK])


def _request(sent_at: float | None) -> TaskRequest:
    return noop.request(**NOOP) if sent_at is None else stamp.request(sent_at)
