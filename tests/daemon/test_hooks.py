from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from pydantic import BaseModel

from asynctaskd import RetryPolicy, TaskContext
from asynctaskd.daemon import hooks
from asynctaskd.daemon.transactions import Transactions
from asynctaskd.errors import DatabaseUnavailableError


class Order(BaseModel):
    number: int


@pytest.fixture
async def notes(tables):
    """Reads what hooks have written."""
    await tables.execute("CREATE TABLE notes (task_id bigint, note text)")

    async def read() -> list[str]:
        return await tables.column("SELECT note FROM notes ORDER BY note")

    return read


async def write(tx, failure, note: str) -> None:
    await tx.execute("INSERT INTO notes VALUES ($1, $2)", failure.task_id, note)


async def test_a_hook_writes_in_the_transaction_that_writes_the_status(
    app, running, client, tables, notes, soon
):
    written, go_on = asyncio.Event(), asyncio.Event()

    @app.task("ship")
    async def ship(order: Order) -> None:
        raise ValueError("no stock")

    @ship.on_failed
    async def ship_failed(order, failure, tx) -> None:
        await write(tx, failure, f"order {order.number}")
        assert await tx.fetchval(
            "SELECT status FROM asynctaskd.all_tasks WHERE id = $1", failure.task_id
        ) == ("failed")
        written.set()
        await go_on.wait()

    async with running(app):
        task_id = await client.enqueue("ship", {"number": 7})
        await soon(written)
        assert (await tables.task(task_id))["status"] == "running"
        assert await notes() == []
        go_on.set()
        await tables.until_status(task_id, "failed")
        assert await notes() == ["order 7"]
    assert await tables.events(task_id) == ["failed"]


async def test_a_hook_is_told_what_failed_and_how_with_typed_params(app, running, client, tables):
    told = []

    @app.task("ship", retry=RetryPolicy("0s", max_attempts=3))
    async def ship(order: Order) -> None:
        raise ValueError("no stock")

    @ship.on_failed
    async def ship_failed(order, failure, tx) -> None:
        told.append((order, failure))

    async with running(app):
        task_id = await client.enqueue("ship", {"number": 7})
        await tables.until_status(task_id, "failed")
    [(order, failure)] = told
    assert order == Order(number=7)
    assert (failure.task_id, failure.name, failure.attempts, failure.max_attempts) == (task_id, "ship", 3, 3)
    assert (failure.error, failure.reason, failure.payload) == (
        "ValueError: no stock",
        "error",
        {"number": 7},
    )


async def test_a_hook_of_plain_arguments_gets_them_by_name(app, running, client, tables):
    told = []

    @app.task("add")
    def add(a: int, b: int = 5) -> int:
        raise ValueError

    @add.on_failed
    async def add_failed(params, failure, tx) -> None:
        told.append(params)

    async with running(app):
        await tables.until_status(await client.enqueue("add", {"a": 1}), "failed")
    assert told[0]["a"] == 1


async def test_no_hook_runs_between_retries_or_after_success(app, running, client, wait, tables):
    told = []

    @app.task("flaky", retry=RetryPolicy("0s", max_attempts=3))
    async def flaky(ctx: TaskContext) -> None:
        if ctx.attempt < 3:
            raise ValueError

    @flaky.on_failed
    async def flaky_failed(params, failure, tx) -> None:
        told.append(failure)

    app.on_failed(lambda_hook(told))
    async with running(app):
        await wait(await client.enqueue("flaky"))
    assert told == []


def lambda_hook(told):
    async def hook(failure, tx) -> None:
        told.append(failure)

    return hook


async def test_the_apps_hook_sees_every_final_failure_beside_the_tasks_own(
    app, running, client, tables, notes
):
    @app.task("own")
    async def own() -> None:
        raise ValueError

    @app.task("none")
    async def none() -> None:
        raise ValueError

    @own.on_failed
    async def own_failed(params, failure, tx) -> None:
        await write(tx, failure, "task's own")

    @app.on_failed
    async def any_failed(failure, tx) -> None:
        await write(tx, failure, f"app's of {failure.name}")

    async with running(app):
        for name in ("own", "none"):
            await tables.until_status(await client.enqueue(name), "failed")
    assert await notes() == ["app's of none", "app's of own", "task's own"]


