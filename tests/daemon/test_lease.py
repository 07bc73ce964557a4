from __future__ import annotations

import asyncio
import threading
from collections import Counter
from uuid import uuid4

import pytest

from asynctaskd import RetryPolicy, TaskContext, TaskRequest

RECOVERED = "SELECT count(*) > 0 FROM asynctaskd.task_events WHERE task_id = $1 AND kind = 'lease_lost'"

QUICK = {"lease": "1500ms", "renew_interval": "100ms", "poll_interval": "50ms"}


@pytest.fixture
def dead_worker(tables):
    """A worker whose lease has run out while it held a task: `await dead_worker(task_id)`."""

    async def hold(task_id: int, *, losses: int = 0) -> None:
        worker_id = uuid4()
        await tables.execute(
            """INSERT INTO asynctaskd.workers
                      (id, name, hostname, pid, version, labels, names, concurrency, expires_at)
               VALUES ($1, $1, 'gone', 1, '0', '{}', '{}', 1, clock_timestamp() - interval '1 second')""",
            worker_id,
        )
        await tables.execute(
            """UPDATE asynctaskd.tasks
               SET status = 'running', worker_id = $2, claim_token = claim_token + 1, attempts = attempts + 1,
                   claimed_at = clock_timestamp(), losses = $3
               WHERE id = $1""",
            task_id,
            worker_id,
            losses,
        )

    return hold


async def test_the_lease_is_renewed_as_long_as_the_worker_runs(app, running, tables):
    async with running(app, **QUICK) as daemon:
        [first] = await tables.column("SELECT expires_at FROM asynctaskd.workers")
        await tables.until("SELECT expires_at > $1 FROM asynctaskd.workers", first)
        assert await tables.column("SELECT id FROM asynctaskd.workers") == [daemon.worker_id]
    assert await tables.column("SELECT stopped_at IS NOT NULL FROM asynctaskd.workers") == [True]


async def test_the_task_of_an_expired_worker_runs_again_and_counts_a_loss(
    app, running, client, wait, tables, dead_worker, recorder
):
    @app.task("resume")
    async def resume(ctx: TaskContext) -> int:
        return ctx.attempt

    task_id = await client.enqueue("resume")
    await dead_worker(task_id)
    async with running(app, **QUICK):
        await recorder.wait_for("workers.lost", tasks=1)
        done = await wait(task_id)
    assert (done.attempts, done.result, done.reason) == (2, 2, None)
    assert await tables.events(task_id) == ["lease_lost"]
    assert (await tables.detail(task_id, "lease_lost"))["losses"] == 1
    assert await tables.value("SELECT lost_at IS NOT NULL FROM asynctaskd.workers WHERE hostname = 'gone'")


async def test_a_loss_is_no_failure_and_spends_no_retry(app, running, client, wait, tables, dead_worker):
    @app.task("flaky", retry=RetryPolicy("0s", max_attempts=2))
    async def flaky(ctx: TaskContext) -> None:
        if ctx.attempt == 2:
            raise ValueError

    task_id = await client.enqueue("flaky")
    await dead_worker(task_id)
    async with running(app, **QUICK):
        done = await wait(task_id)
    assert done.attempts == 3
    assert await tables.events(task_id) == ["lease_lost", "retried"]


async def test_the_third_loss_in_a_row_is_a_final_failure_whose_hook_runs_once(
    app, running, client, tables, dead_worker
):
    ran, told = [], []

    @app.task("killer", retry=RetryPolicy("0s"))
    async def killer(n: int) -> None:
        ran.append(n)

    @killer.on_failed
    async def killer_failed(params, failure, tx) -> None:
        told.append((params, failure.reason))

    task_id = await client.enqueue("killer", {"n": 7})
    await dead_worker(task_id, losses=2)
    async with running(app, **QUICK):
        row = await tables.until_status(task_id, "failed")
    assert (ran, told) == ([], [({"n": 7}, "quarantined")])
    assert (row["reason"], row["losses"]) == ("quarantined", 3)
    assert await tables.events(task_id) == ["lease_lost", "quarantined"]


async def test_a_worker_that_is_lost_while_it_tells_of_a_quarantine_is_no_further_loss(
    app, running, client, tables, dead_worker
):
    @app.task("killer")
    async def killer() -> None:
        raise AssertionError("it is quarantined")

    task_id = await client.enqueue("killer")
    await dead_worker(task_id, losses=3)
    async with running(app, **QUICK):
        row = await tables.until_status(task_id, "failed")
    assert (row["reason"], row["losses"]) == ("quarantined", 3)


