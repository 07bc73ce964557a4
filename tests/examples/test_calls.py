from __future__ import annotations

import asyncio
import base64
import importlib
import sys

import asyncpg
import pytest

from asynctaskd import Client, TaskStatus


async def test_the_commands_of_its_page_run_and_the_second_call_is_the_first(shell, commands, pool) -> None:
    told = await asyncio.to_thread(shell, commands)

    assert told.split()[:2] == ["1", "1"]
    [task] = await Client(pool).list_tasks()
    assert (task.name, task.status, task.attempts) == ("payments.charge", TaskStatus.COMPLETED, 1)
    assert task.payload.startswith("aes-gcm:")


@pytest.fixture
def calls(monkeypatch):
    """The example, imported with a key."""
    monkeypatch.setenv("TASK_KEY", base64.b64encode(bytes(32)).decode())
    yield importlib.import_module("examples.calls.app")
    del sys.modules["examples.calls.app"]


async def test_a_failed_attempt_is_reported(calls, asynctaskd_worker, connection, capsys) -> None:
    task_id = await calls.place(connection, 7, "none")
    async with asynctaskd_worker(calls.app) as worker:
        await worker.drain()
    assert f"payments.charge {task_id}, attempt 1: 'none' is no card" in capsys.readouterr().out
    assert (await Client(connection, calls.app).get_task(task_id)).status is TaskStatus.SCHEDULED


async def test_without_the_order_there_is_no_call(calls, connection) -> None:
    async def place_and_think_again() -> None:
        async with connection.transaction():
            await calls.place(connection, 7, "4111")
            raise asyncpg.DataError("never mind")

    with pytest.raises(asyncpg.DataError):
        await place_and_think_again()
    assert await Client(connection).list_tasks() == []
