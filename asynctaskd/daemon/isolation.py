"""Isolation: the execution of a task that may kill its process, in a process of its own.

The worker keeps the slot, the lease and the claim token, so whatever the process does is fenced as ever. They
share a socket: the worker tells why the handler has to stop, the process tells what came of it. When either
end is closed, the other knows at once. A process that dies takes nobody with it, and quarantines its task.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asynctaskd.daemon.assignment import (
    LEASE_OVER,
    LONGEST_LINE,
    Assignment,
    Workplace,
    dump_assignment,
    dump_line,
    load_outcome,
)
from asynctaskd.task import Failed, Released
from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from asynctaskd.daemon.assignment import SharedInstant
    from asynctaskd.daemon.execute import Execution
    from asynctaskd.task import Outcome

# How long the process may take to import the App.
_START_LIMIT = 30.0

# When another worker, or this one, may try again to start a process that could not be started.
_ELSEWHERE_AFTER = timedelta(seconds=30)


class Isolation:
    """Starts processes for executions; each has `mercy` seconds to end once it was told to."""

    def __init__(self, workplace: Workplace, lease_end: SharedInstant, *, mercy: float) -> None:
        self.workplace = workplace
        self.lease_end = lease_end.descriptor
        self.mercy = mercy
        self.directory = Path.cwd()  # a handler may change the worker's

    async def attempt(self, execution: Execution) -> Outcome:
        """Run the execution's handler; a cancellation is passed on to the process."""
        child = _Child(self, execution)
        living = asyncio.create_task(child.live(), name=f"isolated task {execution.task.id}")
        while True:
            try:
                return await asyncio.shield(living)
            except asyncio.CancelledError:
                if living.done():
                    raise
                child.interrupt()


class _Child:
    """One process, from its start to its end."""

    def __init__(self, isolation: Isolation, execution: Execution) -> None:
        self._isolation = isolation
        self._execution = execution
        self._process: asyncio.subprocess.Process | None = None
        self._has_started = False  # its handler may have acted
        self._outcome: Outcome | None = None
        self._obstacle: str | None = None
        self._speaks_nonsense = False
        self._timers: list[asyncio.TimerHandle] = []

    async def live(self) -> Outcome:
        """Start it, hear what it says, see it off; returns what that comes to."""
        try:
            reader = await self._start()
        except (OSError, RuntimeError) as error:
            self._obstacle = f"no process could be started: {error}"
            return self._judged()
        watching = asyncio.create_task(self._watch())
        try:
            await self._hear(reader)
            await self._see_off()
        finally:
            watching.cancel()
            self._end()
        return self._judged()

    def interrupt(self) -> None:
        """Tell it to stop; it is killed if it doesn't, and at once where its handler hasn't begun."""
        if not self._has_started:
            self._kill()
        elif self._execution.interruption is not None:
            self._writer.write(dump_line(interrupt=self._execution.interruption.value))
            self._after(self._isolation.mercy, self._kill)

    async def _start(self) -> asyncio.StreamReader:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = await self._spawn(theirs.fileno())
            except BaseException:
                ours.close()
                raise
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=LONGEST_LINE)
        self._after(_START_LIMIT, self._refuse_to_wait)
        if self._execution.interruption is not None:  # told meanwhile
            self._kill()
        assignment = Assignment(
            self._execution.task, self._isolation.workplace, os.getpid(), self._isolation.lease_end
        )
        self._writer.write(dump_assignment(assignment))
        return reader

    async def _spawn(self, channel: int) -> asyncio.subprocess.Process:
        # A session of its own: no Ctrl-C of a terminal reaches it, and what it starts can be killed with it.
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "asynctaskd.daemon.isolated", str(channel)),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=[channel, self._isolation.lease_end],
            start_new_session=True,
            cwd=self._isolation.directory,
        )

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        """Until it has said what came of the handler, or says no more."""
        try:
            while self._outcome is None and self._obstacle is None and (line := await reader.readline()):
                self._take(json.loads(line))
        except ConnectionError:
            return
        except (ValueError, LookupError, TypeError):  # whoever speaks nonsense is judged as if it had died
            self._speaks_nonsense = True
            self._kill()

    def _take(self, said: dict[str, Any]) -> None:
        match said:
            case {"started": True}:
                self._has_started = True
                self._execution.restart()
                task = self._execution.task
                emit("task.isolated", task_id=task.id, task=task.name, pid=self._pid)
            case {"extend": seconds}:
                self._execution.extend(timedelta(seconds=seconds))
            case {"stored": True}:
                self._execution.stored = True
            case {"unable": why}:
                self._obstacle = str(why)
            case {"outcome": outcome}:
                self._outcome = load_outcome(outcome)
                self._execution.stop_timer()
            case _:
                raise ValueError(f"what does {said} mean?")

    async def _see_off(self) -> None:
        """It has nothing more to say: give it the time to end by itself."""
        assert self._process is not None  # noqa: S101  (it was started)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._isolation.mercy):
                await self._process.wait()
        self._kill()
        await self._process.wait()

    async def _watch(self) -> None:
        """See to it that its silence is noticed even where what it started holds its end of the socket."""
        assert self._process is not None  # noqa: S101  (it was started)
        await self._process.wait()
        self._kill()
        self._after(self._isolation.mercy, self._writer.transport.abort)

    def _end(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._kill()
        self._writer.close()

    def _kill(self) -> None:
        # Once it has said what came of it and has ended, what it started is nobody's business.
        if self._process is not None and (self._outcome is None or self._process.returncode is None):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)

    def _refuse_to_wait(self) -> None:
        if not self._has_started:
            self._obstacle = f"its process did not start within {_START_LIMIT:g} s"
            self._kill()

    def _after(self, seconds: float, what: Any) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, what))

    @property
    def _pid(self) -> int:
        assert self._process is not None  # noqa: S101  (it was started)
        return self._process.pid

    def _judged(self) -> Outcome:
        if self._outcome is not None:
            return self._outcome
        if self._execution.interruption is not None:  # which decides
            return Released()
        if self._process is not None and self._process.returncode == LEASE_OVER:
            return self._put_back("its process found the worker's lease over")
        if not self._has_started:
            return self._put_back(self._obstacle or f"its process {self._death()} before the handler began")
        lost = "after two workers were lost in a row while it ran"
        return Failed(f"its process {self._death()}, {lost}", reason="quarantined", fatal=True)

    def _put_back(self, why: str) -> Outcome:
        # Not its fault, as far as anybody knows: it stays a suspect, and is tried again.
        task = self._execution.task
        emit("isolation.failed", task_id=task.id, task=task.name, error=why)
        return Released(_ELSEWHERE_AFTER)

    def _death(self) -> str:
        code = self._process.returncode if self._process is not None else None
        if code is None or self._speaks_nonsense:
            return "spoke nonsense and was ended"
        if code >= 0:
            return f"ended with exit code {code}"
        if code == -signal.SIGKILL:
            return "was killed by SIGKILL, as happens when memory runs out"
        return f"was killed by {_name_of(-code)}"


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