async def test_a_hook_that_raises_twice_is_tried_a_third_time_and_leaves_one_write(
    app, running, client, tables, notes, recorder
):
    tries = []

    @app.task("ship")
    async def ship() -> None:
        raise ValueError

    @ship.on_failed
    async def ship_failed(params, failure, tx) -> None:
        tries.append(await tx.fetchval("SELECT count(*) FROM notes"))
        await write(tx, failure, "told")
        if len(tries) < 3:
            raise LookupError("not yet")

    async with running(app):
        task_id = await client.enqueue("ship")
        await recorder.wait_for("hook.failed", task_id=task_id)
        assert (await tables.task(task_id))["status"] == "running"
        await tables.until_status(task_id, "failed")
    assert tries == [0, 0, 0]
    assert await notes() == ["told"]
    assert await tables.events(task_id) == ["failed"]


async def test_after_the_third_failure_of_its_hook_the_status_is_written_alone(
    app, running, client, tables, notes
):
    tries = []

    @app.task("ship")
    async def ship() -> None:
        raise ValueError("no stock")

    @ship.on_failed
    async def ship_failed(params, failure, tx) -> None:
        tries.append(1)
        await write(tx, failure, "told")
        raise LookupError("never")

    async with running(app):
        task_id = await client.enqueue("ship")
        row = await tables.until_status(task_id, "failed")
    assert len(tries) == 3
    assert await notes() == []
    assert row["last_error"] == "ValueError: no stock"
    assert sorted(await tables.events(task_id)) == ["failed", "hook_failed"]
    assert (await tables.detail(task_id, "hook_failed"))["error"] == "LookupError: never"


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, KeyboardInterrupt])
async def test_whatever_a_hook_raises_the_daemon_lives_and_the_status_is_written(
    app, running, client, tables, wait, error
):
    @app.task("ship")
    async def ship(ok: bool) -> None:
        if not ok:
            raise ValueError

    @ship.on_failed
    async def ship_failed(params, failure, tx) -> None:
        raise error

    async with running(app):
        task_id = await client.enqueue("ship", {"ok": False})
        await wait(await client.enqueue("ship", {"ok": True}))
        await tables.until_status(task_id, "failed")
    assert sorted(await tables.events(task_id)) == ["failed", "hook_failed"]


async def test_a_hook_that_swallows_an_sql_error_has_failed(app, running, client, tables, notes):
    import asyncpg

    tries = []

    @app.task("ship")
    async def ship() -> None:
        raise ValueError

    @ship.on_failed
    async def ship_failed(params, failure, tx) -> None:
        tries.append(1)
        await write(tx, failure, f"try {len(tries)}")
        if len(tries) == 1:
            try:
                await tx.execute("SELECT 1/0")
            except asyncpg.PostgresError:
                pass

    async with running(app):
        await tables.until_status(await client.enqueue("ship"), "failed")
    assert await notes() == ["try 2"]


async def test_a_hook_whose_connection_breaks_is_called_again(app, running, client, tables, notes):
    tries = []

    @app.task("ship")
    async def ship() -> None:
        raise ValueError

    @ship.on_failed
    async def ship_failed(params, failure, tx) -> None:
        tries.append(1)
        await write(tx, failure, f"try {len(tries)}")
        if len(tries) == 1:
            await tx.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    async with running(app):
        task_id = await client.enqueue("ship")
        await tables.until_status(task_id, "failed")
    assert await notes() == ["try 2"]
    assert await tables.events(task_id) == ["failed"]


async def test_a_slow_hook_holds_up_nobody_else(app, running, client, tables, wait, soon):
    entered, go_on = asyncio.Event(), asyncio.Event()

    @app.task("ship")
    async def ship(ok: bool) -> None:
        if not ok:
            raise ValueError

    @ship.on_failed
    async def ship_failed(params, failure, tx) -> None:
        entered.set()
        await go_on.wait()

    @app.task("other")
    async def other() -> None:
        raise ValueError

    async with running(app, concurrency=2):
        slow = await client.enqueue("ship", {"ok": False})
        await soon(entered)
        for _ in range(5):
            await wait(await client.enqueue("ship", {"ok": True}))
            await tables.until_status(await client.enqueue("other"), "failed")
        assert (await tables.task(slow))["status"] == "running"
        go_on.set()
        await tables.until_status(slow, "failed")


