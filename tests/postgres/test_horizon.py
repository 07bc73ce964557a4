"""An old transaction elsewhere keeps every dead row and index entry: what that costs, and what it doesn't."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import asyncpg
import pytest

from asynctaskd import Client, TaskRequest
from asynctaskd.postgres.driver import PINNED_PLANS
from asynctaskd.postgres.records import START, Barred, Ended, Position, Share, StrictLane
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


async def take(store: Store, count: int, after: Position = START, *, plain: bool) -> list[ClaimedTask]:
    share = Share("", "default", count, count, 1, 0.0, after)
    return await store.claim(WORKER, [], strict=StrictLane(0), slots=count, shares=[share], plain=plain)


async def complete(store: Store, tasks: list[ClaimedTask]) -> Position:
    """Write that these are done; returns where the last of them was."""
    done = Transition(TaskStatus.COMPLETED)
    ended = [Ended(task.id, task.claim_token, done, None, has_tag=False) for task in tasks]
    assert len(await store.finalize(ended)) == len(tasks)
    return max((-task.weight, task.id) for task in tasks)


async def cost(session: Connection, after: Position = START, *, plain: bool) -> tuple[int, int]:
    """How many index entries of live tasks a claim of a batch looks at, and its finalize; undone again."""
    store = Store(cast("Pool", OneConnection(session)), "asynctaskd")
    undone = session.transaction()
    await undone.start()
    before = await session.fetchval(LOOKS)
    tasks = await take(store, BATCH, after, plain=plain)
    claimed = await session.fetchval(LOOKS)
    await complete(store, tasks)
    costs = claimed - before, await session.fetchval(LOOKS) - claimed
    await undone.rollback()
    return costs


async def looked_at(session: Connection, **asked: Any) -> int:
    """How many index entries a claim of a batch looks at; undone again."""
    store = Store(cast("Pool", OneConnection(session)), "asynctaskd")
    undone = session.transaction()
    await undone.start()
    before = await session.fetchval(LOOKS)
    claimed = await store.claim(WORKER, [], slots=BATCH, **asked)
    after = await session.fetchval(LOOKS)
    await undone.rollback()
    assert len(claimed) == BATCH
    return int(after - before)


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


@pytest.mark.parametrize("plain", [True, False])
async def test_while_an_old_transaction_goes_on_a_claim_from_where_the_last_stopped_costs_what_the_first_did(
    pool: Pool, session: Connection, pinned: None, plain: bool
) -> None:
    await Client(pool).enqueue_many([TaskRequest("x") for _ in range(DEAD + 2 * BATCH)])
    store = Store(pool, "asynctaskd")
    claim_first, finalize_first = await cost(session, plain=plain)
    last = START
    for _ in range(DEAD // BATCH):
        last = await complete(store, await take(store, BATCH, last, plain=plain))
    claim_last, finalize_last = await cost(session, last, plain=plain)
    from_the_start, _ = await cost(session, plain=plain)
    assert finalize_last <= 1.5 * finalize_first
    assert claim_last <= 1.5 * claim_first
    assert from_the_start > claim_first + DEAD / 2  # so the old transaction did keep the dead
    assert await pool.fetchval("SELECT count(*) FROM asynctaskd.finished_tasks") == DEAD


async def test_while_an_old_transaction_goes_on_so_does_a_claim_of_strict_tasks_and_it_finds_what_is_new(
    pool: Pool, session: Connection, pinned: None
) -> None:
    client = Client(pool)
    *_, newest = await client.enqueue_many([TaskRequest("x", priority=2) for _ in range(DEAD + BATCH)])
    store = Store(pool, "asynctaskd")
    first = await looked_at(session, strict=StrictLane(BATCH, {"": START}, newest), shares=[])
    for _ in range(DEAD // BATCH):
        claimed = await store.claim(WORKER, [], strict=StrictLane(BATCH), slots=BATCH, shares=[])
        last = await complete(store, claimed)
    after = {"": (-2, last[1])}
    assert await looked_at(session, strict=StrictLane(BATCH, after, newest), shares=[]) <= 1.5 * first
    assert await looked_at(session, strict=StrictLane(BATCH, {"": START}), shares=[]) > first + DEAD / 2
    urgent = await client.enqueue("x", priority=3)
    other = await client.enqueue("x", priority=4, labels=["new"])
    claimed = await store.claim(WORKER, ["new"], strict=StrictLane(2, after, newest), slots=2, shares=[])
    assert {task.id for task in claimed} == {urgent, other}


async def test_a_strict_claim_from_where_the_last_stopped_takes_nothing_that_is_barred(
    pool: Pool, session: Connection
) -> None:
    await Client(pool).enqueue_many([TaskRequest("x", priority=1, labels=["eu"])] * 3)
    lane = StrictLane(BATCH, {"eu": START}, new_above=1)
    barred = Barred(labels=["eu"])
    store = Store(pool, "asynctaskd")
    assert await store.claim(WORKER, ["eu"], slots=BATCH, shares=[], strict=lane, barred=barred) == []
    assert len(await store.claim(WORKER, ["eu"], slots=BATCH, shares=[], strict=lane)) == 3


async def test_while_an_old_transaction_goes_on_an_ordinary_claim_walks_through_nothing_strict_or_heavier(
    pool: Pool, session: Connection, pinned: None
) -> None:
    client = Client(pool)
    first, *_ = await client.enqueue_many([TaskRequest("x") for _ in range(2 * BATCH)])
    await client.enqueue_many([TaskRequest("x", weight=5) for _ in range(DEAD)])
    *_, newest = await client.enqueue_many([TaskRequest("x", priority=1) for _ in range(DEAD)])
    store = Store(pool, "asynctaskd")
    for _ in range(2 * DEAD // BATCH):
        await complete(
            store,
            await store.claim(
                WORKER,
                [],
                strict=StrictLane(BATCH),
                slots=BATCH,
                shares=[Share("", "default", BATCH, BATCH, 1, 0.0)],
            ),
        )
    plain = {
        "plain": True,
        "shares": [Share("", "default", BATCH, BATCH, 1, 0.0, (-1, first - 1))],
    }
    near = await looked_at(session, **plain, strict=StrictLane(BATCH, new_above=newest))
    assert near <= 4 * BATCH
    assert await looked_at(session, **plain, strict=StrictLane(BATCH)) > near + 1.5 * DEAD
    await client.enqueue("x", priority=1)
    assert (
        await store.claim(WORKER, [], slots=BATCH, **plain, strict=StrictLane(BATCH, new_above=newest)) == []
    )
