"""Real workers on a database of the test's own, and what it takes to break them from outside.

Handlers say what they do in a file, the witness, whatever the database says.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from textwrap import dedent
from typing import Any

import asyncpg
import pytest

from asynctaskd import Client

LONG_ENOUGH = 60.0
LEASE = "1500ms"

SHOP = """
    import asyncio
    import logging
    import os
    import time
    from pathlib import Path

    from asynctaskd import App, RetryPolicy, TaskContext

    app = App()
    go_on = Path(os.environ["GO_ON"])

    def say(what: str, task_id: int) -> None:
        with open(os.environ["WITNESS"], "a") as witness:
            witness.write(f"{what} {task_id} {os.getpid()} {time.monotonic()}\\n")

    async def held() -> None:
        while not go_on.exists():
            await asyncio.sleep(0.01)

    @app.task("quick")
    async def quick(ctx: TaskContext) -> None:
        say("ran", ctx.task_id)

    @app.task("hold")
    async def hold(ctx: TaskContext) -> str:
        say("start", ctx.task_id)
        try:
            while not go_on.exists():
                say("step", ctx.task_id)
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            say("told", ctx.task_id)
            return "late"
        say("end", ctx.task_id)
        return f"by {os.getpid()}"

    @app.task("block")
    async def block(ctx: TaskContext) -> None:
        say("start", ctx.task_id)
        while not go_on.exists():
            time.sleep(0.01)

    @app.task("work")
    async def work(ctx: TaskContext) -> str:
        say("start", ctx.task_id)
        await held()
        return f"by {os.getpid()}"

    @app.task("again", retry=RetryPolicy("0s", max_attempts=2))
    async def again(ctx: TaskContext) -> None:
        say("start", ctx.task_id)
        await held()
        if ctx.attempt == 1:
            raise ValueError("on purpose")

    @app.task("book", retry=RetryPolicy("0s", max_attempts=3))
    async def book(ctx: TaskContext) -> None:
        say("start", ctx.task_id)
        async with ctx.transaction() as connection:
            await connection.execute("INSERT INTO written VALUES ($1, 'booked')", ctx.task_id)

    @app.task("doomed")
    async def doomed(ctx: TaskContext) -> None:
        say("start", ctx.task_id)
        raise ValueError("on purpose")

    @doomed.on_failed
    async def mourn(params, failure, connection) -> None:
        await connection.execute("INSERT INTO written VALUES ($1, 'mourned')", failure.task_id)
        say("hook", failure.task_id)
        await held()

    @app.task("chatty")
    async def chatty(ctx: TaskContext) -> None:
        logging.getLogger("shop").warning("x" * 500)
"""


@dataclass(frozen=True)
class Said:
    """One line of the witness; `at` is in seconds, by the clock that all processes share."""

    what: str
    task_id: int
    pid: int
    at: float


def whole_lines(path: Path) -> list[str]:
    """The lines of a file that others write: the last one may not be all there yet."""
    return path.read_text().rpartition("\n")[0].splitlines()


class Witness:
    """What handlers have said."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self.path = path

    @staticmethod
    def now() -> float:
        """The time by the witness's clock."""
        return time.monotonic()

    def said(self, what: str, task_id: int | None = None) -> list[Said]:
        return [one for one in self._lines() if one.what == what and task_id in (None, one.task_id)]

    def _lines(self) -> list[Said]:
        lines = [line.split() for line in whole_lines(self.path)]
        return [Said(what, int(task_id), int(pid), float(at)) for what, task_id, pid, at in lines]

    async def until(self, what: str, task_id: int, times: int = 1) -> Said:
        """Until it has been said (that often); returns the last one."""
        async with asyncio.timeout(LONG_ENOUGH):
            while len(self.said(what, task_id)) < times:  # noqa: ASYNC110  (it is another process)
                await asyncio.sleep(0.005)
        return self.said(what, task_id)[-1]


