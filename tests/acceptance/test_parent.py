"""`run --processes N` as it is run in production: its workers killed, stuck and stopped, and itself too."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from textwrap import dedent
from typing import Any
from uuid import UUID, uuid5

import asyncpg
import pytest

from asynctaskd import Client

LONG_ENOUGH = 60.0
NAME = UUID("6f1c7c52-0f5a-4a56-9a3e-2f3f0c5d8b11")

SHOP = """
    import asyncio
    import ctypes
    import os
    from pathlib import Path

    from asynctaskd import App, TaskContext

    app = App()

    def _say(what: str) -> None:
        with open("witness", "a") as witness:
            witness.write(what + "\\n")

    @app.task("hold")
    async def hold(ctx: TaskContext) -> int:
        _say(f"start {ctx.task_id} {os.getpid()}")
        while not Path("go_on").exists():
            await asyncio.sleep(0.01)
        return ctx.attempt

    @app.task("stubborn")
    async def stubborn(ctx: TaskContext) -> None:
        _say(f"start {ctx.task_id} {os.getpid()}")
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                _say(f"cancelled {ctx.task_id}")

    @app.task("stuck")
    async def stuck(ctx: TaskContext) -> int:
        _say(f"start {ctx.task_id} {os.getpid()}")
        if ctx.attempt == 1:
            ctypes.PyDLL(None).sleep(3600)  # PyDLL keeps the GIL
        return ctx.attempt

    @app.task("quick")
    async def quick() -> int:
        return os.getpid()
"""

CONFIG = """
[worker]
concurrency = 4
lease = "1h"
renew_interval = "500ms"
poll_interval = "100ms"
grace = "20s"
"""


class Run:
    """A parent as a process, and what it and its workers log."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.other: list[str] = []
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.other.append(line.decode().rstrip("\n"))
            self._news.set()
        self._news.set()

    def all(self, event: str, **facts: object) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event and facts.items() <= line.items()]

    async def until(self, event: str, *, times: int = 1, **facts: object) -> dict[str, Any]:
        """The line of an event, once it was logged so often."""
        async with asyncio.timeout(LONG_ENOUGH):
            while len(found := self.all(event, **facts)) < times:
                assert not self._reading.done(), (event, facts, self.lines, self.other)
                self._news.clear()
                await self._news.wait()
        return found[times - 1]

    async def ready(self, workers: int) -> list[int]:
        """The process ids of its workers, once so many have started."""
        await self.until("worker.started", times=workers)
        return [line["pid"] for line in self.all("worker.started")]

    async def ended(self) -> int:
        """Its exit code, once it and all that wrote to its log have ended."""
        async with asyncio.timeout(LONG_ENOUGH):
            code = await self.process.wait()
            await self._reading
        return code

    async def kill(self) -> None:
        """Leave nothing behind."""
        for line in self.all("child.started"):
            with suppress(ProcessLookupError):
                os.kill(line["child"], signal.SIGKILL)
        if self.process.returncode is None:
            self.process.kill()
        # Children that were started between the two notice that their parent has ended.
        await self.ended()


@pytest.fixture
async def run(database: Any, tmp_path: Path):
    """Start `asynctaskd run --processes N`; whatever still runs at the end of the test is killed."""
    (tmp_path / "shop.py").write_text(dedent(SHOP))
    (tmp_path / "config.toml").write_text(CONFIG)
    (tmp_path / "witness").touch()

    @asynccontextmanager
    async def start(
        *options: str, processes: int = 2, app: str = "shop:app", **environ: str
    ) -> AsyncIterator[Run]:
        run = Run(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "asynctaskd", "run", f"--processes={processes}"),
                *("--app", app, "--config", "config.toml", "--database", database.dsn, *options),
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), **environ},
                stdin=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        )
        try:
            yield run
        finally:
            await run.kill()

    return start


class Manager:
    """A service manager's socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    async def until(self, what: str) -> str:
        """The next message with a line that begins so; those before it are forgotten."""
        async with asyncio.timeout(LONG_ENOUGH):
            while f"\n{what}" not in f"\n{(message := await self._heard())}":
                pass
        return message

    async def _heard(self) -> str:
        return (await asyncio.get_running_loop().sock_recv(self._socket, 4096)).decode()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    opened = Manager(tmp_path / "notify")
    yield opened
    opened.close()


@pytest.fixture
def started(tmp_path: Path) -> Callable[[int, int], Any]:
    """The process of a task's nth execution, once its handler has started: `await started(task_id, n)`."""

    async def until(task_id: int, times: int = 1) -> int:
        async with asyncio.timeout(LONG_ENOUGH):
            while True:
                said = [line.split() for line in (tmp_path / "witness").read_text().splitlines()]
                runs = [int(words[2]) for words in said if words[:2] == ["start", str(task_id)]]
                if len(runs) >= times:
                    return runs[times - 1]
                await asyncio.sleep(0.01)

    return until


