"""`asynctaskd tasks pause|resume|…`: who is chosen, what is asked first, and what is said afterwards."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from asynctaskd.cli.steer_tasks import _moment
from asynctaskd.errors import InvalidInputError

KEYS = [
    "task_id", "status", "outcome", "reason", "worker_id", "requested_at", "delivered_at", "stopped_at"
]  # fmt: skip


def test_a_receipt_is_one_object_with_one_entry_a_task(cli):
    task_id = cli.enqueue("add")
    receipt = cli.json("tasks", "cancel", str(task_id))
    assert list(receipt) == ["request_id", "action", "tasks"]
    assert list(receipt["tasks"][0]) == KEYS
    assert receipt["tasks"][0]["outcome"] == "changed"
    assert cli.status(task_id) == "cancelled"


def test_a_receipt_can_be_read(cli):
    task_id = cli.enqueue("add")
    result = cli.run("tasks", "pause", str(task_id))
    assert result.exit_code == 0
    header, row, total = result.stdout.splitlines()
    assert header.split() == ["ID", "STATUS", "OUTCOME", "TOOK", "WORKER", "REASON"]
    assert row.split()[:3] == [str(task_id), "paused", "changed"]
    assert re.fullmatch(r"pause, request [0-9a-f-]{36}: 1 changed", total)


def test_what_is_refused_exits_1_and_says_why(cli):
    task_id = cli.enqueue("add")
    cli.end(task_id, "expired")
    result = cli.run("tasks", "cancel", str(task_id), "99")
    assert result.exit_code == 1
    assert "it is expired" in result.stdout
    assert "there is no such task" in result.stdout


def test_where_no_task_fits_it_says_so_and_exits_1(cli):
    result = cli.run("tasks", "cancel", "--unique-tag", "nobody's")
    assert (result.exit_code, result.stdout) == (1, "cancel: no task fits\n")


def test_an_execution_that_goes_on_exits_3(cli):
    task_id = cli.enqueue("add")
    cli.sql("""
        INSERT INTO asynctaskd.workers
               (id, name, hostname, pid, version, labels, names, concurrency, expires_at)
        VALUES (gen_random_uuid(), gen_random_uuid(), 'h', 1, '1', '{}', '{}', 1, now() + interval '1 h')""")
    cli.sql("""
        UPDATE asynctaskd.tasks SET status = 'running', claim_token = 1, claimed_at = now(),
               worker_id = (SELECT id FROM asynctaskd.workers)""")
    result = cli.run("tasks", "cancel", str(task_id), "--timeout", "3s")
    assert result.exit_code == 3
    assert "goes on" in result.stdout
    assert "1 of 1 task still to stop" in result.stderr


def test_a_dry_run_counts_and_changes_nothing(cli):
    ids = [cli.enqueue("add", "{}", "--tags", "x") for _ in range(12)]
    assert cli.json("tasks", "cancel", "--tag", "x", "--dry-run") == {
        "action": "cancel", "count": 12, "first": ids[:10]
    }  # fmt: skip
    result = cli.run("tasks", "cancel", "--tag", "x", "--dry-run")
    assert result.stdout.startswith("cancel would concern 12 tasks: 1, 2,")
    assert {cli.status(task_id) for task_id in ids} == {"pending"}


def test_a_dry_run_counts_descendants_where_the_command_reaches_them(cli):
    root = cli.enqueue("add", "{}", "--tags", "root")
    child = cli.enqueue("add", "{}", "--parent", str(root))
    cli.enqueue("add", "{}", "--parent", str(child))

    def count(action, *args):
        return cli.json("tasks", action, "--tag", "root", "--dry-run", *args)["count"]

    assert [count("cancel"), count("pause"), count("expire")] == [3, 3, 1]
    assert [count("cancel", "--no-cascade"), count("resume")] == [1, 1]
    cli.run("tasks", "pause", str(child))
    assert count("resume") == 3
    result = cli.run("tasks", "cancel", "--tag", "root")
    assert "cancel would concern 3 tasks, and there is nobody to ask" in result.stderr
    assert len(cli.json("tasks", "cancel", "--tag", "root", "--yes")["tasks"]) == 3


def test_many_tasks_are_not_changed_unasked(cli):
    task_id = cli.enqueue("add")
    result = cli.run("tasks", "cancel", "--name", "add")
    assert result.exit_code == 2
    assert "cancel would concern 1 task, and there is nobody to ask: add --yes" in result.stderr
    assert cli.status(task_id) == "pending"
    assert cli.run("tasks", "cancel", "--name", "add", "--yes").exit_code == 0
    assert cli.status(task_id) == "cancelled"


def test_tasks_are_chosen_by_tags_with_exceptions(cli):
    both = cli.enqueue("add", "{}", "--tags", "a,b")
    cli.enqueue("add", "{}", "--tags", "a,b,c")
    cli.enqueue("add", "{}", "--tags", "a")
    receipt = cli.json("tasks", "pause", "--tag", "a,b", "--except-tag", "c,a", "--except-tag", "d", "--yes")
    assert [task["task_id"] for task in receipt["tasks"]] == [both]


def test_failed_tasks_are_retried_by_name_and_time(cli):
    old, new = cli.enqueue("add"), cli.enqueue("add")
    for task_id in (old, new):
        cli.run("tasks", "fail", str(task_id), "--reason", "wrong")
    cli.sql("UPDATE asynctaskd.finished_tasks SET finished_at = now() - interval '2 h' WHERE id = $1", old)
    receipt = cli.json(
        "tasks",
        "retry",
        "--name",
        "add",
        "--status",
        "failed",
        "--since",
        "1h",
        "--label",
        "x",
        "--yes",
        "--dry-run",
    )
    assert receipt["count"] == 0
    receipt = cli.json("tasks", "retry", "--name", "add", "--status", "failed", "--since", "1h", "--yes")
    assert [task["task_id"] for task in receipt["tasks"]] == [new]
    assert cli.status(new) == "pending"


def test_purge_forgets_what_has_ended(cli):
    ended, live = cli.enqueue("add"), cli.enqueue("add")
    cli.end(ended, "expired")
    receipt = cli.json("tasks", "purge", "--name", "add", "--yes")
    assert [task["task_id"] for task in receipt["tasks"]] == [ended]
    assert cli.run("tasks", "show", str(ended)).exit_code == 1
    assert cli.status(live) == "pending"


def test_purge_forgets_only_what_ended_as_is_said(cli):
    ids = {status: cli.enqueue("add") for status in ("failed", "cancelled", "expired")}
    for status, task_id in ids.items():
        cli.end(task_id, status)
    receipt = cli.json("tasks", "purge", "--status", "failed", "--yes")
    assert [task["task_id"] for task in receipt["tasks"]] == [ids.pop("failed")]
    assert [task["id"] for task in cli.json("tasks", "list")] == sorted(ids.values(), reverse=True)


def test_run_now_says_truthfully_whether_the_task_ran(cli, start):
    task_id = cli.enqueue("add", '{"a": 1, "b": 2}', "--delay", "1h")
    refused = cli.run("tasks", "run-now", str(task_id))
    assert refused.exit_code == 1
    assert "no worker is live" in refused.stdout
    assert cli.status(task_id) == "scheduled"

    worker = start("run", "--app", "shop:app")
    worker.await_line("worker.started")
    [task] = cli.json("tasks", "run-now", str(task_id), "--timeout", "60s")["tasks"]
    assert (task["outcome"], task["status"]) == ("stopped", "completed")
    assert cli.json("tasks", "show", str(task_id))["result"] == 3


def test_without_cascade_descendants_are_left_alone(cli):
    root = cli.enqueue("add")
    child = cli.enqueue("add", "{}", "--parent", str(root))
    cli.run("tasks", "cancel", str(root), "--no-cascade")
    assert (cli.status(root), cli.status(child)) == ("cancelled", "pending")


def test_priorities_are_changed_by_label(cli):
    cli.enqueue("add", "{}", "--labels", "x")
    assert cli.json("tasks", "reprioritize", "--label", "x,y", "--priority", "3") == {"changed": 1}
    assert cli.run("tasks", "reprioritize", "--weight", "3").stdout == "changed 0 tasks\n"
    assert cli.run("tasks", "reprioritize", "--weight", "0").exit_code == 2


@pytest.mark.parametrize(
    "args",
    [
        ["cancel"],
        ["cancel", "1", "--name", "add"],
        ["cancel", "--tag", "", "--yes"],
        ["cancel", "--status", "gone", "--yes"],
        ["cancel", "--name", "add", "--since", "noon", "--yes"],
        ["cancel", "1", "--timeout", "soon"],
        ["fail"],
        ["cancel", "x"],
    ],
)
def test_a_selection_that_makes_no_sense_exits_2(cli, args):
    result = cli.run("tasks", *args)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


def test_a_time_is_an_instant_a_time_of_day_or_how_long_ago():
    now = datetime.now(UTC)
    assert _moment("--since", "2026-01-31T12:00:00Z") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert timedelta(hours=2) - timedelta(seconds=5) < now - _moment("--since", "2h") <= timedelta(hours=2)
    midnight = _moment("--since", "00:00")
    assert timedelta(0) <= datetime.now(UTC) - midnight < timedelta(hours=26)
    assert (midnight.hour, midnight.minute) == (0, 0)
    minute = (now.astimezone() + timedelta(minutes=2)).strftime("%H:%M")
    assert datetime.now(UTC) - _moment("--since", minute) > timedelta(hours=20)  # yesterday's
    with pytest.raises(InvalidInputError, match="--since must be"):
        _moment("--since", "24:99")


def test_the_receipt_of_a_command_in_json_has_instants_with_a_zone(cli):
    receipt = cli.json("tasks", "cancel", str(cli.enqueue("add")))
    assert datetime.fromisoformat(receipt["tasks"][0]["requested_at"]).tzinfo is not None
    assert json.dumps(receipt)


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["cancel", "--label", "mail", "--label", "eu"], "--label takes one label here, got mail, eu"),
        (["cancel", "--label", "mail,eu"], "--label takes one label here, got mail, eu"),
        (["cancel", "--name", "add", "--name", "note"], "--name can be given only once"),
        (["cancel", "--status", "pending", "--status", "paused"], "--status can be given only once"),
        (["list", "--name", "add", "--name", "note"], "--name can be given only once"),
        (["watch", "--name", "add", "--name", "note"], "--name can be given only once"),
        (["reprioritize", "--label", "x", "--weight", "2", "--weight", "3"], "--weight can be given only"),
    ],
)
def test_nothing_of_a_selection_is_dropped_in_silence(cli, args, problem):
    task_id = cli.enqueue("add", "{}", "--labels", "eu")
    result = cli.run("tasks", *args)
    assert result.exit_code == 2
    assert problem in result.stderr
    assert cli.status(task_id) == "pending"


@pytest.mark.parametrize(
    "args",
    [
        ["reprioritize", "--label", "", "--priority", "3"],
        ["cancel", "--label", "", "--yes"],
        ["cancel", "--tag", "a", "--tag", "", "--yes"],
        ["cancel", "--tag", "a,", "--yes"],
        ["cancel", "--tag", "a", "--except-tag", "", "--yes"],
        ["list", "--label", ""],
        ["watch", "--status", ""],
    ],
)
def test_an_empty_shell_variable_chooses_no_more_tasks(cli, args):
    cli.enqueue("add", "{}", "--tags", "a")
    result = cli.run("tasks", *args)
    assert result.exit_code == 2
    assert "must not be empty" in result.stderr
    [task] = cli.json("tasks", "list")
    assert (task["status"], task["priority"]) == ("pending", 0)


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["cancel", "--since", "1m", "--until", "5m"], "--since must be before --until, got 1m and 5m"),
        (["cancel", "--label", "ü"], "a label must match"),
        (["fail", "1", "--reason", "a\0b"], "reason must hold no NUL character"),
    ],
)
def test_what_can_choose_nothing_or_be_stored_nowhere_is_refused(cli, args, problem):
    result = cli.run("tasks", *args)
    assert result.exit_code == 2
    assert problem in result.stderr
