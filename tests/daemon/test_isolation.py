"""Tasks that have lost two workers in a row run in a process of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from datetime import timedelta
from itertools import count
from pathlib import Path
from textwrap import dedent

import pytest

from asynctaskd.definitions.loader import load_app

SUSPECTS = """
    import asyncio
    import atexit
    import contextvars
    import os
    import signal
    import stat
    import sys
    import time
    from pathlib import Path

    from asynctaskd import App, FatalTaskError, SnoozeTask, TaskContext

    app = App()
    HERE = Path(__file__).parent

    def say(what):
        with (HERE / "witness").open("a") as witness:
            witness.write(f"{what}\\n")

    @app.task("where")
    async def where() -> int:
        return os.getpid()

    @app.task("move")
    async def move(to: str) -> str:
        before = os.getcwd()
        os.chdir(to)
        return before

    @app.task("segfault")
    async def segfault() -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    @app.task("killed")
    def killed() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @app.task("exit")
    def leave() -> None:
        os._exit(3)

    @app.task("fail")
    async def fail(how: str) -> None:
        if how == "exit":
            sys.exit(3)
        if how == "subtask":
            await asyncio.create_task(fail.handler("exit"))
        if how == "callback":
            asyncio.get_running_loop().call_soon(sys.exit, 3)
            await asyncio.sleep(0.01)
        if how == "snooze":
            raise SnoozeTask("1h")
        if how == "fatal":
            raise FatalTaskError("no use")
        raise ValueError("an ordinary failure")

    @app.task("hang")
    async def hang() -> None:
        say(f"pid {os.getpid()}")
        try:
            await asyncio.Event().wait()
        finally:
            say("cleaned up")

    @app.task("block")
    def block() -> None:
        say(f"pid {os.getpid()}")
        time.sleep(60)

    @app.task("stubborn")
    async def stubborn() -> None:
        say(f"pid {os.getpid()}")
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass

    @app.task("linger")
    async def linger() -> str:
        atexit.register(time.sleep, 60)
        return "done"

    @app.task("babble")
    def babble() -> None:
        for number in range(3, 64):
            try:
                if stat.S_ISSOCK(os.fstat(number).st_mode):
                    os.write(number, b"nonsense\\n")
            except OSError:
                pass
        time.sleep(60)

    @app.task("offspring")
    def offspring() -> None:
        pid = os.fork()
        if not pid:
            time.sleep(60)
        say(f"pid {pid}")
        os._exit(3)

    @app.task("print")
    async def noisy() -> str:
        print("hello")
        print("hello", file=sys.stderr)
        os.write(1, b"{}")
        return "x" * 1_000_000

    @app.task("all")
    async def everything(ctx: TaskContext) -> None:
        await ctx.progress(50, "half")
        child = await ctx.enqueue("where")
        await ctx.extend("1h")
        async with ctx.transaction() as connection:
            await connection.execute("CREATE TABLE witness AS SELECT 1 AS one")
            ctx.result = {"child": child, "attempt": ctx.attempt, "left": ctx.remaining().total_seconds()}

    @app.task("extend", timeout="300ms")
    async def extend(ctx: TaskContext) -> bool:
        await ctx.extend("1h")
        await asyncio.sleep(0.5)
        return ctx.cancelled

    @app.task("commit_and_die")
    async def commit_and_die(ctx: TaskContext) -> None:
        async with ctx.transaction():
            ctx.result = "committed"
        os._exit(3)

    @app.on_failed
    async def note(failure, tx) -> None:
        await tx.execute("CREATE TABLE IF NOT EXISTS failures (task_id bigint, reason text)")
        await tx.execute("INSERT INTO failures VALUES ($1, $2)", failure.task_id, failure.reason)
"""

_numbers = count(1)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Makes an importable module of that text; returns the path of its App."""

    def make(text):
        name = f"suspects_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(dedent(text))
        monkeypatch.syspath_prepend(tmp_path)
        return f"{name}:app"

    return make


@pytest.fixture
def isolating(module, running):
    """A running daemon that can isolate."""
    path = module(SUSPECTS)
    return lambda **settings: running(load_app(path), app_path=path, **settings)


