"""graphile-worker, with the settings of its performance page: local queue, batched completion."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import asyncpg

from benchmarks.contenders.contender import NOOP, ROOT, Command, UnavailableError, with_host
from benchmarks.server import lasting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NODE = ROOT / "benchmarks" / "node"

ADD_JOB = "SELECT graphile_worker.add_job($1, $2::json)"
# Its result is cast away as in its performance test: nobody needs the rows back.
ADD_JOBS = """
    SELECT 1 FROM graphile_worker.add_jobs(
        array(SELECT json_populate_recordset(NULL::graphile_worker.job_spec, $1::json)))
"""


@dataclass(frozen=True)
class GraphileWorker:
    """One node process. It enqueues by SQL, which its documentation has, on asynctaskd's driver."""

    leads: bool = True

    peer: ClassVar[str] = "graphile-worker"
    name: ClassVar[str] = "graphile-worker"
    left: ClassVar[str] = (
        "SELECT (SELECT id FROM graphile_worker._private_jobs ORDER BY id DESC LIMIT 1) IS NOT NULL"
    )
    settings: ClassVar[str] = "node, concurrentJobs 24, localQueue 500, completeJobBatchDelay 0"
    history: ClassVar[str] = "not kept"
    share: ClassVar[float] = 1.0

    def install(self) -> None:
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            raise UnavailableError("node and npm are needed, and not found")
        if (
            NODE / "node_modules" / "graphile-worker" / "package.json"
        ).exists() and self.version() == _pinned():
            return
        done = subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund"],
            cwd=NODE, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise UnavailableError(f"npm can't install it: {done.stderr.strip()[-200:]}")

    def version(self) -> str:
        package = NODE / "node_modules" / "graphile-worker" / "package.json"
        return str(json.loads(package.read_text())["version"])

    async def prepare(self, dsn: str) -> None:
        program = ["node", str(NODE / "migrate.mjs"), with_host(dsn)]
        subprocess.run(program, stdin=subprocess.DEVNULL, capture_output=True, check=True)  # noqa: ASYNC221

    @asynccontextmanager
    async def producer(self, dsn: str, *, connections: int = 1) -> AsyncIterator[_Producer]:
        async with lasting(dsn, connections) as database:
            yield _Producer(database)

    def worker(self, dsn: str) -> Command:
        return Command(["node", str(NODE / "worker.mjs"), with_host(dsn)])


class _Producer:
    def __init__(self, database: asyncpg.Pool | asyncpg.Connection) -> None:
        self._database = database

    def requests(self, count: int, sent_at: float | None = None) -> list[Any]:
        name, payload = _task(sent_at)
        return [{"identifier": name, "payload": payload}] * count

    async def enqueue(self, sent_at: float | None = None) -> None:
        name, payload = _task(sent_at)
        await self._database.execute(ADD_JOB, name, json.dumps(payload))

    async def enqueue_many(self, requests: list[Any]) -> None:
        await self._database.execute(ADD_JOBS, json.dumps(requests))


def _task(sent_at: float | None) -> tuple[str, dict[str, Any]]:
    return ("noop", NOOP) if sent_at is None else ("stamp", {"sent_at": sent_at})


def _pinned() -> str:
    return str(json.loads((NODE / "package.json").read_text())["dependencies"]["graphile-worker"])
