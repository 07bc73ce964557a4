"""`asynctaskd release`: for workers that are gone, alive, or out of sight."""

from __future__ import annotations

import json
import signal
from uuid import UUID, uuid4

import pytest

from asynctaskd.cli.release import death_told_by_systemd
from asynctaskd.daemon.proof import hold_name, place

NAME = "6f1c7c52-0f5a-4a56-9a3e-2f3f0c5d8b11"
PROVABLE = pytest.mark.skipif(place() is None, reason="only Linux has names that end with their owner")


@pytest.fixture
def worker(cli):
    """A worker with a lease that holds a task: `worker(place=…)` returns the ids of both."""

    def insert(*, process=None, place=None, labels=()) -> tuple[str, int]:
        worker_id = uuid4()
        cli.sql(
            """INSERT INTO asynctaskd.workers
                      (id, name, process, place, hostname, pid, version, labels, names, concurrency,
                       expires_at)
               VALUES ($1, $2, $3, $4, 'web-1', 7, '0', $5, '{}', 1, clock_timestamp() + interval '1 h')""",
            worker_id,
            UUID(NAME) if not labels else uuid4(),
            process or uuid4(),
            place,
            labels,
        )
        task_id = cli.enqueue("add", '{"a": 1, "b": 2}')
        cli.sql(
            """UPDATE asynctaskd.tasks
               SET status = 'running', worker_id = $2, claim_token = 1, attempts = 1,
                   claimed_at = clock_timestamp()
               WHERE id = $1""",
            task_id,
            worker_id,
        )
        return str(worker_id), task_id

    return insert


def causes(cli, task_id) -> list[str]:
    events = cli.json("tasks", "show", str(task_id))["events"]
    return [event["detail"]["cause"] for event in events if event["kind"] == "lease_lost"]


@PROVABLE
@pytest.mark.parametrize("by", ["identity", "worker.id", "label"])
def test_the_tasks_of_a_worker_that_is_gone_go_back_at_once(cli, worker, by):
    labels = [f"worker:{NAME}"] if by == "label" else []
    worker_id, task_id = worker(place=place(), labels=labels)
    released = cli.json("release", "--worker", worker_id if by == "identity" else NAME)
    assert released == [{"worker_id": worker_id, "hostname": "web-1", "pid": 7, "tasks": 1}]
    assert cli.status(task_id) == "pending"
    assert causes(cli, task_id) == ["its process is gone"]
    assert [row["status"] for row in cli.json("workers")] == ["lost"]


@PROVABLE
def test_it_prints_a_table_of_what_was_released(cli, worker):
    worker_id, _ = worker(place=place())
    result = cli.run("release", "--worker", NAME)
    assert result.exit_code == 0
    head, row = result.stdout.splitlines()
    assert head.split() == ["WORKER", "HOST", "TASKS"]
    assert row.split() == [worker_id, "web-1:7", "1"]


@PROVABLE
@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_worker_that_still_runs_here_is_refused_whatever_one_says(cli, worker, force):
    process = uuid4()
    with hold_name(process):
        worker_id, task_id = worker(process=process, place=place())
        result = cli.run("release", "--worker", NAME, *force)
    assert result.exit_code == 1
    assert f"error: worker {worker_id} still runs here, as process 7" in result.stderr
    assert "kill 7" in result.stderr
    assert cli.status(task_id) == "running"


def test_of_another_place_a_worker_is_released_only_by_force(cli, worker):
    worker_id, task_id = worker(place="another-boot:1")
    refused = cli.run("release", "--worker", worker_id)
    assert refused.exit_code == 1
    assert "on web-1" in refused.stderr
    assert "--force" in refused.stderr
    assert cli.status(task_id) == "running"
    [released] = cli.json("release", "--worker", worker_id, "--force")
    assert released["tasks"] == 1
    assert cli.status(task_id) == "pending"
    assert causes(cli, task_id) == ["an operator said that it is gone"]


