"""`asynctaskd config`: what operators type, and what they are told."""

from __future__ import annotations

import asyncio
import json
import re
import signal

import pytest

from asynctaskd import Client, TaskError
from asynctaskd.config import RuntimeConfig
from asynctaskd.config.assignments import assigned
from asynctaskd.errors import InvalidInputError
from tests.support.bad_versions import bad_version

SILENT = """
    INSERT INTO asynctaskd.workers (id, name, hostname, pid, version, labels, names, concurrency, expires_at,
                                    max_strict_percentage)
    VALUES (gen_random_uuid(), gen_random_uuid(), 'far', 7, '0', '{}', '{}', 10,
            clock_timestamp() + interval '1 hour', 50)
    RETURNING id
"""


@pytest.mark.parametrize(
    "assignments,fields",
    [
        (
            ["max_strict_percentage=20", "default_weight=3"],
            {"max_strict_percentage": 20, "default_weight": 3},
        ),
        (["max_strict_percentage="], {"max_strict_percentage": None}),
        (["default_weight="], {"default_weight": 1}),
        (["weights.b=7"], {"weights": {"a": 1, "b": 7}}),
        (["weights.a.b:c=7", "weights.a="], {"weights": {"a.b:c": 7}}),
        (["weights=b=7,c=8"], {"weights": {"b": 7, "c": 8}}),
        (["weights=", "weights.b=7"], {"weights": {"b": 7}}),
        (["limits.a=0"], {"limits": {"a": 0}}),
        (["paused_labels=y,z"], {"paused_labels": ["y", "z"]}),
        (["paused_labels+=y,x"], {"paused_labels": ["x", "y"]}),
        (["paused_labels-=x", "paused_names+=n"], {"paused_labels": [], "paused_names": ["n"]}),
        (["weights.b=many"], {"weights": {"a": 1, "b": "many"}}),  # the rules say what is wrong
    ],
)
def test_what_is_assigned(assignments, fields):
    now = RuntimeConfig(weights={"a": 1}, paused_labels=["x"])
    assert assigned(assignments, now) == fields


@pytest.mark.parametrize(
    "assignment", ["weights", "wieghts=1", "default_weight.a=1", "weights+=a", "paused_names.a=1"]
)
def test_what_is_no_assignment_is_refused(assignment):
    with pytest.raises(InvalidInputError, match="assignment|can't set"):
        assigned([assignment], RuntimeConfig())


@pytest.mark.parametrize("field", ["paused_labels", "paused_names"])
@pytest.mark.parametrize("assignment", ["+=", "-=", "+=,", "+= ", "+=a,", "=,", "=,us", "=a,,b"])
def test_an_empty_shell_variable_is_no_member_of_a_list(field, assignment):
    with pytest.raises(InvalidInputError, match="must not .*hold an empty member"):
        assigned([f"{field}{assignment}"], RuntimeConfig())


@pytest.mark.parametrize("assignment", ["weights=,", "weights=a=1,,b=2", "limits=,a=1"])
def test_nor_is_it_an_entry_of_a_mapping(assignment):
    with pytest.raises(InvalidInputError, match="must not hold an empty member"):
        assigned([assignment], RuntimeConfig(weights={"a": 1}))


@pytest.mark.parametrize("assignment", ["weights.=", "weights.=5", "paused_labels.=a"])
def test_an_entry_without_a_name_does_not_stand_for_all_of_them(assignment):
    with pytest.raises(InvalidInputError, match="can't set"):
        assigned([assignment], RuntimeConfig(weights={"a": 1}))


def test_what_is_paused_stays_so_where_a_variable_was_empty(cli):
    cli.run("config", "set", "paused_labels=eu,us")
    for assignment in ("paused_labels+=", "paused_labels=,", "paused_labels=,us"):
        refused = cli.run("config", "set", assignment)
        assert refused.exit_code == 2
        assert "hold an empty member" in refused.stderr
    assert cli.json("config", "show")["paused_labels"] == ["eu", "us"]
    assert cli.run("config", "set", "paused_labels=").exit_code == 0
    assert cli.json("config", "show")["paused_labels"] == []


def test_a_change_without_a_worker_holds_at_once(cli):
    result = cli.run("config", "set", "max_strict_percentage=20", "weights.mail=5")
    assert (result.exit_code, result.stdout) == (0, "version 1 is applied by 0 live workers\n")
    assert result.stderr == "weights, as of version 0, is written as a whole\n"
    assert cli.json("config", "show")["weights"] == {"mail": 5}
    shown = cli.run("config", "show").stdout
    assert "max_strict_percentage  20" in shown
    assert "mail=5" in shown


