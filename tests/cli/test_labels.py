"""`asynctaskd labels`."""

from __future__ import annotations


def test_what_is_set_of_a_label_is_listed(cli):
    options = ("--max-running", "50", "--max-run-time", "5m", "--weight", "3")
    result = cli.run("labels", "set", "mail", *options)
    assert result.exit_code == 0, result.stderr
    assert cli.run("labels", "set", "bulk", "--max-attempts", "4").exit_code == 0
    listed = cli.run("labels", "list")
    assert listed.stdout.splitlines()[0].split() == [
        *("LABEL", "WEIGHT", "RUNNING", "MAX", "RUNNING", "MAX", "RUN", "TIME", "MAX", "ATTEMPTS", "PAUSED")
    ]
    assert [line.split() for line in listed.stdout.splitlines()[1:]] == [
        ["bulk", "4"],
        ["mail", "3", "0", "50", "5m"],
    ]
    assert cli.json("labels", "list")[1] == {
        "label": "mail",
        "weight": 3,
        "running": 0,
        "max_running": 50,
        "max_run_time": "5m",
        "max_attempts": None,
        "paused": False,
    }


def test_an_empty_text_takes_a_limit_away(cli):
    cli.run("labels", "set", "mail", "--max-running", "50", "--weight", "2")
    assert cli.run("labels", "set", "mail", "--max-running", "").exit_code == 0
    [mail] = cli.json("labels", "list")
    assert (mail["max_running"], mail["weight"]) == (None, 2)


def test_wrong_values_are_refused_with_the_field(cli):
    result = cli.run("labels", "set", "mail", "--max-run-time", "soon")
    assert result.exit_code == 2
    assert "max_run_times[mail]" in result.stderr
    assert cli.run("labels", "set", "mail").exit_code == 2