@pytest.fixture
def go_on(tmp_path: Path) -> Path:
    """The file that lets handlers end."""
    return tmp_path / "go_on"


async def events(connection: asyncpg.Connection, task_id: int) -> list[tuple[str, str | None]]:
    rows = await connection.fetch(
        "SELECT kind, detail ->> 'cause' FROM asynctaskd.task_events WHERE task_id = $1 ORDER BY id", task_id
    )
    return [tuple(row) for row in rows]


async def test_the_task_of_a_killed_worker_runs_again_at_once_with_the_signal_in_its_event(
    run, connection, started, go_on
):
    client = Client(connection)
    async with run() as parent:
        await parent.ready(2)
        task_id = await client.enqueue("hold")
        first = await started(task_id)
        os.kill(first, signal.SIGKILL)
        assert await started(task_id, 2) != first
        go_on.touch()
        done = await client.wait(task_id, timeout="30s")
        await parent.until("child.died", child=first, cause="killed by SIGKILL")
        await parent.ready(3)
        parent.process.terminate()
        assert await parent.ended() == 0
    assert (done.attempts, done.result) == (2, 2)
    assert await events(connection, task_id) == [("lease_lost", "killed by SIGKILL")]
    assert parent.all("workers.lost", tasks=1, cause="killed by SIGKILL")


async def test_the_task_of_a_worker_that_exits_by_itself_runs_again_with_the_code_in_its_event(
    run, connection, tmp_path
):
    (tmp_path / "leave.py").write_text(
        "import os\n"
        "from shop import app\n"
        "from asynctaskd import TaskContext\n"
        "@app.task('leave')\n"
        "async def leave(ctx: TaskContext) -> int:\n"
        "    if ctx.attempt == 1: os._exit(1)\n"
        "    return ctx.attempt\n"
    )
    client = Client(connection)
    task_id = await client.enqueue("leave")
    async with run(processes=1, app="leave:app"):
        assert (await client.wait(task_id, timeout="60s")).attempts == 2
    assert await events(connection, task_id) == [("lease_lost", "exited with code 1")]


async def test_when_the_parent_is_killed_its_workers_drain_and_end(run, connection, started, go_on):
    client = Client(connection)
    task_id = await client.enqueue("hold")
    async with run() as parent:
        await parent.ready(2)
        await started(task_id)
        parent.process.kill()
        await parent.until("worker.stopping", times=2)
        go_on.touch()
        assert await parent.ended() == -signal.SIGKILL  # the log ends when its last writer has
    assert (await client.wait(task_id, timeout="30s")).attempts == 1
    stopped = "SELECT count(*) FROM asynctaskd.workers WHERE stopped_at IS NOT NULL"
    assert await connection.fetchval(stopped) == 2


async def test_what_a_drain_after_the_parents_death_cannot_finish_goes_back(run, connection, started):
    client = Client(connection)
    task_id = await client.enqueue("hold")
    async with run(ASYNCTASKD_WORKER_GRACE="100ms") as parent:
        await started(task_id)
        parent.process.kill()
        await parent.ended()
    assert (await client.get_task(task_id)).status == "pending"
    assert await events(connection, task_id) == [("released", None)]


async def test_a_worker_whose_interpreter_is_stuck_is_ended_and_says_where(run, connection, started):
    client = Client(connection)
    async with run(ASYNCTASKD_WORKER_STALL_LIMIT="2s") as parent:
        await parent.ready(2)
        task_id = await client.enqueue("stuck")
        stuck = await started(task_id)
        done = await client.wait(task_id, timeout="60s")
        died = await parent.until("child.died", child=stuck)
    assert done.attempts == 2
    assert died["cause"].startswith("killed by SIGABRT after ")
    assert await events(connection, task_id) == [("lease_lost", died["cause"])]
    assert any('shop.py", line' in line and "in stuck" in line for line in parent.other)


