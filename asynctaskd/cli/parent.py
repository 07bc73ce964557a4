"""`asynctaskd run --processes N`: a small parent over N worker processes.

It starts a worker that died anew, and at once puts back what that one held: nobody waits for its lease. It
ends a worker that is stuck where Python can't help itself any more. It imports no App and runs no task.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import typer

from asynctaskd.cli.failures import ExitCode
from asynctaskd.cli.stopping import has_terminal
from asynctaskd.config.values import processors
from asynctaskd.daemon.child import Child, Pauses, spawn, watch
from asynctaskd.daemon.loops import wait_for
from asynctaskd.daemon.process import DRAIN, HURRY, RELOAD
from asynctaskd.daemon.systemd import Service
from asynctaskd.daemon.witness import put_back_after
from asynctaskd.telemetry.events import emit
from asynctaskd.telemetry.health import in_short
from asynctaskd.telemetry.logs import flush_logs

if TYPE_CHECKING:
    from asynctaskd.cli.reloading import Reloading
    from asynctaskd.daemon.systemd import ServiceManager

_FINAL = (ExitCode.FINE, ExitCode.TRY_AGAIN, ExitCode.CONFIG)
"""What a worker ends with where starting it anew wouldn't help: it was asked to, or can't work."""

_WORST_LAST = (
    ExitCode.FINE,
    ExitCode.TRY_AGAIN,
    ExitCode.UNAVAILABLE,
    ExitCode.FAILED,
    ExitCode.INTERNAL,
    ExitCode.CONFIG,
)
_LAST_WORDS = 2.0

# A worker ends by itself this soon after its grace period, in seconds; one that doesn't is stuck.
_OVERTIME = 5.0

# How often to tell the service manager how the workers are, and how long they may take to read their
# configuration again, in seconds.
_TELL = 0.5
_LONGEST_RELOAD = 10.0


def how_many(processes: str) -> int:
    """The number that `--processes` means; raises a usage error where it means none."""
    count = processors() if processes == "cpu" else int(processes) if processes.isdecimal() else 0
    if count < 1:
        raise typer.BadParameter(f"--processes must be an integer of at least 1, or cpu, got {processes!r}")
    return count


def child_command(flags: Mapping[str, object], *, debug: bool, once: bool) -> list[str]:
    """The command line of a worker with these flags; None is a flag that wasn't given."""
    given = [f"{flag}={value}" for flag, value in flags.items() if value is not None]
    common = ["--debug"] if debug else []
    return [sys.executable, "-m", "asynctaskd", *common, "run", *given, *(["--once"] if once else [])]


def run_parent(
    command: Sequence[str], processes: int, reloading: Reloading, dsn: str, manager: ServiceManager
) -> int:
    """Run so many workers until all have ended for good; returns the worst of their exit codes."""
    code = asyncio.run(Parent(command, processes, reloading, dsn, manager).run())
    flush_logs()
    return code


