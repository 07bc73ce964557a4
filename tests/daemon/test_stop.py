from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import suppress
from types import SimpleNamespace

import pytest

from asynctaskd import DatabaseUnavailableError, TaskRequest


@pytest.fixture
def hold(app):
    """The handler "hold", which runs until it is let go or cancelled."""

    hold = SimpleNamespace(entered=asyncio.Event(), go_on=asyncio.Event(), cancelled=[])

    @app.task("hold")
    async def handler(n: int = 0) -> None:
        hold.entered.set()
        try:
            await hold.go_on.wait()
        except asyncio.CancelledError:
            hold.cancelled.append(n)
            raise

    return hold


@pytest.fixture
def started(daemon_of):
    """A daemon whose end the test sees for itself: `daemon, life = await started(app)`."""

    async def start(app, **settings):
        daemon = daemon_of(app, **settings)
        life = asyncio.create_task(daemon.run(), name="daemon")
        waiting = asyncio.create_task(daemon.ready.wait())
        await asyncio.wait({waiting, life}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        assert daemon.ready.is_set()
        return daemon, life

    return start


async def test_the_first_stop_lets_running_tasks_finish_and_claims_no_more(
    app, started, client, wait, tables, hold, soon, recorder
):
    daemon, life = await started(app)
    first = await client.enqueue("hold")
    await soon(hold.entered)
    daemon.stop()
    await recorder.wait_for("worker.stopping")
    second = await client.enqueue("hold")
    hold.go_on.set()
    await wait(first)
    await asyncio.wait_for(life, 60)
    assert hold.cancelled == []
    assert (await tables.task(second))["status"] == "pending"
    assert (await tables.task(second))["attempts"] == 0


async def test_the_lease_is_kept_while_running_tasks_finish(app, started, client, tables, hold, soon):
    daemon, life = await started(app, lease="1500ms", renew_interval="100ms")
    await client.enqueue("hold")
    await soon(hold.entered)
    daemon.stop()
    [expiry] = await tables.column("SELECT expires_at FROM asynctaskd.workers")
    await tables.until(
        "SELECT expires_at > $1::timestamptz + interval '500 ms' FROM asynctaskd.workers", expiry
    )
    hold.go_on.set()
    await asyncio.wait_for(life, 60)
    assert await tables.value("SELECT count(*) FROM asynctaskd.finished_tasks") == 1


@pytest.mark.parametrize("stops", [1, 2], ids=["grace over", "stopped twice"])
async def test_what_does_not_finish_is_given_back_with_its_attempt(
    app, started, client, tables, hold, soon, stops
):
    daemon, life = await started(app, grace="20ms" if stops == 1 else "1h")
    ids = [await client.enqueue("hold", {"n": n}) for n in range(3)]
    await tables.until("SELECT count(*) = 3 FROM asynctaskd.tasks WHERE status = 'running'")
    await soon(hold.entered)
    began = asyncio.get_running_loop().time()
    for _ in range(stops):
        daemon.stop()
    for task_id in ids:
        row = await tables.until_status(task_id, "pending")
        assert (row["attempts"], row["worker_id"], row["claim_token"]) == (0, None, 1)
        assert await tables.events(task_id) == ["released"]
    assert asyncio.get_running_loop().time() - began < 2
    await asyncio.wait_for(life, 60)
    assert sorted(hold.cancelled) == [0, 1, 2]


async def test_what_was_given_back_is_run_by_another_worker_at_once(
    app, started, running, client, wait, hold, soon
):
    daemon, life = await started(app, grace="0s", poll_interval="1h")
    task_id = await client.enqueue("hold")
    await soon(hold.entered)
    async with running(app):
        daemon.stop()
        await asyncio.wait_for(life, 60)
        hold.go_on.set()
        done = await wait(task_id)
    assert (done.attempts, done.losses) == (1, 0)


async def test_a_thread_that_cannot_be_stopped_is_put_back_in_the_last_statement(
    app, started, client, tables, recorder
):
    entered, go_on = threading.Event(), threading.Event()

    @app.task("thread")
    def thread() -> None:
        entered.set()
        go_on.wait(20)

    daemon, life = await started(app, grace="0s")
    try:
        task_id = await client.enqueue("thread")
        assert await asyncio.to_thread(entered.wait, 10)
        began = asyncio.get_running_loop().time()
        daemon.stop()
        row = await tables.until_status(task_id, "pending")
        took = asyncio.get_running_loop().time() - began
        await asyncio.wait_for(life, 60)
    finally:
        go_on.set()
    assert 1 <= took < 3
    assert row["attempts"] == 0
    assert await tables.events(task_id) == ["released"]
    assert recorder.all("worker.stopped")[-1]["left_behind"] == 1


async def test_a_claim_in_flight_at_the_stop_is_executed(
    app, started, client, wait, monkeypatch, soon, tables
):
    from asynctaskd.postgres.store import Store

    claimed, go_on = asyncio.Event(), asyncio.Event()
    claim, ran = Store.claim, []

    async def slow_claim(self, *args, **kwargs):
        tasks = await claim(self, *args, **kwargs)
        if tasks:
            claimed.set()
            await go_on.wait()
        return tasks

    @app.task("quick")
    async def quick() -> None:
        ran.append(1)

    monkeypatch.setattr(Store, "claim", slow_claim)
    daemon, life = await started(app)
    task_id = await client.enqueue("quick")
    await soon(claimed)
    daemon.stop()
    go_on.set()
    await asyncio.wait_for(life, 60)
    assert ran == [1]
    assert (await tables.task(task_id))["status"] == "completed"


async def test_thirty_daemons_in_a_row_lose_nothing_and_run_nothing_twice(app, started, client, tables):
    ran = Counter()
    before = asyncio.all_tasks()

    @app.task("one")
    async def one(n: int) -> None:
        ran[n] += 1
        await asyncio.sleep(0)

    enqueued = 0
    for _ in range(30):
        daemon, life = await started(app, concurrency=5)
        await client.enqueue_many([TaskRequest("one", {"n": n}) for n in range(enqueued, enqueued + 20)])
        enqueued += 20
        daemon.stop()
        await asyncio.wait_for(life, 60)
    daemon, life = await started(app)
    await tables.until("SELECT count(*) = $1 FROM asynctaskd.finished_tasks", enqueued)
    daemon.stop()
    await asyncio.wait_for(life, 60)
    assert ran == Counter(range(enqueued))
    assert await tables.value("SELECT count(*) FROM asynctaskd.tasks") == 0
    assert await tables.value("SELECT count(*) FROM asynctaskd.task_events") == 0
    for _ in range(10):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() - before == set()


async def test_a_stop_before_it_is_ready_ends_it(app, daemon_of):
    daemon = daemon_of(app)
    daemon.stop()
    await asyncio.wait_for(daemon.run(), 60)
    assert not daemon.ready.is_set()


@pytest.mark.parametrize("cause", ["cancelled", "crashed"])
async def test_a_daemon_that_is_cancelled_or_crashes_leaves_no_execution_behind(
    app, started, client, tables, hold, soon, monkeypatch, cause
):
    from asynctaskd.postgres.store import Store

    async def crash(self):
        raise RuntimeError("crash")

    before = asyncio.all_tasks()
    _, life = await started(app, poll_interval="20ms")
    await client.enqueue("hold")
    await soon(hold.entered)
    if cause == "cancelled":
        life.cancel()
    else:
        monkeypatch.setattr(Store, "recover", crash)
    await asyncio.wait({life}, timeout=20)
    assert life.done()
    assert life.cancelled() or isinstance(life.exception(), BaseExceptionGroup)
    assert hold.cancelled == [0]
    for _ in range(10):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() - before == set()


async def test_the_second_stop_is_heard_while_a_claim_hangs(
    app, started, client, tables, connection, soon, recorder
):
    # Of those that claim: which of their statements meets the lock is a matter of chance.
    hanging = """SELECT count(*) > 0 FROM pg_stat_activity
                 WHERE wait_event_type = 'Lock' AND datname = current_database()
                   AND query ~ '^-- (Claim|A look from the start)'"""
    entered, cancelled = asyncio.Event(), asyncio.Event()

    @app.task("hold")
    async def hold() -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    daemon, life = await started(app, grace="1h", poll_interval="20ms")
    task_id = await client.enqueue("hold")
    await soon(entered)
    async with connection.transaction():
        await connection.execute("LOCK TABLE asynctaskd.tasks IN ACCESS EXCLUSIVE MODE")
        await tables.until(hanging)
        daemon.stop()
        await recorder.wait_for("worker.stopping")
        assert not cancelled.is_set()
        daemon.stop()
        await soon(cancelled)
        assert await tables.value(hanging), "it was told to stop only when the claim had been given up"
    await asyncio.wait_for(life, 60)
    row = await tables.task(task_id)
    assert (row["status"], row["attempts"]) == ("pending", 0)
    assert await tables.events(task_id) == ["released"]


@pytest.mark.parametrize("stops", [0, 1], ids=["while it works", "while it drains"])
async def test_a_daemon_that_is_cancelled_leaves_no_asyncio_task_behind(
    app, started, client, hold, soon, recorder, stops
):
    before = asyncio.all_tasks()
    daemon, life = await started(app, grace="1h")
    await client.enqueue("hold")
    await soon(hold.entered)
    for _ in range(stops):
        daemon.stop()
        await recorder.wait_for("worker.stopping")
        await asyncio.wait({daemon._claiming}, timeout=20)  # what is left is to wait for executions
    for _ in range(10):
        await asyncio.sleep(0)
    life.cancel()
    await asyncio.wait({life}, timeout=20)
    assert life.cancelled()
    assert hold.cancelled == [0]
    for _ in range(10):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() - before == set()


async def test_a_hook_that_does_not_stop_keeps_no_other_task_from_going_back(
    app, started, client, tables, soon
):
    entered, go_on = threading.Event(), threading.Event()
    hooked, enough = asyncio.Event(), asyncio.Event()

    @app.task("thread")
    def thread() -> None:
        entered.set()
        go_on.wait(20)

    @app.task("broken")
    async def broken() -> None:
        raise ValueError("broken")

    @broken.on_failed
    async def hook(params, failure, tx) -> None:
        hooked.set()
        while not enough.is_set():
            with suppress(asyncio.CancelledError):
                await enough.wait()

    daemon, life = await started(app, grace="0s")
    ids = [await client.enqueue("thread"), await client.enqueue("broken")]
    try:
        assert await asyncio.to_thread(entered.wait, 10)
        await soon(hooked)
        daemon.stop()
        await asyncio.wait_for(life, 60)
        for task_id in ids:
            assert (await tables.task(task_id))["status"] == "pending"
            assert await tables.events(task_id) == ["released"]
    finally:
        go_on.set()
        enough.set()


async def test_a_claim_whose_answer_got_lost_at_the_stop_is_put_back(
    app, started, client, tables, monkeypatch
):
    from asynctaskd.postgres.store import Store

    claim = Store.claim

    @app.task("one")
    async def one() -> None: ...

    async def lost(self, *args, **kwargs):
        if await claim(self, *args, **kwargs):
            daemon.stop()
            raise DatabaseUnavailableError("the answer got lost")
        return []

    monkeypatch.setattr(Store, "claim", lost)
    daemon, life = await started(app)
    task_id = await client.enqueue("one")
    await asyncio.wait_for(life, 60)
    row = await tables.task(task_id)
    assert (row["status"], row["attempts"], row["losses"]) == ("pending", 0, 0)
    assert await tables.events(task_id) == ["released"]


async def test_what_ended_and_could_not_be_written_before_is_written_in_the_last_statement(
    app, started, client, tables, monkeypatch
):
    from asynctaskd.daemon.supervisor import Daemon
    from asynctaskd.postgres.store import Store

    finalize, leave, leaving = Store.finalize, Daemon._leave, []

    @app.task("one")
    async def one() -> int:
        return 1

    async def away(self, batch):
        if not leaving:
            daemon.stop()
            daemon.stop()
            raise DatabaseUnavailableError("not now")
        return await finalize(self, batch)

    async def noted(self) -> None:
        leaving.append(self)
        await leave(self)

    monkeypatch.setattr(Store, "finalize", away)
    monkeypatch.setattr(Daemon, "_leave", noted)
    daemon, life = await started(app)
    task_id = await client.enqueue("one")
    await asyncio.wait_for(life, 60)
    row = await tables.task(task_id)
    assert (row["status"], row["result"]) == ("completed", "1")


@pytest.mark.parametrize("fault", ["reset", "locked"])
async def test_what_is_given_back_at_the_end_goes_back_though_the_first_try_fails(
    app, started, client, tables, hold, soon, monkeypatch, fault
):
    from asynctaskd.postgres.store import Store

    finalize, tries = Store.finalize, []

    async def reset_once(self, batch):
        tries.append(len(batch))
        if len(tries) == 1:
            raise DatabaseUnavailableError("connection reset")
        return await finalize(self, batch)

    async with tables.transaction() as connection:
        daemon, life = await started(app, grace="0s", concurrency=3)
        ids = [await client.enqueue("hold", {"n": n}) for n in range(3)]
        for task_id in ids:
            await tables.until_status(task_id, "running")
        daemon._finalizer.put = lambda *_: None  # as if there were no time to write what they come to
        if fault == "reset":
            monkeypatch.setattr(Store, "finalize", reset_once)
        else:
            await connection.execute("SELECT FROM asynctaskd.tasks WHERE id = $1 FOR UPDATE", ids[0])
        daemon.stop()
        await life
        back = ids if fault == "reset" else ids[1:]
        assert (
            await tables.column(
                "SELECT id FROM asynctaskd.tasks WHERE status = 'pending' AND attempts = 0 ORDER BY id"
            )
            == back
        )
    assert await tables.column("SELECT stopped_at IS NOT NULL FROM asynctaskd.workers") == [True]


async def test_nothing_is_claimed_once_it_was_told_to_stop_even_if_it_was_about_to(
    app, started, client, tables, hold, recorder, monkeypatch
):
    from asynctaskd.daemon.ready import Ready

    refresh = Ready.refresh

    async def stop_meanwhile(self):
        await refresh(self)
        if self.sets:
            daemon.stop()
            await recorder.wait_for("worker.stopping")

    monkeypatch.setattr(Ready, "refresh", stop_meanwhile)
    daemon, life = await started(app)
    task_id = await client.enqueue("hold")
    async with asyncio.timeout(20):
        await life
    assert (await tables.task(task_id))["claim_token"] == 0