async def test_a_hook_that_hangs_is_ended_at_its_own_limit_and_after_three_tries_the_status_stands_alone(
    app, running, client, tables, notes, monkeypatch
):
    monkeypatch.setattr(hooks, "_TIMEOUT", 0.05)
    tries = []

    @app.task("ship")
    async def ship() -> None:
        raise ValueError

    @ship.on_failed
    async def ship_failed(params, failure, tx) -> None:
        tries.append(await tables.value("SELECT expires_at FROM asynctaskd.workers"))
        await write(tx, failure, "never committed")
        await asyncio.Event().wait()

    async with running(app, lease="1500ms", renew_interval="100ms"):
        task_id = await client.enqueue("ship")
        await tables.until_status(task_id, "failed")
    assert await notes() == []
    assert len(tries) == 3
    assert sorted(set(tries)) == tries  # the lease was renewed all the while
    assert await tables.events(task_id) == ["failed", "hook_failed"]


async def test_no_session_of_a_worker_is_idle_in_a_transaction_while_a_handler_runs(
    app, running, client, tables, soon
):
    entered, go_on = asyncio.Event(), asyncio.Event()

    @app.task("hold")
    async def hold(ctx: TaskContext) -> None:
        entered.set()
        await go_on.wait()

    async with running(app, lease="1500ms", renew_interval="100ms", poll_interval="20ms"):
        await client.enqueue("hold")
        await soon(entered)
        [renewed] = await tables.column("SELECT renewed_at FROM asynctaskd.workers")
        await tables.until("SELECT renewed_at > $1 FROM asynctaskd.workers", renewed)
        in_transaction = await tables.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND state LIKE 'idle in transaction%'"
        )
        go_on.set()
    assert in_transaction == 0


async def test_a_stop_does_not_wait_for_a_hook_that_hangs_and_its_task_is_not_lost(
    app, running, client, tables, soon
):
    entered = asyncio.Event()

    @app.task("ship")
    async def ship() -> None:
        raise ValueError

    @ship.on_failed
    async def ship_failed(params, failure, tx) -> None:
        if not entered.is_set():
            entered.set()
            await asyncio.Event().wait()

    async with running(app):
        task_id = await client.enqueue("ship")
        await soon(entered)
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 5
    assert (await tables.task(task_id))["status"] in ("pending", "running")
    async with running(app):
        await tables.until_status(task_id, "failed")


async def test_expiry_has_no_hook(app, running, client, tables):
    told = []

    @app.task("late")
    async def late() -> None: ...

    @late.on_failed
    async def late_failed(params, failure, tx) -> None:
        told.append(failure)

    app.on_failed(lambda_hook(told))
    task_id = await client.enqueue("late", deadline="1ms")
    await tables.until("SELECT deadline < clock_timestamp() FROM asynctaskd.tasks WHERE id = $1", task_id)
    async with running(app):
        row = await tables.until_status(task_id, "expired")
    assert told == []
    assert row["attempts"] == 0
    assert await tables.events(task_id) == ["expired"]


async def test_a_hook_that_fails_holds_no_serial_key_back_for_ever(app, running, client, tables, wait):
    @app.task("ship")
    async def ship(ok: bool) -> None:
        if not ok:
            raise ValueError

    @ship.on_failed
    async def ship_failed(params, failure, tx) -> None:
        raise LookupError("never")

    async with running(app):
        first = await client.enqueue("ship", {"ok": False}, serial_key="k")
        second = await client.enqueue("ship", {"ok": True}, serial_key="k")
        await wait(second)
    assert (await tables.task(first))["status"] == "failed"


