from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM
from types import SimpleNamespace
from uuid import uuid4

import pytest

from asynctaskd import App
from asynctaskd.cli import run
from asynctaskd.cli.failures import ExitCode
from asynctaskd.config import load_config
from asynctaskd.daemon.process import Process
from asynctaskd.postgres import embedded
from asynctaskd.telemetry.health import Health
from asynctaskd.web import server

RUN = ("run", "--app", "shop:app")


def events_of(process) -> list[str]:
    return [json.loads(line)["event"] for line in process.stderr if line.startswith("{")]


def task_of(cli, task_id):
    return cli.json("tasks", "show", str(task_id))


def test_run_once_performs_what_is_due_and_exits_0(cli, start):
    due, later = cli.enqueue("add", '{"a": 1, "b": 2}'), cli.enqueue("add", "{}", "--delay", "1h")
    process = start(*RUN, "--once")
    assert process.exit_code() == 0
    assert (cli.status(due), task_of(cli, due)["result"]) == ("completed", 3)
    assert cli.status(later) == "scheduled"


def test_a_first_signal_lets_the_running_task_finish_and_exits_0(cli, start, tmp_path):
    task_id = cli.enqueue("nap")
    process = start(*RUN)
    process.await_line("napping")
    process.tell(SIGTERM)
    process.await_line("worker.stopping")
    (tmp_path / "wake").touch()
    assert process.exit_code() == 0
    assert (cli.status(task_id), task_of(cli, task_id)["result"]) == ("completed", "rested")
    assert [worker["status"] for worker in cli.json("workers")] == ["stopped"]


def test_a_second_signal_puts_the_running_task_back_at_once_with_its_attempt(cli, start):
    task_id = cli.enqueue("nap")
    process = start(*RUN)
    process.await_line("napping")
    process.tell(SIGTERM)
    process.await_line("worker.stopping")
    process.tell(SIGINT)
    assert process.exit_code() == 0
    task = task_of(cli, task_id)
    assert (task["status"], task["attempts"]) == ("pending", 0)
    assert [event["kind"] for event in task["events"]] == ["released"]


def test_a_third_signal_ends_it_hard(cli, start):
    cli.enqueue("stubborn")
    process = start(*RUN)
    process.await_line("stubborn")
    process.tell(SIGTERM)
    process.await_line("worker.stopping")
    process.tell(SIGTERM)
    process.await_line("told to stop")
    process.tell(SIGTERM)
    assert process.exit_code() == 1


def test_signals_are_obeyed_even_while_a_handler_blocks_the_loop(cli, start):
    cli.enqueue("block_loop")
    process = start(*RUN)
    process.await_line("blocking")
    assert process.tell_until_it_ends(SIGTERM) == 1


@pytest.mark.parametrize("name", ["block", "leave_thread", "stubborn"])
def test_what_cannot_be_stopped_is_put_back_and_does_not_keep_the_process(cli, start, name):
    task_id = cli.enqueue(name)
    process = start(*RUN)
    process.await_line("stubborn" if name == "stubborn" else "blocking")
    process.tell(SIGTERM)
    process.await_line("worker.stopping")
    process.tell(SIGTERM)
    assert process.exit_code() == 0
    assert events_of(process)[-1] == "worker.stopped"
    assert (cli.status(task_id), task_of(cli, task_id)["attempts"]) == ("pending", 0)


def test_a_signal_while_the_app_is_imported_exits_0(cli, start, tmp_path):
    (tmp_path / "slow.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(3600)\n")
    process = start("run", "--app", "slow:app")
    process.await_line("importing")
    process.tell(SIGTERM)
    assert process.exit_code() == 0


def test_a_crashed_loop_exits_70_with_a_readable_last_line_and_a_traceback_in_the_log(cli, start, tmp_path):
    (tmp_path / "crash.py").write_text(
        "from shop import app\n"
        "from asynctaskd.daemon.housekeeping import Housekeeper\n"
        "async def step(self):\n"
        "    raise RuntimeError('boom')\n"
        "Housekeeper.step = step\n"
    )
    process = start("run", "--app", "crash:app")
    assert process.exit_code() == 70
    assert process.stderr[-1].startswith("error: the worker crashed: RuntimeError: boom. ")
    crashed = [json.loads(line) for line in process.stderr if "loop.crashed" in line]
    assert "in step" in crashed[0]["traceback"]
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize("processes", [(), ("--processes", "2")])
def test_a_url_that_everybody_may_read_is_warned_of_once(cli, start, tmp_path, processes):
    kept = tmp_path / "url"
    kept.write_text(cli.dsn)
    kept.chmod(0o644)
    process = start(*RUN, "--once", *processes, "--database", f"file:{kept}")
    assert process.exit_code() == 0
    [told] = [json.loads(line) for line in process.stderr if "file.exposed" in line]
    assert (told["key"], told["mode"], told["level"]) == ("database.url", "0644", "warning")
    assert "defaultMode: 0440" in told["note"]


def test_a_missing_schema_exits_78_and_says_what_to_run(cli, start):
    process = start(*RUN, "--schema", "elsewhere")
    assert process.exit_code() == 78
    assert "asynctaskd migrate" in process.stderr[-1]
    assert process.stderr[-1].startswith("error: ")