@pytest.fixture
def suspect(client, connection):
    """Enqueues a task that has lost two workers in a row."""

    async def enqueue(name, payload=None, **options):
        async with connection.transaction():
            task_id = await client.enqueue(name, payload, connection=connection, **options)
            await connection.execute("UPDATE asynctaskd.tasks SET losses = 2 WHERE id = $1", task_id)
        return task_id

    return enqueue


@pytest.fixture
def witness(tmp_path):
    """Waits until a handler has said something that begins like this; returns the rest of it."""

    async def wait(beginning):
        path = tmp_path / "witness"
        async with asyncio.timeout(20):
            while True:
                said = path.read_text().splitlines() if path.exists() else []
                found = [line.removeprefix(beginning) for line in said if line.startswith(beginning)]
                if found:
                    return found[0].strip()
                await asyncio.sleep(0.01)

    return wait


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return _proc(pid, "stat").rpartition(")")[2].split()[0] != "Z"


def _proc(pid, name):
    return Path(f"/proc/{pid}/{name}").read_text()


async def until_gone(pid):
    async with asyncio.timeout(20):
        while is_alive(pid):  # noqa: ASYNC110  (it is no child of ours)
            await asyncio.sleep(0.01)


async def test_a_suspect_runs_in_a_process_of_its_own_and_others_in_the_worker(
    isolating, client, suspect, wait, recorder
):
    async with isolating():
        alone = await wait(await suspect("where"))
        beside = await wait(await client.enqueue("where"))
    assert alone.result not in (None, os.getpid())
    assert beside.result == os.getpid()
    assert [told["task_id"] for told in recorder.all("task.isolated", pid=alone.result)] == [alone.id]
    assert (alone.losses, alone.attempts) == (0, 1)
    assert not is_alive(alone.result)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("segfault", "was killed by SIGSEGV"),
        ("killed", "was killed by SIGKILL, as happens when memory runs out"),
        ("exit", "ended with exit code 3"),
        ("babble", "spoke nonsense and was ended"),
    ],
)
async def test_a_process_that_dies_quarantines_its_task_and_takes_nobody_with_it(
    isolating, client, suspect, wait, tables, name, how
):
    async with isolating() as daemon:
        neighbour = await client.enqueue("hang")
        await tables.until("SELECT status = 'running' FROM asynctaskd.tasks WHERE id = $1", neighbour)
        identity = daemon.worker_id
        task_id = await suspect(name, retry="1s")
        row = await tables.until_status(task_id, "failed")
        await wait(await client.enqueue("where"))
        assert (await tables.task(neighbour))["status"] == "running"
        assert daemon.worker_id == identity
    assert row["reason"] == "quarantined"
    assert row["last_error"] == f"its process {how}, after two workers were lost in a row while it ran"
    assert await tables.events(task_id) == ["quarantined"]
    assert await tables.column("SELECT reason FROM failures WHERE task_id = $1", task_id) == ["quarantined"]


@pytest.mark.parametrize("how", ["error", "exit", "subtask", "callback"])
async def test_a_suspect_that_fails_in_the_ordinary_way_is_judged_so(isolating, suspect, tables, how):
    async with isolating():
        task_id = await suspect("fail", {"how": how}, retry="1h")
        row = await tables.until_status(task_id, "scheduled")
    assert row["reason"] == "error"
    assert row["last_error"].startswith(
        {
            "exit": "SystemExit: 3",
            "subtask": "RuntimeError: a task that the handler started raised SystemExit",
        }.get(how, "ValueError: an ordinary failure")
    )
    assert row["losses"] == 0
    assert await tables.value("SELECT failures FROM asynctaskd.tasks WHERE id = $1", task_id) == 1
    assert await tables.events(task_id) == ["retried"]


async def test_a_suspect_may_ask_to_come_back_or_give_up(isolating, suspect, tables):
    async with isolating():
        snoozed, fatal = [await suspect("fail", {"how": how}, retry="1h") for how in ("snooze", "fatal")]
        later = await tables.until_status(snoozed, "scheduled")
        given_up = await tables.until_status(fatal, "failed")
    assert await tables.events(snoozed) == ["snoozed"]
    assert later["attempts"] == 0
    assert (given_up["reason"], given_up["last_error"]) == ("terminated", "FatalTaskError: no use")