async def test_what_a_hook_wrote_and_the_commit_refuses_is_tried_three_times_and_then_left_out(
    app, running, client, tables, wait, recorder
):
    await tables.execute("CREATE TABLE orders (id bigint PRIMARY KEY)")
    await tables.execute(
        "CREATE TABLE complaints (order_id bigint REFERENCES orders DEFERRABLE INITIALLY DEFERRED)"
    )
    tries = Counter()

    @app.task("ship")
    async def ship() -> None:
        raise ValueError("no stock")

    @ship.on_failed
    async def ship_failed(params, failure, tx) -> None:
        tries[failure.task_id] += 1
        await tx.execute("INSERT INTO complaints VALUES (7)")  # there is no order 7: COMMIT will say so

    @app.task("other")
    async def other() -> None: ...

    async with running(app, concurrency=1) as daemon:
        ids = [await client.enqueue("ship") for _ in range(2)]  # as many as one slot can hold unwritten
        for task_id in ids:
            row = await tables.until_status(task_id, "failed")
            assert (row["last_error"], row["reason"]) == ("ValueError: no stock", "error")
            assert sorted(await tables.events(task_id)) == ["failed", "hook_failed"]
            assert "complaints" in (await tables.detail(task_id, "hook_failed"))["error"]
            assert len(recorder.all("hook.failed", task_id=task_id)) == 3
        await asyncio.wait_for(daemon._slots.wait_empty(), 60)
        await wait(await client.enqueue("other"))
    assert tries == dict.fromkeys(ids, 3)
    assert await tables.value("SELECT count(*) FROM complaints") == 0
    assert recorder.all("loop.crashed") == []


@pytest.mark.parametrize("ending", ["COMMIT", "COMMIT; BEGIN", "ROLLBACK", "ROLLBACK; BEGIN"])
async def test_a_hook_that_ends_its_transaction_is_found_out_and_the_failure_stands_all_the_same(
    app, running, client, tables, notes, ending
):
    @app.task("ship")
    async def ship() -> None:
        raise ValueError("no stock")

    @ship.on_failed
    async def ship_failed(params, failure, tx) -> None:
        await write(tx, failure, "told")
        await tx.execute(ending)

    async with running(app) as daemon:
        task_id = await client.enqueue("ship")
        await tables.until("SELECT count(*) = 1 FROM asynctaskd.task_events WHERE kind = 'hook_failed'")
        row = await tables.until_status(task_id, "failed")
        await asyncio.wait_for(daemon._slots.wait_empty(), 60)
    assert row["last_error"] == "ValueError: no stock"
    assert sorted(await tables.events(task_id)) == ["failed", "hook_failed"]
    assert await notes() == (["told"] if ending.startswith("COMMIT") else [])


async def test_a_hook_whose_commit_got_lost_after_a_failed_try_is_not_said_to_have_failed(
    app, running, client, tables, notes, monkeypatch
):
    commit, tries = Transactions._commit, []

    async def lost(self, execution, connection, transaction, written):
        await commit(self, execution, connection, transaction, written)
        execution.stored = False
        raise DatabaseUnavailableError("the answer got lost, and so did the next one")

    @app.task("ship")
    async def ship() -> None:
        raise ValueError("no stock")

    @ship.on_failed
    async def ship_failed(params, failure, tx) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("not yet")
        await write(tx, failure, "told")

    monkeypatch.setattr(Transactions, "_commit", lost)
    async with running(app):
        task_id = await client.enqueue("ship")
        await tables.until_status(task_id, "failed")
    assert (len(tries), await notes()) == (2, ["told"])
    assert await tables.events(task_id) == ["failed"]


async def test_a_hook_that_lost_three_workers_to_its_quarantine_is_not_called_again(
    app, running, client, tables, recorder
):
    called = []

    @app.task("killer")
    async def killer() -> None:
        called.append("handler")

    @killer.on_failed
    async def killer_failed(params, failure, tx) -> None:
        called.append("hook")

    task_id = await client.enqueue("killer", delay="1h")
    await tables.execute(
        "UPDATE asynctaskd.tasks SET losses = 6, reason = 'quarantined', run_at = clock_timestamp()"
        " WHERE id = $1",
        task_id,
    )
    async with running(app, poll_interval="50ms"):
        row = await tables.until_status(task_id, "failed")
    assert called == []
    assert (row["reason"], row["losses"]) == ("quarantined", 3)
    assert sorted(await tables.events(task_id)) == ["hook_failed", "quarantined"]
    assert "worker was lost" in (await tables.detail(task_id, "hook_failed"))["error"]
