"""A worker process: started, listened to, and ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
from contextlib import asynccontextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

import psutil

from benchmarks.contenders.contender import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.contenders.contender import Contender, Producer

LONGEST_LINE = 2**26
PATIENCE = 300.0
"""Seconds. Whoever says nothing for so long has failed."""

Stamp = tuple[float, float]
"""When a timed task was sent, and when it started."""


class WorkerError(Exception):
    """A worker process ended, or said nothing."""


class WorkerProcess:
    """A worker that runs."""

    def __init__(self, process: asyncio.subprocess.Process, errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors
        self._lines: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())
        self._counts: dict[int, int] = {}
        self.stamps: list[Stamp] = []

    async def event(self, name: str, *, patience: float = PATIENCE) -> dict[str, Any]:
        """The next line of that event. Stamps are gathered meanwhile."""
        async with _patience(patience, f"no {name!r} in {patience:.0f} s"):
            while True:
                line = await self._lines.get()
                if line is None:
                    raise WorkerError(f"the worker ended; it said: {self._last_words()}")
                if line["event"] == name:
                    return line

    async def count(self, tasks: int) -> None:
        """Until all its processes together have run so many."""
        while sum(self._counts.values()) < tasks:
            await self.event("count")

    async def started(self, stamps: int, *, patience: float = PATIENCE) -> None:
        """Until so many timed tasks have started."""
        async with _patience(patience, f"{stamps:,} tasks haven't started in {patience:.0f} s"):
            while len(self.stamps) < stamps:
                await self.event("stamps", patience=patience)

    async def warm_up(self, producer: Producer, tasks: int = 3) -> None:
        """Until it has run something, so that it is known to be there; its stamps are forgotten."""
        for place in range(1, tasks + 1):
            await producer.enqueue(sent_at=0.0)
            await self.started(place)
        self.stamps.clear()

    def cpu(self) -> float:
        """Seconds that it and its children have used."""
        used = [process.cpu_times() for process in self._tree()]
        return float(sum(times.user + times.system for times in used))

    def memory(self) -> int:
        """Bytes that are resident, its children's too."""
        return int(sum(process.memory_info().rss for process in self._tree()))

    async def stop(self) -> None:
        """End it, hard if it must be: what it holds may never end."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
            self._process.send_signal(signal.SIGINT)
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await self._process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        self._reading.cancel()

    def _tree(self) -> list[psutil.Process]:
        process = psutil.Process(self._process.pid)
        return [process, *process.children(recursive=True)]

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for text in self._process.stdout:
            if not text.startswith(b'{"event"'):
                continue  # a library that prints
            line = json.loads(text)
            if line["event"] == "stamps":
                self.stamps += [(sent, started) for sent, started in line["stamps"]]
            if line["event"] == "count":
                self._counts[line["pid"]] = line["count"]
            self._lines.put_nowait(line)
        self._lines.put_nowait(None)

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()[-500:] or "nothing"


@asynccontextmanager
async def worker_process(
    contender: Contender, dsn: str, *, tasks: int = 0, report: str = ""
) -> AsyncIterator[WorkerProcess]:
    """The contender's worker; see `workers/tally.py` for what it reports."""
    command = contender.worker(dsn)
    environment = _environment() | command.environment | {"BENCH_TASKS": str(tasks), "BENCH_REPORT": report}
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            *command.arguments, cwd=ROOT, env=environment, start_new_session=True, limit=LONGEST_LINE,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=errors,
        )  # fmt: skip
        worker = WorkerProcess(process, errors)
        try:
            yield worker
        finally:
            await worker.stop()


def _environment() -> dict[str, str]:
    # Settings of the caller's own workers and servers are not for these.
    return {name: value for name, value in os.environ.items() if not name.startswith(("ASYNCTASKD_", "PG"))}


@asynccontextmanager
async def _patience(seconds: float, message: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise WorkerError(message) from None
