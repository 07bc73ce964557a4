from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from asynctaskd import errors
from asynctaskd.cli import commands, workers
from asynctaskd.cli.failures import describe, exit_code, report
from asynctaskd.postgres.driver import LoginRefusedError

CODES = {
    errors.InvalidInputError("weight must be at least 1, got 0"): 2,
    errors.InvalidPayloadError("payload is nested too deep"): 2,
    errors.UnknownTaskError("no task is named 'x'"): 2,
    errors.ConfigError("worker.lease must be a duration"): 78,
    errors.SchemaVersionError("run `asynctaskd migrate`"): 78,
    errors.DatabaseRefusedError("the database refused: password authentication failed"): 78,
    errors.DatabaseUnavailableError("the database is unavailable"): 69,
    errors.TaskNotFoundError("there is no task 1", task_id=1): 1,
    errors.TaskCancelledError("task 1 was cancelled", task_id=1): 1,
    errors.AsynctaskdError("anything else of ours"): 1,
    TimeoutError("task 1 is still pending"): 75,
    KeyboardInterrupt(): 130,
    RuntimeError("a bug"): 70,
}


@pytest.mark.parametrize("error,code", CODES.items(), ids=lambda value: type(value).__name__)
def test_every_error_has_its_exit_code(error, code):
    assert exit_code(error) == code


def test_a_refused_login_says_what_to_check_and_any_other_refusal_its_own_remedy():
    assert "Check user" in describe(LoginRefusedError("the database refused: no such role"))
    offers_none = errors.DatabaseRefusedError("db offers no TLS. Switch it on")
    assert describe(offers_none) == "db offers no TLS. Switch it on"


def test_every_problem_of_a_configuration_is_a_line_of_its_own(capsys):
    report(errors.ConfigError("one\ntwo"), debug=False)
    assert capsys.readouterr() == ("", "error: one\nerror: two\n")


def test_any_other_error_is_one_line(capsys):
    report(errors.AsynctaskdError("one\ntwo\x1b[0m"), debug=False)
    assert capsys.readouterr().err == "error: one two [0m\n"


def test_a_schema_that_is_missing_says_that_another_can_be_named(cli):
    result = cli.run("workers", "--schema", "other")
    assert result.exit_code == 78
    assert "run `asynctaskd migrate` with the same --database and --schema, or name" in result.stderr


@pytest.mark.parametrize(
    "url", ["postgresql://shop:sesame@host/shop", "postgresql://host/shop?user=shop&password=sesame&port=1"]
)
@pytest.mark.parametrize("debug", [False, True])
def test_a_password_is_never_printed(capsys, url, debug):
    report(errors.ConfigError(f"can't read {url}"), debug=debug)
    shown = capsys.readouterr().err
    assert "sesame" not in shown
    assert "host" in shown


def test_a_traceback_is_shown_only_where_it_was_asked_for(capsys):
    try:
        raise RuntimeError("a bug")
    except RuntimeError as error:
        report(error, debug=False)
        assert "Traceback" not in capsys.readouterr().err
        report(error, debug=True)
        assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("args,environ", [(["--debug"], {}), ([], {"ASYNCTASKD_LOG_LEVEL": "DEBUG"})])
def test_the_flag_and_the_variable_ask_for_tracebacks(args, environ, monkeypatch):
    def broken(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(workers, "ask", broken)
    result = CliRunner().invoke(commands.cli, [*args, "workers"], env=environ)
    assert result.exit_code == 70
    assert "in broken" in result.stderr
    assert "internal error: RuntimeError: a bug" in result.stderr.splitlines()[-1]
    assert "Traceback" not in CliRunner().invoke(commands.cli, ["workers"]).stderr


UNREACHABLE = ("--database", "postgresql://shop:sesame@127.0.0.1:1/shop")


@pytest.mark.parametrize(
    "args",
    [["migrate"], ["migrate", "--plan"], ["enqueue", "add"], ["tasks", "list"], ["tasks", "show", "1"],
     ["tasks", "wait", "1"], ["workers"]],
    ids=" ".join,
)  # fmt: skip
def test_an_unreachable_database_exits_69_with_one_line(bare, args):
    result = bare.run(*args, *UNREACHABLE)
    assert (result.exit_code, result.stdout) == (69, "")
    [warning, line] = result.stderr.splitlines()
    assert warning.startswith("warning: everybody on this machine can read the password in --database")
    assert line.startswith("error: the database is unavailable: ")
    assert "sesame" not in result.stderr


def test_no_database_at_all_exits_78_and_says_how_to_give_one(bare):
    result = bare.run("workers")
    assert result.exit_code == 78
    assert "ASYNCTASKD_DATABASE_URL" in result.stderr


@pytest.mark.parametrize(
    "args",
    [["nonsense"], ["tasks"], ["tasks", "nonsense"], ["--nonsense"], ["workers", "--nonsense"], ["enqueue"]],
)
def test_wrong_usage_exits_2_and_names_the_help(bare, args):
    result = bare.run(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert "--help`" in result.stderr


def test_ctrl_c_ends_a_command_with_130(cli, start):
    from signal import SIGINT

    process = start("enqueue", "add", "--wait")
    process.await_line("")
    process.tell(SIGINT)
    assert process.exit_code() == 130
    assert process.stderr == ["error: interrupted"]


@pytest.mark.parametrize("args", ["config show", "tasks list", "tasks cancel 1 --json", "--help"])
def test_output_that_cannot_be_written_is_no_bug(cli, args):
    cli.enqueue("add")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "asynctaskd", *args.split()],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (
        1,
        "error: the output can't be written: No space left on device\n",
    )
