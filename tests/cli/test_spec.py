from __future__ import annotations

import json
from pathlib import Path

import pytest

from asynctaskd.cli import spec
from asynctaskd.control import open_payloads

OLD = """
tasks:
  - name: SendEmail
    parameters:
      required: [userId]
      properties: {userId: {type: integer}}
  - name: Cleanup
"""
NEW = """
tasks:
  - name: SendEmail
    parameters:
      required: [userId, templateId]
      properties: {userId: {type: integer, format: int32}, templateId: {type: string, default: x}}
"""


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """old.yaml and new.yaml in the current directory."""
    monkeypatch.chdir(tmp_path)
    Path("old.yaml").write_text(OLD)
    Path("new.yaml").write_text(NEW)


def test_two_files_are_compared_without_a_database(bare):
    result = bare.run("spec", "diff", "old.yaml", "new.yaml")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "TASK       FIELD   CHANGE",
        "SendEmail  userId  is of format int32, was of none",
        "Cleanup            was removed",
    ]
    same = bare.run("spec", "diff", "old.yaml", "old.yaml")
    assert (same.exit_code, same.stdout) == (0, "every payload of the old file can be read by the new one\n")


def test_changes_are_told_to_programs(bare):
    result = bare.run("spec", "diff", "old.yaml", "new.yaml", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "changes": [
            {
                "task": "SendEmail",
                "field": "userId",
                "problem": "is of format int32, was of none",
            },
            {"task": "Cleanup", "field": "", "problem": "was removed"},
        ],
        "warnings": [],
        "checked": None,
        "unreadable": None,
        "dropped": None,
    }


RENAMED = """
tasks:
  - name: SendEmail
    parameters:
      properties: {user_id: {type: integer}}
"""
LOST = "isn't read any more, and its values are dropped"


def test_a_property_that_was_renamed_or_removed_is_a_warning(bare):
    Path("new.yaml").write_text(RENAMED)
    Path("old.yaml").write_text(RENAMED.replace("user_id: {", "userId: {}, gone: {"))
    result = bare.run("spec", "diff", "old.yaml", "new.yaml")
    assert (result.exit_code, result.stdout, result.stderr.splitlines()) == (
        0,
        "every payload of the old file can be read by the new one, though not all that is in it\n",
        [f"warning: SendEmail: userId {LOST}", f"warning: SendEmail: gone {LOST}"],
    )
    told = json.loads(bare.run("spec", "diff", "old.yaml", "new.yaml", "--json").stdout)
    assert told["warnings"] == [
        {"task": "SendEmail", "field": field, "problem": LOST} for field in ("userId", "gone")
    ]


def test_values_in_the_queue_that_the_new_file_passes_over_are_told_and_fail_the_command(cli):
    Path("new.yaml").write_text(RENAMED)
    Path("old.yaml").write_text(RENAMED.replace("user_id", "userId"))
    nothing = cli.enqueue("SendEmail", '{"userId": null}')
    ids = [cli.enqueue("SendEmail", '{"userId": 424242}') for _ in range(2)]
    more = cli.enqueue("SendEmail", '{"user_id": 424242, "more": "secret"}')

    result = cli.run("spec", "diff", "old.yaml", "new.yaml", "--against-db")
    assert result.exit_code == 1
    assert result.stderr == f"warning: SendEmail: userId {LOST}\n"
    assert "424242" not in result.stdout
    _, line, last = result.stdout.splitlines()
    assert line.split(maxsplit=4) == [
        "SendEmail", "2", *f"[{ids[0]}, {ids[1]}]".split(),
        "userId: isn't read any more",
    ]  # fmt: skip
    assert last == "4 tasks read, 0 of them can't be read any more; values of others are dropped"

    result = cli.run("spec", "diff", "new.yaml", "--against-db", "--json")
    assert result.exit_code == 1
    dropped = json.loads(result.stdout)["dropped"]
    assert [(one["problem"].partition(":")[0], one["ids"]) for one in dropped] == [
        ("userId", ids), ("more", [more]),
    ]  # fmt: skip
    for task_id in ids:
        cli.end(task_id, "cancelled")
    assert cli.run("spec", "diff", "old.yaml", "new.yaml", "--against-db").exit_code == 0
    assert cli.status(nothing) == "pending"


