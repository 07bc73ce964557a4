from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from asynctaskd import RetryPolicy, TaskContext, TaskRequest

QUICK = {"lease": "3s", "renew_interval": "100ms", "poll_interval": "50ms"}


async def test_tasks_that_run_while_every_connection_is_ended_complete_once(
    app, running, client, tables, wait
):
    ran, go_on = Counter(), asyncio.Event()

    @app.task("hold")
    async def hold(n: int) -> None:
        ran[n] += 1
        await go_on.wait()

    ids = await client.enqueue_many([TaskRequest("hold", {"n": n}) for n in range(10)])
    async with running(app, **QUICK):
        await tables.until("SELECT count(*) = 10 FROM asynctaskd.tasks WHERE status = 'running'")
        assert await tables.terminate() >= 4
        go_on.set()
        for task_id in ids:
            done = await wait(task_id)
            assert (done.attempts, done.losses) == (1, 0)
            assert await tables.events(task_id) == []
    assert ran == Counter(range(10))


async def test_connections_that_are_ended_again_and_again_lose_nothing(
    app, running, client, tables, recorder
):
    ran = Counter()

    @app.task("one", retry=RetryPolicy("0s", max_attempts=2))
    async def one(n: int, ctx: TaskContext) -> None:
        ran[n] += 1
        if n % 10 == 0 and ctx.attempt == 1:
            raise ValueError

    async with running(app, **QUICK), running(app, **QUICK):
        await client.enqueue_many([TaskRequest("one", {"n": n}) for n in range(500)])
        for finished in (50, 150, 250, 350, 450):
            await tables.until("SELECT count(*) >= $1 FROM asynctaskd.finished_tasks", finished)
            await tables.terminate()
        await tables.until("SELECT count(*) = 500 FROM asynctaskd.finished_tasks")
    assert (
        await tables.value("SELECT count(*) FROM asynctaskd.finished_tasks WHERE status = 'completed'") == 500
    )
    assert set(ran) == set(range(500))
    assert all(times == (2 if n % 10 == 0 else 1) for n, times in ran.items())


async def test_an_outage_is_told_once_and_so_is_its_end(app, running, client, wait, recorder, monkeypatch):
    from asynctaskd.errors import DatabaseUnavailableError
    from asynctaskd.postgres.store import Store

    renew, failures = Store.renew_lease, []

    async def away(self, *args, **kwargs):
        if len(failures) < 3:
            failures.append(1)
            raise DatabaseUnavailableError("away")
        return await renew(self, *args, **kwargs)

    monkeypatch.setattr(Store, "renew_lease", away)
    async with running(app, **QUICK):
        await recorder.wait_for("database.restored", station="lease")
    assert len(recorder.all("database.lost", station="lease")) == 1


async def test_a_step_that_asks_for_nothing_is_no_end_of_an_outage(
    app, running, client, wait, recorder, monkeypatch
):
    from asynctaskd.errors import DatabaseUnavailableError
    from asynctaskd.postgres.store import Store

    look, failures = Store.ready_sets, []

    async def away(self, *args, **kwargs):
        if len(failures) < 4:
            failures.append(1)
            raise DatabaseUnavailableError("away")
        return await look(self, *args, **kwargs)

    monkeypatch.setattr(Store, "ready_sets", away)
    async with running(app, **{**QUICK, "poll_interval": "1s"}):
        await recorder.wait_for("database.restored", station="claim")
        assert len(failures) == 4
    assert len(recorder.all("database.lost", station="claim")) == 1
    assert len(recorder.all("database.restored", station="claim")) == 1