def test_what_changes_nothing_writes_no_version(cli):
    cli.run("config", "set", "weights.mail=5", "paused_names+=a")
    for assignment in ("paused_names-=nothere", "paused_names+=a", "weights.mail=5", "limits.mail="):
        result = cli.run("config", "set", assignment)
        assert (result.exit_code, result.stdout) == (0, "nothing changes: version 1 says so already\n")
    report = cli.json("config", "set", "paused_names-=nothere")
    assert (report["status"], report["version"]) == ("unchanged", 1)
    assert len(cli.json("config", "history")) == 1


def test_an_entry_that_was_for_a_while_stays_once_it_is_said_again(cli):
    cli.run("config", "set", "weights.mail=3")
    for how in (["--expires", "1h"], ["--expires", "3h"], []):
        cli.run("config", "set", "weights.mail=3", *how)
    assert [one["expires_at"] is None for one in cli.json("config", "history")] == [True, False, False, True]


@pytest.mark.parametrize("number", ["٣", "1_0", "1" * 5000, "+3"])
def test_only_plain_digits_are_a_number(cli, number):
    result = cli.run("config", "set", f"max_strict_percentage={number}")
    assert result.exit_code == 2
    assert "max_strict_percentage must be an integer" in result.stderr


def test_an_error_is_not_preceded_by_what_would_have_been_written(cli):
    result = cli.run("config", "set", "weights.mail=0")
    assert result.stderr == "error: weights[mail] must be at least 1, got 0\n"


def test_in_a_pipe_a_line_of_a_table_ends_with_its_text(cli):
    cli.run("config", "set", "default_weight=2")
    cli.run("config", "set", "paused_names=" + ",".join(f"name{n}" for n in range(50)))
    lines = cli.run("config", "history").stdout.splitlines()
    assert len(lines[0]) < 80 < len(lines[1])
    assert lines[2].endswith('{"default_weight": 2}')


def test_a_value_that_breaks_a_rule_is_refused_with_its_field(cli):
    result = cli.run("config", "set", "weights.mail=0")
    assert result.exit_code == 2
    assert "weights[mail] must be at least 1, got 0" in result.stderr


def test_a_version_that_cannot_be_read_is_shown_with_what_is_wrong_and_the_cure(cli):
    cli.run("config", "set", "default_weight=2")
    cli.sql(bad_version(2, '{"default": 3}'))
    wrong = (
        "error: version 2 of the runtime configuration can't be read: weights can't name the label default: "
        "it is reserved; set that field as a whole, or roll back to an earlier version\n"
    )
    shown = cli.run("config", "show")
    assert (shown.exit_code, shown.stderr) == (1, wrong)
    assert "default=3" in shown.stdout
    for command in (
        ("set", "default_weight=3", "--preview"),
        ("set", "weights.mail=1"),
        ("set", "default_weight=3"),
    ):
        result = cli.run("config", *command)
        assert (result.exit_code, result.stderr) == (1, wrong)
    assert cli.run("config", "set", "weights=mail=1").exit_code == 0
    assert cli.run("config", "show").exit_code == 0


def test_the_fleet_is_shown_though_its_configuration_cannot_be_read(cli):
    cli.sql(bad_version(1, '{"mail": 0}'))
    wrong = "version 1 of the runtime configuration can't be read: weights[mail] must be at least 1, got 0"
    result = cli.run("top", "--once")
    assert result.exit_code == 1
    assert wrong in " ".join(result.stdout.split())
    overview = cli.run("top", "--json")
    assert overview.exit_code == 1
    assert json.loads(overview.stdout)["config_problem"].startswith(wrong)


def test_who_does_not_answer_in_time_is_named_and_the_exit_code_is_3(cli):
    [(worker,)] = cli.sql(SILENT)
    result = cli.run("config", "set", "default_weight=2", "--timeout", "100ms")
    assert result.exit_code == 3
    assert f"far:7 ({worker})" in result.stderr
    report = cli.run("config", "set", "default_weight=2", "--timeout", "100ms", "--json")
    assert (report.exit_code, json.loads(report.stdout)["lagging"]) == (3, [str(worker)])


def test_a_report_has_the_same_keys_whether_there_was_a_trial_or_not(cli):
    report = cli.json("config", "set", "default_weight=2")
    assert list(report) == ["version", "status", "applied", "lagging", "rejected", "hosts", "canary"]
    assert report["canary"] is None