class Worker:
    """A process of `asynctaskd run`."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log
        self.pid = process.pid

    def tell(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        async with asyncio.timeout(LONG_ENOUGH):
            return await self._process.wait()

    async def killed(self) -> None:
        self._process.kill()
        await self.ended()

    async def until_stopped(self) -> None:
        """Until the kernel says that it is stopped: a signal is on its way for a moment."""
        async with asyncio.timeout(LONG_ENOUGH):
            while self._state() != "T":  # noqa: ASYNC110  (the kernel tells nobody)
                await asyncio.sleep(0.005)

    def _state(self) -> str:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def events(self, name: str) -> list[dict[str, Any]]:
        """What it has logged under that name."""
        lines = [json.loads(line) for line in whole_lines(self._log) if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    async def until_logged(self, name: str) -> dict[str, Any]:
        async with asyncio.timeout(LONG_ENOUGH):
            while not (found := self.events(name)):  # noqa: ASYNC110  (it is another process)
                await asyncio.sleep(0.01)
        return found[-1]


class Tables:
    """What the database says, read behind the client's back."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self.execute = connection.execute
        self.value = connection.fetchval
        self.row = connection.fetchrow

    async def until(self, question: str, *arguments: Any) -> Any:
        """Ask until the answer is true."""
        async with asyncio.timeout(LONG_ENOUGH):
            while not (answer := await self.value(question, *arguments)):  # noqa: ASYNC110  (rows tell nobody)
                await asyncio.sleep(0.005)
        return answer

    async def until_status(self, task_id: int, status: str) -> asyncpg.Record:
        await self.until("SELECT status = $2 FROM asynctaskd.all_tasks WHERE id = $1", task_id, status)
        row = await self.row("SELECT * FROM asynctaskd.all_tasks WHERE id = $1", task_id)
        assert row is not None
        return row

    async def until_idle(self, workers: int = 1) -> None:
        await self.until(
            "SELECT count(*) = $1 FROM asynctaskd.workers WHERE idle AND asynctaskd.is_live(workers)", workers
        )

    async def until_event(self, task_id: int, kind: str) -> None:
        await self.until(
            "SELECT EXISTS (SELECT FROM asynctaskd.task_events WHERE task_id = $1 AND kind = $2)",
            task_id,
            kind,
        )

    async def kinds(self, task_id: int) -> list[str]:
        """The kinds of the task's events, in order."""
        rows = await self._connection.fetch(
            "SELECT kind FROM asynctaskd.task_events WHERE task_id = $1 ORDER BY id", task_id
        )
        return [row["kind"] for row in rows]

    async def written(self, task_id: int) -> list[str]:
        """What handlers and hooks have written for that task."""
        rows = await self._connection.fetch("SELECT what FROM written WHERE task_id = $1", task_id)
        return [row["what"] for row in rows]


@pytest.fixture
def go_on(tmp_path: Path) -> Path:
    """The file that lets handlers end."""
    return tmp_path / "go_on"


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness(tmp_path / "witness")


@pytest.fixture
async def tables(connection: asyncpg.Connection) -> Tables:
    await connection.execute("CREATE TABLE written (task_id bigint, what text)")
    return Tables(connection)


@pytest.fixture
def client(connection: asyncpg.Connection) -> Client:
    return Client(connection)


@pytest.fixture
async def worker(database: Any, tables: Tables, tmp_path: Path, go_on: Path, witness: Witness):
    """Starts `asynctaskd run`: `async with worker() as process`; what still runs at the end is killed."""
    (tmp_path / "shop.py").write_text(dedent(SHOP))
    numbers = count(1)
    settings = {"lease": LEASE, "renew_interval": "400ms", "grace": "1s", "poll_interval": "100ms"}

    @asynccontextmanager
    async def start(
        dsn: str = database.dsn,
        *,
        environ: dict[str, str] | None = None,
        below: Sequence[str] = (),
        stderr: Any = None,
        **own: Any,
    ) -> AsyncIterator[Worker]:
        number = next(numbers)
        log = tmp_path / f"{number}.log"
        config = tmp_path / f"{number}.toml"
        lines = [f"{key} = {json.dumps(value)}" for key, value in (settings | own).items()]
        config.write_text("\n".join(["[worker]", *lines, "[log]", 'format = "json"', ""]))
        with log.open("w") as own_log:
            process = await asyncio.create_subprocess_exec(
                *(*below, sys.executable, "-m", "asynctaskd", "run", "--app", "shop:app"),
                *("--config", str(config), "--database", dsn),
                cwd=tmp_path,
                env=os.environ
                | {"WITNESS": str(witness.path), "GO_ON": str(go_on)}
                | {"PYTHONPATH": str(Path(__file__).parents[2])}
                | (environ or {}),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=own_log if stderr is None else stderr,
            )
        try:
            yield Worker(process, log)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    return start
