from __future__ import annotations

import pytest


def test_preview_marks_gaps_and_doubles_in_words(cli):
    vienna = ["--tz", "Europe/Vienna", "-n", "2"]
    gap = cli.run("cron", "preview", "0 30 2 * * *", *vienna, "--after", "2026-03-28T12:00Z")
    remark = "02:30:00 doesn't exist that day: once, right after the gap"
    assert [line.rstrip() for line in gap.stdout.splitlines()] == [
        "EUROPE/VIENNA                  IN UTC",
        f"Sun 2026-03-29 03:00:00 +0200  2026-03-29 01:00:00Z  {remark}",
        "Mon 2026-03-30 02:30:00 +0200  2026-03-30 00:30:00Z",
    ]
    double = cli.json("cron", "preview", "30 * * * *", *vienna, "--after", "2026-10-24T23:45Z")
    assert double == [
        {
            "at": "2026-10-25T00:30:00+00:00",
            "local": "2026-10-25T02:30:00+02:00",
            "remark": "02:30:00 exists twice that day: the first time",
        },
        {
            "at": "2026-10-25T01:30:00+00:00",
            "local": "2026-10-25T02:30:00+01:00",
            "remark": "02:30:00 exists twice that day: the second time",
        },
    ]


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["0 0 25 * * *"], "hour must be from 0 to 23, got 25"),
        (["@daily", "--tz", "Vienna"], "zone must be a name such as 'Europe/Vienna'"),
        (["@daily", "--after", "soon"], "--after must be an instant"),
    ],
)
def test_a_bad_preview_exits_2_and_says_why(cli, args, problem):
    result = cli.run("cron", "preview", *args)
    assert result.exit_code == 2
    assert problem in result.stderr


def run(cli, *args):
    result = cli.run("cron", *args)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_a_schedule_is_added_changed_paused_resumed_and_removed(cli):
    assert cli.run("cron", "list").stdout == "there are no schedules\n"
    assert cli.json("cron", "list") == []
    run(cli, "add", "nightly", "0 0 2 * * *", "--task", "report", "--tz", "Europe/Vienna", "--labels", "b,a")
    settings = ["--missed", "all", "--limit", "7", "--priority", "4"]
    run(cli, "change", "nightly", "--params", '{"size": 3}', *settings)
    [row] = cli.json("cron", "list")
    assert (row["task"], row["expression"], row["zone"]) == ("report", "0 0 2 * * *", "Europe/Vienna")
    assert (row["params"], row["missed"], row["missed_limit"]) == ({"size": 3}, "all", 7)
    assert row["options"] == {"labels": ["a", "b"], "priority": 4}
    assert len(row["next"]) == 5
    assert (row["declared"], row["tended"], row["next_at"]) == (False, True, None)

    run(cli, "pause", "nightly")
    assert cli.run("cron", "list").stdout.splitlines()[1].endswith("paused")
    run(cli, "resume", "nightly")
    run(cli, "change", "nightly", "--cron", "@every 10m")
    assert cli.json("cron", "list")[0]["expression"] == "@every 10m"
    run(cli, "remove", "nightly")
    assert cli.json("cron", "list") == []


@pytest.mark.parametrize("command", [["pause"], ["resume"], ["remove"], ["change"], ["slots"]])
def test_a_schedule_that_isnt_there_exits_1(cli, command):
    result = cli.run("cron", *command, "nightly")
    assert result.exit_code == 1
    assert "there is no schedule 'nightly'" in result.stderr


def test_the_slots_say_what_became_of_them(cli):
    run(cli, "add", "nightly", "@daily")
    assert run(cli, "slots", "nightly") == "no slot of 'nightly' has been decided\n"
    run(cli, "remove", "nightly")
    cli.sql(
        "INSERT INTO asynctaskd.schedule_slots (schedule, slot, task_id, outcome, reason) VALUES"
        " ('nightly', '2026-01-01Z', 7, 'ran', NULL), ('nightly', '2026-01-02Z', NULL, 'skipped', 'because')"
    )
    newest, oldest = cli.json("cron", "slots", "nightly")
    assert (newest["outcome"], newest["reason"], newest["task_id"]) == ("skipped", "because", None)
    assert (oldest["outcome"], oldest["task_id"]) == ("ran", 7)
    assert "because" in cli.run("cron", "slots", "nightly", "--limit", "1").stdout


def test_enqueue_with_cron_prints_the_id_of_the_first_task(cli):
    task_id = cli.enqueue("report", '{"a": 1}', "--cron", "@daily")
    [row] = cli.json("cron", "list")
    assert (row["name"], row["params"]) == ("report", {"a": 1})
    assert task_id > 0


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["add", "other", "@daily", "--limit", "5"], "--limit needs --missed all"),
        (["add", "other", "@daily", "--limit", "5", "--missed", "once"], "--limit needs --missed all"),
        (["change", "nightly"], "must name at least one setting"),
        (["change", "nightly", "--limit", "5"], "limit needs missed='all', got 'once'"),
    ],
)
def test_what_would_change_nothing_is_refused(cli, args, problem):
    run(cli, "add", "nightly", "@daily")
    rows = "SELECT name, revision FROM asynctaskd.schedules"
    before = cli.sql(rows)
    result = cli.run("cron", *args)
    assert result.exit_code == 2
    assert problem in result.stderr
    assert cli.sql(rows) == before
