"""The command line against a real database: in this process where only words matter, else as a process."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from typer.testing import CliRunner

from asynctaskd.cli.commands import cli as commands

PATIENCE = 60.0

SHOP = """
import asyncio
import logging
import time
from pathlib import Path

from asynctaskd import App, FatalTaskError

app = App()


@app.task("add")
def add(a: int, b: int) -> int:
    logging.getLogger("shop").debug("adding")
    return a + b


@app.task("note")
async def note() -> None:
    global notes
    notes = open("notes", "w")  # which nobody closes
    notes.write("noted")


@app.task("fail")
async def fail() -> None:
    raise FatalTaskError("no way")


@app.task("nap")
async def nap() -> str:
    print("napping", flush=True)
    while not Path("wake").exists():
        await asyncio.sleep(0.01)
    return "rested"


@app.task("block")
def block() -> None:
    print("blocking", flush=True)
    time.sleep(3600)


@app.task("block_loop")
async def block_loop() -> None:
    print("blocking", flush=True)
    time.sleep(3600)


@app.task("leave_thread")
async def leave_thread() -> None:
    print("blocking", flush=True)
    await asyncio.to_thread(time.sleep, 3600)


@app.task("stubborn")
async def stubborn() -> None:
    print("stubborn", flush=True)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            print("told to stop", flush=True)
"""


@dataclass
class Cli:
    """The command line in this process, on a database of the test's own."""

    dsn: str

    def run(self, *args: str, **options: Any) -> Any:
        """The result of a command; nothing in it may know passwords."""
        return CliRunner().invoke(commands, args, prog_name="asynctaskd", **options)

    def dsn_of(self, *, user: str | None = None, database: str | None = None, **settings: str) -> str:
        """The test's database by another user, another name or with settings of the session."""
        url = urlsplit(self.dsn)
        host = url.netloc.rpartition("@")[2]
        query = "&".join([*filter(None, [url.query]), *map("=".join, settings.items())])
        return url._replace(
            netloc=f"{user}@{host}" if user else url.netloc,
            path=f"/{database}" if database else url.path,
            query=query,
        ).geturl()

    def json(self, *args: str) -> Any:
        """What a command that went well prints as JSON."""
        result = self.run(*args, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    def enqueue(self, name: str, payload: str = "{}", *args: str) -> int:
        """The id of a new task."""
        result = self.run("enqueue", name, payload, *args)
        assert result.exit_code == 0, result.stderr
        return int(result.stdout)

    def sql(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """Ask the database itself."""
        return asyncio.run(self._sql(statement, arguments))

    def end(self, task_id: int, status: str, reason: str = "because") -> None:
        """Bring a task to its end without a worker."""
        self.sql("SELECT asynctaskd.finish(ARRAY[$1::bigint], $2, $3)", task_id, status, reason)

    def status(self, task_id: int) -> str:
        """Where a task stands."""
        return self.json("tasks", "show", str(task_id))["status"]

    async def _sql(self, statement: str, arguments: tuple[Any, ...]) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.dsn)
        try:
            return await connection.fetch(statement, *arguments)
        finally:
            await connection.close()


class Process:
    """`python -m asynctaskd …` as a process; its lines are waited for, never its duration."""

    def __init__(self, args: tuple[str, ...], directory: Path, environ: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "asynctaskd", *args],
            cwd=directory,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._new: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._readers = [
            self._reader(self._process.stdout, self.stdout),
            self._reader(self._process.stderr, self.stderr),
        ]

    def await_line(self, part: str) -> str:
        """The first line from now on that holds `part`."""
        while True:
            try:
                line = self._new.get(timeout=PATIENCE)
            except queue.Empty:
                raise AssertionError(f"no line with {part!r}: {self.stdout} {self.stderr}") from None
            if part in line:
                return line

    def tell(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def tell_until_it_ends(self, number: signal.Signals) -> int:
        """Send a signal again and again."""
        while True:
            self.tell(number)
            try:
                return self._process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue

    def exit_code(self) -> int:
        """Its exit code, once it has ended and all its lines are read."""
        code = self._process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        return code

    def kill(self) -> None:
        """Leave nothing behind."""
        self._process.kill()
        self.exit_code()
        for stream in (self._process.stdout, self._process.stderr):
            if stream:
                stream.close()

    def _reader(self, stream: IO[str] | None, lines: list[str]) -> threading.Thread:
        def read() -> None:
            for line in stream or ():
                lines.append(line.rstrip("\n"))
                self._new.put(line)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread


@pytest.fixture
def own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration of the developer's reaches a test, and apps are found in the test's own directory."""
    for name in list(os.environ):
        if name.startswith("ASYNCTASKD_") and not name.startswith("ASYNCTASKD_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.py").write_text(SHOP)


@pytest.fixture
def bare(own_surroundings: None) -> Cli:
    """The command line without a database."""
    return Cli("")


@pytest.fixture
def cli(database: Any, own_surroundings: None, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line, on a migrated database."""
    monkeypatch.setenv("ASYNCTASKD_DATABASE_URL", database.dsn)
    return Cli(database.dsn)


@pytest.fixture
def start(tmp_path: Path, own_surroundings: None) -> Iterator[Callable[..., Process]]:
    """Start `asynctaskd ARGS` as a process, in the directory of shop.py."""
    started: list[Process] = []

    def start(*args: str, **environ: str) -> Process:
        started.append(Process(args, tmp_path, environ))
        return started[-1]

    yield start
    for process in started:
        process.kill()