async def test_a_worker_that_does_not_know_its_name_leaves_a_quarantine_as_it_is(
    app, running, client, tables, dead_worker, recorder
):
    from asynctaskd import App

    ran = []

    @app.task("killer")
    async def killer() -> None:
        ran.append(1)

    task_id = await client.enqueue("killer")
    await dead_worker(task_id, losses=2)
    async with running(App(), **QUICK):
        await recorder.wait_for("task.unknown_name", task_id=task_id)
        await tables.until_status(task_id, "scheduled")
    async with running(app, **QUICK):
        await tables.until("SELECT finished_at IS NOT NULL FROM asynctaskd.all_tasks WHERE id = $1", task_id)
    row = await tables.task(task_id)
    assert ran == []
    assert (row["status"], row["reason"]) == ("failed", "quarantined")


async def test_losses_count_only_in_a_row(app, running, client, tables, dead_worker, wait):
    @app.task("flaky", retry=RetryPolicy("1h", max_attempts=3))
    async def flaky() -> None:
        raise ValueError

    task_id = await client.enqueue("flaky")
    await dead_worker(task_id, losses=1)
    async with running(app, **QUICK):
        row = await tables.until_status(task_id, "scheduled")
    assert row["losses"] == 0


async def test_a_worker_that_was_declared_lost_stops_its_executions_and_goes_on_under_a_new_identity(
    app, running, client, tables, wait, recorder, soon
):
    entered, cancelled = asyncio.Event(), asyncio.Event()

    @app.task("hold")
    async def hold(ctx: TaskContext) -> int:
        if not entered.is_set():
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
        return ctx.attempt

    async with running(app, **QUICK) as daemon:
        first_identity = daemon.worker_id
        task_id = await client.enqueue("hold")
        await soon(entered)
        await tables.execute("UPDATE asynctaskd.workers SET lost_at = clock_timestamp()")
        await soon(cancelled)
        done = await wait(task_id)
        assert daemon.worker_id != first_identity
        assert done.worker_id == daemon.worker_id
        await wait(await client.enqueue("hold"))
    assert set(await tables.events(task_id)) & {"lease_lost", "released"}
    assert recorder.all("lease.lost", worker_id=first_identity)


async def test_the_late_result_of_a_lost_worker_changes_nothing(
    app, running, client, tables, wait, recorder, soon
):
    entered, go_on = asyncio.Event(), asyncio.Event()

    @app.task("hold")
    async def hold() -> str:
        if entered.is_set():
            return "second"
        entered.set()
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                pass
        return "first"

    async with running(app, **QUICK):
        task_id = await client.enqueue("hold")
        await soon(entered)
        await tables.execute("UPDATE asynctaskd.workers SET lost_at = clock_timestamp()")
        await tables.until(RECOVERED, task_id)
        go_on.set()
        await recorder.wait_for("task.stale_result", task_id=task_id)
        done = await wait(task_id)
    assert (done.result, done.losses) == ("second", 0)
    assert await tables.events(task_id) == ["lease_lost", "stale_result"]


async def test_a_worker_never_claims_a_task_that_it_is_still_executing(
    app, running, client, tables, wait, recorder
):
    entered, go_on = threading.Semaphore(0), threading.Event()
    together, most = [], []

    @app.task("thread")
    def thread() -> None:
        together.append(1)
        most.append(len(together))
        entered.release()
        go_on.wait(20)
        together.pop()

    @app.task("other")
    async def other() -> None: ...

    async with running(app, **QUICK):
        try:
            task_id = await client.enqueue("thread")
            assert await asyncio.to_thread(entered.acquire, timeout=10)
            await tables.execute("UPDATE asynctaskd.workers SET lost_at = clock_timestamp()")
            await tables.until(RECOVERED, task_id)
            for _ in range(3):
                await wait(await client.enqueue("other"))
        finally:
            go_on.set()
        await wait(task_id)
    assert max(most) == 1


async def test_executions_are_stopped_before_the_lease_ends_where_a_renewal_hangs(
    app, running, client, tables, connection, recorder, soon
):
    entered, cancelled = asyncio.Event(), asyncio.Event()

    @app.task("hold")
    async def hold() -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with running(app, **QUICK):
        await client.enqueue("hold")
        await soon(entered)
        async with connection.transaction():
            await connection.execute("SELECT FROM asynctaskd.workers FOR UPDATE")
            await soon(cancelled)
            left = await connection.fetchval("SELECT expires_at - clock_timestamp() FROM asynctaskd.workers")
    assert left.total_seconds() > 0
    assert recorder.all("lease.lost")


async def test_a_claim_whose_answer_got_lost_is_run_all_the_same(app, running, client, wait, monkeypatch):
    from asynctaskd.errors import DatabaseUnavailableError
    from asynctaskd.postgres.store import Store

    claim, lost = Store.claim, []

    async def claim_and_lose(self, *args, **kwargs):
        claimed = await claim(self, *args, **kwargs)
        if claimed and not lost:
            lost.append(claimed)
            raise DatabaseUnavailableError("the answer got lost")
        return claimed

    @app.task("quick")
    async def quick() -> None: ...

    monkeypatch.setattr(Store, "claim", claim_and_lose)
    async with running(app, **QUICK):
        await wait(await client.enqueue("quick"))
    assert lost


