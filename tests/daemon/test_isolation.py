"""Tasks that have lost two workers in a row run in a process of their own, which is a worker of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from itertools import count
from pathlib import Path
from textwrap import dedent

import pytest

from asynctaskd.config import load_config
from asynctaskd.daemon import isolation
from asynctaskd.definitions.loader import load_app
from asynctaskd.errors import DatabaseUnavailableError
from asynctaskd.postgres.store import Store

SUSPECTS = """
    import asyncio
    import os
    import signal
    import sys
    from pathlib import Path

    from asynctaskd import App, SnoozeTask, TaskContext

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

    @app.task("cursed")
    async def cursed() -> None:
        os._exit(3)

    @cursed.on_failed
    async def cursed_failed(params, failure, tx) -> None:
        os._exit(4)

    @app.task("exit")
    def leave() -> None:
        os._exit(3)

    @app.task("fail")
    async def fail(how: str) -> None:
        if how == "snooze":
            raise SnoozeTask("1h")
        if how == "exit":
            sys.exit(3)
        raise ValueError("an ordinary failure")

    @app.task("hang")
    async def hang() -> None:
        say(f"pid {os.getpid()}")
        try:
            await asyncio.Event().wait()
        finally:
            say("cleaned up")

    @app.task("all")
    async def everything(ctx: TaskContext) -> None:
        await ctx.progress(50, "half")
        child = await ctx.enqueue("where")
        async with ctx.transaction() as connection:
            await connection.execute("CREATE TABLE witness AS SELECT 1 AS one")
            ctx.result = {"child": child, "attempt": ctx.attempt}

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
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (tmp_path, Path(__file__).parents[2]))))
        return f"{name}:app"

    return make


@pytest.fixture
def isolating(module, running):
    """A running daemon that can isolate."""
    path = module(SUSPECTS)
    return lambda **settings: running(
        load_app(path), app_path=path, **{"poll_interval": "50ms", "lease": "15s", **settings}
    )


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


def of_process(pid, name):
    return Path(f"/proc/{pid}/{name}").read_text()


def is_alive(pid):
    try:
        return of_process(pid, "stat").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_suspect_runs_in_a_process_of_its_own_and_others_in_the_worker(
    isolating, client, suspect, wait, tables, recorder
):
    async with isolating():
        alone = await wait(await suspect("where"))
        beside = await wait(await client.enqueue("where"))
        told = await recorder.wait_for("child.ended")
    assert alone.result not in (None, os.getpid())
    assert beside.result == os.getpid()
    assert told == {"child": alone.result, "cause": "exited with code 0"}
    assert (alone.losses, alone.attempts) == (0, 1)
    assert not is_alive(alone.result)
    said_goodbye = "SELECT stopped_at IS NOT NULL FROM asynctaskd.workers WHERE pid = $1"
    assert await tables.column(said_goodbye, alone.result) == [True]


