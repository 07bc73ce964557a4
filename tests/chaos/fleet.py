"""Worker processes, each behind a proxy of its own, started again whenever they end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.journal import Journal
from tests.chaos.plan import GRACE, LEASE
from tests.chaos.proxy import Proxy
from tests.chaos.servers import Servers, dies_with_parent

ROOT = Path(__file__).parents[2]

CONFIG = f"""
[worker]
concurrency = 8
lease = "{LEASE:g}s"
renew_interval = "1s"
poll_interval = "1s"
grace = "{GRACE:g}s"

[log]
format = "json"
level = "info"
"""

RESTART_PAUSE = 0.3
STOP_LIMIT = 12.0
"""Seconds from SIGTERM to the end of the process: the grace period (3 s), last words, and a busy machine."""


@dataclass
class Worker:
    """One place in the fleet; processes come and go."""

    name: str
    proxy: Proxy
    process: asyncio.subprocess.Process | None = None
    starts: int = 0
    is_frozen: bool = False
    signalled: bool = False  # this process was sent a signal that ends it
    codes: list[int] = field(default_factory=list)

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        alive = self.process is not None and self.process.returncode is None
        return self.process.pid if alive and self.process is not None else None

    def send(self, number: signal.Signals) -> bool:
        """Send a signal; whether there was anybody to get it."""
        if self.process is None or self.pid is None:
            return False
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            self.signalled = True
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        return True


class Fleet:
    """All workers."""

    def __init__(
        self, servers: Servers, directory: Path, journal: Journal, *, workers: int, mutant: str = ""
    ) -> None:
        self._servers = servers
        self._directory = directory
        self._journal = journal
        self._mutant = mutant
        self._keepers: list[asyncio.Task[None]] = []
        self._closing = False
        self.surprises: list[str] = []
        self.workers = {
            name: Worker(name, Proxy(lambda: self._servers.primary.socket))
            for name in (f"w{number}" for number in range(1, workers + 1))
        }

    async def start(self) -> None:
        """Start every worker."""
        (self._directory / "logs").mkdir()
        (self._directory / "chaos.toml").write_text(CONFIG)
        for worker in self.workers.values():
            await worker.proxy.start()
            self._keepers.append(asyncio.create_task(self._keep(worker), name=worker.name))

    async def stop(self) -> list[str]:
        """SIGTERM to all; returns what was wrong with their ends, in words."""
        self._closing = True
        for worker in self.workers.values():
            worker.send(signal.SIGCONT)
            worker.send(signal.SIGTERM)
        _, slow = await asyncio.wait(self._keepers, timeout=STOP_LIMIT)
        wrong = [f"{keeper.get_name()} doesn't stop within {STOP_LIMIT:g} s" for keeper in slow]
        self.kill()
        await asyncio.wait(self._keepers)
        wrong += [
            f"{worker.name} ended with {worker.codes[-1]} after SIGTERM at rest"
            for worker in self.workers.values()
            if worker.codes and worker.codes[-1] not in (0, -signal.SIGKILL)
        ]
        return wrong

    def kill(self) -> None:
        """SIGKILL to all."""
        for worker in self.workers.values():
            worker.send(signal.SIGKILL)

    async def close(self) -> None:
        """Kill what is left, and close the proxies."""
        self._closing = True
        self.kill()
        if self._keepers:
            await asyncio.wait(self._keepers)
        for worker in self.workers.values():
            await worker.proxy.stop()

    async def _keep(self, worker: Worker) -> None:
        while not self._closing:
            await self._start(worker)
            assert worker.process is not None
            code = await worker.process.wait()
            worker.codes.append(code)
            if not worker.signalled:
                self.surprises.append(f"{worker.name} (start {worker.starts}) ended by itself with {code}")
            self._journal.event("exited", pid=worker.process.pid, target=worker.name, code=code)
            await asyncio.sleep(RESTART_PAUSE)

    async def _start(self, worker: Worker) -> None:
        worker.starts += 1
        worker.signalled = worker.is_frozen = False
        log = self._directory / "logs" / f"{worker.name}-{worker.starts}.log"
        with log.open("wb") as output:
            worker.process = await asyncio.create_subprocess_exec(
                *dies_with_parent(self._command(worker)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment(),
                cwd=ROOT,
                start_new_session=True,
            )
        self._journal.event("started", pid=worker.process.pid, target=worker.name, start=worker.starts)

    def _command(self, worker: Worker) -> list[str]:
        return [
            *(sys.executable, "-m", "tests.chaos.worker", "run", "--app", "tests.chaos.app:app"),
            *("--database", worker.proxy.dsn(self._servers.database), "--labels", "red,blue"),
            *("--config", str(self._directory / "chaos.toml")),
        ]

    def _environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PG", "ASYNCTASKD_"))},
            "CHAOS_WITNESS": str(self._directory / "witness.jsonl"),
            "CHAOS_MUTANT": self._mutant,
        }