def test_while_one_worker_tries_a_change_nobody_else_is_waited_for(cli, two_workers, monkeypatch):
    monkeypatch.setattr("asynctaskd.cli.config._PATIENCE", 0.05)
    result = cli.run("config", "set", "default_weight=2", "--canary", "2s")
    assert result.exit_code == 0, result.stderr
    told = result.stderr.splitlines()
    assert re.fullmatch(r"waiting for the trial on \S+ \(\S+\) …", told[len(told) // 2])


def test_whoever_cancels_a_change_hears_what_stands_all_the_same(cli):
    cli.sql(SILENT)
    task_id = int(cli.run("config", "set", "default_weight=2", "--no-wait").stdout)
    publish = "SELECT asynctaskd.publish_runtime_config($2, asynctaskd.config_request($1))"
    cli.sql(publish, task_id, '{"default_weight": 2}')
    cli.end(task_id, "cancelled", "cancelled by operator")

    async def report():
        async with Client(cli.dsn) as client:
            await client.runtime_config_report(task_id)

    with pytest.raises(TaskError, match="cancelled by operator; version 1, which it had written, stands"):
        asyncio.run(report())


def test_who_waits_longer_is_told_for_whom(cli, monkeypatch):
    monkeypatch.setattr("asynctaskd.cli.config._PATIENCE", 0.05)
    [(worker,)] = cli.sql(SILENT)
    result = cli.run("config", "set", "default_weight=2", "--timeout", "200ms")
    assert f"waiting for far:7 ({worker}) …" in result.stderr


def test_without_waiting_the_id_of_the_task_is_printed(cli):
    result = cli.run("config", "set", "default_weight=2", "--no-wait")
    assert cli.json("tasks", "show", result.stdout.strip())["name"] == "updateWorkerRuntimeConfig"


def test_a_preview_shows_shares_and_caps_and_changes_nothing(cli):
    [(worker,)] = cli.sql(SILENT)
    preview = cli.json("config", "set", "weights.mail=3", "max_strict_percentage=20", "--preview")
    assert preview["shares"] == {"mail": [None, 0.75], "default": [1.0, 0.25]}
    [caps] = preview["caps"]
    assert (caps["worker_id"], caps["before"], caps["after"]) == (str(worker), 5, 2)
    assert "75.0 %" in cli.run("config", "set", "weights.mail=3", "--preview").stdout
    assert cli.json("config", "history") == []


def test_the_history_and_the_way_back(cli):
    cli.run("config", "set", "default_weight=2")
    cli.run("config", "set", "default_weight=3", "--expires", "1h")
    newest, first = cli.json("config", "history")
    assert (newest["changes"], first["version"]) == ({"default_weight": 3}, 1)
    assert "expires" in cli.run("config", "history").stdout
    assert "version 2 expires" in cli.run("config", "show").stdout
    assert cli.run("config", "rollback").exit_code == 0
    assert cli.json("config", "show")["default_weight"] == 2
    assert cli.json("config", "rollback", "2")["version"] == 4
    assert "no version 99" in cli.run("config", "rollback", "99").stderr


def test_promoting_nothing_fails(cli):
    result = cli.run("config", "promote")
    assert (result.exit_code, result.stderr) == (1, "error: there is no canary to promote\n")


def test_workers_show_what_they_apply_and_what_they_rejected(cli):
    cli.sql(SILENT)
    cli.sql(
        "UPDATE asynctaskd.workers SET applied_config_version = 4, rejected_config_version = 5,"
        " rejected_because = 'too new'"
    )
    assert "4, rejected 5: too new" in cli.run("workers").stdout
    [worker] = cli.json("workers")
    assert (worker["applied_config_version"], worker["rejected_because"]) == (4, "too new")


def test_a_running_worker_applies_it_and_a_trial_is_promoted(cli, start):
    worker = start("run", "--app", "shop:app", ASYNCTASKD_DATABASE_URL=cli.dsn, ASYNCTASKD_LOG_FORMAT="json")
    worker.await_line("listener.up")
    report = cli.json("config", "set", "default_weight=2", "--canary", "100ms")
    assert (report["status"], report["canary"]["outcome"], len(report["applied"])) == (
        "converged",
        "promoted",
        1,
    )
    assert "applied by 1 of 1 live workers" in cli.run("config", "show").stdout


@pytest.fixture
def two_workers(cli, start):
    workers = [
        start("run", "--app", "shop:app", ASYNCTASKD_DATABASE_URL=cli.dsn, ASYNCTASKD_LOG_FORMAT="json")
        for _ in range(2)
    ]
    for worker in workers:
        worker.await_line("listener.up")
    return workers


def test_a_worker_that_is_frozen_is_named_and_the_others_have_applied_it(cli, two_workers):
    frozen = two_workers[0]
    frozen.tell(signal.SIGSTOP)
    result = cli.run("config", "set", "default_weight=2", "--timeout", "1s")
    frozen.tell(signal.SIGCONT)
    assert result.exit_code == 3
    assert f":{frozen._process.pid} (" in result.stderr
    assert f":{two_workers[1]._process.pid} (" not in result.stderr


def test_a_worker_that_was_killed_does_not_hold_it_up(cli, two_workers):
    two_workers[0].tell(signal.SIGKILL)
    two_workers[0].exit_code()
    report = cli.json("config", "set", "default_weight=2", "--timeout", "20s")  # less than its lease
    assert (report["status"], len(report["applied"])) == ("converged", 1)
