"""Starting with the worker.id of another worker, which is gone, or silent, or alive."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest

from asynctaskd import TaskContext, WorkerIdTakenError
from asynctaskd.daemon import identity, supervisor
from asynctaskd.daemon.process import Process
from asynctaskd.daemon.proof import hold_name, place

NAME = UUID("6f1c7c52-0f5a-4a56-9a3e-2f3f0c5d8b11")
QUICK = {"id": str(NAME), "poll_interval": "50ms", "renew_interval": "100ms", "lease": "20s"}
PROVABLE = pytest.mark.skipif(place() is None, reason="only Linux has names that end with their owner")


@pytest.fixture
def predecessor(tables):
    """A worker of that name with a lease: `await predecessor(place=…, lease=…, holding=task_id)`."""

    async def insert(*, process=None, place=None, lease=3600.0, holding=None) -> UUID:
        worker_id = uuid4()
        await tables.execute(
            """INSERT INTO asynctaskd.workers
                      (id, name, process, place, hostname, pid, version, labels, names, concurrency,
                       expires_at)
               VALUES ($1, $2, $3, $4, 'before', 7, '0', '{}', '{}', 1,
                       clock_timestamp() + make_interval(secs => $5))""",
            worker_id,
            NAME,
            process or uuid4(),
            place,
            lease,
        )
        await tables.execute(
            """UPDATE asynctaskd.tasks
               SET status = 'running', worker_id = $2, claim_token = claim_token + 1, attempts = attempts + 1,
                   claimed_at = clock_timestamp()
               WHERE id = $1""",
            holding,
            worker_id,
        )
        return worker_id

    return insert


@pytest.fixture
def resume(app):
    @app.task("resume")
    async def resume(ctx: TaskContext) -> int:
        return ctx.attempt


@PROVABLE
async def test_what_a_predecessor_held_that_is_provably_gone_runs_at_once_with_the_cause(
    app, running, client, wait, tables, predecessor, resume
):
    task_id = await client.enqueue("resume")
    before = await predecessor(place=place(), holding=task_id)
    async with running(app, **QUICK):
        done = await wait(task_id)
    assert (done.attempts, done.result) == (2, 2)
    assert await tables.events(task_id) == ["lease_lost"]
    assert "its process is gone" in (await tables.detail(task_id, "lease_lost"))["cause"]
    assert await tables.value("SELECT lost_at IS NOT NULL FROM asynctaskd.workers WHERE id = $1", before)


@PROVABLE
async def test_one_that_is_gone_is_succeeded_at_once_although_its_lease_has_run_out(
    app, running, client, wait, tables, predecessor, resume
):
    task_id = await client.enqueue("resume")
    await predecessor(place=place(), lease=-1.0, holding=task_id)
    async with running(app, **QUICK):
        await wait(task_id)
    assert "succeeded by" in (await tables.detail(task_id, "lease_lost"))["cause"]


async def test_one_that_is_elsewhere_is_waited_for_until_its_lease_ends(
    app, running, client, wait, tables, predecessor, resume, recorder
):
    task_id = await client.enqueue("resume")
    before = await predecessor(place="elsewhere:1", lease=1.5, holding=task_id)
    async with running(app, **QUICK):
        done = await wait(task_id)
    [ended] = await tables.column("SELECT expires_at FROM asynctaskd.workers WHERE id = $1", before)
    [started] = await tables.column("SELECT started_at FROM asynctaskd.workers WHERE id <> $1", before)
    assert started >= ended
    assert done.attempts == 2
    assert len(recorder.all("worker.waiting", other=before)) == 1


async def test_one_that_stops_meanwhile_is_waited_for_no_longer(app, tables, predecessor, recorder, running):
    before = await predecessor(place="elsewhere:1")

    async def stop() -> None:
        await recorder.wait_for("worker.waiting", other=before)
        await tables.execute("UPDATE asynctaskd.workers SET stopped_at = clock_timestamp()")

    stopping = asyncio.create_task(stop())
    async with running(app, **QUICK):
        await stopping


async def test_a_start_is_refused_where_the_other_one_renews_its_lease_meanwhile(
    app, running, daemon_of, tables, recorder
):
    async with running(app, **QUICK) as first:
        with pytest.raises(
            WorkerIdTakenError, match=f"worker.id {NAME} is taken: process .* has just renewed"
        ):
            await daemon_of(app, **QUICK).run()
        assert await tables.column("SELECT id FROM asynctaskd.workers") == [first.worker_id]
        assert recorder.all("worker.waiting", other=first.worker_id)


@PROVABLE
async def test_one_that_lives_here_and_is_silent_is_left_alone_until_its_lease_ends(
    app, tables, daemon_of, predecessor, recorder
):
    process = uuid4()
    with hold_name(process):
        before = await predecessor(process=process, place=place())
        daemon = daemon_of(app, **QUICK)
        life = asyncio.create_task(daemon.run())
        await recorder.wait_for("worker.waiting", other=before)
        daemon.stop()
        await life
    assert await tables.column("SELECT lost_at FROM asynctaskd.workers") == [None]


async def test_told_to_stop_while_it_waits_it_claims_nothing_and_leaves_at_once(
    app, client, tables, daemon_of, predecessor, recorder, resume
):
    task_id = await client.enqueue("resume")
    before = await predecessor(place="elsewhere:1")
    daemon = daemon_of(app, **QUICK)
    life = asyncio.create_task(daemon.run())
    await recorder.wait_for("worker.waiting", other=before)
    daemon.stop()
    async with asyncio.timeout(5):
        await life
    assert await tables.column("SELECT id FROM asynctaskd.workers") == [before]
    assert (await tables.task(task_id))["status"] == "pending"


async def test_one_that_was_declared_lost_and_came_back_under_a_new_identity_lives(
    app, tables, daemon_of, predecessor, recorder
):
    process = uuid4()
    before = await predecessor(process=process, place="elsewhere:1")

    async def come_back() -> None:
        await recorder.wait_for("worker.waiting", other=before)
        async with asyncio.timeout(20):
            await predecessor(process=process, place="elsewhere:1")
            await tables.execute(
                "UPDATE asynctaskd.workers SET lost_at = clock_timestamp() WHERE id = $1", before
            )

    coming_back = asyncio.create_task(come_back())
    with pytest.raises(WorkerIdTakenError):
        await daemon_of(app, **QUICK).run()
    await coming_back


async def test_a_worker_without_an_id_of_its_own_waits_for_nobody(app, running, predecessor, recorder):
    await predecessor(place="elsewhere:1")
    async with running(app):
        assert recorder.all("worker.waiting") == []


async def test_of_several_processes_with_one_id_each_has_a_name_of_its_own_and_both_labels(
    app, running, tables, monkeypatch
):
    names = set()
    for nth in range(2):
        monkeypatch.setattr(identity, "this_process", lambda nth=nth: Process(uuid4(), nth))
        async with running(app, **QUICK) as daemon:
            [(name, labels)] = await tables._pool.fetch(
                "SELECT name, labels FROM asynctaskd.workers WHERE id = $1", daemon.worker_id
            )
            assert labels == [f"worker:{NAME}", f"worker:{name}"]
        names.add(name)
    assert len(names) == 2
    assert NAME not in names


async def test_of_several_that_start_at_the_same_moment_one_gets_in(
    app, tables, daemon_of, monkeypatch, recorder
):
    looked = asyncio.Barrier(3)
    is_together = True

    async def look_together(*arguments) -> bool:
        nonlocal is_together
        alone = await supervisor_succeed(*arguments)
        if is_together:
            await looked.wait()  # by now each has seen that nobody is there
            is_together = False
        return alone

    supervisor_succeed = supervisor.succeed
    monkeypatch.setattr(supervisor, "succeed", look_together)
    monkeypatch.setattr(identity, "this_process", lambda: Process(uuid4()))
    daemons = [daemon_of(app, **QUICK) for _ in range(3)]
    lives = [asyncio.create_task(daemon.run()) for daemon in daemons]
    done, going_on = set(), set(lives)
    while len(going_on) > 1:
        done, going_on = await asyncio.wait(lives, timeout=20, return_when=asyncio.FIRST_EXCEPTION)
        lives = list(going_on)
        for one in done:
            with pytest.raises(WorkerIdTakenError, match="has just renewed its lease"):
                await one
    assert await tables.value("SELECT count(*) FROM asynctaskd.workers") == 1
    for daemon in daemons:
        daemon.stop()
    await asyncio.gather(*going_on)
    assert len(recorder.all("worker.started")) == 1


async def test_a_worker_that_lost_its_lease_and_then_its_id_to_another_one_ends(
    app, tables, daemon_of, predecessor
):
    daemon = daemon_of(app, **QUICK)
    life = asyncio.create_task(daemon.run())
    await daemon.ready.wait()
    successor = await predecessor(place="elsewhere:1")
    await tables.execute(
        "UPDATE asynctaskd.workers SET lost_at = clock_timestamp() WHERE id = $1", daemon.worker_id
    )
    with pytest.raises(BaseExceptionGroup) as crash:
        async with asyncio.timeout(20):
            await life
    assert crash.group_contains(WorkerIdTakenError, match="another one has started under it since")
    live = "SELECT id FROM asynctaskd.workers AS w WHERE asynctaskd.is_live(w)"
    assert await tables.column(live) == [successor]
