"""Notices are sent where an idle worker could run what became ready, and counted either way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from asynctaskd import Client, TaskRequest
from asynctaskd.postgres.measures import MeasureStore
from asynctaskd.postgres.records import WorkerRow
from asynctaskd.postgres.store import Store

if TYPE_CHECKING:
    from tests.conftest import Connection, Database

PRODUCTION = Path(__file__).parents[2] / "docs" / "how-to" / "production-database.md"


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    opened = await Store.open(database.dsn, schema="asynctaskd")
    yield opened
    await opened.close()


@pytest.fixture
def client(connection: Connection) -> Client:
    return Client(connection)


async def idle_worker(store: Store, *labels: str) -> None:
    worker = WorkerRow(
        uuid4(), uuid4(), uuid4(), None, "here", 1, "0", list(labels), [], 10, timedelta(seconds=30)
    )
    await store.register_worker(worker)
    await store.set_idle(worker.id, True)


async def test_nothing_was_sent_or_saved_in_a_new_database(store: Store) -> None:
    assert await MeasureStore(store.sessions, store.schema).count_notices() == (0, 0)


async def test_a_notice_is_saved_where_nobody_waits_and_sent_where_somebody_does(
    store: Store, client: Client
) -> None:
    await client.enqueue("a")
    assert await MeasureStore(store.sessions, store.schema).count_notices() == (0, 1)
    await idle_worker(store, "mail")
    await client.enqueue("a", labels=["mail"])
    assert await MeasureStore(store.sessions, store.schema).count_notices() == (1, 1)
    await client.enqueue("a", labels=["other"])
    assert await MeasureStore(store.sessions, store.schema).count_notices() == (1, 2)


async def test_a_batch_counts_once_and_speaks_where_one_of_its_tasks_is_waited_for(
    store: Store, client: Client
) -> None:
    batch = [TaskRequest("a", labels=["mail"]), TaskRequest("b", labels=["other"]), TaskRequest("c")]
    await client.enqueue_many(batch)
    assert await MeasureStore(store.sessions, store.schema).count_notices() == (0, 1)
    await idle_worker(store, "mail")
    await client.enqueue_many(batch)
    assert await MeasureStore(store.sessions, store.schema).count_notices() == (1, 1)


async def test_what_is_not_ready_has_nothing_to_count(store: Store, client: Client) -> None:
    await client.enqueue("a", delay="1h")
    await client.enqueue_many([TaskRequest("a", delay="1h")])
    await client.enqueue_many([])
    await store.promote_due()
    await store.promote_serial()
    await store.recover()
    assert await MeasureStore(store.sessions, store.schema).count_notices() == (0, 0)


async def test_what_rolled_back_was_counted_all_the_same(
    store: Store, client: Client, connection: Connection
) -> None:
    undone = connection.transaction()
    await undone.start()
    await client.enqueue("a")
    await undone.rollback()
    assert await MeasureStore(store.sessions, store.schema).count_notices() == (0, 1)
