"""Worker processes, each behind a proxy of its own, started again whenever they end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import psutil

from tests.chaos.journal import Journal
from tests.chaos.plan import GRACE, LEASE
from tests.chaos.servers import Servers, dies_with_parent
from tests.support.proxy import Proxy

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
class Process:
    """One process of a worker, and the signals it was sent that end it."""

    handle: asyncio.subprocess.Process
    signals: list[signal.Signals] = field(default_factory=list)
    is_frozen: bool = False
    lost_a_child: bool = False

    def surprise(self, code: int) -> str:
        """What is wrong with its end, in words, or nothing."""
        asked = self.signals.count(signal.SIGTERM)
        if signal.SIGKILL in self.signals and code == -signal.SIGKILL:
            return ""
        if asked:
            # Before it handles signals SIGTERM simply ends it; the third one ends it hard. A parent tells how
            # its children ended.
            fine = {0, -signal.SIGTERM} | ({1} if asked > 2 or self.lost_a_child else set())
            return "" if code in fine else f"exited with {code} after {asked} times SIGTERM"
        return f"ended by itself with {code}"


@dataclass
class Worker:
    """One place in the fleet; processes come and go."""

    name: str
    proxy: Proxy
    processes: int = 0  # under a parent
    process: Process | None = None
    starts: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # the process that runs now

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        alive = self.process is not None and self.process.handle.returncode is None
        return self.process.handle.pid if alive and self.process is not None else None

    @property
    def pids(self) -> list[int]:
        """The processes that claim and execute."""
        if self.pid is None:
            return []
        return children_of(self.pid) if self.processes else [self.pid]

    @property
    def everybody(self) -> list[int]:
        """The processes behind its proxy: its own, and all below it."""
        return [] if self.pid is None else [self.pid, *children_of(self.pid, recursive=True)]

    @property
    def is_frozen(self) -> bool:
        """Whether it was sent SIGSTOP."""
        return self.process is not None and self.process.is_frozen

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if there is anybody to get it."""
        if self.process is None or self.pid is None:
            return
        if number in (signal.SIGSTOP, signal.SIGCONT):
            self.process.is_frozen = number == signal.SIGSTOP
        else:
            self.process.signals.append(number)
        with suppress(ProcessLookupError):
            self.process.handle.send_signal(number)


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
        self._groups: list[int] = []
        self._closing = False
        self.surprises: list[tuple[int, str]] = []
        """Ends that nobody asked for, with the process id."""
        names = [f"w{number}" for number in range(1, workers + 1)]
        self.workers = {name: self._worker(name) for name in names}
        if not mutant:
            self.workers["p1"] = self._worker("p1", processes=2)

    @property
    def parents(self) -> list[str]:
        """The names of those that run under a parent."""
        return [worker.name for worker in self.workers.values() if worker.processes]

    @property
    def processes(self) -> int:
        """How many of them claim and execute."""
        return sum(worker.processes or 1 for worker in self.workers.values())

    def _worker(self, name: str, processes: int = 0) -> Worker:
        return Worker(name, Proxy(lambda: self._servers.dsn), processes)

    async def start(self) -> None:
        """Start every worker."""
        (self._directory / "logs").mkdir()
        (self._directory / "chaos.toml").write_text(CONFIG)
        for worker in self.workers.values():
            await worker.proxy.start()
            self._keepers.append(asyncio.create_task(self._keep(worker), name=worker.name))

    def last_words(self) -> str:
        """The end of every worker's log."""
        logs = sorted((self._directory / "logs").iterdir())
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-1000:]}" for log in logs)

    async def stop(self) -> None:
        """SIGTERM to all; until they have ended."""
        self._closing = True
        for worker in self.workers.values():
            worker.send(signal.SIGCONT)
            worker.send(signal.SIGTERM)
        await asyncio.wait(self._keepers)

    async def close(self) -> None:
        """Kill what is left, and close the proxies."""
        self._closing = True
        for worker in self.workers.values():
            worker.send(signal.SIGKILL)
        if self._keepers:
            await asyncio.wait(self._keepers)
        for group in self._groups:
            with suppress(ProcessLookupError):  # nobody has outlived the leader of this one
                os.killpg(group, signal.SIGKILL)
        for worker in self.workers.values():
            await worker.proxy.stop()

    async def _keep(self, worker: Worker) -> None:
        while not self._closing:
            process = await self._start(worker)
            code = await self._end_of(worker, process)
            worker.ended.set()
            if surprise := process.surprise(code):
                self._surprise(worker, process, surprise)
            self._journal.event("exited", pid=process.handle.pid, target=worker.name, code=code)
            if not self._closing:
                await asyncio.sleep(RESTART_PAUSE)

    async def _start(self, worker: Worker) -> Process:
        worker.starts += 1
        log = self._directory / "logs" / f"{worker.name}-{worker.starts}.log"
        with log.open("wb") as output:
            handle = await asyncio.create_subprocess_exec(
                *dies_with_parent(self._command(worker)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment(worker),
                cwd=ROOT,
                start_new_session=True,
            )
        self._groups.append(handle.pid)
        worker.process = Process(handle)
        worker.ended = asyncio.Event()
        self._journal.event("started", pid=handle.pid, target=worker.name, start=worker.starts)
        return worker.process

    async def _end_of(self, worker: Worker, process: Process) -> int:
        """Its exit code. Whoever doesn't obey SIGTERM is killed, which is a surprise."""
        ended = asyncio.ensure_future(process.handle.wait())
        patience = STOP_LIMIT
        while not ended.done():
            await asyncio.wait({ended}, timeout=0.25)
            if signal.SIGTERM in process.signals and not process.is_frozen:
                patience -= 0.25
            if patience <= 0 and signal.SIGKILL not in process.signals:
                self._surprise(worker, process, f"doesn't stop within {STOP_LIMIT:g} s of SIGTERM")
                worker.send(signal.SIGKILL)
        return ended.result()

    def _surprise(self, worker: Worker, process: Process, what: str) -> None:
        pid = process.handle.pid
        self.surprises.append((pid, f"{worker.name} (start {worker.starts}, process {pid}) {what}"))

    def _command(self, worker: Worker) -> list[str]:
        # Under a parent it is all as in production: children are started by the parent alone.
        program = "asynctaskd" if worker.processes else "tests.chaos.worker"
        parent = ["--processes", str(worker.processes)] if worker.processes else []
        return [
            *(sys.executable, "-m", program, "run", "--app", "tests.chaos.app:app", *parent),
            *("--database", worker.proxy.dsn, "--labels", "red,blue"),
            *("--config", str(self._directory / "chaos.toml")),
        ]

    def _environment(self, worker: Worker) -> dict[str, str]:
        alien = ("PG", "ASYNCTASKD_")
        # One keeps its name over restarts, so that each process may take over from the one before.
        named = (
            {"ASYNCTASKD_WORKER_ID": str(uuid5(NAMESPACE_URL, worker.name))} if worker.name == "w2" else {}
        )
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(alien)},
            **named,
            "CHAOS_WITNESS": str(self._directory / "witness.jsonl"),
            "CHAOS_MUTANT": self._mutant,
        }


def children_of(pid: int, *, recursive: bool = False) -> list[int]:
    """The process's children, oldest first."""
    with suppress(psutil.Error):
        return [child.pid for child in psutil.Process(pid).children(recursive)]
    return []
