from __future__ import annotations

import asyncio
from contextlib import suppress
from types import SimpleNamespace

import asyncpg
import pytest
from asyncpg.transaction import Transaction

from asynctaskd import (
    DatabaseUnavailableError,
    InvalidInputError,
    LeaseLostError,
    RetryPolicy,
    TaskContext,
)
from asynctaskd.postgres.store import Store


@pytest.fixture
async def store(database):
    opened = await Store.open(database.dsn, schema="asynctaskd")
    yield opened
    await opened.close()


@pytest.fixture
async def written(tables):
    """Reads what handlers have written."""
    await tables.execute("CREATE TABLE written (what text)")

    async def read() -> list[str]:
        return await tables.column("SELECT what FROM written ORDER BY what")

    return read


async def write(connection, what: str) -> None:
    await connection.execute("INSERT INTO written VALUES ($1)", what)


async def test_the_commit_completes_the_task_together_with_what_was_written(
    app, running, client, tables, wait, written, soon
):
    inside, go_on, after = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @app.task("book")
    async def book(ctx: TaskContext) -> str:
        async with ctx.transaction() as connection:
            await write(connection, "booking")
            ctx.result = {"seats": 2}
            inside.set()
            await go_on.wait()
        await after.wait()
        return "ignored: the task is completed"

    async with running(app):
        task_id = await client.enqueue("book")
        await soon(inside)
        assert (await tables.task(task_id))["status"] == "running"
        assert await written() == []
        go_on.set()
        done = await wait(task_id)
        assert await written() == ["booking"]
        after.set()
    assert (done.result, done.attempts) == ({"seats": 2}, 1)
    assert (await tables.task(task_id))["result"] == '{"seats": 2}'
    assert await tables.events(task_id) == []


async def test_an_error_inside_rolls_back_and_is_retried(app, running, client, wait, written):
    @app.task("book", retry=RetryPolicy("0s", max_attempts=3))
    async def book(ctx: TaskContext) -> None:
        async with ctx.transaction() as connection:
            await write(connection, f"attempt {ctx.attempt}")
            if ctx.attempt < 3:
                raise ValueError

    async with running(app):
        done = await wait(await client.enqueue("book"))
    assert await written() == ["attempt 3"]
    assert done.attempts == 3


TAKEN_AWAY = """
    WITH taken AS (
        UPDATE asynctaskd.tasks SET claim_token = claim_token + 1 WHERE id = $1
        RETURNING id, claim_token - 1 AS lost
    )
    INSERT INTO asynctaskd.task_events (task_id, claim_token, kind) SELECT id, lost, 'lease_lost' FROM taken
"""
"""What it looks like where another worker was given the task."""


async def test_a_stale_claim_raises_lease_lost_and_rolls_back(
    app, running, client, tables, written, recorder, soon
):
    caught = asyncio.Event()

    @app.task("book")
    async def book(ctx: TaskContext) -> None:
        with pytest.raises(LeaseLostError):  # noqa: PT012  (it is raised at the end of the inner block)
            async with ctx.transaction() as connection:
                await write(connection, "from a zombie")
                await tables.execute(TAKEN_AWAY, ctx.task_id)
        caught.set()

    async with running(app):
        task_id = await client.enqueue("book")
        await soon(caught)
        await recorder.wait_for("task.stale_result", task_id=task_id)
    assert await written() == []
    assert (await tables.task(task_id))["status"] == "running"
    assert await tables.events(task_id) == ["lease_lost", "stale_result"]


async def test_progress_of_a_stale_claim_raises_lease_lost(app, running, client, tables, soon):
    caught = asyncio.Event()

    @app.task("climb")
    async def climb(ctx: TaskContext) -> None:
        await tables.execute(
            "UPDATE asynctaskd.tasks SET claim_token = claim_token + 1 WHERE id = $1", ctx.task_id
        )
        with pytest.raises(LeaseLostError):
            await ctx.progress(50)
        caught.set()

    async with running(app):
        await client.enqueue("climb")
        await soon(caught)


async def test_a_second_transaction_in_one_attempt_is_refused(app, running, client, wait, written, soon):
    refused = asyncio.Event()

    @app.task("book")
    async def book(ctx: TaskContext) -> None:
        async with ctx.transaction() as connection:
            await write(connection, "first")
        with pytest.raises(InvalidInputError, match="once per attempt"):
            async with ctx.transaction() as connection:
                await write(connection, "second")
        refused.set()

    async with running(app):
        await wait(await client.enqueue("book"))
        await soon(refused)
    assert await written() == ["first"]


