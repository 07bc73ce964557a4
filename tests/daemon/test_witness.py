"""What goes back, and what doesn't, when somebody saw a process die."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest

from asynctaskd.daemon.housekeeping import Housekeeper
from asynctaskd.daemon.witness import put_back
from asynctaskd.errors import DatabaseUnavailableError
from asynctaskd.postgres.configs import ConfigStore
from asynctaskd.postgres.orders import OrderStore
from asynctaskd.postgres.store import Store


@pytest.fixture
async def store(database):
    opened = await Store.open(database.dsn, schema=database.schema, connections=2)
    yield opened
    await opened.close()


@pytest.fixture
def holder(tables, client):
    """A worker that holds tasks: `await holder(2, lease=…)` returns its id and theirs."""

    async def insert(tasks: int = 1, *, lease: float = 3600.0) -> tuple[UUID, list[int]]:
        worker_id = uuid4()
        await tables.execute(
            """INSERT INTO asynctaskd.workers
                      (id, name, process, hostname, pid, version, labels, names, concurrency, renewed_at,
                       expires_at)
               VALUES ($1, $1, $1, 'gone', 1, '0', '{}', '{}', 1, clock_timestamp(),
                       clock_timestamp() + make_interval(secs => $2))""",
            worker_id,
            lease,
        )
        ids = [await client.enqueue("anything") for _ in range(tasks)]
        await tables.execute(
            """UPDATE asynctaskd.tasks
               SET status = 'running', worker_id = $2, claim_token = 1, attempts = 1,
                   claimed_at = clock_timestamp()
               WHERE id = ANY ($1)""",
            ids,
            worker_id,
        )
        return worker_id, ids

    return insert


async def statuses(tables, ids: list[int]) -> set[str]:
    return {(await tables.task(task_id))["status"] for task_id in ids}


async def test_what_the_dead_held_goes_back_and_nobody_else_is_touched(store, holder, tables, recorder):
    dead, theirs = await holder(3)
    _, others = await holder(2)
    assert await put_back(store, [dead], "killed by SIGKILL") == {dead: 3}
    assert await statuses(tables, theirs) == {"pending"}
    assert await statuses(tables, others) == {"running"}
    assert (await tables.detail(theirs[0], "lease_lost"))["cause"] == "killed by SIGKILL"
    assert recorder.all("workers.lost", workers=[str(dead)], tasks=3, cause="killed by SIGKILL")


async def test_who_witnessed_one_death_judges_no_other_worker_by_its_silence(store, holder, tables):
    dead, _ = await holder()
    silent, held = await holder(lease=-1.0)
    await put_back(store, [dead], "killed by SIGKILL")
    assert await statuses(tables, held) == {"running"}
    lost = "SELECT lost_at IS NOT NULL FROM asynctaskd.workers WHERE id = $1"
    assert await tables.value(lost, silent) is False


async def test_it_waits_for_a_statement_of_the_dead_that_the_server_still_runs(
    store, holder, tables, connection
):
    dead, [task_id] = await holder()
    async with connection.transaction():
        await connection.execute("SELECT FROM asynctaskd.tasks FOR UPDATE")
        putting_back = asyncio.create_task(put_back(store, [dead], "killed by SIGKILL"))
        await tables.until("SELECT lost_at IS NOT NULL FROM asynctaskd.workers")
        assert (await tables.task(task_id))["status"] == "running"
    assert await putting_back == {dead: 1}


async def test_one_that_had_said_itself_that_it_is_lost_is_put_back_too(store, holder, tables):
    dead, ids = await holder()
    await store.declare_lost([dead], "its event loop was blocked")
    assert await put_back(store, await store.workers_of(dead), "exited with code 70") == {dead: 1}
    assert (await tables.detail(ids[0], "lease_lost"))["cause"] == "its event loop was blocked"


async def no_one(_: int) -> int:
    return 0


async def test_a_worker_that_was_cut_off_puts_back_what_witnesses_saw_and_judges_nobody(
    store, holder, tables, monkeypatch
):
    orders = OrderStore(store.sessions, store.schema)
    configs = ConfigStore(store.sessions, store.schema)
    housekeeper = Housekeeper(
        store, orders, configs, [], unpark=no_one, look=lambda: None, poll_interval=0.0, lease=3600.0
    )

    async def cut_off(*_):
        raise DatabaseUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(store, "promote_due", cut_off)
        with pytest.raises(DatabaseUnavailableError):
            await housekeeper.step()
    seen, theirs = await holder()
    _, others = await holder(lease=-1.0)
    await store.declare_lost([seen], "killed by SIGKILL")
    await housekeeper.step()
    assert await statuses(tables, theirs) == {"pending"}
    assert await statuses(tables, others) == {"running"}
