"""An old transaction elsewhere keeps every dead row and index entry: what that costs, and what it doesn't."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, cast
from uuid import uuid4

import asyncpg
import pytest

from asynctaskd import Client, TaskRequest
from asynctaskd.postgres.driver import PINNED_PLANS
from asynctaskd.postgres.records import Ended, Share
from asynctaskd.postgres.store import Store
from asynctaskd.task import ClaimedTask, TaskStatus, Transition

if TYPE_CHECKING:
    from tests.conftest import Connection, Database, Pool

BATCH = 50
DEAD = 1000
LOOKS = """
    SELECT sum(pg_stat_get_xact_tuples_returned(i.indexrelid))::integer FROM pg_index AS i
    WHERE i.indrelid = 'asynctaskd.tasks'::regclass
"""
WORKER = uuid4()


@pytest.fixture
async def pinned(database: Database) -> AsyncIterator[None]:
    """A transaction that goes on and on, and has seen everything."""
    old = await asyncpg.connect(database.dsn)
    await old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM asynctaskd.tasks")
    yield
    await old.close()


@pytest.fixture
async def session(database: Database) -> AsyncIterator[Connection]:
    """A session like the daemon's own."""
    opened = await asyncpg.connect(database.dsn, server_settings=PINNED_PLANS)
    await opened.execute(
        "INSERT INTO asynctaskd.workers"
        " (id, name, process, hostname, pid, version, labels, names, concurrency, expires_at)"
        " VALUES ($1, $1, $1, 'here', 1, '0', '{}', '{x}', 1, clock_timestamp() + interval '1 day')",
        WORKER,
    )
    await Store(cast("Pool", opened), "asynctaskd").ensure_partitions()
    yield opened
    await opened.close()


async def take(store: Store, count: int) -> list[ClaimedTask]:
    share = Share("", "default", count, count, 1, 0.0)
    return await store.claim(WORKER, [], strict=0, slots=count, shares=[share])


async def complete(store: Store, tasks: list[ClaimedTask]) -> None:
    done = Transition(TaskStatus.COMPLETED)
    assert len(await store.finalize([Ended(task.id, task.claim_token, done, None) for task in tasks])) == len(
        tasks
    )


async def cost(session: Connection) -> tuple[int, int]:
    """How many index entries of live tasks a claim of a batch looks at, and its finalize."""
    store = Store(cast("Pool", OneConnection(session)), "asynctaskd")
    async with session.transaction():
        tasks = await take(store, BATCH)
        claimed = await session.fetchval(LOOKS)
        await complete(store, tasks)
        return claimed, await session.fetchval(LOOKS) - claimed


class OneConnection:
    """A pool of one connection that is in a transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.fetch = connection.fetch

    def acquire(self) -> OneConnection:
        return self

    async def __aenter__(self) -> Connection:
        return self._connection

    async def __aexit__(self, *_: object) -> None: ...


async def test_while_an_old_transaction_goes_on_finalize_costs_the_same_and_a_claim_one_look_a_dead_row(
    pool: Pool, session: Connection, pinned: None
) -> None:
    await Client(pool).enqueue_many([TaskRequest("x") for _ in range(DEAD + 2 * BATCH)])
    store = Store(pool, "asynctaskd")
    claim_first, finalize_first = await cost(session)
    for _ in range(DEAD // BATCH):
        await complete(store, await take(store, BATCH))
    claim_last, finalize_last = await cost(session)
    assert finalize_last <= 1.5 * finalize_first
    assert claim_first + DEAD / 2 < claim_last <= claim_first + 2 * DEAD, (claim_first, claim_last)
    assert await pool.fetchval("SELECT count(*) FROM asynctaskd.finished_tasks") == DEAD + 2 * BATCH
