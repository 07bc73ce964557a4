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
