"""kill -9 at each point of a task's way: nothing is lost, and nothing is half done.

Where a statement is under way at the time, a lock holds it up on the server until the process is dead.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from signal import SIGTERM

import asyncpg
import pytest

CLAIM, FINALIZE = "-- Claim ", "-- Write "


@pytest.fixture
def held_up(database, tables):
    """Hold up statements on tasks: `async with held_up(FINALIZE) as (locker, until_there)`.

    What the locker does itself passes; `until_there` returns the server process that waits.
    """

    @asynccontextmanager
    async def hold(statement: str):
        locker = await asyncpg.connect(database.dsn)

        async def until_there() -> int:
            return await tables.until(
                "SELECT max(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock' AND starts_with(query, $1)",
                statement,
            )

        try:
            await locker.execute("BEGIN; LOCK TABLE asynctaskd.tasks IN EXCLUSIVE MODE")
            yield locker, until_there
        finally:
            await locker.close()

    return hold


async def gone(tables, pid: int) -> None:
    """End a server process that waits for nobody any more, as it does itself sooner or later."""
    await tables.execute("SELECT pg_terminate_backend($1)", pid)
    await tables.until("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", pid)


async def test_killed_before_its_claim_commits_a_worker_has_changed_nothing(
    worker, tables, client, witness, held_up
):
    async with worker() as first:
        await tables.until_idle()
        async with held_up(CLAIM) as (locker, until_there):
            task_id = await locker.fetchval("SELECT asynctaskd.enqueue('quick', priority => 1)")
            await tables.execute("SELECT pg_notify('asynctaskd_ready', '')")  # it sees nothing yet to claim
            claiming = await until_there()
            await first.killed()
            await gone(tables, claiming)
            await locker.execute("COMMIT")
    row = await tables.until_status(task_id, "pending")
    assert (row["attempts"], row["claim_token"]) == (0, 0)
    async with worker() as second:
        assert (await client.wait(task_id, timeout="30s")).attempts == 1
    assert [one.pid for one in witness.said("ran", task_id)] == [second.pid]
    assert await tables.kinds(task_id) == []


async def test_killed_after_its_claim_has_committed_a_worker_has_spent_a_claim_and_run_nothing(
    worker, tables, client, witness, proxy
):
    async with worker(proxy.dsn) as first:
        await tables.until_idle()
        proxy.lose("claim", then="silence")
        task_id = await client.enqueue("quick", priority=1)
        await tables.until_status(task_id, "running")
        await first.killed()
    assert witness.said("ran", task_id) == []
    async with worker() as second:
        done = await client.wait(task_id, timeout="30s")
    assert (done.attempts, done.worker_id is not None) == (2, True)
    assert [one.pid for one in witness.said("ran", task_id)] == [second.pid]
    assert await tables.kinds(task_id) == ["lease_lost"]


async def test_killed_before_its_finalize_commits_a_worker_leaves_the_task_to_others(
    worker, tables, client, witness, held_up, go_on
):
    task_id = await client.enqueue("hold")
    async with worker() as first:
        await witness.until("start", task_id)
        async with held_up(FINALIZE) as (_, until_there):
            go_on.touch()
            finalizing = await until_there()
            await first.killed()
            await gone(tables, finalizing)
    async with worker() as second:
        done = await client.wait(task_id, timeout="30s")
    assert (done.attempts, done.result) == (2, f"by {second.pid}")
    assert [one.pid for one in witness.said("end", task_id)] == [first.pid, second.pid]
    assert await tables.kinds(task_id) == ["lease_lost"]


async def test_killed_after_its_finalize_has_committed_a_worker_has_completed_the_task(
    worker, tables, client, witness, go_on, proxy
):
    async with worker(proxy.dsn) as first:
        await tables.until_idle()
        task_id = await client.enqueue("hold")
        await witness.until("start", task_id)
        proxy.lose("finalize", then="silence")
        go_on.touch()
        done = await client.wait(task_id, timeout="30s")
        await first.killed()
    async with worker():
        await tables.until("SELECT bool_or(lost_at IS NOT NULL) FROM asynctaskd.workers")
    assert (done.attempts, done.result) == (1, f"by {first.pid}")
    assert len(witness.said("start", task_id)) == 1
    assert await tables.kinds(task_id) == []


async def test_killed_in_its_failure_hook_a_worker_leaves_nothing_of_it_behind(
    worker, tables, client, witness, go_on
):
    task_id = await client.enqueue("doomed")
    async with worker() as first:
        await witness.until("hook", task_id)
        await first.killed()
    await tables.until_status(task_id, "running")
    assert await tables.written(task_id) == []
    go_on.touch()
    async with worker():
        await tables.until_status(task_id, "failed")
    assert await tables.written(task_id) == ["mourned"]
    assert await tables.kinds(task_id) == ["lease_lost", "failed"]


async def test_killed_at_the_end_of_its_grace_a_worker_leaves_its_tasks_to_its_lease(
    worker, tables, client, witness, go_on
):
    task_id = await client.enqueue("hold")
    async with worker(grace="1h") as first:
        await witness.until("start", task_id)
        first.tell(SIGTERM)
        await first.until_logged("worker.stopping")
        await first.killed()
    async with worker() as second:
        await witness.until("start", task_id, times=2)
        go_on.touch()
        assert (await client.wait(task_id, timeout="30s")).result == f"by {second.pid}"
    assert await tables.kinds(task_id) == ["lease_lost"]


async def test_four_workers_killed_lose_no_task_and_complete_none_twice(worker, tables, client, witness):
    ids = [await client.enqueue("book") for _ in range(40)]
    for _ in range(2):  # a third time would quarantine what they held
        async with worker() as one, worker() as another:
            done = await tables.value("SELECT count(*) FROM asynctaskd.finished_tasks")
            await tables.until("SELECT count(*) > least($1, 39) FROM asynctaskd.finished_tasks", done)
            await asyncio.gather(one.killed(), another.killed())
    async with worker():
        for task_id in ids:
            await client.wait(task_id, timeout="30s")
    assert await tables.value("SELECT count(*) FROM written") == 40
    assert await tables.value("SELECT count(DISTINCT task_id) FROM written") == 40
