"""The README's example, and calls on the connection of a pool, are clean for mypy (strict) and pyright."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.test_docs import ROOT

POOLED = """
    from uuid import UUID

    import asyncpg
    from asynctaskd import Client, Receipt, Task, TaskRequest
    from asynctaskd.testing import assert_enqueued


    async def everything(pool: asyncpg.Pool) -> None:
        client = Client(pool)
        async with pool.acquire() as connection, connection.transaction():
            ids: list[int] = await client.enqueue_many([TaskRequest("a")], connection=connection)
            task: Task = await client.get_task(ids[0], connection=connection)
            await client.get_tasks([task.id], connection=connection)
            receipt: Receipt = await client.cancel(task.id, connection=connection)
            request: UUID = receipt.request_id
            await client.pause_by_tags(["x"], connection=connection)
            await client.command("cancel", {"ids": ids}, connection=connection)
            await client.reprioritize(["x"], priority=1, connection=connection)
            await client.request_runtime_config(default_weight=2, connection=connection)
            await client.add_schedule("s", "@daily", connection=connection)
            await client.change_schedule("s", zone="UTC", connection=connection)
            await client.run_schedule("s", connection=connection)
            await client.pause_schedule("s", connection=connection)
            await client.resume_schedule("s", connection=connection)
            await client.remove_schedule("s", connection=connection)
            await Client(connection).enqueue("a")
            await assert_enqueued(connection, "a")
            print(request)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the README's example, and with calls on a connection of a pool."""
    folder = tmp_path_factory.mktemp("typed")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf8"), re.DOTALL)
    [shop] = [block for block in blocks if block.startswith("# shop.py")]
    (folder / "shop.py").write_text(shop, "utf8")
    (folder / "pooled.py").write_text(dedent(POOLED).lstrip(), "utf8")
    (folder / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "standard"}), "utf8")
    return folder


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "checker", [["mypy", "--strict"], ["pyright", "--pythonpath", sys.executable]], ids=["mypy", "pyright"]
)
def test_the_example_of_the_readme_and_calls_on_a_connection_of_a_pool_are_typed(
    folder: Path, checker: list[str]
) -> None:
    command = [sys.executable, "-m", *checker, "shop.py", "pooled.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
