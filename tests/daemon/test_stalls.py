"""A handler that blocks the event loop: the lease goes on, the culprit is named, and there is a limit.

The handlers here block until a thread of the test has seen what it waits for: nothing depends on durations.
"""

from __future__ import annotations

import asyncio
import json
import threading

import asyncpg
import pytest

from asynctaskd import TaskContext
from asynctaskd.daemon.stalls import _name_of

QUICK = {"lease": "1500ms", "renew_interval": "100ms", "poll_interval": "50ms"}
LONG_ENOUGH = 60.0


@pytest.fixture
def blocks_until(database):
    """Block the calling thread, whatever loop it has, until a query answers with true; returns that."""

    def block(question: str):
        answers = []

        async def ask() -> None:
            connection = await asyncpg.connect(database.dsn)
            async with asyncio.timeout(LONG_ENOUGH):
                while not answers or not answers[-1]:
                    answers.append(await connection.fetchval(question))
            await connection.close()

        thread = threading.Thread(target=asyncio.run, args=(ask(),))
        thread.start()
        thread.join()
        return answers[-1]

    return block


async def test_a_blocked_event_loop_keeps_its_lease_and_names_who_blocks_it(
    app, running, client, wait, tables, recorder, blocks_until
):
    stalls = []

    @app.task("blocker")
    async def blocker(ctx: TaskContext) -> int:
        blocks_until("SELECT expires_at > started_at + interval '4 s' FROM asynctaskd.workers")
        stalls.append(blocks_until("SELECT stall FROM asynctaskd.workers"))
        return ctx.attempt

    async with running(app, **QUICK):
        done = await wait(await client.enqueue("blocker"))
        await recorder.wait_for("loop.recovered", task_id=done.id, task="blocker")
        await tables.until("SELECT stall IS NULL FROM asynctaskd.workers")
    assert (done.result, done.losses) == (1, 0)
    assert recorder.all("lease.lost") == []
    stall = json.loads(stalls[0])
    assert (stall["task_id"], stall["task"]) == (done.id, "blocker")
    assert stall["seconds"] >= 1.0
    assert "in blocker\n" in stall["stack"]
    assert "in blocker\n" in recorder.all("loop.stalled", task_id=done.id)[0]["traceback"]


async def test_a_stall_past_the_limit_ends_the_process_and_gives_its_claims_away(
    app, running, client, tables, recorder
):
    ended = threading.Event()

    @app.task("blocker")
    async def blocker() -> None:
        assert ended.wait(LONG_ENOUGH)

    async with running(app, end_process=ended.set, stall_limit="1500ms", **QUICK) as daemon:
        task_id = await client.enqueue("blocker")
        told = await recorder.wait_for("worker.gave_up", worker_id=daemon.worker_id)
    why = f"its event loop was blocked for 2 s by blocker (task {task_id})"
    assert told["error"] == why
    assert await tables.value("SELECT lost_because FROM asynctaskd.workers WHERE lost_at IS NOT NULL") == why
    assert any("in blocker\n" in thread["traceback"] for thread in recorder.all("thread.stack"))


async def test_a_process_that_can_neither_renew_nor_obey_ends_before_its_lease(
    app, running, client, connection, recorder, soon
):
    entered, locked, ended = asyncio.Event(), asyncio.Event(), threading.Event()

    @app.task("blocker")
    async def blocker() -> None:
        entered.set()
        await soon(locked)
        assert ended.wait(LONG_ENOUGH)

    async with running(app, end_process=ended.set, lease="3s", renew_interval="100ms"):
        await client.enqueue("blocker")
        await soon(entered)
        lock = connection.transaction()
        await lock.start()
        await connection.execute("SELECT FROM asynctaskd.workers FOR UPDATE")
        locked.set()
        told = await recorder.wait_for("worker.gave_up")
        await lock.rollback()
    assert told["error"].startswith("its lease could not be renewed, and blocker (task ")


async def test_a_lease_keeper_that_crashes_ends_the_worker(app, daemon_of, monkeypatch):
    from asynctaskd.postgres.store import Store

    async def crash(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Store, "renew_lease", crash)
    with pytest.raises(BaseExceptionGroup) as raised:
        await daemon_of(app, **QUICK).run()
    assert raised.group_contains(RuntimeError, match="a bug")


async def test_tasks_that_nobody_named_are_told_by_where_they_come_from():
    async def nameless() -> None: ...

    unnamed, named = asyncio.create_task(nameless()), asyncio.create_task(nameless(), name="poller")
    assert _name_of(unnamed).endswith(".nameless")
    assert _name_of(named) == "poller"
    await asyncio.gather(unnamed, named)
