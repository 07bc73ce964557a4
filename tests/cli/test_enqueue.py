from __future__ import annotations

import pytest


def test_it_prints_the_bare_id_or_an_object(cli):
    first = cli.run("enqueue", "add")
    assert first.exit_code == 0
    assert cli.json("enqueue", "add") == {"id": int(first.stdout) + 1}


def test_every_option_arrives(cli):
    parent = cli.enqueue("parent")
    task_id = cli.enqueue(
        "add", '{"a": 1.5, "ü": ["x"]}', "--priority", "7", "--weight", "3", "--labels", "b,a",
        "--labels", "c",
        "--tags", "t1,t2", "--unique-tag", "only one", "--serial-key", "line", "--serial-id", "5",
        "--parent", str(parent), "--run-at", "2999-01-31T12:00:00+01:00",
        "--deadline", "2999-02-01T00:00:00Z", "--timeout", "90s", "--retry", "1m,2m", "--max-attempts", "4",
        "--keep", "1h", "--metadata", '{"k": 1}',
    )  # fmt: skip
    task = cli.json("tasks", "show", str(task_id))
    assert task["payload"] == {"a": 1.5, "ü": ["x"]}
    assert (task["priority"], task["weight"]) == (7, 3)
    assert (task["labels"], task["tags"]) == (["a", "b", "c"], ["t1", "t2"])
    assert (task["unique_tag"], task["serial_key"], task["serial_id"]) == ("only one", "line", 5)
    assert (task["parent_id"], task["metadata"]) == (parent, {"k": 1})
    assert (task["run_at"], task["deadline"]) == ("2999-01-31T11:00:00+00:00", "2999-02-01T00:00:00+00:00")
    assert (task["timeout"], task["max_attempts"], task["status"]) == ("1m30s", 4, "scheduled")
    [row] = cli.sql("SELECT retry, keep::text FROM asynctaskd.tasks WHERE id = $1", task_id)
    assert tuple(row) == ("1m,2m", "01:00:00")


def test_labels_and_tags_left_out_are_the_definitions(cli):
    cli.sql(
        "INSERT INTO asynctaskd.definitions (name, schema_hash, label_set, tags)"
        " VALUES ('add', '', 'a', '{t}')"
    )
    task = cli.json("tasks", "show", str(cli.enqueue("add")))
    assert (task["labels"], task["tags"]) == (["a"], ["t"])


def test_a_delay_and_a_deadline_may_be_durations(cli):
    task = cli.json("tasks", "show", str(cli.enqueue("add", "{}", "--delay", "1h", "--deadline", "2h")))
    assert task["status"] == "scheduled"
    assert task["run_at"] < task["deadline"]


def test_the_same_unique_tag_gives_the_same_id(cli):
    assert cli.enqueue("add", "{}", "--unique-tag", "t") == cli.enqueue("add", "{}", "--unique-tag", "t")


def test_the_payload_may_come_from_standard_input(cli):
    result = cli.run("enqueue", "add", "-", input='{"a": "ö"}')
    assert cli.json("tasks", "show", result.stdout.strip())["payload"] == {"a": "ö"}


def test_an_empty_list_of_labels_means_none(cli):
    assert cli.json("tasks", "show", str(cli.enqueue("add", "{}", "--labels", "")))["labels"] == []


