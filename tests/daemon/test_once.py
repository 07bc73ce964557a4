from __future__ import annotations

import asyncio

import pytest

from asynctaskd import RetryPolicy, TaskContext, TaskRequest
from asynctaskd.daemon.cron import Cron
from asynctaskd.daemon.finalize import Finalizer
from asynctaskd.daemon.housekeeping import Housekeeper
from asynctaskd.postgres.schedules import Look
from asynctaskd.postgres.store import Store
from tests.support.claimed import NOW


@pytest.fixture
def once(daemon_of):
    """Perform what is due and end."""

    async def run(app, **settings) -> None:
        await asyncio.wait_for(daemon_of(app, **settings).run(once=True), 60)

    return run


async def test_with_nothing_to_do_it_ends(app, once, tables):
    await once(app)
    assert await tables.column("SELECT stopped_at IS NOT NULL FROM asynctaskd.workers") == [True]


async def test_it_performs_all_that_is_pending_and_ends(app, once, client, tables):
    @app.task("one")
    async def one() -> None: ...

    await client.enqueue_many([TaskRequest("one", priority=n % 3) for n in range(200)])
    await once(app, concurrency=7)
    assert await tables.value("SELECT count(*) FROM asynctaskd.finished_tasks") == 200
    assert await tables.value("SELECT count(*) FROM asynctaskd.tasks") == 0


async def test_it_performs_retries_that_are_due_and_leaves_those_that_are_not(app, once, client, tables):
    @app.task("flaky")
    async def flaky(ctx: TaskContext) -> None:
        if ctx.attempt < 3:
            raise ValueError

    now = await client.enqueue("flaky", retry=RetryPolicy("0s", max_attempts=3))
    later = await client.enqueue("flaky", retry=RetryPolicy("1h", max_attempts=3))
    await once(app)
    assert (await tables.task(now))["status"] == "completed"
    row = await tables.task(later)
    assert (row["status"], row["attempts"]) == ("scheduled", 1)


async def test_it_performs_scheduled_tasks_whose_time_has_come_and_no_others(app, once, client, tables):
    @app.task("one")
    async def one() -> None: ...

    due = await client.enqueue("one", delay="1ms")
    later = await client.enqueue("one", delay="1h")
    await tables.until("SELECT run_at < clock_timestamp() FROM asynctaskd.tasks WHERE id = $1", due)
    await once(app)
    assert (await tables.task(due))["status"] == "completed"
    assert (await tables.task(later))["status"] == "scheduled"


async def test_it_performs_serial_chains_to_their_end(app, once, client, tables):
    @app.task("link")
    async def link() -> None: ...

    for n in range(100):
        await client.enqueue("link", serial_key=f"key{n % 3}")
    await once(app)
    assert await tables.value("SELECT count(*) FROM asynctaskd.finished_tasks") == 100


async def test_it_performs_children_and_their_children(app, once, client, tables):
    @app.task("grow")
    async def grow(depth: int, ctx: TaskContext) -> None:
        for _ in range(2 if depth else 0):
            await ctx.enqueue("grow", {"depth": depth - 1})

    await client.enqueue("grow", {"depth": 4})
    await once(app)
    assert await tables.value("SELECT count(*) FROM asynctaskd.finished_tasks") == 31


async def test_it_ends_where_only_tasks_are_left_that_it_may_not_run(app, once, client, tables):
    @app.task("one")
    async def one() -> None: ...

    await client.enqueue("one", labels=["elsewhere"])
    await client.enqueue("stranger")
    await client.enqueue("one")
    await once(app)
    assert await tables.value("SELECT count(*) FROM asynctaskd.finished_tasks") == 1
    assert await tables.value("SELECT count(*) FROM asynctaskd.tasks") == 2


async def test_it_ends_where_only_strict_tasks_are_left_and_it_has_no_strict_slot(app, once, client, tables):
    @app.task("one")
    async def one() -> None: ...

    await client.enqueue("one", priority=5)
    await client.enqueue("one")
    await once(app, max_strict_percentage=0)
    assert await tables.value("SELECT count(*) FROM asynctaskd.finished_tasks") == 1


async def test_it_performs_failures_with_their_hooks(app, once, client, tables):
    told = []

    @app.task("fail")
    async def fail() -> None:
        raise ValueError

    @fail.on_failed
    async def failed(params, failure, tx) -> None:
        told.append(failure.task_id)

    task_id = await client.enqueue("fail")
    await once(app)
    assert told == [task_id]
    assert (await tables.task(task_id))["status"] == "failed"


@pytest.mark.parametrize("let_go", ["before it is told", "after"])
async def test_a_task_that_ends_unseen_while_work_is_looked_for_sets_others_going(
    app, once, client, pool, tables, monkeypatch, let_go
):
    written, may_go_on, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()
    set_others_going, has_work = Finalizer._set_others_going, Store.has_work
    slots = None

    async def held(self, batch):
        nonlocal slots
        slots = self._slots
        written.set()
        await may_go_on.wait()
        await set_others_going(self, batch)

    async def asked(self, *arguments, **options):
        if answered.is_set():
            return await has_work(self, *arguments, **options)
        async with pool.acquire() as connection, connection.transaction():
            first = await client.enqueue("one", connection=connection)
            await client.enqueue("one", depends_on=[first], connection=connection)
        await written.wait()
        answer = await has_work(self, *arguments, **options)
        answered.set()
        if let_go == "after":
            asyncio.get_running_loop().call_soon(may_go_on.set)
        else:
            may_go_on.set()
            await slots.wait_empty()
        return answer

    @app.task("one")
    async def one() -> None: ...

    monkeypatch.setattr(Finalizer, "_set_others_going", held)
    monkeypatch.setattr(Store, "has_work", asked)
    await once(app)
    assert await tables.value("SELECT count(*) FROM asynctaskd.tasks") == 0


class Slow:
    """In the place of a store: each call takes a while; what one has in hand another wouldn't see."""

    def __init__(self) -> None:
        self.calls = self.inside = self.most = 0

    async def take(self) -> int:
        self.calls += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        for _ in range(3):
            await asyncio.sleep(0)
        self.inside -= 1
        return 0

    async def promote_due(self, most: int) -> tuple[int, float | None]:
        return await self.take(), None

    async def expire(self, most: int) -> int:
        return await self.take()

    async def look(self, declared: list[str], names: list[str]) -> Look:
        await self.take()
        return Look(NOW, None, 0.0, [])

    async def forget_slots(self, most: int) -> int:
        return 0


@pytest.mark.parametrize("name", ["promote_due", "tidy", "step"])
async def test_the_end_of_what_the_loop_has_in_hand_is_waited_for(app, name, monkeypatch):
    async def far_enough(*, judge: bool) -> bool:
        raise LookupError

    store = Slow()
    housekeeper = Housekeeper(
        store, None, None, [], unpark=None, look=lambda: None, poll_interval=1.0, lease=1.0
    )
    monkeypatch.setattr(housekeeper, "_recover", far_enough)
    work = getattr(Cron(store, app, poll_interval=1.0) if name == "step" else housekeeper, name)

    await asyncio.gather(work(), work(), return_exceptions=True)

    assert (store.calls, store.most) == (2, 1)
