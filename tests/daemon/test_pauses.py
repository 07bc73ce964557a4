"""Labels and names that the runtime configuration pauses."""

from __future__ import annotations

import pytest

from asynctaskd import TaskRequest
from tests.daemon.conftest import stays

STATUSES = "SELECT status || ' ' || count(*) FROM asynctaskd.all_tasks GROUP BY status ORDER BY status"


@pytest.mark.parametrize("priority", [0, 4])
async def test_a_paused_label_is_not_claimed_until_it_is_resumed(
    fleet, hall, client, tables, configure, applied, priority
):
    await client.enqueue_many([*stays(10, "mail", priority=priority), *stays(30, priority=priority)])
    async with fleet(2, concurrency=4, labels=["mail", "eu"]):
        await hall.until(lambda: len(hall.here) == 8)
        await applied(await configure(paused_labels=["mail", "eu"]))
        before = await tables.value(
            "SELECT count(*) FROM asynctaskd.all_tasks WHERE labels = '{mail}' AND attempts > 0"
        )
        hall.open()
        await tables.until("SELECT count(*) = 30 + $1 FROM asynctaskd.finished_tasks", before)
        assert await tables.column(STATUSES) == [f"completed {30 + before}", f"pending {10 - before}"]
        await configure()
        await tables.until("SELECT count(*) = 40 FROM asynctaskd.finished_tasks")


@pytest.mark.parametrize("priority", [0, 4])
async def test_tasks_of_a_paused_name_are_put_aside_once_and_come_back(
    app, fleet, hall, client, tables, configure, applied, priority
):
    ran = []

    @app.task("other")
    async def other(n: int) -> None:
        ran.append(n)

    await configure(paused_names=["other"])
    ids = await client.enqueue_many(
        [TaskRequest("other", {"n": n}, priority=priority, labels=["mail"] * (n % 2)) for n in range(300)]
    )
    await client.enqueue_many(stays(20, priority=priority))
    hall.is_open = True
    async with fleet(2, concurrency=4, labels=["mail"]):
        await tables.until("SELECT count(*) = 20 FROM asynctaskd.finished_tasks")
        await tables.until("SELECT count(*) = 300 FROM asynctaskd.tasks WHERE status = 'paused'")
        rows = await tables.column(
            "SELECT DISTINCT (reason, attempts, claim_token)::text FROM asynctaskd.tasks"
        )
        assert rows == ['("name paused",0,0)']
        assert ran == []
        assert await tables.events(ids[0]) == ["paused"]
        await configure()
        await tables.until("SELECT count(*) = 320 FROM asynctaskd.finished_tasks")
    assert sorted(ran) == list(range(300))
    assert await tables.events(ids[0]) == ["paused", "resumed"]
    assert await tables.value("SELECT count(*) FROM asynctaskd.task_events") == 600
    assert (await tables.task(ids[0]))["attempts"] == 1


async def test_a_worker_that_has_put_all_tasks_aside_rests(fleet, client, tables, configure, calls):
    await configure(paused_names=["stay"])
    async with fleet(1, concurrency=4, poll_interval="100ms"):
        await client.enqueue_many(stays(5))
        await tables.until("SELECT count(*) = 5 FROM asynctaskd.tasks WHERE status = 'paused'")
        calls.clear()
        await calls.until("ready_sets", 5)
    assert calls["park"] <= 1, calls


async def test_what_is_paused_by_name_at_run_time_is_not_claimed_once_it_is_acknowledged(
    fleet, hall, client, tables, configure, applied
):
    await client.enqueue_many(stays(100))
    async with fleet(2, concurrency=4):
        await hall.until(lambda: len(hall.here) == 8)
        await applied(await configure(paused_names=["stay"]))
        hall.open()
        await tables.until("SELECT count(*) = 8 FROM asynctaskd.finished_tasks")
        await tables.until("SELECT count(*) = 92 FROM asynctaskd.tasks WHERE status = 'paused'")
        assert hall.came == 8
        await configure(paused_names=["another"])
        await tables.until("SELECT count(*) = 100 FROM asynctaskd.finished_tasks")


