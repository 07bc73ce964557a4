"""Workers forget what has outlived its keep, and say so."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from asynctaskd import RetryPolicy
from asynctaskd.daemon.retention import Retention
from asynctaskd.postgres.retention import alone
from asynctaskd.postgres.store import Store

ATTACHED = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'asynctaskd.finished_tasks'::regclass"
EVERYTHING = """
    SELECT (SELECT count(*) FROM asynctaskd.all_tasks) + (SELECT count(*) FROM asynctaskd.unique_tags)
         + (SELECT count(*) FROM asynctaskd.task_events)
"""


@pytest.fixture
def days_later(tables):
    """Moves the database's clock."""

    async def move(days: int) -> None:
        await tables.execute(
            "CREATE OR REPLACE FUNCTION asynctaskd.clock() RETURNS timestamptz LANGUAGE sql VOLATILE"
            f" PARALLEL SAFE RETURN clock_timestamp() + interval '{days} days'"
        )

    return move


@pytest.fixture
def retention_of(database):
    """A worker's retention, without the worker."""

    def build(**settings) -> Retention:
        return Retention(
            partial(Store.open, database.dsn, schema="asynctaskd", connections=1),
            partial(alone, database.dsn, schema="asynctaskd", patience=0.0),
            **settings,
        )

    return build


@pytest.fixture
def failing(app):
    """The name of a task that is retried once, and then fails."""

    @app.task("fail", retry=RetryPolicy("1ms", max_attempts=2))
    async def fail() -> None:
        raise ValueError

    return "fail"


async def test_a_worker_drops_what_is_due_and_the_work_goes_on(
    app, running, client, tables, recorder, days_later, wait
):
    @app.task("one")
    async def one() -> None: ...

    async with running(app):
        old = await client.enqueue("one", keep="1d", unique_tag="once")
        await wait(old)
    await days_later(3)
    async with running(app):
        dropped = await recorder.wait_for("partition.dropped")
        assert dropped["partition"].startswith("finished_tasks_20")
        await tables.until("SELECT NOT EXISTS (SELECT FROM asynctaskd.all_tasks WHERE id = $1)", old)
        again = await client.enqueue("one", unique_tag="once")
        assert again != old
        await wait(again)
    assert await tables.value("SELECT array_agg(id) FROM asynctaskd.finished_tasks") == [again]


async def test_of_many_workers_one_drops_each_partition(app, daemon_of, tables, recorder, days_later):
    await days_later(0)
    await tables.execute(
        "SELECT asynctaskd.ensure_finished_partition(current_date + n) FROM generate_series(-11, -2) AS n"
    )
    daemons = [daemon_of(app) for _ in range(4)]
    lives = [asyncio.create_task(daemon.run()) for daemon in daemons]
    await recorder.wait_for("partition.dropped", times=10)
    for daemon in daemons:
        daemon.stop()
    await asyncio.gather(*lives)
    names = [facts["partition"] for facts in recorder.all("partition.dropped")]
    assert len(names) == len(set(names)) == 10
    assert recorder.all("partition.in_use") == recorder.all("database.lost") == []


@pytest.mark.parametrize("keep", ["0s", "1d"])
async def test_nothing_of_a_task_stays_for_ever(
    app, running, client, tables, failing, days_later, retention_of, keep
):
    async with running(app):
        task_id = await client.enqueue(failing, keep=keep, unique_tag="once")
        await tables.until(
            "SELECT array_agg(kind ORDER BY id) = '{retried,failed}' FROM asynctaskd.task_events"
            " WHERE task_id = $1",
            task_id,
        )
    if keep == "0s":
        assert await tables.value("SELECT count(*) FROM asynctaskd.all_tasks") == 0
        assert await tables.value("SELECT count(*) FROM asynctaskd.unique_tags") == 0
    for days in (3, 5):  # once for the record, once for the events of a task without one
        await days_later(days)
        await retention_of().step()
    assert await tables.value(EVERYTHING) == 0


async def test_a_partition_in_use_is_no_news_until_it_goes_on_for_long(
    tables, recorder, days_later, retention_of
):
    await tables.execute("SELECT asynctaskd.ensure_finished_partition(current_date - 2)")
    patient, hasty = retention_of(), retention_of(worth_saying=0.0)
    async with tables.transaction() as reader:
        await reader.fetch("SELECT FROM asynctaskd.all_tasks")
        assert await patient.step() == 60.0  # it comes back soon
        assert recorder.all("partition.in_use") == []
        await hasty.step()
        [told] = recorder.all("partition.in_use")
        assert told["blockers"] == [reader.get_server_pid()]
    assert await patient.step() == 600.0
    assert len(recorder.all("partition.dropped")) == 1
    assert await hasty.step() == 600.0  # the other one came to it


async def test_a_worker_that_stops_waits_for_no_detach(app, running, tables, recorder):
    await tables.execute("SELECT asynctaskd.ensure_finished_partition(current_date - 2)")
    async with tables.transaction() as reader:
        await reader.fetch("SELECT FROM asynctaskd.all_tasks")
        async with running(app):
            await tables.until("SELECT EXISTS (SELECT FROM pg_inherits WHERE inhdetachpending)")
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 5.0
    assert recorder.all("partition.dropped") == []
    async with running(app):
        await recorder.wait_for("partition.dropped")
    assert await tables.value(ATTACHED) == 9