@pytest.mark.parametrize("wrong", [{"database": "no_such_database"}, {"user": "no_such_role"}])
def test_what_the_database_refuses_exits_78_at_once(cli, start, wrong):
    process = start(*RUN, "--database", cli.dsn_of(**wrong))
    assert process.exit_code() == 78
    assert process.stderr[-1].startswith("error: the database refused: ")


def test_an_unreachable_database_is_waited_for_until_a_signal(start):
    process = start(*RUN, "--database", "postgresql://shop:sesame@127.0.0.1:1/shop")
    line = json.loads(process.await_line("database.lost"))
    assert line["level"] == "error"
    process.tell(SIGTERM)
    assert process.exit_code() == 0
    assert "sesame" not in "".join(process.stderr)


def test_an_app_that_is_not_there_exits_78(cli, start):
    process = start("run", "--app", "shop:nothing")
    assert process.exit_code() == 78
    assert process.stderr[-1] == "error: app: shop has no attribute 'nothing'; its Apps are: app"


def test_the_app_may_come_from_the_environment(cli, start):
    task_id = cli.enqueue("add", '{"a": 1, "b": 2}')
    assert start("run", "--once", ASYNCTASKD_APP="shop:app").exit_code() == 0
    assert cli.status(task_id) == "completed"


def test_without_an_app_it_is_wrong_usage(bare):
    result = bare.run("run")
    assert result.exit_code == 2
    assert "--app" in result.stderr


def test_flags_of_the_worker_win_over_the_file(cli, start, tmp_path):
    (tmp_path / "worker.toml").write_text('[worker]\nconcurrency = 3\nlabels = ["file"]\n')
    process = start(*RUN, "--config", "worker.toml", "--labels", "b,a", "--once")
    assert process.exit_code() == 0
    [worker] = cli.json("workers")
    assert worker["concurrency"] == 3
    assert worker["labels"][:2] == ["a", "b"]


def test_an_unknown_key_names_the_nearest_one_and_exits_78(bare, tmp_path):
    (tmp_path / "worker.toml").write_text("[worker]\nconcurency = 3\nlease = 5\n")
    result = bare.run(*RUN, "--config", "worker.toml", "--database", "embedded")
    assert result.exit_code == 78
    first, second = result.stderr.splitlines()
    assert first.startswith("error: ")
    assert "worker.concurrency" in first
    assert second.startswith("error: worker.lease in worker.toml must be a duration")


@pytest.mark.parametrize("args,is_logged", [((), False), (("--debug",), True)])
def test_debug_logs_at_the_level_debug(cli, start, args, is_logged):
    cli.enqueue("add", '{"a": 1, "b": 2}')
    process = start(*args, *RUN, "--once")
    assert process.exit_code() == 0
    assert ("adding" in events_of(process)) == is_logged


@pytest.mark.skipif(sys.platform != "linux", reason="XDG_DATA_HOME is how it is told where to live")
@pytest.mark.parametrize("nth, at", [(None, 9400), (0, 9400), (2, 9402)])
def test_of_several_workers_each_answers_at_a_port_of_its_own(monkeypatch, nth, at):
    asked = []
    monkeypatch.setattr(run, "this_process", lambda: Process(uuid4(), nth))
    monkeypatch.setattr(server, "serving", lambda _, *place: nullcontext(asked.append(place)))
    settings = load_config(None, {}, {"http.port": 9400})
    with closing(Health(stall_limit=60.0)) as health, run._served(settings, health, App()):
        pass
    assert asked == [("127.0.0.1", at)]


@pytest.mark.parametrize(
    "then,said",
    [
        ('[http]\nport = 0\nhost = "0.0.0.0"\n[dashboard]\nmode = "write"', "could be reached by anybody"),
        ('[http]\nport = 0\n[dashboard]\nmode = "read"\ntoken_file = "/nope"', "/nope can't be read"),
        ('[database]\nurl = "file:/nope"', "/nope with the database's URL can't be read"),
    ],
)
def test_a_reload_refuses_what_a_restart_would_refuse(database, start, tmp_path, then, said):
    """The service manager would leave a worker down that ends with 78."""
    (tmp_path / "worker.toml").write_text(good := f'[database]\nurl = "{database.dsn}"\n')
    process = start(*RUN, "--config", "worker.toml")
    process.await_line("worker.started")
    (tmp_path / "worker.toml").write_text(then if "[database]" in then else good + then)
    process.tell(SIGHUP)
    told = json.loads(process.await_line("config_file."))
    process.tell(SIGTERM)
    assert process.exit_code() == 0
    assert told["event"] == "config_file.refused"
    again = start(*RUN, "--config", "worker.toml")
    assert again.exit_code() == 78
    assert again.stderr == [f"error: {told['error']}"]
    assert said in told["error"]


@pytest.fixture
def data_home() -> Iterator[Path]:
    """Where the embedded server may be: at a path that is short enough for a socket."""
    home = Path(tempfile.mkdtemp(prefix="asynctaskd-cli-"))
    yield home
    wait_until_stopped(home / "asynctaskd" / "postgres")
    shutil.rmtree(home)