async def test_a_transaction_inside_another_is_refused(app, running, client, wait, written):
    @app.task("book")
    async def book(ctx: TaskContext) -> None:
        async with ctx.transaction() as connection:
            await write(connection, "outer")
            with pytest.raises(InvalidInputError, match="once per attempt"):
                async with ctx.transaction() as inner:
                    await write(inner, "inner")

    async with running(app):
        await wait(await client.enqueue("book"))
    assert await written() == ["outer"]


async def test_what_the_handler_does_after_the_commit_changes_nothing(
    app, running, client, tables, wait, written, recorder
):
    @app.task("book", retry=RetryPolicy("0s"))
    async def book(ctx: TaskContext) -> None:
        async with ctx.transaction() as connection:
            await write(connection, "booking")
        raise ValueError("too late")

    @book.on_failed
    async def book_failed(params, failure, tx) -> None:
        await write(tx, "hook")

    async with running(app):
        task_id = await client.enqueue("book")
        await recorder.wait_for("task.after_commit", task_id=task_id)
        done = await wait(task_id)
    assert (done.status, done.attempts, done.last_error) == ("completed", 1, None)
    assert await written() == ["booking"]
    assert await tables.events(task_id) == []


async def test_a_stop_after_the_commit_writes_nothing_more(app, running, client, tables, written, soon):
    committed, go_on = asyncio.Event(), asyncio.Event()

    @app.task("book")
    async def book(ctx: TaskContext) -> None:
        async with ctx.transaction() as connection:
            await write(connection, "booking")
        committed.set()
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                pass

    async with running(app, leaves_tasks=True):
        task_id = await client.enqueue("book")
        await soon(committed)
    go_on.set()
    assert (await tables.task(task_id))["status"] == "completed"
    assert await tables.events(task_id) == []


async def test_an_sql_error_that_was_swallowed_inside_does_not_complete_the_task(
    app, running, client, tables, written
):
    @app.task("book")
    async def book(ctx: TaskContext) -> None:
        async with ctx.transaction() as connection:
            await write(connection, "booking")
            try:
                await connection.execute("SELECT 1/0")
            except asyncpg.PostgresError:
                pass

    async with running(app):
        row = await tables.until_status(await client.enqueue("book"), "failed")
    assert await written() == []
    assert "InFailedSQLTransactionError" in row["last_error"]


async def test_a_constraint_that_is_checked_at_commit_fails_the_attempt(
    app, running, client, tables, written
):
    await tables.execute("ALTER TABLE written ADD UNIQUE (what) DEFERRABLE INITIALLY DEFERRED")

    @app.task("book")
    async def book(ctx: TaskContext) -> None:
        async with ctx.transaction() as connection:
            await write(connection, "same")
            await write(connection, "same")

    async with running(app):
        row = await tables.until_status(await client.enqueue("book"), "failed")
    assert await written() == []
    assert "unique" in row["last_error"].lower()


async def test_a_result_that_cannot_be_stored_rolls_back(app, running, client, tables, written):
    @app.task("book")
    async def book(ctx: TaskContext) -> None:
        async with ctx.transaction() as connection:
            await write(connection, "booking")
            ctx.result = object()

    async with running(app):
        row = await tables.until_status(await client.enqueue("book"), "failed")
    assert await written() == []
    assert "result" in row["last_error"]


async def test_a_child_enqueued_inside_is_committed_with_it(app, running, client, wait, tables, written):
    @app.task("book", retry=RetryPolicy("0s", max_attempts=2))
    async def book(ctx: TaskContext) -> None:
        async with ctx.transaction():
            ctx.result = await ctx.enqueue("confirm")
            if ctx.attempt == 1:
                raise ValueError

    @app.task("confirm")
    async def confirm() -> None: ...

    async with running(app):
        done = await wait(await client.enqueue("book"))
        child = await wait(done.result)
    assert child.parent_id == done.id
    assert await tables.value("SELECT count(*) FROM asynctaskd.all_tasks WHERE name = 'confirm'") == 1


async def test_the_timeout_bounds_the_transaction(app, running, client, tables, written, soon):
    @app.task("book", timeout="50ms")
    async def book(ctx: TaskContext) -> None:
        async with ctx.transaction() as connection:
            await write(connection, "booking")
            await connection.execute("SELECT pg_sleep(30)")

    async with running(app):
        row = await tables.until_status(await client.enqueue("book"), "failed")
    assert row["reason"] == "timeout"
    assert await written() == []
    assert (
        await tables.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND query LIKE '%pg_sleep(30)%' AND state = 'active' AND pid <> pg_backend_pid()"
        )
        == 0
    )