async def test_the_context_works_in_isolation(isolating, suspect, tables, wait):
    async with isolating():
        done = await wait(await suspect("all"))
        child = await wait(done.result["child"])
    assert child.parent_id == done.id
    assert done.progress == {"percent": 50, "message": "half"}
    assert done.result["attempt"] == 1
    assert 3600 < done.result["left"] <= 7200
    assert await tables.value("SELECT one FROM witness") == 1
    assert await tables.events(done.id) == []


async def test_an_isolated_attempt_that_was_extended_outlives_its_first_timeout(isolating, suspect, wait):
    async with isolating():
        assert (await wait(await suspect("extend"))).result is False


async def test_what_a_suspect_committed_stands_though_its_process_dies(
    isolating, suspect, tables, wait, recorder
):
    async with isolating():
        done = await wait(await suspect("commit_and_die"))
        told = await recorder.wait_for("task.after_commit", task_id=done.id)
    assert done.result == "committed"
    assert told["outcome"].reason == "quarantined"
    assert await tables.events(done.id) == []


async def test_prints_do_not_spoil_what_the_process_tells(isolating, suspect, wait):
    async with isolating():
        assert (await wait(await suspect("print"))).result == "x" * 1_000_000


async def test_an_async_handler_in_isolation_is_cancelled_at_its_timeout(isolating, suspect, tables, witness):
    async with isolating():
        task_id = await suspect("hang", timeout="200ms")
        row = await tables.until_status(task_id, "failed")
        await witness("cleaned up")
        await until_gone(int(await witness("pid")))
    assert (row["reason"], row["last_error"]) == ("timeout", "timed out after 200ms")


@pytest.mark.parametrize("name", ["block", "stubborn"])
async def test_a_handler_that_cannot_be_stopped_is_killed_in_isolation(
    isolating, suspect, tables, witness, name
):
    began = time.monotonic()
    async with isolating():
        task_id = await suspect(name, timeout="200ms")
        row = await tables.until_status(task_id, "failed")
        await until_gone(int(await witness("pid")))
    assert (row["reason"], row["last_error"]) == ("timeout", "timed out after 200ms")
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("name", ["hang", "block"])
async def test_at_a_stop_an_isolated_task_is_given_back_and_stays_a_suspect(
    isolating, suspect, tables, witness, name
):
    async with isolating() as daemon:
        task_id = await suspect(name)
        pid = int(await witness("pid"))
        daemon.stop()
        daemon.stop()
        row = await tables.until_status(task_id, "pending")
        await until_gone(pid)
    assert (row["attempts"], row["losses"]) == (0, 2)
    assert await tables.events(task_id) == ["released"]


async def test_an_isolated_handler_ends_with_the_lease(isolating, suspect, tables, witness, recorder):
    async with isolating(renew_interval="100ms"):
        task_id = await suspect("block")
        pid = int(await witness("pid"))
        await tables.execute("UPDATE asynctaskd.workers SET lost_at = clock_timestamp()")
        await recorder.wait_for("lease.lost")
        await until_gone(pid)
        row = await tables.until_status(task_id, "failed")
    assert row["last_error"] == "its worker was lost 3 times in a row while it ran"


async def test_a_process_that_lingers_after_its_handler_spoils_nothing(isolating, suspect, wait):
    async with isolating():
        assert (await wait(await suspect("linger", timeout="500ms"))).result == "done"


