"""The demo's worker processes: ordinary `asynctaskd run`, watched and stopped in order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

from asynctaskd.cli.demo_files import WEIGHTS, DemoFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from pathlib import Path
    from typing import Any

T = TypeVar("T")

WORKERS = 2
CONCURRENCY = 4

_COMMAND = [
    *(sys.executable, "-m", "asynctaskd", "run", "--app", "asynctaskd.cli.demo_app:app"),
    *("--concurrency", str(CONCURRENCY), "--labels", ",".join(WEIGHTS)),
]
_STOP_LIMIT = 15.0
_TAIL = 15


@dataclass(frozen=True, slots=True)
class _Worker:
    number: int
    process: asyncio.subprocess.Process
    log: Path

    @property
    def is_alive(self) -> bool:
        return self.process.returncode is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if there is anybody left to get it."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def obituary(self) -> str:
        code = self.process.returncode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"exited with {code}"
        return f"worker {self.number} {how}; above is the end of its log"

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-_TAIL:]
        return "\n".join([f"the log of worker {self.number} ends with:", *(f"    {line}" for line in lines)])


class Workers:
    """Worker processes that live as long as the block; leaving it stops them, by force if need be.

    Args:
        dsn: the database, handed over in the environment: other users could read it in a command line.
        schema: where the tasks are.
        directory: for their logs.
    """

    def __init__(self, dsn: str, schema: str, directory: Path) -> None:
        self._environment = _environment(dsn, schema)
        self._directory = directory
        self._workers: list[_Worker] = []

    async def __aenter__(self) -> Self:
        try:
            for number in range(1, WORKERS + 1):
                self._workers.append(await self._start(number))
        except BaseException:
            self._kill()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(DemoFailedError):  # there is an error already, or they were stopped and asked
            await self.stop()

    async def _start(self, number: int) -> _Worker:
        log = self._directory / f"worker-{number}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *_COMMAND,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                # A file of the user's directory must not stand in for a module of the same name.
                cwd=self._directory,
                # Ctrl-C is for the demo, which then stops its workers itself.
                start_new_session=True,
            )
        return _Worker(number, process, log)

    async def watch_over(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`.

        Raises:
            DemoFailedError: a worker died over it.
        """
        working = asyncio.ensure_future(work)
        ends = [asyncio.ensure_future(worker.process.wait()) for worker in self._workers]
        try:
            await asyncio.wait([working, *ends], return_when=asyncio.FIRST_COMPLETED)
            self._require(lambda worker: worker.is_alive)
            return await working
        finally:
            await _cancel([working, *ends])

    async def stop(self) -> None:
        """Send SIGTERM and wait until all have ended.

        Raises:
            DemoFailedError: one had to be killed, or didn't exit with 0.
        """
        try:
            self._tell_to_stop()
            async with asyncio.timeout(_STOP_LIMIT):
                await self._wait()
        except TimeoutError:
            pass  # killed below, and so reported
        finally:
            self._kill()
        await self._wait()
        self._require(lambda worker: worker.process.returncode == 0)

    def last_words(self) -> str:
        """The end of every log."""
        return "\n".join(worker.last_words() for worker in self._workers)

    def _require(self, is_well: Callable[[_Worker], bool]) -> None:
        for worker in self._workers:
            if not is_well(worker):
                raise DemoFailedError(worker.obituary(), log=worker.last_words())

    async def _wait(self) -> None:
        await asyncio.gather(*(worker.process.wait() for worker in self._workers))

    def _tell_to_stop(self) -> None:
        for worker in self._workers:
            worker.send(signal.SIGTERM)

    def _kill(self) -> None:
        for worker in self._workers:
            worker.send(signal.SIGKILL)


def _environment(dsn: str, schema: str) -> Mapping[str, str]:
    """The caller's environment without its own settings: they are for its own workers."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ASYNCTASKD_")}
    return inherited | {
        "ASYNCTASKD_DATABASE_URL": dsn,
        "ASYNCTASKD_DATABASE_SCHEMA": schema,
        "ASYNCTASKD_LOG_FORMAT": "console",
        # What other people's modules should have written differently is not our news.
        "PYTHONWARNINGS": "ignore::SyntaxWarning,ignore::DeprecationWarning",
    }


async def _cancel(futures: list[asyncio.Future[Any]]) -> None:
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)