BAD = {
    "invalid JSON": (["add", "{'a': 1}"], "payload is not valid JSON"),
    "NaN": (["add", "[NaN]"], "payload"),
    "NUL": (["add", '{"a": "\\u0000"}'], "NUL"),
    "too deep": (["add", "[" * 65 + "]" * 65], "at most 64"),
    "400 digits": (["add", "9" * 400], "64 bits"),
    "too large": (["add", '"' + "a" * 1_048_577 + '"'], "1048576"),
    "name": (["a b"], "task name must match"),
    "malformed duration": (["add", "--delay", "1.5h"], "malformed duration '1.5h'"),
    "timeout of nothing": (["add", "--timeout", "0s"], "timeout must be more than 0"),
    "naive instant": (["add", "--run-at", "2026-01-31T12:00:00"], "time zone"),
    "no instant": (["add", "--run-at", "tomorrow"], "--run-at must be an instant"),
    "no deadline": (["add", "--deadline", "soon"], "--deadline must be an instant"),
    "delay and run_at": (["add", "--delay", "1s", "--run-at", "2999-01-01T00:00:00Z"], "exclude each other"),
    "priority": (["add", "--priority", "-1"], "priority must be at least 0, got -1"),
    "weight": (["add", "--weight", "0"], "weight must be at least 1, got 0"),
    "id without key": (["add", "--serial-id", "1"], "serial_key"),
    "label": (["add", "--labels", "a b"], "label"),
    "attempts alone": (["add", "--max-attempts", "3"], "--max-attempts needs --retry"),
    "retry": (["add", "--retry", "often"], "retry"),
    "metadata": (["add", "--metadata", "[1]"], "metadata must be a mapping"),
    "no parent": (["add", "--parent", "12345"], "12345"),
    "wait": (["add", "--wait=soon"], "malformed duration 'soon'"),
    "no integer": (["add", "--priority", "high"], "--priority"),
    "app": (["ad", "--app", "shop:app"], "Is it 'add'?"),
    "payload for app": (["add", '{"a": 1}', "--app", "shop:app"], "b"),
}


@pytest.mark.parametrize("args,message", BAD.values(), ids=BAD.keys())
def test_bad_input_exits_2_with_one_clear_error_and_enqueues_nothing(cli, args, message):
    result = cli.run("enqueue", *args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert cli.json("tasks", "list") == []


def test_standard_input_that_is_no_text_is_refused(cli):
    result = cli.run("enqueue", "add", "-", input=b'{"a": "\xff"}')
    assert (result.exit_code, "isn't UTF-8" in result.stderr) == (2, True)


def test_without_an_app_an_unknown_name_is_accepted(cli):
    assert cli.status(cli.enqueue("nobody.knows.it")) == "pending"


def test_an_app_from_the_environment_is_asked_too(cli, monkeypatch):
    monkeypatch.setenv("ASYNCTASKD_APP", "shop:app")
    assert cli.run("enqueue", "nobody.knows.it").exit_code == 2
    assert cli.run("enqueue", "add", '{"a": 1, "b": 2}').exit_code == 0


def test_wait_returns_when_the_task_has_completed(cli, start):
    waiting = start("enqueue", "add", '{"a": 1, "b": 2}', "--wait")
    task_id = waiting.await_line("").strip()
    assert start("run", "--app", "shop:app", "--once").exit_code() == 0
    assert waiting.exit_code() == 0
    assert waiting.stdout == [task_id]


def test_wait_on_a_failure_exits_1_and_says_why(cli, start):
    waiting = start("enqueue", "fail", "--wait=60s")
    waiting.await_line("")
    assert start("run", "--app", "shop:app", "--once").exit_code() == 0
    assert waiting.exit_code() == 1
    assert waiting.stderr[-1].endswith("FatalTaskError: no way")


@pytest.mark.parametrize(
    "args", [["--wait=50ms", "add"], ["add", "--wait", "50ms"], ["--wait", "50ms", "add"]]
)
def test_wait_that_takes_too_long_exits_75_after_the_id(cli, args):
    result = cli.run("enqueue", *args)
    assert result.exit_code == 75
    assert f"task 'add' ({result.stdout.strip()}) is still pending after 50ms" in result.stderr


def test_without_a_schema_it_exits_78_and_says_what_to_run(cli):
    result = cli.run("enqueue", "add", "--schema", "elsewhere")
    assert result.exit_code == 78
    assert "asynctaskd migrate" in result.stderr