@pytest.mark.parametrize(("name", "how"), [("segfault", "killed by SIGSEGV"), ("exit", "exited with code 3")])
async def test_a_process_that_dies_is_the_third_loss_of_its_task_and_takes_nobody_with_it(
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
    assert row["last_error"] == "its worker was lost 3 times in a row while it ran"
    assert (await tables.detail(task_id, "lease_lost"))["cause"] == how
    assert await tables.events(task_id) == ["lease_lost", "quarantined"]
    assert await tables.column("SELECT reason FROM failures WHERE task_id = $1", task_id) == ["quarantined"]


@pytest.mark.parametrize(
    ("how", "error"), [("error", "ValueError: an ordinary failure"), ("exit", "SystemExit: 3")]
)
async def test_a_suspect_that_fails_in_the_ordinary_way_is_judged_so(isolating, suspect, tables, how, error):
    async with isolating():
        task_id = await suspect("fail", {"how": how}, retry="1h")
        row = await tables.until_status(task_id, "scheduled")
    assert (row["reason"], row["last_error"], row["losses"]) == ("error", error, 0)
    assert await tables.events(task_id) == ["retried"]


async def test_a_suspect_may_ask_to_come_back(isolating, suspect, tables):
    async with isolating():
        task_id = await suspect("fail", {"how": "snooze"})
        row = await tables.until_status(task_id, "scheduled")
    assert row["attempts"] == 0
    assert await tables.events(task_id) == ["snoozed"]


async def test_the_context_works_in_a_process_of_its_own(isolating, suspect, tables, wait):
    async with isolating():
        done = await wait(await suspect("all"))
        child = await wait(done.result["child"])
    assert child.parent_id == done.id
    assert done.progress == {"percent": 50, "message": "half"}
    assert done.result["attempt"] == 1
    assert await tables.value("SELECT one FROM witness") == 1


async def test_what_a_suspect_committed_stands_though_its_process_dies(
    isolating, suspect, tables, wait, recorder
):
    async with isolating():
        done = await wait(await suspect("commit_and_die"))
        await recorder.wait_for("child.died", cause="exited with code 3")
    assert done.result == "committed"
    assert await tables.events(done.id) == []


async def test_at_a_second_stop_a_suspect_is_given_back_and_stays_one(isolating, suspect, tables, witness):
    async with isolating() as daemon:
        task_id = await suspect("hang")
        pid = int(await witness("pid"))
        daemon.stop()
        daemon.stop()
        row = await tables.until_status(task_id, "pending")
        await witness("cleaned up")
    assert not is_alive(pid)
    assert (row["attempts"], row["losses"]) == (0, 2)
    assert await tables.events(task_id) == ["released"]


async def test_a_process_that_does_not_hurry_is_killed_and_its_task_put_back(
    isolating, suspect, tables, witness
):
    async with isolating() as daemon:
        task_id = await suspect("hang")
        pid = int(await witness("pid"))
        os.kill(pid, signal.SIGSTOP)
        daemon.stop()
        daemon.stop()
        await tables.until_status(task_id, "pending")
    assert not is_alive(pid)
    assert await tables.events(task_id) == ["lease_lost"]


@pytest.mark.parametrize(
    ("text", "code"), [("raise ImportError('half an installation')", 78), ("import os; os._exit(4)", 4)]
)
async def test_a_process_that_cannot_start_costs_its_task_nothing(
    app, module, running, suspect, tables, recorder, text, code
):
    @app.task("innocent")
    async def innocent() -> None: ...

    async with running(app, app_path=module(text), poll_interval="50ms"):
        task_id = await suspect("innocent")
        told = await recorder.wait_for("child.died", times=2)
    row = await tables.task(task_id)
    assert told["cause"] == f"exited with code {code}"
    assert told["seconds_to_restart"] > recorder.all("child.died")[0]["seconds_to_restart"]
    assert (row["status"], row["attempts"], row["losses"]) == ("pending", 0, 2)


def test_the_process_of_a_suspect_serves_nothing_whatever_its_worker_serves():
    """Without a port for the dashboard that it inherited, it couldn't be started."""
    served = {"database.url": "postgresql://db/shop", "http.port": 9400, "dashboard.mode": "write"}
    given = isolation._environment(load_config(None, {}, served), "postgresql://db/shop")
    own = load_config(None, given, {})
    assert (own.http.port, own.dashboard.mode, own.worker.concurrency) == (None, "off", 1)


async def test_without_memory_for_a_process_a_suspect_waits(
    isolating, suspect, tables, recorder, monkeypatch
):
    async def refuse(*_args, **_options):
        raise OSError(12, "Cannot allocate memory")

    async with isolating():
        with monkeypatch.context() as short:
            short.setattr(asyncio, "create_subprocess_exec", refuse)
            task_id = await suspect("where")
            told = await recorder.wait_for("child.not_started")
            assert "Cannot allocate memory" in str(told["error"])
        await tables.until_status(task_id, "completed")


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


async def test_a_suspect_runs_under_the_labels_of_its_worker(isolating, suspect, wait):
    own = "6f1c7c52-0f5a-4a56-9a3e-2f3f0c5d8b11"
    async with isolating(id=own, labels=["gpu"]):
        await wait(await suspect("where", labels=["gpu", f"worker:{own}"]))


async def test_a_strict_suspect_waits_for_a_worker_that_may_run_strict_ones(isolating, suspect, tables, wait):
    async with isolating(max_strict_percentage=0):
        strict, normal = await suspect("where", priority=5), await suspect("where")
        await wait(normal)
        assert (await tables.task(strict))["status"] == "pending"
    async with isolating():
        await wait(strict)


async def test_its_process_runs_nothing_but_the_suspect(isolating, client, suspect, wait, witness):
    async with isolating(concurrency=1):
        await suspect("hang", timeout="2s")
        pid = int(await witness("pid"))
        results = {(await wait(await client.enqueue("where", priority=5))).result for _ in range(3)}
    assert results == {os.getpid()} != {pid}


async def test_once_ends_when_the_suspects_have_ended_too(module, daemon_of, suspect, tables):
    path = module(SUSPECTS)
    daemon = daemon_of(load_app(path), app_path=path, poll_interval="50ms")
    ids = [await suspect("where"), await suspect("exit")]
    await asyncio.wait_for(daemon.run(once=True), 60)
    assert [(await tables.task(one))["status"] for one in ids] == ["completed", "failed"]


async def test_a_suspect_whose_claim_was_not_answered_is_found_and_run(
    app, running, suspect, tables, recorder, monkeypatch
):
    @app.task("innocent")
    async def innocent() -> None: ...

    claim, answers = Store.claim, [DatabaseUnavailableError("cut off")]

    async def claim_unheard(self, *arguments, **options):
        claimed = await claim(self, *arguments, **options)
        if answers:
            raise answers.pop()
        return claimed

    monkeypatch.setattr(Store, "claim", claim_unheard)
    task_id = await suspect("innocent")
    async with running(app, one_suspect=True, poll_interval="50ms"):
        await tables.until_status(task_id, "completed")
    assert recorder.all("claim.lost", tasks=1)
    assert await tables.events(task_id) == ["released"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_the_process_is_the_first_to_go_when_memory_runs_out(isolating, suspect, witness):
    async with isolating():
        await suspect("hang", timeout="2s")
        pid = await witness("pid")
        assert of_process(pid, "oom_score_adj").strip() == "1000"
        assert "postgres" not in of_process(pid, "cmdline")


async def test_a_failure_hook_that_kills_its_process_three_times_takes_nobody_with_it(
    isolating, client, suspect, wait, tables
):
    async with isolating() as daemon:
        identity = daemon.worker_id
        task_id = await suspect("cursed", retry="1s")
        row = await tables.until_status(task_id, "failed")
        await wait(await client.enqueue("where"))
        assert daemon.worker_id == identity
    assert (row["reason"], row["losses"]) == ("quarantined", 3)
    assert sorted(await tables.events(task_id)) == [*["hook_failed"], *["lease_lost"] * 4, "quarantined"]