async def test_handlers_that_want_more_connections_than_there_are_wait_for_each_other(
    app, running, client, wait, written
):
    @app.task("book")
    async def book(n: int, ctx: TaskContext) -> None:
        async with ctx.transaction() as connection:
            await write(connection, f"{n:02}")

    ids = [await client.enqueue("book", {"n": n}) for n in range(20)]
    async with running(app, pool_size=1, concurrency=20):
        for task_id in ids:
            await wait(task_id)
    assert await written() == [f"{n:02}" for n in range(20)]


async def test_a_serial_key_moves_on_after_a_transaction(app, running, client, wait, tables, written):
    @app.task("book")
    async def book(ctx: TaskContext) -> None:
        async with ctx.transaction() as connection:
            await write(connection, "one")

    async with running(app, poll_interval="1h") as daemon:
        await tables.until_idle(daemon)
        first = await client.enqueue("book", serial_key="k")
        second = await client.enqueue("book", serial_key="k")
        await wait(first)
        await wait(second)


@pytest.fixture
def at_commit(monkeypatch):
    """Stands in for the first COMMIT of a task's transaction: `at_commit(stand_in)`, given the real one."""

    def replace(stand_in):
        commit, seen = Transaction.commit, []

        async def once(self) -> None:
            if seen:
                await commit(self)
            else:
                seen.append(self)
                await stand_in(lambda: commit(self))

        monkeypatch.setattr(Transaction, "commit", once)

    return replace


async def test_a_transaction_that_broke_before_its_commit_and_whose_task_was_recovered_raises(
    app, running, client, tables, wait, written, at_commit, soon
):
    pids, errors, told = [], [], asyncio.Event()

    @app.task("book")
    async def book(ctx: TaskContext) -> None:
        try:
            async with ctx.transaction() as connection:
                pids.append(await connection.fetchval("SELECT pg_backend_pid()"))
                await write(connection, f"attempt {ctx.attempt}")
        except BaseException as error:
            errors.append(error)
            raise
        finally:
            told.set()

    async def broken_and_recovered(commit) -> None:
        await tables.value("SELECT pg_terminate_backend($1)", pids[0])
        await tables.until("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", pids[0])
        await tables.execute("UPDATE asynctaskd.workers SET expires_at = clock_timestamp()")
        assert len(await Store(tables._pool, "asynctaskd").recover()) == 1
        await commit()

    at_commit(broken_and_recovered)
    async with running(
        app, lease="1h", renew_interval="20m", poll_interval="1h"
    ) as daemon:  # it doesn't notice itself
        await tables.until_idle(daemon)
        task_id = await client.enqueue("book")
        await soon(told)
        [error] = errors
        assert isinstance(error, (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)), repr(error)
        assert await written() == []
        assert (await tables.task(task_id))["status"] == "pending"
    async with running(app):
        done = await wait(task_id)
    assert await written() == ["attempt 2"]
    assert (done.attempts, len(errors)) == (2, 1)


async def test_a_commit_whose_answer_got_lost_completes_the_task_once(
    app, running, client, tables, wait, written, at_commit
):
    ran = []

    @app.task("book", retry=RetryPolicy("0s"))
    async def book(ctx: TaskContext) -> None:
        ran.append(ctx.attempt)
        async with ctx.transaction() as connection:
            await write(connection, f"attempt {ctx.attempt}")
            ctx.result = "booked"

    async def answer_lost(commit) -> None:
        await commit()
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    at_commit(answer_lost)
    async with running(app) as daemon:
        done = await wait(await client.enqueue("book"))
        await asyncio.wait_for(daemon._slots.wait_empty(), 60)
    assert (ran, done.attempts, done.result, done.last_error) == ([1], 1, "booked", None)
    assert await written() == ["attempt 1"]
    assert await tables.events(done.id) == []


@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
async def test_a_transaction_that_was_ended_inside_its_block_does_not_complete_the_task(
    app, running, client, tables, written, ending
):
    @app.task("book")
    async def book(ctx: TaskContext) -> None:
        async with ctx.transaction() as connection:
            await write(connection, "booking")
            await connection.execute(ending)

    async with running(app):
        row = await tables.until_status(await client.enqueue("book"), "failed")
    assert "ended by COMMIT or ROLLBACK within it" in row["last_error"]
    assert await written() == (["booking"] if ending == "COMMIT" else [])


