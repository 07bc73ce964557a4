"""Worker processes as they are run in production, killed and stopped from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from textwrap import dedent
from typing import Any

import asyncpg
import pytest

from asynctaskd import Client

LONG_ENOUGH = 60.0

SHOP = """
    import asyncio
    import os
    import threading
    import time
    from pathlib import Path

    from asynctaskd import App, TaskContext

    app = App()

    def _say(what: str) -> None:
        with open(os.environ["WITNESS"], "a") as witness:
            witness.write(what + "\\n")

    @app.task("hold")
    async def hold(ctx: TaskContext) -> str:
        _say(f"start {ctx.task_id}")
        while not Path(os.environ["GO_ON"]).exists():
            await asyncio.sleep(0.01)
        _say(f"end {ctx.task_id}")
        return f"by {os.getpid()}"

    @app.task("thread")
    def thread(ctx: TaskContext) -> None:
        _say(f"start {ctx.task_id}")
        while not Path(os.environ["GO_ON"]).exists():
            time.sleep(0.01)

    @app.task("poison")
    async def poison(ctx: TaskContext) -> None:
        _say(f"start {ctx.task_id}")
        os.kill(os.getpid(), 9)

    @app.task("exit")
    async def leave(ctx: TaskContext) -> None:
        os._exit(9)

    @app.task("alone")
    async def alone(ctx: TaskContext) -> str:
        _say(f"pid {os.getpid()}")
        while not Path(os.environ["GO_ON"]).exists():
            await asyncio.sleep(0.01)
        return f"by {os.getpid()}"

    @app.task("quick")
    async def quick() -> None: ...
"""


@pytest.fixture
def go_on(tmp_path: Path) -> Path:
    """The file that lets handlers end."""
    return tmp_path / "go_on"


@pytest.fixture
def witness(tmp_path: Path) -> Callable[[], list[str]]:
    """What handlers have said, whatever the database says."""
    path = tmp_path / "witness"
    path.touch()
    return lambda: path.read_text().splitlines()


@pytest.fixture
async def worker(database: Any, tmp_path: Path, go_on: Path, witness: Any):
    """Starts `asynctaskd run`; whatever still runs at the end of the test is killed."""
    (tmp_path / "shop.py").write_text(dedent(SHOP))
    (tmp_path / "config.toml").write_text(
        '[worker]\nlease = "1500ms"\nrenew_interval = "500ms"\ngrace = "1s"\npoll_interval = "100ms"\n'
    )

    sessions: list[int] = []

    @asynccontextmanager
    async def start(*options: str) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "asynctaskd", "run", "--app", "shop:app", "--config", "config.toml"),
            *("--database", database.dsn, *options),
            cwd=tmp_path,
            env=os.environ
            | {
                "WITNESS": str(tmp_path / "witness"),
                "GO_ON": str(go_on),
                "PYTHONPATH": str(Path(__file__).parents[2]),
            },
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        sessions.append(process.pid)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    yield start
    for session in sessions:  # a suspect outlives its worker
        with suppress(ProcessLookupError):
            os.killpg(session, signal.SIGKILL)


async def until(connection: asyncpg.Connection, question: str, *arguments: Any) -> None:
    async with asyncio.timeout(LONG_ENOUGH):
        while not await connection.fetchval(question, *arguments):  # noqa: ASYNC110  (rows tell nobody)
            await asyncio.sleep(0.01)


async def until_running(connection: asyncpg.Connection, task_id: int) -> None:
    await until(connection, "SELECT status = 'running' FROM asynctaskd.all_tasks WHERE id = $1", task_id)


async def until_said(witness: Callable[[], list[str]], what: str, times: int = 1) -> None:
    async with asyncio.timeout(LONG_ENOUGH):
        while witness().count(what) < times:  # noqa: ASYNC110  (it is another process)
            await asyncio.sleep(0.01)


async def ended(process: asyncio.subprocess.Process) -> int:
    return await asyncio.wait_for(process.wait(), LONG_ENOUGH)


async def kinds(connection: asyncpg.Connection, task_id: int) -> list[str]:
    rows = await connection.fetch(
        "SELECT kind FROM asynctaskd.task_events WHERE task_id = $1 ORDER BY id", task_id
    )
    return [row["kind"] for row in rows]


async def test_a_task_whose_worker_was_killed_runs_again_after_its_lease(worker, connection, witness, go_on):
    client = Client(connection)
    task_id = await client.enqueue("hold")
    async with worker() as first:
        await until_said(witness, f"start {task_id}")
        first.kill()
        await ended(first)
    killed_at = await connection.fetchval("SELECT clock_timestamp()")
    async with worker() as second:
        await until_said(witness, f"start {task_id}", times=2)
        go_on.touch()
        done = await client.wait(task_id, timeout="30s")
        assert done.result == f"by {second.pid}"
        second.terminate()
        assert await ended(second) == 0
    assert (done.attempts, done.losses) == (2, 0)
    assert (done.claimed_at - killed_at).total_seconds() < 10
    assert await kinds(connection, task_id) == ["lease_lost"]
    assert witness() == [f"start {task_id}"] * 2 + [f"end {task_id}"]


async def test_a_poison_task_kills_two_workers_and_then_only_its_own_process(
    worker, connection, witness, go_on
):
    client = Client(connection)
    poison = await client.enqueue("poison")
    for nth in (1, 2):
        async with worker() as process:
            await until_said(witness, f"start {poison}", times=nth)
            assert await ended(process) == -signal.SIGKILL
    neighbour = await client.enqueue("hold")
    async with worker() as last:
        await until(connection, "SELECT status = 'failed' FROM asynctaskd.all_tasks WHERE id = $1", poison)
        go_on.touch()
        assert (await client.wait(neighbour, timeout="30s")).result == f"by {last.pid}"
        last.terminate()
        assert await ended(last) == 0
    failed = await client.get_task(poison)
    assert failed.reason == "quarantined"
    assert failed.last_error == "its worker was lost 3 times in a row while it ran"
    assert witness().count(f"start {poison}") == 3
    assert await kinds(connection, poison) == ["lease_lost"] * 3 + ["quarantined"]


async def test_a_neighbour_of_several_poison_tasks_completes(worker, connection, witness, go_on):
    client = Client(connection)
    neighbour = await client.enqueue("hold")
    poison = [await client.enqueue("exit") for _ in range(2)]
    async with worker("--processes", "1", "--concurrency", "2") as parent:
        # Taken for poison itself, it may be the one that runs alone, and the others wait for it.
        await until(connection, "SELECT losses = 2 FROM asynctaskd.all_tasks WHERE id = $1", neighbour)
        go_on.touch()
        for one in poison:
            await until(connection, "SELECT status = 'failed' FROM asynctaskd.all_tasks WHERE id = $1", one)
        done = await client.wait(neighbour, timeout="30s")
        parent.terminate()
        assert await ended(parent) == 0
    assert done.status == "completed"
    assert {(await client.get_task(one)).reason for one in poison} == {"quarantined"}


@asynccontextmanager
async def isolated(worker, connection, witness) -> AsyncIterator[tuple[Any, int, int]]:
    """A worker that runs a suspect: the worker, the suspect's id, and the process it runs in."""
    client = Client(connection)
    async with connection.transaction():
        task_id = await client.enqueue("alone", connection=connection)
        await connection.execute("UPDATE asynctaskd.tasks SET losses = 2 WHERE id = $1", task_id)
    async with worker() as process:
        async with asyncio.timeout(LONG_ENOUGH):
            while not witness():  # noqa: ASYNC110  (it is another process)
                await asyncio.sleep(0.01)
        pid = int(witness()[0].removeprefix("pid "))
        assert pid != process.pid
        yield process, task_id, pid


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(LONG_ENOUGH):
        while _is_alive(pid):  # noqa: ASYNC110  (it is no child of ours)
            await asyncio.sleep(0.01)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_suspect_goes_on_where_its_worker_dies(worker, connection, witness, go_on):
    async with isolated(worker, connection, witness) as (process, task_id, pid):
        process.kill()
        await ended(process)
        go_on.touch()
        done = await Client(connection).wait(task_id, timeout="30s")
        await until_gone(pid)
    assert (done.result, done.attempts) == (f"by {pid}", 1)
    assert await kinds(connection, task_id) == []


