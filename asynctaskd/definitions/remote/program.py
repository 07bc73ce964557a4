"""A program that runs in a process group of its own, of which nothing is left when the call returns."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from typing_extensions import override

from asynctaskd.definitions.remote.document import MAX_RESULT

# In seconds. Shorter than what a worker gives executions at the end of a shutdown, before it ends itself.
_GRACE = 1.0
# Who left the group may keep the pipes open for ever.
_LAST_OUTPUT = 1.0

_LONGEST_COMPLAINT = 2048  # bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended.

    Attributes:
        code: its exit code, or the negative number of the signal that ended it.
        output: what it wrote to standard output; None: more than 1 MiB, for which it was killed.
        complaint: the end of what it wrote to standard error.
    """

    code: int
    output: bytes | None
    complaint: bytes


async def run_program(command: Sequence[str], environ: Mapping[str, str], directory: Path | None) -> Ended:
    """Run a program to its end; cancelled, send SIGTERM to its group, and SIGKILL a second later.

    What a program that has ended left of its group is killed too.

    Raises:
        OSError: it can't be started.
    """
    output, complaint = _Whole(MAX_RESULT), _Tail(_LONGEST_COMPLAINT)
    async with _pipe_to(output) as out, _pipe_to(complaint) as err:
        process = await _started(command, environ, directory, out, err)
        out.close()
        err.close()
        output.on_too_much = lambda: _signal_group(process, signal.SIGKILL)
        try:
            code = await process.wait()
        finally:
            await _end(process)
            output.on_too_much = None  # its number may soon be another's
        await asyncio.wait([output.closed, complaint.closed], timeout=_LAST_OUTPUT)
    return Ended(code, output.read(), bytes(complaint.data))


class _Pipe(asyncio.Protocol):
    """Takes what comes through a pipe. No task: a handler would have to see to its end."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._limit = limit

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


class _Tail(_Pipe):
    """Keeps the last bytes."""

    @override
    def data_received(self, data: bytes) -> None:
        self.data += data
        del self.data[: -self._limit]


class _Whole(_Pipe):
    """Keeps all, or says that it is too much."""

    on_too_much: Callable[[], None] | None = None

    def read(self) -> bytes | None:
        """All of it; None: it was too much."""
        return bytes(self.data) if len(self.data) <= self._limit else None

    @override
    def data_received(self, data: bytes) -> None:
        if len(self.data) <= self._limit:
            self.data += data
        if len(self.data) > self._limit and self.on_too_much is not None:
            self.on_too_much()


@asynccontextmanager
async def _pipe_to(reader: _Pipe) -> AsyncIterator[FileIO]:
    """The end of a pipe to write to. Not asyncio's own: its `wait` may wait for them too."""
    reading, writing = os.pipe()
    with FileIO(writing, "wb") as end:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: reader, FileIO(reading))
        try:
            yield end
        finally:
            transport.close()


async def _started(
    command: Sequence[str], environ: Mapping[str, str], directory: Path | None, out: FileIO, err: FileIO
) -> asyncio.subprocess.Process:
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *command,
            env=dict(environ),  # uvloop takes no other mapping
            cwd=directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:  # half started it could be ended by nobody
        await _end(await starting)
        raise


async def _end(process: asyncio.subprocess.Process) -> None:
    try:
        if process.returncode is None:
            _signal_group(process, signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(_GRACE):
                    await process.wait()
    finally:
        _signal_group(process, signal.SIGKILL)
        await process.wait()


def _signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # nobody is left; on macOS only zombies are
        os.killpg(process.pid, number)