async def test_an_error_of_the_database_that_is_swallowed_inside_completes_nothing(
    app, running, client, tables, written
):
    @app.task("book")
    async def book(ctx: TaskContext) -> None:
        async with ctx.transaction() as connection:
            await write(connection, "booking")
            with pytest.raises(asyncpg.DivisionByZeroError):
                await connection.execute("SELECT 1 / 0")

    async with running(app):
        row = await tables.until_status(await client.enqueue("book"), "failed")
    assert "InFailedSQLTransactionError" in row["last_error"]
    assert await written() == []


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError("mail"), DatabaseUnavailableError("another database")], ids=repr
)
async def test_what_a_handler_loses_of_others_inside_is_a_failure_and_spends_an_attempt(
    app, running, client, tables, error
):
    @app.task("book")
    async def book(ctx: TaskContext) -> None:
        async with ctx.transaction():
            raise error

    async with running(app):
        task_id = await client.enqueue("book")
        await tables.until("SELECT EXISTS (SELECT FROM asynctaskd.task_events WHERE task_id = $1)", task_id)
    assert await tables.events(task_id) == ["failed"]
    assert (await tables.task(task_id))["attempts"] == 1


async def test_a_transaction_whose_connection_is_lost_inside_spends_no_attempt(
    app, running, client, tables, wait
):
    ran = []

    @app.task("book")
    async def book(ctx: TaskContext) -> None:
        ran.append(ctx.attempt)
        async with ctx.transaction() as connection:
            if len(ran) == 1:
                await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    async with running(app):
        done = await wait(await client.enqueue("book"))
    assert (ran, done.attempts) == ([1, 1], 1)
    assert await tables.events(done.id) == ["snoozed"]
    assert "terminating connection" in done.last_error


async def test_a_transaction_that_loses_its_connection_each_time_fails_after_two_that_are_forgiven(
    app, running, client, tables
):
    @app.task("book")
    async def book(ctx: TaskContext) -> None:
        async with ctx.transaction() as connection:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    task_id = await client.enqueue("book")
    async with running(app):
        for reason in ("connection_lost", "connection_lost_again"):
            await tables.until("SELECT reason = $2 FROM asynctaskd.all_tasks WHERE id = $1", task_id, reason)
            await tables.execute("UPDATE asynctaskd.tasks SET run_at = now() WHERE id = $1", task_id)
        await tables.until("SELECT status = 'failed' FROM asynctaskd.all_tasks WHERE id = $1", task_id)
    failed = await client.get_task(task_id)
    assert (failed.status, failed.reason, failed.attempts) == ("failed", "connection_lost_again", 1)
    assert await tables.events(task_id) == ["snoozed", "snoozed", "failed"]


async def test_a_transaction_may_idle_whatever_limit_the_database_sets(
    app, running, client, connection, tables, wait
):
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f'ALTER DATABASE "{name}" SET idle_in_transaction_session_timeout = 200')

    @app.task("book")
    async def book(ctx: TaskContext) -> None:
        async with ctx.transaction() as own:
            backend = await own.fetchval("SELECT pg_backend_pid()")
            await tables.until(
                "SELECT state = 'idle in transaction' AND clock_timestamp() - state_change > '400 ms'"
                " FROM pg_stat_activity WHERE pid = $1",
                backend,
            )
            ctx.result = "idled"

    async with running(app):
        done = await wait(await client.enqueue("book"))
    assert (done.result, done.attempts) == ("idled", 1)
    assert await tables.events(done.id) == []


@pytest.mark.parametrize(
    ("found", "status", "committed"),
    [("this", "running", False), ("this", "pending", True), ("rolled back", "pending", False)],
)
async def test_whether_an_end_was_committed_is_asked_of_the_row_too(
    tables, client, store, found, status, committed
):
    """After a failover another transaction may have the id of one that the new server lacks."""
    task_id = await client.enqueue("one")
    async with tables.transaction() as connection:
        transaction_id = await connection.fetchval("SELECT pg_current_xact_id()::text")
    if found == "rolled back":
        with suppress(ZeroDivisionError):
            async with tables.transaction() as connection:
                transaction_id = await connection.fetchval("SELECT pg_current_xact_id()::text")
                raise ZeroDivisionError
    await tables.execute(
        "UPDATE asynctaskd.tasks SET status = $2, claim_token = 7, claimed_at = clock_timestamp(),"
        " worker_id = CASE WHEN $2 = 'running' THEN gen_random_uuid() END WHERE id = $1",
        task_id,
        status,
    )
    claimed = SimpleNamespace(id=task_id, claim_token=7)
    assert await store.was_committed(transaction_id, claimed) is committed


async def test_a_transaction_that_the_server_has_not_come_to_yet_was_not_committed(store, tables):
    now = int(await tables.value("SELECT pg_current_xact_id()::text"))
    assert not await store.was_committed(str(now + 1_000_000), SimpleNamespace(id=1, claim_token=1))