async def test_a_suspect_is_given_back_by_its_own_process_after_the_grace(worker, connection, witness):
    async with isolated(worker, connection, witness) as (process, task_id, pid):
        process.terminate()
        await until(connection, "SELECT status = 'pending' FROM asynctaskd.tasks WHERE id = $1", task_id)
        assert await ended(process) == 0
        assert not _is_alive(pid)
    assert (await Client(connection).get_task(task_id)).losses == 2
    assert await kinds(connection, task_id) == ["released"]


async def test_a_signal_to_all_processes_lets_an_isolated_task_finish(worker, connection, witness, go_on):
    async with isolated(worker, connection, witness) as (process, task_id, pid):
        os.kill(pid, signal.SIGTERM)
        process.terminate()
        go_on.touch()
        assert await ended(process) == 0
    assert (await Client(connection).get_task(task_id)).result == f"by {pid}"


async def test_a_terminated_worker_lets_its_task_finish_and_exits_0(worker, connection, witness, go_on):
    client = Client(connection)
    task_id = await client.enqueue("hold")
    async with worker() as process:
        await until_said(witness, f"start {task_id}")
        process.terminate()
        go_on.touch()
        assert (await client.wait(task_id, timeout="30s")).attempts == 1
        assert await ended(process) == 0


async def test_after_its_grace_a_terminated_worker_gives_its_task_back_and_exits_0(
    worker, connection, witness
):
    client = Client(connection)
    task_id = await client.enqueue("hold")
    async with worker() as process:
        await until_said(witness, f"start {task_id}")
        process.terminate()
        await until(connection, "SELECT status = 'pending' FROM asynctaskd.tasks WHERE id = $1", task_id)
        assert await ended(process) == 0
    assert (await client.get_task(task_id)).attempts == 0
    assert await kinds(connection, task_id) == ["released"]


async def test_a_worker_with_a_thread_that_does_not_end_exits_all_the_same(worker, connection, witness):
    client = Client(connection)
    task_id = await client.enqueue("thread")
    async with worker() as process:
        await until_said(witness, f"start {task_id}")
        process.send_signal(signal.SIGINT)
        assert await ended(process) == 0
    assert (await client.get_task(task_id)).status == "pending"
    assert await kinds(connection, task_id) == ["released"]


async def test_run_once_performs_what_is_due_and_exits_0(worker, connection):
    client = Client(connection)
    ids = [await client.enqueue("quick") for _ in range(20)]
    async with worker("--once") as process:
        assert await ended(process) == 0
    assert {status async for status in _statuses(client, ids)} == {"completed"}


async def _statuses(client: Client, ids: list[int]) -> AsyncIterator[str]:
    for task_id in ids:
        yield (await client.get_task(task_id)).status