async def test_a_task_of_a_serial_key_goes_back_into_its_line(fleet, hall, client, tables, configure):
    hall.is_open = True
    await configure(paused_names=["stay"])
    first = await client.enqueue("stay", serial_key="key")
    async with fleet(1):
        await tables.until_status(first, "paused")
        second = await client.enqueue("stay", serial_key="key")
        await tables.until_status(second, "paused")
        await configure()
        for task_id in (first, second):
            await tables.until_status(task_id, "completed")
    order = await tables.column("SELECT id FROM asynctaskd.finished_tasks ORDER BY claimed_at")
    assert order == [first, second]


async def test_a_pause_of_an_operators_is_left_alone(fleet, hall, client, tables, configure):
    hall.is_open = True
    task_id = await client.enqueue("stay")
    await tables.execute("UPDATE asynctaskd.tasks SET status = 'paused', reason = 'by command'")
    async with fleet(1, poll_interval="50ms"):
        await client.wait(await client.enqueue("stay"), timeout="10s")
        await configure(paused_names=["x"])
        await client.wait(await client.enqueue("stay", delay="1s"), timeout="10s")
    assert (await tables.task(task_id))["status"] == "paused"


@pytest.mark.parametrize("how", ["in its turn", "out of turn"])
async def test_a_task_that_an_operator_resumed_while_its_name_was_paused_runs_whatever_else_is_paused(
    fleet, hall, client, tables, configure, how
):
    hall.is_open = True
    task_id = await client.enqueue("stay")
    await configure(paused_names=["stay"])
    async with fleet(1):
        await tables.until_status(task_id, "paused")
    if how == "out of turn":
        await tables.execute("UPDATE asynctaskd.tasks SET run_at = now() + interval '1 day'")
    await client.resume(task_id)
    await configure(paused_names=["another"])
    async with fleet(1):
        if how == "out of turn":
            await client.run_now(task_id)
        await tables.until_status(task_id, "completed")
    assert hall.came == 1


async def test_a_suspect_that_is_paused_or_behind_a_limit_starts_no_process(
    app, hall, client, tables, configure, daemon_of, database
):
    from asynctaskd.postgres.store import Store

    await client.enqueue_many([*stays(1, "mail"), *stays(1, "eu")])
    await tables.execute("UPDATE asynctaskd.tasks SET losses = 2, reason = 'lease_lost'")
    store = await Store.open(database.dsn, schema="asynctaskd", connections=1)

    async def has(**rules) -> bool:
        return await store.has_suspect(["mail", "eu"], strict=True, **rules)

    assert await has()
    assert await has(paused_labels=["mail"])
    assert not await has(paused_labels=["mail", "eu"])
    assert not await has(paused_names=["stay"])
    assert not await has(paused_labels=["eu"], limits={"mail": 0})
    assert await has(limits={"mail": 0})
    await store.close()


@pytest.mark.parametrize("labels", [["mail"], []])
async def test_one_suspect_is_run_within_its_limit(app, hall, client, tables, configure, daemon_of, labels):
    hall.is_open = True
    await configure(limits={"mail": 1, "eu": 1})
    task_id = await client.enqueue("stay", labels=labels)
    await tables.execute("UPDATE asynctaskd.tasks SET losses = 2, reason = 'lease_lost'")
    await daemon_of(app, one_suspect=True, concurrency=1, labels=["mail", "eu"]).run()
    assert (await tables.task(task_id))["status"] == "completed"
    assert await tables.value("SELECT count(*) FROM asynctaskd.label_permits") == 0


async def test_a_suspect_waits_for_its_limit(app, fleet, hall, client, tables, configure, daemon_of):
    await configure(limits={"mail": 1})
    await client.enqueue_many(stays(1, "mail"))
    async with fleet(1, labels=["mail"]):
        await hall.until(lambda: len(hall.here) == 1)
        suspect = await client.enqueue("stay", labels=["mail"])
        await tables.execute(
            "UPDATE asynctaskd.tasks SET losses = 2, reason = 'lease_lost' WHERE id = $1", suspect
        )
        await daemon_of(app, one_suspect=True, concurrency=1, labels=["mail"]).run()
        assert (await tables.task(suspect))["status"] == "pending"
        hall.open()
        await tables.until_status(suspect, "completed")