async def test_what_a_process_started_dies_with_it_and_delays_no_verdict(isolating, suspect, tables, witness):
    async with isolating():
        row = await tables.until_status(await suspect("offspring"), "failed")
        await until_gone(int(await witness("pid")))
    assert row["reason"] == "quarantined"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("raise ImportError('half an installation')", "half an installation"),
        ("raise SystemExit(4)", "SystemExit: 4"),
        ("import os; os._exit(4)", "ended with exit code 4 before the handler began"),
        (None, "there is no module"),
    ],
    ids=["error", "exit", "dies", "missing"],
)
async def test_a_process_that_cannot_start_puts_its_task_back_and_does_not_quarantine_it(
    app, module, running, suspect, tables, recorder, text, why
):
    @app.task("innocent")
    async def innocent() -> None: ...

    path = "nowhere:app" if text is None else module(text)
    async with running(app, app_path=path):
        task_id = await suspect("innocent")
        row = await tables.until_status(task_id, "scheduled")
        told = await recorder.wait_for("isolation.failed", task_id=task_id)
    assert why in told["error"]
    assert (row["attempts"], row["losses"], row["last_error"]) == (0, 2, None)
    assert row["run_at"] - row["created_at"] > timedelta(seconds=25)
    assert await tables.events(task_id) == ["released"]


async def test_a_process_that_takes_too_long_to_start_is_ended(
    app, module, running, suspect, tables, recorder, monkeypatch
):
    @app.task("innocent")
    async def innocent() -> None: ...

    monkeypatch.setattr("asynctaskd.daemon.isolation._START_LIMIT", 0.2)
    async with running(app, app_path=module("import time; time.sleep(60)")):
        row = await tables.until_status(await suspect("innocent"), "scheduled")
    assert recorder.all("isolation.failed")[0]["error"] == "its process did not start within 0.2 s"
    assert row["losses"] == 2


async def test_a_stop_while_a_process_starts_ends_it_at_once(
    app, module, running, suspect, tables, witness, recorder
):
    @app.task("innocent")
    async def innocent() -> None: ...

    slow = """
        import os, time
        from pathlib import Path
        (Path(__file__).parent / "witness").write_text(f"pid {os.getpid()}\\n")
        time.sleep(60)
    """
    async with running(app, app_path=module(slow)) as daemon:
        task_id = await suspect("innocent")
        pid = int(await witness("pid"))
        daemon.stop()
        daemon.stop()
        row = await tables.until_status(task_id, "pending")
        await until_gone(pid)
    assert (row["attempts"], row["losses"]) == (0, 2)
    assert recorder.all("isolation.failed") == []


async def test_without_memory_for_a_process_a_suspect_waits(
    isolating, suspect, tables, recorder, monkeypatch
):
    async def refuse(*_args, **_options):
        raise OSError(12, "Cannot allocate memory")

    async with isolating():
        monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
        row = await tables.until_status(await suspect("where"), "scheduled")
        told = await recorder.wait_for("isolation.failed")
    assert "Cannot allocate memory" in told["error"]
    assert row["losses"] == 2


async def test_an_app_without_a_path_runs_its_suspects_in_the_worker(app, running, suspect, wait):
    @app.task("where")
    async def where() -> int:
        return os.getpid()

    async with running(app):
        assert (await wait(await suspect("where"))).result == os.getpid()


async def test_a_suspect_begins_where_its_worker_began(
    isolating, client, suspect, wait, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    async with isolating():
        await wait(await client.enqueue("move", {"to": "/"}))
        assert Path.cwd() == Path("/")
        assert (await wait(await suspect("move", {"to": "/"}))).result == str(tmp_path)


async def test_suspects_run_one_at_a_time(isolating, suspect, tables, witness, wait):
    async with isolating():
        first = await suspect("hang", timeout="1s")
        second = await suspect("where")
        await witness("pid")
        assert (await tables.task(second))["status"] == "pending"
        await tables.until_status(first, "failed")
        assert (await wait(second)).attempts == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_the_process_is_the_first_to_go_when_memory_runs_out(isolating, suspect, witness):
    async with isolating() as daemon:
        await suspect("hang")
        pid = int(await witness("pid"))
        assert _proc(pid, "oom_score_adj").strip() == "1000"
        assert "postgres" not in _proc(pid, "cmdline")
        daemon.stop()
        daemon.stop()
        await until_gone(pid)


async def test_signals_of_a_service_manager_leave_the_decision_to_the_worker(
    isolating, suspect, tables, witness
):
    async with isolating():
        task_id = await suspect("hang", timeout="1s")
        pid = int(await witness("pid"))
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
        row = await tables.until_status(task_id, "failed")
    assert row["reason"] == "timeout"