class Parent:
    """Worker processes, and what becomes of them."""

    def __init__(
        self,
        command: Sequence[str],
        processes: int,
        reloading: Reloading,
        dsn: str,
        manager: ServiceManager,
    ) -> None:
        self._command = command
        self._processes = processes
        self._reloading = reloading
        self._dsn = dsn
        self._manager = manager
        self._service = Service(manager, self, fed_by="children.watched", grace=self._grace)
        self._hangup = asyncio.Event()
        self._children: set[Child] = set()
        self._releases: set[asyncio.Task[None]] = set()
        self._signals = 0
        self._stopping = asyncio.Event()

    async def run(self) -> ExitCode:
        """Until the last worker has ended for good."""
        with _taken(self._on_signal, self._hangup.set):
            async with asyncio.TaskGroup() as group:
                watching = watch(self._children, self._stall_limit)
                beside = (watching, self._end_in_time(), self._keep_telling(), self._keep_reloading())
                helpers = [group.create_task(one) for one in beside]
                places = (self._keep(nth if self._processes > 1 else None) for nth in range(self._processes))
                codes = await asyncio.gather(*places)
                if self._releases:
                    await asyncio.wait(self._releases, timeout=_LAST_WORDS)
                for task in (*helpers, *self._releases):
                    task.cancel()
        self._service.close()
        return ExitCode.FAILED if self._signals > 2 else max(codes, key=_WORST_LAST.index)

    @property
    def is_draining(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping.is_set()

    def is_alive(self) -> bool:
        """Always, where it is asked: what watches the workers asks."""
        return True

    def failing(self) -> Sequence[object]:
        """The places where no worker is ready."""
        ready = sum(bool(child.report and child.report["ready"]) for child in self._children)
        return range(self._processes - ready)

    def summary(self) -> str:
        """How the workers are, in one line."""
        ready = self._processes - len(self.failing())
        reports = [child.report for child in self._children if child.report]
        return f"{ready} of {self._processes} workers ready: {in_short(_together(reports))}"

    def _grace(self) -> float:
        return self._reloading.config.worker.grace.total_seconds()

    def _stall_limit(self) -> float:
        return self._reloading.config.worker.stall_limit.total_seconds()

    async def _keep_telling(self) -> None:
        while self._manager.listens:
            self._service.tick()
            await asyncio.sleep(_TELL)

    async def _keep_reloading(self) -> None:
        """Read the configuration again when that is asked for, and have the workers do it too."""
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            self._manager.tell_reloading()
            self._reloading.reload()
            before = {child: _reloads(child) for child in self._children}
            for child in before:
                child.order(RELOAD)
            await self._until_reloaded(before)
            self._service.reloaded()

    async def _until_reloaded(self, before: Mapping[Child, int]) -> None:
        """Until all that still live have read it, but not for long: one may be blocked."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_RELOAD):
                while any(  # noqa: ASYNC110  (it comes through pipes that `watch` reads)
                    _reloads(child) <= before[child] for child in self._children & before.keys()
                ):
                    await asyncio.sleep(_TELL)

    def _on_signal(self) -> None:
        self._signals += 1
        self._stopping.set()
        self._service.tick()
        for child in self._children:
            self._tell(child)

    def _tell(self, child: Child) -> None:
        if self._signals > 2:
            child.kill()
        elif self._signals:
            child.order((DRAIN, HURRY)[self._signals - 1])

    async def _keep(self, nth: int | None) -> ExitCode:
        """Have a worker running at this place; returns the exit code of the last one."""
        pauses = Pauses()
        while True:
            child = await self._start(nth, pauses)
            if child is None:
                return ExitCode.FAILED
            code = await self._see_through(child)
            if self._stopping.is_set() or code in _FINAL:
                emit("child.ended", child=child.pid, cause=child.obituary(code))
                return self._verdict(code)
            pause = pauses.after(child.lived)
            emit("child.died", child=child.pid, cause=child.obituary(code), seconds_to_restart=pause)
            await wait_for(self._stopping, pause)
            if self._stopping.is_set():
                return self._verdict(code)

    async def _see_through(self, child: Child) -> int:
        """To its end; what it held, if it ever held anything, is put back from then on."""
        code = await child.wait()
        self._children.discard(child)
        child.close()
        if code not in _FINAL or child.has_beaten:
            self._release(child, child.obituary(code))
        return code

    async def _start(self, nth: int | None, pauses: Pauses) -> Child | None:
        """A new worker, as soon as the system has room for it; None if it never had."""
        while True:
            try:
                child = await spawn(self._command, nth=nth)
            except OSError as error:
                pause = pauses.after(0.0)
                emit("child.not_started", error=error, seconds_to_retry=pause)
                await wait_for(self._stopping, pause)
                if self._stopping.is_set():
                    return None
            else:
                self._children.add(child)
                self._tell(child)
                emit("child.started", child=child.pid, process=child.process)
                return child

    def _verdict(self, code: int) -> ExitCode:
        """The exit code that a worker's end stands for."""
        if self._stopping.is_set() and -code in (signal.SIGTERM, signal.SIGINT):
            return ExitCode.FINE  # it was told before it could listen, and had claimed nothing
        return ExitCode(code) if code in _WORST_LAST else ExitCode.FAILED

    def _release(self, child: Child, because: str) -> None:
        schema = self._reloading.config.database.schema_name
        release = asyncio.create_task(put_back_after(child, because, self._dsn, schema))
        self._releases.add(release)
        release.add_done_callback(self._releases.discard)

    async def _end_in_time(self) -> None:
        """Once told to stop: end by force what is still there after the grace period."""
        await self._stopping.wait()
        await asyncio.sleep(self._grace() + _OVERTIME)
        for child in self._children:
            child.kill()


def _reloads(child: Child) -> int:
    return int((child.report or {}).get("reloads", 0))


def _together(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several workers report, as one."""
    return {
        "running": sum(one["running"] for one in reports),
        "waiting": max((one["waiting"] for one in reports if one["waiting"] is not None), default=None),
        "config_version": max((one["config_version"] for one in reports), default=0),
        "trouble": next((one["trouble"] for one in reports if one["trouble"]), ""),
    }


@contextmanager
def _taken(on_signal: Callable[[], None], on_hangup: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT call `on_signal` within the block, SIGHUP `on_hangup`; after it, neither."""
    loop = asyncio.get_running_loop()
    heeded = {signal.SIGTERM: on_signal, signal.SIGINT: on_signal}
    if not has_terminal():
        heeded[signal.SIGHUP] = on_hangup
    for number, heed in heeded.items():
        loop.add_signal_handler(number, heed)
    try:
        yield
    finally:
        for number in heeded:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