@PROVABLE
def test_what_can_be_released_is_although_another_one_is_refused(cli, worker):
    gone, task_of_gone = worker(place=place())
    _, task_of_other = worker(place="another-boot:1")
    result = cli.run("release", "--worker", NAME, "--json")
    assert result.exit_code == 1
    assert [row["worker_id"] for row in json.loads(result.stdout)] == [gone]
    assert (cli.status(task_of_gone), cli.status(task_of_other)) == ("pending", "running")


@PROVABLE
def test_where_nothing_is_left_to_release_it_says_so_and_exits_0(cli, worker):
    worker(place=place())
    assert len(cli.json("release", "--worker", NAME)) == 1
    result = cli.run("release", "--worker", NAME)
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"nothing to release: no worker of {NAME}" in result.stderr
    assert cli.json("release", "--worker", NAME) == []


@PROVABLE
def test_what_systemd_tells_is_the_cause(cli, worker, monkeypatch):
    _, task_id = worker(place=place())
    for name, value in {"SERVICE_RESULT": "oom-kill", "EXIT_CODE": "killed", "EXIT_STATUS": "KILL"}.items():
        monkeypatch.setenv(name, value)
    cli.json("release", "--worker", NAME)
    assert causes(cli, task_id) == ["killed by SIGKILL (systemd: oom-kill)"]


@pytest.mark.parametrize(
    "environ,told",
    [
        ({}, None),
        ({"SERVICE_RESULT": "start-limit-hit"}, "systemd: start-limit-hit"),
        (
            {"SERVICE_RESULT": "exit-code", "EXIT_CODE": "exited", "EXIT_STATUS": "70"},
            "exited with code 70 (systemd: exit-code)",
        ),
        (
            {"SERVICE_RESULT": "core-dump", "EXIT_CODE": "dumped", "EXIT_STATUS": "SEGV"},
            "killed by SIGSEGV (systemd: core-dump)",
        ),
    ],
)
def test_how_a_unit_ended_in_words(environ, told):
    assert death_told_by_systemd(environ) == told


def test_an_id_that_is_none_is_wrong_usage(bare):
    result = bare.run("release", "--worker", "web-1", "--database", "postgresql://localhost/none")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: Invalid value for '--worker': ")


def test_an_unreachable_database_exits_69(bare):
    result = bare.run("release", "--worker", NAME, "--database", "postgresql://127.0.0.1:1/shop")
    assert result.exit_code == 69


@PROVABLE
def test_a_real_worker_is_refused_while_it_lives_and_released_once_it_was_killed(cli, start):
    task_id = cli.enqueue("nap")
    process = start("run", "--app", "shop:app", ASYNCTASKD_WORKER_ID=NAME)
    process.await_line("napping")
    [worker] = cli.json("workers")
    refused = cli.run("release", "--worker", NAME)
    assert refused.exit_code == 1
    assert f"kill {worker['pid']}" in refused.stderr
    process.tell(signal.SIGKILL)
    process.exit_code()
    assert cli.json("release", "--worker", NAME)[0]["tasks"] == 1
    assert cli.status(task_id) == "pending"


@PROVABLE
def test_a_restart_with_the_same_id_takes_over_what_its_killed_predecessor_held(cli, start, tmp_path):
    task_id = cli.enqueue("nap")
    for _ in range(2):
        process = start("run", "--app", "shop:app", ASYNCTASKD_WORKER_ID=NAME, ASYNCTASKD_WORKER_LEASE="1h")
        process.await_line("napping")
        process.tell(signal.SIGKILL)
        process.exit_code()
    (tmp_path / "wake").touch()
    last = start("run", "--app", "shop:app", "--once", ASYNCTASKD_WORKER_ID=NAME)
    assert last.exit_code() == 0
    assert cli.status(task_id) == "completed"
    assert len(causes(cli, task_id)) == 2


def test_a_second_worker_of_the_same_id_exits_75_and_says_why(cli, start):
    environ = {"ASYNCTASKD_WORKER_ID": NAME, "ASYNCTASKD_WORKER_RENEW_INTERVAL": "200ms"}
    first = start("run", "--app", "shop:app", **environ)
    first.await_line("worker.started")
    second = start("run", "--app", "shop:app", **environ)
    assert second.exit_code() == 75
    assert second.stderr[-1].startswith(f"error: worker.id {NAME} is taken: process ")
