"""What a worker takes on while it runs, as a file that is read again has it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asynctaskd.config import DaemonConfig
from asynctaskd.telemetry import attach

FAST = {"renew_interval": "50ms", "grace": "10s"}


@pytest.fixture
def changed():
    """Give a daemon other settings of the section `worker`."""

    async def change(daemon: Any, **worker: Any) -> None:
        found = DaemonConfig.model_validate({"worker": FAST | worker})
        told = found.worker.model_dump(include=set(worker))
        config = daemon._config
        await daemon.reconfigure(config.model_copy(update={"worker": config.worker.model_copy(update=told)}))

    return change


async def test_more_slots_are_used_at_once(app, running, client, hall, changed):
    async with running(app, concurrency=1, **FAST) as daemon:
        for _ in range(3):
            await client.enqueue("stay")
        await hall.until(lambda: hall.came == 1)
        await changed(daemon, concurrency=3)
        await hall.until(lambda: hall.came == 3)
        hall.open()


async def test_fewer_slots_stop_nothing_and_nothing_is_claimed_until_there_is_room(
    app, running, client, hall, changed, tables
):
    async with running(app, concurrency=3, **FAST) as daemon:
        for _ in range(4):
            await client.enqueue("stay")
        await hall.until(lambda: hall.came == 3)
        await changed(daemon, concurrency=1)
        assert (daemon._slots.running, daemon._slots.free) == (3, 0)
        hall.open(2)
        await hall.until(lambda: len(hall.here) == 1)
        await tables.until("SELECT count(*) = 2 FROM asynctaskd.tasks")  # both are written
        assert hall.came == 3
        hall.open(1)
        await hall.until(lambda: hall.came == 4)
        hall.open()


async def test_a_sync_handler_finds_a_thread_for_each_new_slot(app, running, client, soon, changed):
    loop, there, go_on = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    came = []

    @app.task("wait")
    def wait() -> None:
        came.append(1)
        if len(came) == 3:
            loop.call_soon_threadsafe(there.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()

    async with running(app, concurrency=1, **FAST) as daemon:
        for _ in range(3):
            await client.enqueue("wait")
        await changed(daemon, concurrency=3)
        await soon(there)
        go_on.set()


async def test_labels_come_and_go_between_two_claims_and_the_database_knows(
    app, running, client, hall, changed, tables
):
    async with running(app, concurrency=5, labels=["eu"], **FAST) as daemon:
        await client.enqueue("stay", {"labels": "eu"}, labels=["eu"])
        await hall.until(lambda: hall.came == 1)
        await changed(daemon, labels=["us"])
        left = await client.enqueue("stay", {"labels": "eu"}, labels=["eu"])
        await client.enqueue("stay", {"labels": "us"}, labels=["us"])
        await hall.until(lambda: hall.came == 2)
        assert hall.most["us"] == 1
        own = f"worker:{daemon._lease.worker.name}"
        await tables.until("SELECT labels = $1 FROM asynctaskd.workers", ["us", own])
        hall.open()
        await tables.until("SELECT count(*) = 1 FROM asynctaskd.tasks")
        assert (await tables.task(left))["status"] == "pending"


async def test_a_limit_holds_for_a_label_that_comes_while_the_worker_runs(
    app, running, client, hall, changed, configure, tables
):
    await configure(limits={"us": 1})
    async with running(app, concurrency=5, **FAST) as daemon:
        for _ in range(3):
            await client.enqueue("stay", {"labels": "us"}, labels=["us"])
        await changed(daemon, labels=["us"])
        await hall.until(lambda: hall.came == 1)
        await client.enqueue("stay")
        await hall.until(lambda: hall.came == 2)
        assert hall.most["us"] == 1
        hall.open()
        await tables.until("SELECT count(*) = 0 FROM asynctaskd.tasks")
        assert hall.most["us"] == 1


async def test_a_longer_lease_holds_from_the_next_renewal_on(app, running, changed, tables):
    async with running(app, lease="1s", **FAST) as daemon:
        renewed, tell = asyncio.Event(), asyncio.get_running_loop().call_soon_threadsafe
        # The keeper's thread tells it; the row has changed before that thread has its answer.
        detach = attach(
            lambda _, facts: tell(renewed.set) if facts["seconds"] > 60 else None, "lease.renewed"
        )
        await changed(daemon, lease="1h")
        await renewed.wait()
        detach()
        assert daemon._lease.term.length == 3600.0
        assert await tables.value(
            "SELECT expires_at > clock_timestamp() + interval '50 min' FROM asynctaskd.workers"
        )


async def test_a_new_identity_has_what_was_changed_before(app, running, changed, tables):
    async with running(app, concurrency=1, **FAST) as daemon:
        first = daemon.worker_id
        await changed(daemon, concurrency=7, labels=["us"])
        await tables.execute("UPDATE asynctaskd.workers SET lost_at = clock_timestamp() WHERE id = $1", first)
        found = await tables.until(
            "SELECT labels FROM asynctaskd.workers WHERE concurrency = 7 AND id <> $1", first
        )
    assert "us" in found


async def test_what_is_changed_before_it_has_begun_holds_too(app, daemon_of, changed, tables):
    daemon = daemon_of(app, concurrency=1, **FAST)
    await changed(daemon, concurrency=9)
    life = asyncio.create_task(daemon.run())
    await tables.until("SELECT concurrency = 9 FROM asynctaskd.workers")
    daemon.stop()
    await life
