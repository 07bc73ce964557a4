"""The module of a rich file and its use are clean for mypy (strict) and pyright, and wrong use isn't."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from asynctaskd.definitions.codegen.module import write_module
from asynctaskd.definitions.spec.tasks import load_spec

SHOP = Path(__file__).parent / "specs" / "shop.yaml"

RIGHT = """
    from datetime import UTC, date, datetime
    from typing import Any

    from asyncpg import Connection, Pool
    from asynctaskd import App, Client, TaskContext

    import shop_gen
    from shop_gen import Executor, SendEmailParams, TaskRunner, register


    class Ours(Executor):
        def __init__(self, sender: str) -> None:
            self.sender = sender

        async def execute_send_email(self, params: SendEmailParams, ctx: TaskContext) -> str:
            number: int = params.user_id
            urgency: str = params.urgency
            variables: dict[str, Any] | None = params.variables
            return f"{self.sender} {number} {urgency} {variables}"

        async def on_send_email_failed(
            self, task_id: int, params: SendEmailParams | None, tx: Connection
        ) -> None:
            await tx.execute("SELECT 1")

        async def execute_process_daily_reports(
            self, params: shop_gen.ProcessDailyReportsParams, ctx: TaskContext
        ) -> None:
            begin: date = params.from_

        async def execute_process_order(
            self, params: shop_gen.ProcessOrderParams, ctx: TaskContext
        ) -> dict[str, int]:
            ids: list[int] = params.order_ids
            return {params.address.street: len(ids)}

        async def execute_order_failed(self, params: shop_gen.OrderFailedParams, ctx: TaskContext) -> int:
            return params.task_id

        async def execute_delete_opaque_key(
            self, params: shop_gen.DeleteOpaqueKeyParams, ctx: TaskContext
        ) -> None: ...

        async def execute_on_delete_opaque_key_failed(
            self, params: shop_gen.OnDeleteOpaqueKeyFailedParams, ctx: TaskContext
        ) -> None: ...

        async def execute_ping(self, ctx: TaskContext) -> None: ...

        async def on_ping_failed(self, task_id: int, tx: Connection) -> None: ...

        async def execute_import_batch(
            self, params: shop_gen.ImportBatchParams, ctx: TaskContext
        ) -> None: ...

        async def execute_formats(self, params: shop_gen.FormatsParams, ctx: TaskContext) -> None: ...


    app = App()
    register(app, Ours("shop"))


    async def sign_up(client: Client, connection: Connection, pool: Pool) -> int:
        runner = TaskRunner(client)
        async with pool.acquire() as lent:
            await runner.run_ping(delay="5s", connection=lent)
        params = SendEmailParams(user_id=1, template_id="welcome", sent_at=datetime.now(UTC))
        return await runner.run_send_email(params, connection=connection, priority=3, labels=["mail"])
"""

WRONG = """
    from asynctaskd import App, Client, TaskContext

    from shop_gen import Executor, SendEmailParams, TaskRunner, register


    class Half(Executor):
        async def execute_ping(self) -> None: ...


    register(App(), Half())


    async def wrong(client: Client) -> None:
        runner = TaskRunner(client)
        SendEmailParams(user_id="x", template_id="t")
        await runner.run_ping(priority="high")
        await runner.run_send_email({"userId": 1})
"""
# The lines of WRONG that are wrong, from 1 as it is written to its file.
LINES = {7, 10, 15, 16, 17}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the module, right code and wrong code."""
    folder = tmp_path_factory.mktemp("typed")
    (folder / "shop_gen.py").write_text(write_module(load_spec(SHOP)), "utf8")
    (folder / "right.py").write_text(dedent(RIGHT).lstrip(), "utf8")
    (folder / "wrong.py").write_text(dedent(WRONG).lstrip(), "utf8")
    (folder / "mypy.ini").write_text("[mypy]\nstrict = true\n")
    return folder


@pytest.mark.timeout(600)
def test_mypy_finds_nothing_in_the_module_and_what_is_wrong_in_its_use(folder: Path):
    command = [sys.executable, "-m", "mypy", "--output", "json", "shop_gen.py", "right.py", "wrong.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    errors = [(Path(one["file"]).name, one["line"]) for one in found if one["severity"] == "error"]
    assert done.returncode == 1, done.stdout + done.stderr
    assert {file for file, _ in errors} == {"wrong.py"}, done.stdout
    assert {line for _, line in errors} == LINES, done.stdout


@pytest.mark.timeout(600)
def test_pyright_finds_nothing_in_the_module_and_what_is_wrong_in_its_use(folder: Path):
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run([*command, "."], cwd=folder, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    errors = [
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1) for one in report["generalDiagnostics"]
    ]
    assert {file for file, _ in errors} == {"wrong.py"}, done.stdout
    assert {line for _, line in errors} == LINES, done.stdout