async def test_a_finalize_whose_answer_got_lost_is_not_written_twice(
    app, running, client, wait, tables, monkeypatch, recorder
):
    from asynctaskd.errors import DatabaseUnavailableError
    from asynctaskd.postgres.store import Store

    finalize, lost, ran = Store.finalize, [], []

    async def finalize_and_lose(self, batch):
        written = await finalize(self, batch)
        if batch and len(lost) < 3:
            lost.append(written)
            raise DatabaseUnavailableError("the answer got lost")
        return written

    @app.task("quick", retry=RetryPolicy("0s", max_attempts=2))
    async def quick(ctx: TaskContext) -> None:
        ran.append(1)
        if ctx.attempt == 1:
            raise ValueError

    monkeypatch.setattr(Store, "finalize", finalize_and_lose)
    async with running(app, **QUICK):
        done = await wait(await client.enqueue("quick"))
    assert len(ran) == 2
    assert done.attempts == 2
    assert await tables.events(done.id) == ["retried"]
    assert recorder.all("task.stale_result") == []


@pytest.mark.parametrize("priority", [0, 5], ids=["normal lane", "strict lane"])
async def test_tasks_it_lost_and_cannot_stop_do_not_keep_a_worker_from_those_behind_them(
    app, running, client, tables, wait, priority
):
    here, most, go_on = Counter(), Counter(), asyncio.Event()

    @app.task("stubborn")
    async def stubborn(n: int) -> None:
        here[n] += 1
        most[n] = max(most[n], here[n])
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                pass
        here[n] -= 1

    @app.task("other")
    async def other() -> None: ...

    async with running(app, concurrency=5, **QUICK):
        try:
            lost = await client.enqueue_many(
                [TaskRequest("stubborn", {"n": n}, priority=priority) for n in range(4)]
            )
            await tables.until("SELECT count(*) = 4 FROM asynctaskd.tasks WHERE status = 'running'")
            await tables.execute("UPDATE asynctaskd.workers SET lost_at = clock_timestamp()")
            for task_id in lost:
                await tables.until(RECOVERED, task_id)
            for _ in range(3):  # they are younger, so the lost ones stand before them
                await wait(await client.enqueue("other", priority=priority))
            assert await tables.column("SELECT status FROM asynctaskd.tasks") == ["pending"] * 4
        finally:
            go_on.set()
        for task_id in lost:
            await wait(task_id)
    assert most == Counter(range(4))


async def test_a_thread_past_its_timeout_whose_lease_is_lost_is_never_run_twice_at_once(
    app, running, client, tables, wait
):
    timed_out, go_on = threading.Event(), threading.Event()
    together, most = [], []

    @app.task("thread", timeout="50ms", retry=RetryPolicy("0s", max_attempts=5))
    def thread(ctx: TaskContext) -> None:
        together.append(1)
        most.append(len(together))
        while not ctx.cancelled and not go_on.is_set():
            go_on.wait(0.005)  # nobody tells a thread
        timed_out.set()
        go_on.wait(20)
        together.pop()

    @app.task("other")
    async def other() -> None: ...

    async with running(app, **QUICK):
        try:
            task_id = await client.enqueue("thread")
            assert await asyncio.to_thread(timed_out.wait, 10)
            await tables.execute("UPDATE asynctaskd.workers SET lost_at = clock_timestamp()")
            await tables.until(RECOVERED, task_id)
            for _ in range(3):  # whoever claims these has looked at the lost one too: it is older
                await wait(await client.enqueue("other"))
            assert (await tables.task(task_id))["status"] == "pending"
        finally:
            go_on.set()
        await wait(task_id)
    assert max(most) == 1


async def test_nobody_is_lost_to_a_lease_that_ended_while_the_server_was_down(
    app, running, client, tables, wait, dead_worker
):
    @app.task("hold")
    async def hold() -> None: ...

    task_id = await client.enqueue("hold")
    await dead_worker(task_id)
    await tables.execute(
        "UPDATE asynctaskd.workers SET renewed_at = clock_timestamp() - interval '9000 days',"
        " expires_at = clock_timestamp() - interval '1 day'"
    )
    async with running(app, **QUICK):
        await wait(await client.enqueue("hold"))
        await tables.until("SELECT bool_or(renewed_at > started_at + interval '1 s') FROM asynctaskd.workers")
        assert (await tables.task(task_id))["status"] == "running"
        await tables.execute(
            "UPDATE asynctaskd.workers SET renewed_at = expires_at WHERE hostname = 'gone'",
        )
        done = await wait(task_id)
    assert done.losses == 0
    assert await tables.events(task_id) == ["lease_lost"]