def test_one_file_alone_is_wrong_usage(bare):
    result = bare.run("spec", "diff", "new.yaml")
    assert result.exit_code == 2
    assert "--against-db" in result.stderr


def test_a_file_that_is_wrong_exits_78(bare):
    Path("new.yaml").write_text("tasks: 5")
    result = bare.run("spec", "diff", "old.yaml", "new.yaml")
    assert (result.exit_code, result.stderr) == (
        78, "error: new.yaml:1:8: tasks must be a list, got 5\n",
    )  # fmt: skip


def test_what_is_in_the_queue_decides_where_it_is_asked(cli):
    readable = cli.enqueue("SendEmail", '{"userId": 1}')
    assert cli.run("spec", "diff", "new.yaml", "--against-db").exit_code == 0
    ids = [cli.enqueue("SendEmail", '{"userId": 4294967296}') for _ in range(7)]
    other = cli.enqueue("SendEmail", '{"userId": "secret"}')
    gone = cli.enqueue("Cleanup")

    result = cli.run("spec", "diff", "old.yaml", "new.yaml", "--against-db", "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["checked"] == 10
    assert told["unreadable"] == [
        {"name": "Cleanup", "problem": "it isn't defined", "count": 1, "ids": [gone]},
        {
            "name": "SendEmail",
            "problem": "userId: Input should be less than or equal to 2147483647",
            "count": 7,
            "ids": ids[:5],
        },
        {
            "name": "SendEmail",
            "problem": "userId: Input should be a valid integer, unable to parse string as an integer",
            "count": 1,
            "ids": [other],
        },
    ]
    for task_id in (*ids, other, gone):
        cli.end(task_id, "cancelled")
    for files in (["old.yaml", "new.yaml"], ["new.yaml"]):
        result = cli.run("spec", "diff", *files, "--against-db")
        assert (result.exit_code, result.stdout.splitlines()[-1]) == (
            0, "1 task read, 0 of them can't be read any more",
        )  # fmt: skip
    assert cli.status(readable) == "pending"


def test_what_is_unreadable_is_told_to_people_without_values(cli):
    task_id = cli.enqueue("SendEmail", '{"userId": "secret"}')
    result = cli.run("spec", "diff", "new.yaml", "--against-db")
    assert result.exit_code == 1
    assert "secret" not in result.stdout + result.stderr
    header, line, last = result.stdout.splitlines()
    assert header.split() == ["TASK", "TASKS", "IDS", "PROBLEM"]
    assert line.split()[:3] == ["SendEmail", "1", f"[{task_id}]"]
    assert last == "1 task read, 1 of them can't be read any more"


def test_names_that_neither_file_defines_count_only_where_there_is_no_old_file(cli):
    cli.enqueue("declared_elsewhere")
    assert cli.run("spec", "diff", "old.yaml", "new.yaml", "--against-db").exit_code == 0
    assert cli.run("spec", "diff", "new.yaml", "--against-db").exit_code == 1


def test_the_daemons_own_tasks_are_none_of_the_files(cli):
    cli.sql(
        "INSERT INTO asynctaskd.workers (id, name, hostname, pid, version, labels, names, concurrency,"
        " expires_at) VALUES (gen_random_uuid(), gen_random_uuid(), 'h', 1, '1', '{}', '{}', 1, 'infinity')"
    )
    cli.sql("SELECT asynctaskd.update_runtime_config('{\"default_weight\": 2}'::jsonb)")
    assert cli.sql("SELECT FROM asynctaskd.tasks WHERE name = 'updateWorkerRuntimeConfig'")
    assert cli.run("spec", "diff", "new.yaml", "--against-db").exit_code == 0


def test_a_long_queue_is_read_in_parts_and_says_how_far_it_is(cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(open_payloads, "_BATCH", 2)
    monkeypatch.setattr(spec, "_PATIENCE", 0.0)
    for user in range(5):
        cli.enqueue("SendEmail", f'{{"userId": {user}}}')
    result = cli.run("spec", "diff", "new.yaml", "--against-db")
    assert result.stdout == "5 tasks read, 0 of them can't be read any more\n"
    assert result.stderr.splitlines() == ["2 tasks read …", "4 tasks read …", "5 tasks read …"]


def test_without_a_database_to_ask_the_command_says_so(bare):
    result = bare.run("spec", "diff", "new.yaml", "--against-db")
    assert result.exit_code == 78
    assert "--database" in result.stderr