async def test_who_waits_for_a_lease_does_not_say_that_the_database_is_back(
    app, running, recorder, monkeypatch
):
    from asynctaskd.errors import DatabaseUnavailableError
    from asynctaskd.postgres.configs import ConfigStore
    from asynctaskd.postgres.store import Store

    is_away, tried = False, []

    def fragile(ask, name):
        async def asked(*args, **kwargs):
            if is_away:
                tried.append(name)
                raise DatabaseUnavailableError("away")
            return await ask(*args, **kwargs)

        return asked

    for owner, name in ((Store, "renew_lease"), (Store, "register_worker"), (ConfigStore, "claim_control")):
        monkeypatch.setattr(owner, name, fragile(getattr(owner, name), name))
    async with running(app, **{**QUICK, "lease": "1s"}):
        is_away = True
        await recorder.wait_for("database.lost", station="control")
        await recorder.wait_for("lease.lost")
        tried.clear()
        async with asyncio.timeout(60):
            while len(tried) < 4:  # noqa: ASYNC110  (each comes after a longer pause than theirs)
                await asyncio.sleep(0.01)
        assert recorder.all("database.restored") == []
        is_away = False
        await recorder.wait_for("database.restored", station="control")


async def test_a_finalize_that_fails_is_repeated_until_it_is_written(
    app, running, client, wait, tables, monkeypatch
):
    from asynctaskd.errors import DatabaseUnavailableError
    from asynctaskd.postgres.store import Store

    finalize, failures, ran = Store.finalize, [], []

    async def away(self, batch):
        if batch and len(failures) < 3:
            failures.append(1)
            raise DatabaseUnavailableError("away")
        return await finalize(self, batch)

    @app.task("one")
    async def one() -> int:
        ran.append(1)
        return 7

    monkeypatch.setattr(Store, "finalize", away)
    async with running(app, **QUICK):
        done = await wait(await client.enqueue("one"))
    assert (ran, done.result, len(failures)) == ([1], 7, 3)
    assert await tables.events(done.id) == []


async def test_one_result_the_database_refuses_fails_alone(app, running, client, wait, tables, monkeypatch):
    from asynctaskd.definitions.definition import Definition

    go_on = asyncio.Event()

    @app.task("say")
    async def say(word: str) -> str:
        await go_on.wait()
        return word

    # Past the check in Python: what only the server refuses.
    monkeypatch.setattr(Definition, "dump_result", lambda self, value: f'"{value}"')
    async with running(app):
        bad = await client.enqueue("say", {"word": "\\x"})
        good = [await client.enqueue("say", {"word": f"w{n}"}) for n in range(5)]
        await tables.until("SELECT count(*) = 6 FROM asynctaskd.tasks WHERE status = 'running'")
        go_on.set()
        row = await tables.until_status(bad, "failed")
        assert [(await wait(task_id)).result for task_id in good] == [f"w{n}" for n in range(5)]
    assert row["reason"] == "invalid_result"


async def test_a_daemon_that_starts_before_its_database_waits_for_it(
    app, daemon_of, client, wait, monkeypatch, recorder
):
    from asynctaskd.daemon import supervisor
    from asynctaskd.errors import DatabaseUnavailableError

    require, failures = supervisor.require_primary, []

    async def away(*args, **kwargs):
        if len(failures) < 2:
            failures.append(1)
            raise DatabaseUnavailableError("away")
        return await require(*args, **kwargs)

    @app.task("one")
    async def one() -> None: ...

    monkeypatch.setattr(supervisor, "require_primary", away)
    daemon = daemon_of(app)
    life = asyncio.create_task(daemon.run())
    await wait(await client.enqueue("one"))
    daemon.stop()
    await asyncio.wait_for(life, 60)
    assert len(recorder.all("database.lost", station="start")) == 1


async def test_a_schema_that_is_missing_ends_the_daemon_with_its_error(app, daemon_of, tables):
    from asynctaskd import SchemaVersionError

    await tables.execute("DROP SCHEMA asynctaskd CASCADE")
    with pytest.raises(SchemaVersionError):
        await asyncio.wait_for(daemon_of(app).run(), 60)


