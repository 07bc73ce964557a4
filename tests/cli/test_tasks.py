from __future__ import annotations

import json
import re
from datetime import datetime

import pytest


def columns_of_view(cli) -> list[str]:
    rows = cli.sql(
        "SELECT column_name FROM information_schema.columns "
        "WHERE table_schema = 'asynctaskd' AND table_name = 'all_tasks' ORDER BY ordinal_position"
    )
    return [row[0] for row in rows]


def test_the_list_is_an_array_of_objects_of_the_columns_of_all_tasks(cli):
    first, second = cli.enqueue("add", '{"a": 1}', "--timeout", "90s"), cli.enqueue("other")
    tasks = cli.json("tasks", "list")
    assert [task["id"] for task in tasks] == [second, first]
    assert list(tasks[1]) == columns_of_view(cli)
    assert tasks[1]["timeout"] == "1m30s"
    assert datetime.fromisoformat(tasks[1]["created_at"]).tzinfo is not None


def test_the_list_of_nothing_is_an_empty_array_or_a_sentence(cli):
    assert cli.json("tasks", "list") == []
    assert cli.run("tasks", "list").stdout == "there are no such tasks\n"


def test_the_list_can_be_narrowed(cli):
    both = cli.enqueue("add", "{}", "--labels", "a,b")
    one, ended = cli.enqueue("add", "{}", "--labels", "a"), cli.enqueue("other")
    cli.end(ended, "cancelled")

    def ids(*args):
        return [task["id"] for task in cli.json("tasks", "list", *args)]

    assert ids("--name", "add") == [one, both]
    assert ids("--status", "cancelled") == [ended]
    assert ids("--label", "a") == [one, both]
    assert ids("--label", "a,b") == ids("--label", "a", "--label", "b") == [both]
    assert ids("--limit", "1") == [ended]


@pytest.mark.parametrize("args", [["--status", "gone"], ["--limit", "0"], ["--limit", "many"]])
def test_a_bad_filter_exits_2(cli, args):
    result = cli.run("tasks", "list", *args)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


def test_a_table_that_goes_into_a_pipe_has_one_whole_line_a_task(cli):
    for _ in range(3):
        cli.enqueue("n" * 128, "{}", "--labels", ",".join("lmno"[i] * 100 for i in range(4)))
    lines = cli.run("tasks", "list").stdout.splitlines()
    assert len(lines) == 4
    assert all("pending" in line and "n" * 128 in line and "o" * 100 in line for line in lines[1:])


def test_a_full_table_says_that_there_may_be_more(cli):
    cli.enqueue("add")
    result = cli.run("tasks", "list", "--limit", "1")
    assert "--limit" in result.stderr


def test_what_is_no_terminal_gets_no_escape_codes_even_from_the_data(cli):
    cli.enqueue("add", "{}", "--tags", "\x1b[31mred")
    task_id = cli.enqueue("add")
    cli.end(task_id, "failed", "\x1b]0;title\x07\nsecond line")
    for args in (["tasks", "list"], ["tasks", "show", str(task_id)], ["workers"], ["check"]):
        assert "\x1b" not in cli.run(*args).stdout
    waited = cli.run("tasks", "wait", str(task_id))
    assert "\x1b" not in waited.stderr


def test_show_prints_one_object_with_its_events(cli):
    task_id = cli.enqueue("add")
    cli.end(task_id, "cancelled", "nobody wants it")
    task = cli.json("tasks", "show", str(task_id))
    assert list(task) == [*columns_of_view(cli), "events"]
    [event] = task["events"]
    assert (event["kind"], event["detail"]) == ("cancelled", {"reason": "nobody wants it"})
    assert list(event) == ["kind", "claim_token", "claimed_at", "at", "detail"]


def test_show_for_people_has_a_fact_a_line(cli):
    task_id = cli.enqueue("add", '{"a": 1}')
    cli.end(task_id, "cancelled", "nobody wants it")
    lines = cli.run("tasks", "show", str(task_id)).stdout.splitlines()
    facts = dict(line.split(maxsplit=1) for line in lines[: lines.index("")])
    assert (facts["id"], facts["payload"], facts["status"]) == (str(task_id), '{"a": 1}', "cancelled")
    assert "unique_tag" not in facts
    assert "cancelled" in lines[-1]


