"""A worker process as the process sees it that started it: its start, its pulse and its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from asynctaskd.daemon.process import child_variable
from asynctaskd.telemetry.events import emit

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 30.0
_LONG_LIFE = 60.0
_ABORT_LIMIT = 2.0
_LONGEST_LOOK = 1.0


class Child:
    """A worker process. It is judged silent only from its first beat on: an App may take long to import."""

    def __init__(self, process: UUID, handle: asyncio.subprocess.Process, *, pulse: int, orders: int) -> None:
        self.process = process
        self._handle = handle
        self._pulse = pulse
        self._orders = orders
        self._born_at = time.monotonic()
        self._put_down_after = 0.0
        self._rest = b""
        self.report: Mapping[str, Any] | None = None
        """How it is, as it said last: what `Health.report` says, and `reloads`."""
        self.has_beaten = False
        self.silent_for = 0.0

    @property
    def pid(self) -> int:
        """Its number in the system's table of processes."""
        return self._handle.pid

    @property
    def lived(self) -> float:
        """For how many seconds it has lived."""
        return time.monotonic() - self._born_at

    async def wait(self) -> int:
        """Its exit code, or the negative number of the signal that killed it, once it has ended."""
        return await self._handle.wait()

    def close(self) -> None:
        """Let go of its pipes, once it has ended."""
        self.listen(0.0)
        os.close(self._pulse)
        os.close(self._orders)

    def order(self, order: int) -> None:
        """Say one of the orders; a child that is still starting hears it too."""
        with suppress(OSError):  # it has ended
            os.write(self._orders, bytes([order]))

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send it a signal."""
        # Not by the handle: it would ask for the exit status, which the loop's own watcher waits for.
        if self._handle.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def listen(self, passed: float) -> None:
        """Take its beats and reports; `passed` seconds went by since the last time."""
        try:
            heard = os.read(self._pulse, 1 << 16)
        except BlockingIOError:
            heard = b""
        has_beaten = self._take(heard)
        self.has_beaten = self.has_beaten or has_beaten
        self.silent_for = 0.0 if has_beaten or not self.has_beaten else self.silent_for + passed

    def _take(self, heard: bytes) -> bool:
        """Take its reports; whether it has beaten between them."""
        pieces = (self._rest + heard).split(b"\n")
        *reports, self._rest = (piece.lstrip(b".") for piece in pieces)
        for report in reports:
            self.report = json.loads(report)
        return any(piece.startswith(b".") for piece in pieces)

    async def put_down(self) -> None:
        """End a process that is stuck: first so that it says where, then by force."""
        self._put_down_after = self.silent_for
        self.kill(signal.SIGABRT)
        with suppress(TimeoutError):
            async with asyncio.timeout(_ABORT_LIMIT):
                await self.wait()
        self.kill()

    def obituary(self, code: int) -> str:
        """How it ended, in words."""
        how = f"killed by {_signal_name(-code)}" if code < 0 else f"exited with code {code}"
        silence = f" after {self._put_down_after:.0f} s of silence" if self._put_down_after else ""
        return how + silence


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of the many without a name
        return f"signal {number}"


async def spawn(
    command: Sequence[str],
    environ: Mapping[str, str] = os.environ,
    directory: Path | None = None,
    **role: Any,
) -> Child:
    """Start a worker process with a role: `nth` or `suspects_of`, as `Process` says.

    Raises OSError where the system has no room for it.
    """
    process = uuid4()
    pulse, beat = os.pipe()
    heard, orders = os.pipe()
    for descriptor in (pulse, beat, orders):  # nobody waits for a process that doesn't read or write
        os.set_blocking(descriptor, False)
    try:
        handle = await asyncio.create_subprocess_exec(
            *command,
            env={**environ, **child_variable(process, pulse=beat, orders=heard, **role)},
            cwd=directory,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(beat, heard),
        )
    except BaseException:
        os.close(pulse)
        os.close(orders)
        raise
    finally:
        os.close(beat)
        os.close(heard)
    return Child(process, handle, pulse=pulse, orders=orders)


async def watch(children: Collection[Child], longest: Callable[[], float]) -> None:
    """End children that are silent for longer than that, in seconds, as of now; for ever."""
    before = time.monotonic()
    while True:
        limit = longest()
        tick = min(limit / 4, _LONGEST_LOOK)
        await asyncio.sleep(tick)
        emit("children.watched")
        # Time in which this process was itself frozen is nobody's silence.
        passed, before = min(time.monotonic() - before, 2 * tick), time.monotonic()
        for child in list(children):
            if child not in children:  # it ended while another one was put down
                continue
            child.listen(passed)
            if child.silent_for > limit:
                emit("child.silent", child=child.pid, seconds=child.silent_for)
                await child.put_down()


class Pauses:
    """How long to wait before a child is started anew: longer after each short life, up to 30 s."""

    def __init__(self) -> None:
        self._last = 0.0

    def after(self, lived: float) -> float:
        """The pause after a life of so many seconds."""
        grown = min(self._last * 2, _LONGEST_PAUSE)
        self._last = _FIRST_PAUSE if lived >= _LONG_LIFE else max(grown, _FIRST_PAUSE)
        return self._last
