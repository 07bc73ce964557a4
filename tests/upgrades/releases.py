"""The previous release beside this one: the same programs, run from the one tree or from the other."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CALLS = Path(__file__).parent / "calls.py"
PREVIOUS = (Path(__file__).parent / "previous.txt").read_text().strip()
PATIENCE = 50.0

SHOP = """
import asyncio
import os
from pathlib import Path

import asynctaskd
from asynctaskd import App, TaskContext

app = App()
release = os.environ["RELEASE"]
assert Path(asynctaskd.__file__).is_relative_to(os.environ["PYTHONPATH"])


def say(what: str) -> None:
    witness = os.open(os.environ["WITNESS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(witness, f"{what}\\n".encode())
    os.close(witness)


@app.task("note")
async def note(text: str, ctx: TaskContext) -> str:
    say(f"{release} {ctx.task_id}")
    await asyncio.sleep(0.005)
    return f"{text} by {release}"


@app.task("hold")
async def hold(ctx: TaskContext) -> None:
    say(f"{release} holds {ctx.task_id}")
    await asyncio.Event().wait()
"""


def unpack_previous(folder: Path) -> None:
    """Put the previous release's package and migrations there.

    Skips where the repository's history isn't at hand, as in an sdist; continuous integration must have it.
    """
    command = ["git", "-C", str(ROOT), "archive", PREVIOUS, "asynctaskd", "migrations"]
    try:
        archive = subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"").decode().strip() or str(error)
        reason = f"no history with {PREVIOUS}, the release that tests/upgrades/previous.txt names: {said}"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"{reason}; check out the whole history (fetch-depth: 0)")
        pytest.skip(reason)
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")


@dataclass(frozen=True)
class Release:
    """A tree that programs are run from, on a database, in a directory that holds `shop.py`."""

    name: str
    tree: Path
    dsn: str
    place: Path

    @property
    def witness(self) -> Path:
        """Where the tasks of both releases write."""
        return self.place / "witness"

    async def call(self, function: str, *arguments: Any) -> Any:
        """What a function of `calls.py` returns, in a process of its own."""
        process = await self._start(str(CALLS), function, json.dumps(arguments), stdout=subprocess.PIPE)
        async with asyncio.timeout(PATIENCE):
            said, _ = await process.communicate()
        assert process.returncode == 0, function
        return json.loads(said)

    async def command(self, *arguments: str) -> str:
        """What `asynctaskd ARGUMENTS` prints."""
        process = await self._start("-m", "asynctaskd", *arguments, stdout=subprocess.PIPE)
        async with asyncio.timeout(PATIENCE):
            said, _ = await process.communicate()
        assert process.returncode == 0, arguments
        return said.decode()

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """A worker that carries the release's name as a label; it is told to stop in the end."""
        options = ("--app", "shop:app", "--labels", self.name)
        process = await self._start("-m", "asynctaskd", "run", *options, stderr=subprocess.PIPE)
        assert process.stderr is not None
        reading = asyncio.create_task(self._read(process.stderr, started := asyncio.Event()))
        try:
            async with asyncio.timeout(PATIENCE):
                await started.wait()
            yield process
            await stop(process)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            await reading

    async def _read(self, lines: asyncio.StreamReader, started: asyncio.Event) -> None:
        async for line in lines:
            sys.stderr.write(f"{self.name}: {line.decode()}")
            if b"worker.started" in line:
                started.set()

    async def _start(self, *arguments: str, **pipes: int) -> asyncio.subprocess.Process:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("ASYNCTASKD_")
        }
        environment |= {
            "PYTHONPATH": str(self.tree),
            "ASYNCTASKD_DATABASE_URL": self.dsn,
            "ASYNCTASKD_LOG_FORMAT": "json",
            "RELEASE": self.name,
            "WITNESS": str(self.witness),
        }
        return await asyncio.create_subprocess_exec(
            sys.executable, *arguments, cwd=self.place, env=environment, stdin=subprocess.DEVNULL, **pipes
        )


async def stop(process: asyncio.subprocess.Process) -> None:
    """Have a worker drain, and wait until it has ended well."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        assert await process.wait() == 0