def test_on_the_embedded_server_it_migrates_by_itself_and_says_so(start, data_home):
    process = start(*RUN, "--once", "--database", "embedded", XDG_DATA_HOME=str(data_home))
    assert process.exit_code() == 0
    assert events_of(process)[:3] == ["database.starting", "database.migrated", "worker.started"]
    again = start(*RUN, "--once", "--database", "embedded", XDG_DATA_HOME=str(data_home))
    assert again.exit_code() == 0
    assert "database.migrated" not in events_of(again)


def test_that_its_dashboard_starts_the_embedded_server_is_in_the_log_too(start, data_home):
    process = start(
        *RUN, "--once", "--database", "embedded", XDG_DATA_HOME=str(data_home),
        ASYNCTASKD_HTTP_PORT="0", ASYNCTASKD_DASHBOARD_MODE="read",
    )  # fmt: skip
    assert process.exit_code() == 0
    assert events_of(process)[:3] == ["database.starting", "http.serving", "database.migrated"]


def wait_until_stopped(home: Path) -> None:
    """The keeper stops the server as soon as nobody uses it."""
    until = time.monotonic() + 30
    while (home / "data" / "postmaster.pid").exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert not (home / "data" / embedded.SOCKET).exists()


HOSTILE = """
import asyncio, signal, sys
from shop import app

async def leave():
    sys.exit(3)

@app.task("hostile")
async def hostile(how: str) -> str:
    loop = asyncio.get_running_loop()
    match how:
        case "stop":
            loop.stop()
        case "callback":
            loop.call_soon(sys.exit, 3)
        case "task":
            await asyncio.gather(asyncio.create_task(leave()), return_exceptions=True)
        case "outside":
            # Not marked as the handler's own: as if a library had started it.
            loop.call_soon(loop.create_task, leave(), context=__import__("contextvars").Context())
        case "close":
            try:
                loop.close()
            except RuntimeError:
                pass
        case "executor":
            await loop.shutdown_default_executor()
        case "policy":
            asyncio.set_event_loop_policy(None)
            asyncio.set_event_loop(None)
        case "signals":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            loop.add_signal_handler(signal.SIGINT, print)
    await asyncio.sleep(0.01)
    return how
"""


def until_completed(cli, task_id):
    until = time.monotonic() + 20
    while cli.status(task_id) != "completed":
        assert time.monotonic() < until, f"task {task_id} is {cli.status(task_id)}"
        time.sleep(0.05)


@pytest.fixture
def hostile(cli, start, tmp_path):
    """Starts a worker whose task "hostile" does what no handler should."""
    (tmp_path / "hostile.py").write_text(HOSTILE)
    return lambda *options: start("run", "--app", "hostile:app", *options)


@pytest.mark.parametrize("how", ["stop", "callback", "task", "outside", "close", "executor", "policy"])
def test_what_a_handler_does_to_its_surroundings_ends_neither_the_worker_nor_its_neighbours(
    cli, hostile, how, tmp_path
):
    neighbour = cli.enqueue("nap")
    process = hostile()
    process.await_line("napping")
    task_id = cli.enqueue("hostile", json.dumps({"how": how}))
    until_completed(cli, task_id)
    after = cli.enqueue("add", '{"a": 1, "b": 2}')
    until_completed(cli, after)
    (tmp_path / "wake").touch()
    until_completed(cli, neighbour)
    process.tell(SIGTERM)
    assert process.exit_code() == 0
    interrupted = [json.loads(line) for line in process.stderr if "loop.interrupted" in line]
    assert len(interrupted) == (how in ("stop", "callback", "outside"))


def test_signals_that_a_handler_took_are_taken_back(cli, hostile):
    task_id = cli.enqueue("hostile", '{"how": "signals"}')
    process = hostile()
    restored = json.loads(process.await_line("signals.restored"))
    assert restored["signals"] == ["SIGTERM", "SIGINT"]
    until_completed(cli, task_id)
    process.tell(SIGTERM)
    assert process.exit_code() == 0
    assert "worker.stopped" in events_of(process)


def test_what_handlers_left_in_a_buffer_is_written_at_the_end(cli, start, tmp_path):
    cli.json("enqueue", "note")
    assert start(*RUN, "--once").exit_code() == 0
    assert (tmp_path / "notes").read_text() == "noted"


def test_a_loop_beside_the_daemon_that_crashes_ends_the_worker(capsys):
    async def crash():
        raise ValueError("no telling")

    async def wait_for_ever(_):
        await asyncio.Event().wait()

    async def work() -> ExitCode:
        told_to_stop = asyncio.Event()
        daemon = SimpleNamespace(run=lambda once: told_to_stop.wait(), stop=told_to_stop.set)
        told = SimpleNamespace(keep_telling=crash, keep_reloading=wait_for_ever)
        code, _ = await run._run(daemon, SimpleNamespace(take_back=lambda: None), told, once=False)
        return code

    assert asyncio.run(work()) == ExitCode.INTERNAL
    assert "no telling" in capsys.readouterr().err