def test_a_task_that_is_not_there_exits_1(cli):
    for command in ("show", "wait"):
        result = cli.run("tasks", command, "12345")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("error: there is no task 12345")


@pytest.mark.parametrize("task_id", ["x", "0", "-1", str(2**63)])
def test_what_is_no_id_exits_2(cli, task_id):
    assert cli.run("tasks", "show", "--", task_id).exit_code == 2


def test_wait_for_a_completed_task_exits_0(cli, start):
    task_id = cli.enqueue("add", '{"a": 1, "b": 2}')
    assert start("run", "--app", "shop:app", "--once").exit_code() == 0
    assert cli.run("tasks", "wait", str(task_id)).stdout == f"task 'add' ({task_id}) completed: 3\n"
    assert cli.json("tasks", "wait", str(task_id))["result"] == 3


@pytest.mark.parametrize("status", ["failed", "expired", "cancelled"])
def test_wait_for_a_task_that_ended_otherwise_exits_1_and_says_so(cli, status):
    task_id = cli.enqueue("add")
    cli.end(task_id, status)
    result = cli.run("tasks", "wait", str(task_id), "--json")
    record = json.loads(result.stdout)
    assert (result.exit_code, record["id"], record["status"]) == (1, task_id, status)
    assert list(record) == columns_of_view(cli)
    assert f"error: task 'add' ({task_id})" in result.stderr
    assert status in result.stderr
    assert cli.run("tasks", "wait", str(task_id)).stdout == ""


def test_wait_until_the_timeout_exits_75(cli):
    result = cli.run("tasks", "wait", str(cli.enqueue("add")), "--timeout", "50ms")
    assert result.exit_code == 75
    assert result.stdout == ""
    assert "is still pending after 50ms" in result.stderr


def test_at_the_timeout_json_tells_where_it_stands(cli):
    task_id = cli.enqueue("add")
    result = cli.run("tasks", "wait", str(task_id), "--timeout", "50ms", "--json")
    record = json.loads(result.stdout)
    assert (result.exit_code, record["id"], record["status"]) == (75, task_id, "pending")


def test_of_a_task_that_is_not_known_there_is_no_record(cli):
    result = cli.run("tasks", "wait", "4711", "--json")
    assert (result.exit_code, result.stdout) == (1, "")


def test_a_malformed_timeout_exits_2(cli):
    result = cli.run("tasks", "wait", str(cli.enqueue("add")), "--timeout", "5 s")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --timeout: malformed duration '5 s'")


def test_workers_are_listed_with_their_state(cli, start):
    assert start("run", "--app", "shop:app", "--once", "--labels", "mail").exit_code() == 0
    [worker] = cli.json("workers")
    assert (worker["status"], worker["concurrency"], worker["labels"][0]) == ("stopped", 10, "mail")
    assert datetime.fromisoformat(worker["started_at"]).tzinfo is not None
    header, line = cli.run("workers").stdout.splitlines()
    assert header.split() == ["ID", "STATUS", "SLOTS", "CONFIG", "HOST", "LABELS"]
    assert line.startswith(f"{worker['id']}  stopped  0/10 ")


def test_an_output_that_cannot_hold_every_character_gets_escapes(cli, start):
    task_id = cli.enqueue("a" * 128, '{"a": "ü"}', "--tags", "ü")
    process = start("tasks", "show", str(task_id), "--json", PYTHONIOENCODING="ascii")
    assert process.exit_code() == 0
    assert json.loads(process.stdout[0])["payload"] == {"a": "ü"}
    for args in (["show", str(task_id)], ["list"]):
        assert start("tasks", *args, PYTHONIOENCODING="ascii").exit_code() == 0


def test_show_says_how_far_a_task_is(cli):
    task_id = cli.enqueue("add")
    cli.sql("""UPDATE asynctaskd.tasks SET progress = '{"percent": 50, "message": "packing"}'""")
    assert re.search(
        r"^progress +50 %, packing$", cli.run("tasks", "show", str(task_id)).stdout, re.MULTILINE
    )
