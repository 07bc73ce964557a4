"""Isolation: a task that may kill its process runs in one of its own, which is a worker of its own.

It has its own identity and lease. So it goes on where this worker dies of another task. Where it dies itself,
what it held is put back at once: that is the third loss in a row, which quarantines it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from asynctaskd.config import variables_of
from asynctaskd.daemon.child import Child, Pauses, spawn, watch
from asynctaskd.daemon.loops import OUTAGE, Backoff, wait_for
from asynctaskd.daemon.process import DRAIN, HURRY
from asynctaskd.daemon.witness import put_back_after
from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from asynctaskd.config import DaemonConfig
    from asynctaskd.daemon.commands import Steering
    from asynctaskd.daemon.lease import Lease
    from asynctaskd.daemon.slots import Slots
    from asynctaskd.postgres.store import Store

# How long a process that was told to hurry may take, in seconds: its own last words, and a little more.
_LAST_WORDS = 2.5


class Isolation:
    """Starts a process for each suspect that this worker may run, one at a time, and sees it to its end."""

    def __init__(
        self,
        app_path: str,
        dsn: str,
        config: DaemonConfig,
        *,
        store: Store,
        lease: Lease,
        steering: Steering,
        slots: Slots,
    ) -> None:
        self._command = [sys.executable, "-m", "asynctaskd", "run", f"--app={app_path}"]
        self._dsn = dsn
        self._store = store
        self._lease = lease
        self._steering = steering
        self._slots = slots
        # As they were: a handler may change the worker's.
        self._directory = Path.cwd()
        self._inherited = {**os.environ}
        self._inherited.pop("ASYNCTASKD_CONFIG", None)
        self.follow(config)
        self._pauses = Pauses()
        self._children: set[Child] = set()
        self._stopping = asyncio.Event()
        self._order = 0
        self.is_busy = False

    def follow(self, config: DaemonConfig) -> None:
        """Give the processes that start from now on that configuration."""
        self._config = config
        self._poll_interval = config.worker.poll_interval.total_seconds()
        self._environ = {**self._inherited, **_environment(config, self._dsn)}

    def stop(self, order: int = DRAIN) -> None:
        """Start no more processes, and pass the order on to the one that runs."""
        self._order = order
        self._stopping.set()
        for child in self._children:
            child.order(order)

    async def end(self) -> None:
        """Once it was told to stop: tell the process to hurry, and end it if it doesn't."""
        self.stop(HURRY)
        await asyncio.sleep(_LAST_WORDS)
        for child in self._children:
            child.kill()

    async def run(self) -> None:
        """Until stopped, and until the last process has ended."""
        watching = asyncio.create_task(watch(self._children, self._stall_limit))
        backoff = Backoff("isolation")
        try:
            while not self._stopping.is_set():
                if not self._may_look():
                    await wait_for(self._stopping, self._poll_interval)
                    continue
                try:
                    pause = await self._look()
                except OUTAGE as error:
                    await backoff.wait(error)
                else:
                    backoff.reset()
                    await wait_for(self._stopping, pause)
        finally:
            watching.cancel()

    def _stall_limit(self) -> float:
        return self._config.worker.stall_limit.total_seconds()

    async def _look(self) -> float:
        """Run the next suspect, if there is one; returns the seconds until the next look."""
        strict = self._steering.max_strict_percentage > 0
        pause = 0.0
        config = self._steering.config
        if await self._store.has_suspect(
            self._lease.labels,
            strict=strict,
            paused_labels=config.paused_labels,
            paused_names=config.paused_names,
            limits=config.limits,
        ):
            self.is_busy = True
            try:
                pause = await self._run_one()
            finally:
                self.is_busy = False
        return max(pause, self._poll_interval)

    def _may_look(self) -> bool:
        """Not while a handler goes on whose task was lost and may be a suspect by now: it would run again."""
        goes_on = any(one.task.losses for one in self._slots.lost)
        return self._lease.is_held and not goes_on

    async def _run_one(self) -> float:
        try:
            child = await spawn(self._command, self._environ, self._directory, suspects_of=self._lease.labels)
        except OSError as error:
            pause = self._pauses.after(0.0)
            emit("child.not_started", error=error, seconds_to_retry=pause)
            return pause
        emit("child.started", child=child.pid, process=child.process)
        self._children.add(child)
        if self._order:  # told meanwhile
            child.order(self._order)
        return await self._see_through(child)

    async def _see_through(self, child: Child) -> float:
        """To its end; what it held is put back. Returns the pause after it."""
        try:
            code = await child.wait()
        finally:
            self._children.discard(child)
            child.close()
        because = child.obituary(code)
        if code == 0:
            emit("child.ended", child=child.pid, cause=because)
            return 0.0
        # Whoever never got as far as its lease won't the next time either.
        pause = 0.0 if child.has_beaten else self._pauses.after(0.0)
        emit("child.died", child=child.pid, cause=because, seconds_to_restart=pause)
        await put_back_after(child, because, self._dsn, self._config.database.schema_name)
        return pause


def _environment(config: DaemonConfig, dsn: str) -> dict[str, str]:
    """The worker's whole configuration, but for one task at a time, in a process that nobody has to wake."""
    alone = {"worker.concurrency": "1", "worker.id": ""}
    unasked = {"database.listen": "off", "http.port": "", "dashboard.mode": "off"}
    given = {} if config.database.url else {"database.url": dsn}
    return variables_of(config, {**alone, **unasked, **given})


def be_expendable() -> None:
    """Be the first to go when memory runs out: the worker has others to run."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