async def test_a_claim_whose_answer_got_lost_is_put_back_though_the_slots_are_taken_meanwhile(
    app, running, client, tables, wait, monkeypatch
):
    from asynctaskd.daemon import doubts
    from asynctaskd.errors import DatabaseUnavailableError
    from asynctaskd.postgres.store import Store

    claim, release, lost, go_on = Store.claim, Store.release_orphans, [], asyncio.Event()

    async def unanswered(self, *args, **kwargs):
        claimed = await claim(self, *args, **kwargs)
        if claimed and not lost:
            lost.append(claimed[0].id)
            raise DatabaseUnavailableError("the answer got lost")
        return claimed

    async def refused(self, *args):
        if len(lost) == 1:
            lost.append(await client.enqueue("long"))
            raise DatabaseUnavailableError("not yet")
        return await release(self, *args)

    @app.task("first")
    async def first() -> None: ...

    @app.task("long")
    async def long() -> None:
        await go_on.wait()

    monkeypatch.setattr(Store, "claim", unanswered)
    monkeypatch.setattr(Store, "release_orphans", refused)
    monkeypatch.setattr(doubts, "_DOUBT", timedelta())
    async with running(app, concurrency=1, **QUICK | {"poll_interval": "1s"}):
        first_id = await client.enqueue("first")
        await tables.until(
            "SELECT array_agg(status ORDER BY id) = '{pending,running}' FROM asynctaskd.tasks WHERE id >= $1",
            first_id,
        )
        go_on.set()
        done = await wait(first_id)
    assert (done.attempts, done.losses) == (1, 0)
    assert await tables.events(first_id) == ["released"]


async def test_releasing_orphans_late_spares_what_was_claimed_since(
    app, running, client, tables, database, wait
):
    from asynctaskd.postgres.store import Store

    go_on = asyncio.Event()

    @app.task("hold")
    async def hold() -> None:
        await go_on.wait()

    store = await Store.open(database.dsn, schema="asynctaskd", connections=1)
    async with running(app, **QUICK) as worker:
        before = await store.clock()
        task_id = await client.enqueue("hold")
        await tables.until("SELECT status = 'running' FROM asynctaskd.tasks WHERE id = $1", task_id)
        assert await store.release_orphans(worker.worker_id, [], before) == 0
        go_on.set()
        assert (await wait(task_id)).attempts == 1
    await store.close()


async def test_a_claim_that_comes_to_light_long_after_anybody_asked_is_put_back_and_run(
    app, running, client, tables, wait, monkeypatch
):
    from asynctaskd.daemon import doubts

    @app.task("late")
    async def late() -> str:
        return "ran"

    monkeypatch.setattr(doubts, "_AUDIT_INTERVAL", 0.1)
    async with running(app, **QUICK) as daemon:
        async with tables.transaction() as connection:
            task_id = await client.enqueue("late", connection=connection)
            await connection.execute(
                # What a backend that was frozen does with a claim that it was sent.
                "UPDATE asynctaskd.tasks SET status = 'running', worker_id = $2, claim_token = 1,"
                " attempts = 1, claimed_at = clock_timestamp() WHERE id = $1",
                task_id,
                daemon.worker_id,
            )
        done = await wait(task_id)
    assert (done.result, done.attempts, done.claim_token) == ("ran", 1, 2)
    assert await tables.events(task_id) == ["released"]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_row_that_somebody_keeps_locked_keeps_no_other_end_from_being_written(
    app, running, client, tables, wait, soon, fails
):
    entered, go_on = asyncio.Semaphore(0), asyncio.Event()

    @app.task("hold")
    async def hold(n: int) -> int:
        entered.release()
        await go_on.wait()
        if fails and n == 2:
            raise ValueError("no")
        return n

    async with running(app, **QUICK):
        ids = [await client.enqueue("hold", {"n": n}) for n in range(5)]
        for _ in ids:
            await entered.acquire()
        async with tables.transaction() as connection:
            await connection.execute("SELECT FROM asynctaskd.tasks WHERE id = $1 FOR UPDATE", ids[2])
            go_on.set()
            for task_id in (*ids[:2], *ids[3:]):
                await wait(task_id)
            await wait(await client.enqueue("hold", {"n": 5}))  # nor one that comes later
            assert (await tables.task(ids[2]))["status"] == "running"
        ended = "SELECT status FROM asynctaskd.finished_tasks WHERE id = $1"
        await tables.until(f"SELECT ({ended}) = $2", ids[2], "failed" if fails else "completed")
