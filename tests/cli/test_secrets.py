"""What is marked as secret is shown by no command that knows of the mark."""

from __future__ import annotations

from pathlib import Path

import pytest

VAULT = """
from typing import Annotated

from pydantic import Field

from asynctaskd import App

app = App()


@app.task("unlock")
async def unlock(user: str, pin: Annotated[str, Field(json_schema_extra={"secret": True})]) -> str:
    return f"welcome {user}"
"""
PAYLOAD = '{"user": "ada", "pin": "s3cr3t"}'
MASKED = {"user": "ada", "pin": "***"}


@pytest.fixture(autouse=True)
def vault(cli):
    Path("vault.py").write_text(VAULT)


def test_params_of_a_schedule_are_shown_without_secrets(cli, start):
    cli.run("cron", "add", "nightly", "@daily", "--task", "unlock", "--params", PAYLOAD)
    assert start("run", "--app", "vault:app", "--once").exit_code() == 0
    [row] = cli.json("cron", "list")
    assert row["params"] == MASKED


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_an_app_tells_what_is_secret_before_any_worker_has(cli, monkeypatch, how):
    app = ["--app", "vault:app"] if how == "flag" else []
    task_id = str(cli.enqueue("unlock", PAYLOAD))
    cli.run("cron", "add", "nightly", "@daily", "--task", "unlock", "--params", PAYLOAD)
    assert cli.json("tasks", "show", task_id)["payload"]["pin"] == "s3cr3t"  # which nobody can know
    if how == "environment":
        monkeypatch.setenv("ASYNCTASKD_APP", "vault:app")
    told = [
        cli.json("tasks", "show", task_id, *app)["payload"],
        cli.json("tasks", "list", *app)[0]["payload"],
        cli.json("cron", "list", *app)[0]["params"],
    ]
    assert told == [MASKED] * 3
    assert "s3cr3t" not in cli.run("tasks", "show", task_id, *app).stdout


def test_whoever_waits_with_an_app_is_told_no_secret(cli, start):
    task_id = cli.enqueue("unlock", PAYLOAD)
    assert start("run", "--app", "vault:app", "--once").exit_code() == 0
    cli.sql("DELETE FROM asynctaskd.definitions")
    assert cli.json("tasks", "wait", str(task_id), "--app", "vault:app")["payload"] == MASKED