async def test_a_stopped_worker_is_ended_too(run, connection, started, go_on):
    client = Client(connection)
    async with run(ASYNCTASKD_WORKER_STALL_LIMIT="2s") as parent:
        await parent.ready(2)
        task_id = await client.enqueue("hold")
        stopped = await started(task_id)
        os.kill(stopped, signal.SIGSTOP)
        assert await started(task_id, 2) != stopped
        go_on.touch()
        assert (await client.wait(task_id, timeout="30s")).attempts == 2
        assert (await parent.until("child.died", child=stopped))["cause"].startswith(
            "killed by SIGKILL after"
        )


async def test_a_frozen_parent_judges_nobody_for_the_time_that_it_slept_itself(run, connection):
    client = Client(connection)
    async with run(ASYNCTASKD_WORKER_STALL_LIMIT="2s") as parent:
        workers = await parent.ready(2)
        for pid in (parent.process.pid, *workers):
            os.kill(pid, signal.SIGSTOP)
        await connection.execute("SELECT pg_sleep(4)")  # so long that it can't be anything else
        for pid in (parent.process.pid, *workers):
            os.kill(pid, signal.SIGCONT)
        done = await client.wait(await client.enqueue("quick"), timeout="30s")
        parent.process.terminate()
        assert await parent.ended() == 0
    assert done.result in workers
    assert parent.all("child.silent") == []


