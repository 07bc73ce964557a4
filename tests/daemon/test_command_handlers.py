from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest
import uvloop

from asynctaskd import App
from asynctaskd.definitions.remote.program import run_program

TELL = """
import json, os, sys
path = os.environ["ASYNCTASKD_TASK_FILE"]
told = {name: value for name, value in os.environ.items() if name != "LC_CTYPE"}
json.dump({"task": json.load(open(path)), "environ": told, "argv": sys.argv[1:], "cwd": os.getcwd(),
           "modes": [os.stat(path).st_mode, os.stat(os.path.dirname(path)).st_mode],
           "stdin": sys.stdin.read(), "leads": os.getpid() == os.getpgid(0)}, sys.stdout)
"""

# A shell, and a child of it; both write down who they are, and wait.
FAMILY = "sleep 1000 & echo $! > child; echo $$ > parent.part; mv parent.part parent; wait"

RUNAWAY = """
import os, time
if os.fork():
    print("done")
else:
    os.setsid()
    open("gone", "w").write(str(os.getpid()))
    time.sleep(1000)
"""

STUBBORN = "trap '' TERM; " + FAMILY.replace("sleep 1000 &", "(trap '' TERM; sleep 1000; sleep 1000) &")


def python(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", script, *arguments]


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def is_alive(pid: int) -> bool:
    """Whether it runs; who has ended may wait long for its parent to notice."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  (programs tell nobody)
            await asyncio.sleep(0.005)


async def born(folder: Path) -> tuple[int, int]:
    """The processes of a family, once both are there."""
    await until((folder / "parent").exists)
    return int((folder / "parent").read_text()), int((folder / "child").read_text())


@pytest.fixture
def left_files(tmp_path, monkeypatch):
    """The files that a handler left behind."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return lambda: list((tmp_path / "tmp").iterdir())


async def test_a_program_gets_the_task_as_a_file_and_its_output_is_the_result(
    app, running, client, wait, tmp_path, left_files, monkeypatch
):
    monkeypatch.setenv("SECRET_OF_THE_WORKER", "hidden")
    monkeypatch.setenv("LANG", "C.UTF-8")
    app.command_task(
        "encode", command=python(TELL, "$HOME", "a b"), env={"CODEC": "av1"}, cwd=tmp_path, timeout="5m"
    )

    async with running(app):
        task = await wait(await client.enqueue("encode", {"file": "a.mov"}))

    told = task.result
    environ = told["environ"]
    deadline = datetime.fromisoformat(environ["ASYNCTASKD_TASK_DEADLINE"])
    assert deadline == task.claimed_at + timedelta(minutes=5)
    assert told["task"] == {
        "id": task.id,
        "name": "encode",
        "attempt": 1,
        "deadline": environ["ASYNCTASKD_TASK_DEADLINE"],
        "payload": {"file": "a.mov"},
    }
    assert [environ[f"ASYNCTASKD_TASK_{name}"] for name in ("ID", "NAME", "ATTEMPT")] == [
        str(task.id),
        "encode",
        "1",
    ]
    own = {name for name in environ if not name.startswith("ASYNCTASKD_TASK_")}
    assert own <= {"PATH", "LANG", "HOME", "CODEC"}
    assert (environ["CODEC"], environ["LANG"]) == ("av1", "C.UTF-8")
    assert (told["argv"], told["cwd"], told["stdin"]) == (["$HOME", "a b"], str(tmp_path), "")
    assert [stat.S_IMODE(mode) for mode in told["modes"]] == [0o600, 0o700]
    assert told["leads"]
    assert left_files() == []


@pytest.mark.parametrize(
    ("script", "result"),
    [
        ("echo 42", 42),
        ("echo plain text", "plain text"),
        ("printf 'two\\nlines\\n'", "two\nlines"),
        ("true", None),
        ("echo NaN", "NaN"),
        ("echo 12345678901234567890123", "12345678901234567890123"),
        ("printf '\\377'", "\N{REPLACEMENT CHARACTER}"),
        ("echo noise >&2; echo '[1]'", [1]),
    ],
)
async def test_output_is_json_where_it_can_be_read_as_such(app, running, client, wait, script, result):
    app.command_task("say", command=shell(script))
    async with running(app):
        assert (await wait(await client.enqueue("say"))).result == result


async def test_another_exit_code_is_an_error_with_the_end_of_what_it_complained(
    app, running, client, wait, tables
):
    app.command_task(
        "flaky",
        command=shell('[ "$ASYNCTASKD_TASK_ATTEMPT" = 2 ] || { seq 9999 >&2; echo no codec >&2; exit 3; }'),
        retry="0s",
    )

    async with running(app):
        task = await wait(await client.enqueue("flaky"))

    error = (await tables.detail(task.id, "retried"))["error"]
    assert task.attempts == 2
    assert error.startswith("RemoteTaskError: /bin/sh ended with exit code 3: ")
    assert error.endswith("9998\n9999\nno codec")
    assert len(error) < 2200


async def test_a_program_that_is_killed_is_an_error_that_names_the_signal(app, running, client, tables):
    app.command_task("doomed", command=shell("kill -KILL $$"))
    async with running(app):
        row = await tables.until_status(await client.enqueue("doomed"), "failed")
    assert "was ended by SIGKILL" in row["last_error"]


async def test_exit_code_65_fails_the_task_at_once(app, running, client, tables):
    hooked = []
    definition = app.command_task("bad", command=shell("echo no such file >&2; exit 65"), retry="0s")

    @definition.on_failed
    async def note(params, failure, tx) -> None:
        hooked.append((params, failure.error))

    async with running(app):
        row = await tables.until_status(await client.enqueue("bad", {"a": 1}), "failed")

    assert (row["reason"], row["attempts"]) == ("terminated", 1)
    assert hooked == [({"a": 1}, "FatalTaskError: no such file")]


@pytest.mark.parametrize(
    ("script", "least", "most"),
    [
        ("echo working; echo 2h; exit 75", 119, 120),
        ("exit 75", 0.5, 1),
        ("echo not a duration; exit 75", 0.5, 1),
    ],
)
async def test_exit_code_75_asks_to_come_back(app, running, client, tables, script, least, most):
    app.command_task("later", command=shell(script))

    async with running(app):
        row = await tables.until_status(await client.enqueue("later"), "scheduled")

    assert (row["attempts"], await tables.events(row["id"])) == (0, ["snoozed"])
    left = await tables.value("SELECT $1 - clock_timestamp()", row["run_at"])
    assert timedelta(minutes=least) < left <= timedelta(minutes=most)


async def test_too_much_output_ends_the_program(app, running, client, tables):
    app.command_task("flood", command=shell("yes"))
    async with running(app):
        row = await tables.until_status(await client.enqueue("flood"), "failed")
    assert "/bin/sh wrote more than 1048576 bytes" in row["last_error"]


async def test_a_program_that_cannot_be_started_is_an_error(app, running, client, tables, left_files):
    app.command_task("absent", command=["/no/such/program"])
    async with running(app):
        row = await tables.until_status(await client.enqueue("absent"), "failed")
    assert "/no/such/program can't be started" in row["last_error"]
    assert left_files() == []


@pytest.mark.parametrize("script", [FAMILY, STUBBORN], ids=["obedient", "stubborn"])
async def test_cancelling_the_task_ends_the_whole_group(app, running, client, tmp_path, left_files, script):
    app.command_task("family", command=shell(script), cwd=tmp_path)

    async with running(app):
        task_id = await client.enqueue("family")
        family = await born(tmp_path)
        assert all(map(is_alive, family))
        receipt = await client.cancel(task_id)
        assert [task.outcome for task in receipt.tasks] == ["stopped"]
        assert not is_alive(family[0])
        await until(lambda: not is_alive(family[1]))
        assert left_files() == []


async def test_a_cancelled_program_may_put_things_in_order(app, running, client, tmp_path):
    tidy = "trap 'echo tidied > report; exit 0' TERM; " + FAMILY
    app.command_task("tidy", command=shell(tidy), cwd=tmp_path)

    async with running(app):
        task_id = await client.enqueue("tidy")
        await born(tmp_path)
        await client.cancel(task_id)

    assert (tmp_path / "report").read_text() == "tidied\n"


async def test_a_timeout_ends_the_whole_group(app, running, client, tables, tmp_path, left_files):
    app.command_task("family", command=shell(FAMILY), cwd=tmp_path, timeout="3s")

    async with running(app):
        row = await tables.until_status(await client.enqueue("family"), "failed")
        family = await born(tmp_path)
        await until(lambda: not any(map(is_alive, family)))

    assert row["reason"] == "timeout"
    assert left_files() == []


@pytest.mark.parametrize("script", [FAMILY, STUBBORN], ids=["obedient", "stubborn"])
async def test_a_worker_that_stops_ends_the_whole_group_and_gives_the_task_back(
    app, running, client, tables, tmp_path, left_files, script
):
    app.command_task("family", command=shell(script), cwd=tmp_path)

    async with running(app, grace="0s"):
        task_id = await client.enqueue("family")
        family = await born(tmp_path)

    await until(lambda: not any(map(is_alive, family)))
    assert left_files() == []
    assert (await tables.task(task_id))["status"] == "pending"


async def test_what_a_program_leaves_behind_ends_with_it(app, running, client, wait, tmp_path):
    script = "sleep 1000 & echo $! > child; echo done"
    app.command_task("parent", command=shell(script), cwd=tmp_path)

    async with running(app):
        assert (await wait(await client.enqueue("parent"))).result == "done"

    child = int((tmp_path / "child").read_text())
    await until(lambda: not is_alive(child))


async def test_who_left_the_group_holds_up_nobody(app, running, client, wait, tmp_path):
    app.command_task("parent", command=python(RUNAWAY), cwd=tmp_path)

    async with running(app):
        assert (await wait(await client.enqueue("parent"))).result == "done"

    await until(lambda: (tmp_path / "gone").exists() and (tmp_path / "gone").read_text())
    os.kill(int((tmp_path / "gone").read_text()), signal.SIGKILL)


async def test_an_execution_cancelled_while_its_program_starts_leaves_nothing(tmp_path):
    for _ in range(5):
        running = asyncio.create_task(run_program(shell(FAMILY), os.environ, tmp_path))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    at_home = (process.info["cwd"] for process in psutil.process_iter(["cwd"]))
    assert str(tmp_path) not in at_home


def test_programs_run_and_end_on_the_loop_of_the_command_line_too(tmp_path):
    """`asynctaskd run` uses uvloop, the tests don't."""

    async def see() -> tuple[int, bytes | None]:
        ended = await run_program(shell("echo hello; echo no >&2; exit 3"), os.environ, tmp_path)
        assert ended.complaint == b"no\n"
        running = asyncio.create_task(run_program(shell(STUBBORN), os.environ, tmp_path))
        family = await born(tmp_path)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await until(lambda: not any(map(is_alive, family)))
        return ended.code, ended.output

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(see()) == (3, b"hello\n")


def test_an_app_may_be_declared_where_its_programs_are_not():
    App().command_task("elsewhere", command=["/only/on/workers"])