async def test_a_worker_that_crashes_at_every_start_is_restarted_at_growing_intervals(run, tmp_path):
    (tmp_path / "crash.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    async with run(processes=1, app="crash:app") as parent:
        await parent.until("child.died", times=4)
        parent.process.terminate()
        assert await parent.ended() == 1
    assert [line["seconds_to_restart"] for line in parent.all("child.died")[:4]] == [0.1, 0.2, 0.4, 0.8]
    assert parent.all("child.died")[0]["cause"] == "killed by SIGSEGV"


async def test_where_no_worker_can_work_it_ends_with_their_exit_code(run, tmp_path):
    async with run(app="shop:nothing") as parent:
        assert await parent.ended() == 78
    assert parent.all("child.died") == []
    assert len(parent.all("child.started")) == 2
    assert "error: app: shop has no attribute 'nothing'; its Apps are: app" in parent.other


async def test_the_first_signal_drains_all_workers(run, connection, started, go_on):
    client = Client(connection)
    async with run() as parent:
        await parent.ready(2)
        ids = [await client.enqueue("hold") for _ in range(6)]
        for task_id in ids:
            await started(task_id)
        parent.process.send_signal(signal.SIGINT)
        await parent.until("worker.stopping", times=2)
        go_on.touch()
        assert await parent.ended() == 0
    assert {(await client.wait(task_id, timeout="30s")).attempts for task_id in ids} == {1}


async def test_a_signal_that_systemd_sends_to_everybody_counts_once(run, connection, started, go_on):
    client = Client(connection)
    async with run() as parent:
        workers = await parent.ready(2)
        task_id = await client.enqueue("hold")
        await started(task_id)
        for pid in (*workers, parent.process.pid):
            os.kill(pid, signal.SIGTERM)
        await parent.until("worker.stopping", times=2)
        await parent.until("child.ended")  # the idle one; by now the order has reached both
        go_on.touch()
        assert await parent.ended() == 0
    assert (await client.wait(task_id, timeout="30s")).attempts == 1


async def test_the_second_signal_puts_running_tasks_back_at_once(run, connection, started):
    client = Client(connection)
    async with run() as parent:
        task_id = await client.enqueue("hold")
        await started(task_id)
        await parent.ready(2)
        parent.process.terminate()
        await parent.until("worker.stopping", times=2)
        parent.process.terminate()
        assert await parent.ended() == 0
    assert (await client.get_task(task_id)).status == "pending"
    # Twice where a claim of the other worker was under way: what it brings is put back too.
    assert set(await events(connection, task_id)) == {("released", None)}


async def test_the_third_signal_ends_all_hard_and_still_puts_back_what_they_held(run, connection, started):
    client = Client(connection)
    async with run() as parent:
        await parent.ready(2)
        ids = [await client.enqueue("stubborn") for _ in range(4)]
        for task_id in ids:
            await started(task_id)
        parent.process.terminate()
        await parent.until("worker.stopping", times=2)
        while parent.process.returncode is None:
            # Not by the handle: it would ask for the exit status, which the loop's own watcher waits for.
            with suppress(ProcessLookupError):
                os.kill(parent.process.pid, signal.SIGINT)  # two that come together are one
            await asyncio.sleep(0.01)
        assert await parent.ended() == 1
    assert {(await client.get_task(task_id)).status for task_id in ids} == {"pending"}


async def test_once_ends_when_all_workers_have_nothing_left(run, connection):
    client = Client(connection)
    ids = [await client.enqueue("quick") for _ in range(50)]
    async with run("--once") as parent:
        assert await parent.ended() == 0
    assert {(await client.get_task(task_id)).status for task_id in ids} == {"completed"}
    assert len(parent.all("child.started")) == 2


async def test_every_worker_has_a_name_of_its_own_made_from_the_id_and_keeps_it(run, connection):
    rows = "SELECT name, labels FROM asynctaskd.workers WHERE stopped_at IS NULL AND lost_at IS NULL"
    async with run(ASYNCTASKD_WORKER_ID=str(NAME)) as parent:
        [first, _] = await parent.ready(2)
        before = {tuple(row) async for row in _each(connection, rows)}
        os.kill(first, signal.SIGKILL)
        await parent.ready(3)
        assert {tuple(row) async for row in _each(connection, rows)} == before
    names = {uuid5(NAME, str(nth)) for nth in range(2)}
    assert before == {(name, (f"worker:{NAME}", f"worker:{name}")) for name in names}


async def _each(connection: asyncpg.Connection, question: str) -> AsyncIterator[tuple[Any, ...]]:
    for row in await connection.fetch(question):
        yield tuple(tuple(value) if isinstance(value, list) else value for value in row)


async def test_while_the_database_is_away_it_goes_on_trying_to_put_back(run, connection, dsn, started, go_on):
    client = Client(connection)
    name = await connection.fetchval("SELECT current_database()")
    async with run(processes=1) as parent:
        task_id = await client.enqueue("hold")
        first = await started(task_id)
        admin = await asyncpg.connect(dsn)
        try:
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            os.kill(first, signal.SIGKILL)
            await parent.until("database.lost", station="release")
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        finally:
            await admin.close()
        await parent.until("workers.lost", cause="killed by SIGKILL")
        await started(task_id, 2)
        go_on.touch()
        assert (await client.wait(task_id, timeout="30s")).attempts == 2


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_the_parent_speaks_for_its_workers(run, manager, tmp_path):
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"}
    async with run(processes=2, **environ) as parent:
        await manager.until("READY=1")
        await manager.until("STATUS=2 of 2 workers ready: 0 running")
        pids = await parent.ready(2)
        for pid in pids:
            assert b"NOTIFY_SOCKET" not in environment_of(pid)
        await manager.until("WATCHDOG=1")
        await manager.until("WATCHDOG=1")
        parent.process.send_signal(signal.SIGTERM)
        await manager.until("STOPPING=1")
        assert await parent.ended() == 0


TOOK_IT_ON = "SELECT count(*) FROM asynctaskd.workers WHERE concurrency = 7"


async def test_a_reload_reaches_all_workers_before_the_parent_says_that_it_is_over(
    run, manager, tmp_path, connection
):
    async with run(processes=2, NOTIFY_SOCKET=str(tmp_path / "notify")) as parent:
        await manager.until("READY=1")
        (tmp_path / "config.toml").write_text(CONFIG.replace("concurrency = 4", "concurrency = 7"))
        parent.process.send_signal(signal.SIGHUP)
        assert "MONOTONIC_USEC=" in await manager.until("RELOADING=1")
        await manager.until("READY=1")
        read = parent.all("config_file.read", changed=["worker.concurrency"])
        assert {line.get("pid") for line in read} == {None, *await parent.ready(2)}
        async with asyncio.timeout(LONG_ENOUGH):
            while await connection.fetchval(TOOK_IT_ON) < 2:  # noqa: ASYNC110  (rows tell nobody)
                await asyncio.sleep(0.02)


async def test_a_file_that_is_wrong_changes_nothing_for_anybody(run, manager, tmp_path):
    async with run(processes=2, NOTIFY_SOCKET=str(tmp_path / "notify")) as parent:
        await manager.until("READY=1")
        (tmp_path / "config.toml").write_text("[worker]\nconcurrency = 0\n")
        parent.process.send_signal(signal.SIGHUP)
        await manager.until("RELOADING=1")
        await manager.until("READY=1")
        await parent.until("config_file.refused", times=3)
        assert not parent.all("child.died")
