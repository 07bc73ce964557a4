"""Commands reach tasks wherever they are, and a receipt says what became of each."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import suppress
from uuid import uuid4

import asyncpg
import pytest

from asynctaskd import App, FatalTaskError, RetryPolicy, SnoozeTask, TaskContext, TaskRequest
from asynctaskd.errors import InvalidInputError, InvalidStateError, TaskNotFoundError
from asynctaskd.postgres.permits import PermitStore
from asynctaskd.postgres.store import Store
from asynctaskd.task import TaskStatus

LIVE = ("scheduled", "waiting", "pending", "paused")
SOMEBODY_WAITS = """
    SELECT EXISTS (
        SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
    )
"""


class Stage:
    """Handlers that say that they have begun, and go on until they are stopped."""

    def __init__(self, app: App) -> None:
        self.begun: dict[int, asyncio.Event] = {}
        self.stopped: list[int] = []
        self.runs = 0
        app.task("hold")(self.hold)
        app.task("quick")(self.quick)

    def event(self, task_id: int) -> asyncio.Event:
        return self.begun.setdefault(task_id, asyncio.Event())

    async def hold(self, payload: dict, ctx: TaskContext) -> None:
        self.runs += 1
        self.event(ctx.task_id).set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.stopped.append(ctx.task_id)
            raise

    async def quick(self, payload: dict) -> str:
        self.runs += 1
        return "done"


@pytest.fixture
def stage(app: App) -> Stage:
    return Stage(app)


@pytest.fixture
def held(client, stage, soon):
    """A task that runs until it is stopped; it has begun."""

    async def hold(**options) -> int:
        task_id = await client.enqueue("hold", **options)
        await soon(stage.event(task_id))
        return task_id

    return hold


async def resting(client, tables, status: str) -> int:
    """A task at rest, with that status."""
    match status:
        case "scheduled":
            return await client.enqueue("quick", delay="1h")
        case "waiting":
            await client.enqueue("quick", delay="1h", serial_key=f"k{id(client)}")
            return await client.enqueue("quick", serial_key=f"k{id(client)}")
        case "paused":
            task_id = await client.enqueue("quick", delay="1h")
            await client.pause(task_id)
            return task_id
    return await client.enqueue("quick")


def only(receipt):
    [task] = receipt.tasks
    return task


# At rest


@pytest.mark.parametrize("status", LIVE)
async def test_a_task_at_rest_is_cancelled_at_once(client, tables, status):
    task_id = await resting(client, tables, status)
    receipt = only(await client.cancel(task_id))
    assert (receipt.outcome, receipt.status) == ("changed", "cancelled")
    row = await tables.task(task_id)
    assert (row["status"], row["reason"]) == ("cancelled", "cancelled by operator")
    assert (await tables.events(task_id))[-1] == "cancelled"


@pytest.mark.parametrize("status", LIVE)
async def test_a_task_at_rest_expires_at_once(client, tables, status):
    task_id = await resting(client, tables, status)
    assert only(await client.expire(task_id)).status == "expired"
    assert (await tables.task(task_id))["reason"] == "expired by operator"


@pytest.mark.parametrize("status", LIVE)
async def test_a_task_at_rest_fails_at_once_where_no_hook_has_to_know(client, tables, status):
    task_id = await resting(client, tables, status)
    assert only(await client.fail(task_id, "no use")).status == "failed"
    row = await tables.task(task_id)
    assert (row["status"], row["reason"], row["last_error"]) == ("failed", "failed_by_operator", "no use")


@pytest.mark.parametrize("status", ["scheduled", "waiting", "pending"])
async def test_a_paused_task_goes_back_where_it_came_from(client, tables, status):
    task_id = await resting(client, tables, status)
    assert only(await client.pause(task_id)).status == "paused"
    assert (await tables.task(task_id))["status"] == "paused"
    assert only(await client.resume(task_id)).status == status
    assert await tables.events(task_id) == ["paused", "resumed"]


async def test_what_was_due_meanwhile_is_ready_when_it_is_resumed(client, tables):
    task_id = await client.enqueue("quick", delay="1h")
    await client.pause(task_id)
    await tables.execute("UPDATE asynctaskd.tasks SET run_at = now() WHERE id = $1", task_id)
    assert only(await client.resume(task_id)).status == "pending"


async def test_a_retry_that_was_paused_is_a_retry_when_it_is_resumed(client, app, running, tables):
    @app.task("act", retry=RetryPolicy("1h", max_attempts=2))
    async def act(payload: dict) -> None:
        raise ValueError("again")

    async with running(app):
        task_id = await client.enqueue("act")
        await tables.until_status(task_id, "scheduled")
        before = await client.why(task_id)
        await client.pause(task_id)
        await client.resume(task_id)
        assert await client.why(task_id) == before
    assert before.reason == "retry"


async def test_a_task_that_was_put_aside_for_its_name_is_paused_for_itself(
    client, app, stage, running, tables, configure, wait
):
    await configure(paused_names=["quick"])
    async with running(app):
        task_id, other = await client.enqueue("quick"), await client.enqueue("quick")
        await tables.until("SELECT count(*) = 2 FROM asynctaskd.tasks WHERE reason = 'name paused'")
        assert only(await client.pause(task_id)).outcome == "changed"
        assert only(await client.pause(task_id)).reason == "it is paused"
        await configure()
        await wait(other)
        assert (await tables.task(task_id))["status"] == "paused"
        await client.resume(task_id)
        await wait(task_id)


async def test_a_task_with_a_request_under_way_is_not_let_go_with_its_name(client, tables, database):
    """It was resumed while its name was paused, then it ran, and its worker has put it back meanwhile."""
    task_id, worker_id = await client.enqueue("quick"), uuid4()
    await tables.execute(
        """INSERT INTO asynctaskd.workers (id, name, hostname, pid, version, labels, names, concurrency,
           expires_at) VALUES ($1, $1, 'far', 7, '0', '{}', '{}', 1, clock_timestamp() + interval '1 h')""",
        worker_id,
    )
    await tables.execute(
        "UPDATE asynctaskd.tasks SET status = 'running', worker_id = $1, claim_token = 1, attempts = 1,"
        " claimed_at = clock_timestamp(), reason = 'name paused'",
        worker_id,
    )
    request_id = await tables.value("SELECT asynctaskd.command('expire', $1)", json.dumps({"ids": [task_id]}))
    store = await Store.open(database.dsn, schema="asynctaskd", connections=1)
    assert await store.release_orphans(worker_id, [], await store.clock()) == 1
    await PermitStore(store.sessions, store.schema).unpark()
    await store.close()
    assert (await tables.task(task_id))["status"] == "paused"
    await tables.value("SELECT asynctaskd.settle()")
    assert (await tables.task(task_id))["status"] == "expired"
    assert only(await client.receipt(request_id)).outcome == "stopped"


async def test_a_paused_head_lets_the_next_of_its_key_go_and_takes_its_turn_when_resumed(client, tables):
    head = await client.enqueue("quick", serial_key="k")
    mate = await client.enqueue("quick", serial_key="k")
    await client.pause(head)
    assert (await tables.task(mate))["status"] == "pending"
    assert only(await client.resume(head)).status == "waiting"
    await client.cancel(mate)
    assert (await tables.task(head))["status"] == "pending"


@pytest.mark.parametrize("action", ["pause", "cancel", "resume", "expire"])
async def test_a_finished_task_is_left_alone_and_the_receipt_says_so(
    client, app, stage, running, wait, action
):
    task_id = await client.enqueue("quick")
    async with running(app):
        await wait(task_id)
    receipt = only(await client.command(action, {"ids": [task_id]}))
    assert (receipt.outcome, receipt.reason, receipt.status) == ("refused", "it is completed", "completed")


async def test_there_is_a_receipt_for_a_task_that_never_was(client):
    receipt = only(await client.cancel(99))
    assert (receipt.outcome, receipt.status) == ("refused", None)
    assert receipt.reason == "there is no such task, or its record was forgotten"


async def test_expire_and_fail_raise_where_nothing_can_be_done(client):
    with pytest.raises(TaskNotFoundError):
        await client.expire(99)
    task_id = await client.enqueue("quick")
    await client.cancel(task_id)
    with pytest.raises(InvalidStateError, match="it is cancelled"):
        await client.expire(task_id)
    with pytest.raises(InvalidStateError, match="it is cancelled"):
        await client.fail(task_id, "too late")
    with pytest.raises(InvalidInputError, match="fail needs a reason"):
        await client.fail(task_id, "")


# Running


async def test_a_running_task_is_cancelled_once_it_has_stopped(client, app, stage, running, held, tables):
    async with running(app) as daemon:
        task_id = await held()
        receipt = only(await client.cancel(task_id))
        assert (receipt.outcome, receipt.status) == ("stopped", "cancelled")
        assert receipt.worker_id == daemon.worker_id
        assert receipt.requested_at <= receipt.delivered_at <= receipt.stopped_at
    assert stage.stopped == [task_id]
    assert (await tables.task(task_id))["reason"] == "cancelled by operator"
    assert await tables.events(task_id) == ["cancelled"]


async def test_a_running_task_is_paused_with_its_attempt_given_back(
    client, app, stage, running, held, tables
):
    async with running(app):
        task_id = await held()
        assert only(await client.pause(task_id)).outcome == "stopped"
        row = await tables.task(task_id)
        assert (row["status"], row["reason"], row["attempts"]) == ("paused", "paused by operator", 0)
        stage.begun.clear()
        assert only(await client.resume(task_id)).outcome == "changed"
        await tables.until_status(task_id, "running")
        await client.cancel(task_id)
    assert await tables.events(task_id) == ["paused", "resumed", "cancelled"]


async def test_a_running_task_expires_on_request(client, app, running, held, tables):
    async with running(app):
        task_id = await held()
        assert only(await client.expire(task_id)).outcome == "stopped"
    assert (await tables.task(task_id))["status"] == "expired"


async def test_fail_runs_the_hook_of_a_running_task(client, app, stage, running, held, tables):
    told = []

    @app.on_failed
    async def hook(failure, tx) -> None:
        told.append((failure.task_id, failure.error, failure.reason))

    async with running(app):
        task_id = await held()
        assert only(await client.fail(task_id, "no use")).outcome == "stopped"
    assert told == [(task_id, "no use", "failed_by_operator")]
    assert (await tables.task(task_id))["last_error"] == "no use"


@pytest.mark.parametrize("status", LIVE)
async def test_fail_runs_the_hook_of_a_task_at_rest(client, app, stage, running, tables, status):
    told = []

    @app.on_failed
    async def hook(failure, tx) -> None:
        told.append((failure.task_id, failure.error, failure.reason))

    async with running(app, labels=["there"]):
        task_id = await resting(client, tables, status)
        if status == "pending":  # it would just run
            task_id = await client.enqueue("quick", delay="1h")
        assert only(await client.fail(task_id, "no use")).outcome in ("stopped", "changed")
        await tables.until_status(task_id, "failed")
    assert told == [(task_id, "no use", "failed_by_operator")]


async def test_fail_waits_for_a_worker_where_a_hook_has_to_know(client, app, stage, running, tables):
    told = []

    @app.on_failed
    async def hook(failure, tx) -> None:
        told.append(failure.error)

    async with running(app):
        pass
    task_id = await client.enqueue("quick")
    receipt = only(await client.fail(task_id, "no use"))
    assert (receipt.outcome, receipt.reason) == ("changed", "its failure hook runs first")
    async with running(app):
        await tables.until_status(task_id, "failed")
    assert (told, stage.runs) == (["no use"], 0)


async def test_fail_runs_the_hook_of_a_task_whose_name_is_paused(
    client, app, stage, running, tables, configure
):
    told = []

    @app.on_failed
    async def hook(failure, tx) -> None:
        told.append(failure.error)

    await configure(paused_names=["quick"])
    async with running(app):
        task_id = await client.enqueue("quick")
        await tables.until_status(task_id, "paused")
        assert only(await client.fail(task_id, "no use")).status == "failed"
    assert (told, await tables.events(task_id)) == (["no use"], ["paused", "failed"])


async def test_failures_that_nobody_can_tell_of_keep_no_other_request_waiting(client, app, running, tables):
    @app.on_failed
    async def hook(failure, tx) -> None: ...

    @app.task("quick")
    async def quick() -> None: ...

    async with running(app):
        pass
    await client.enqueue_many([TaskRequest("quick", labels=["nowhere"])] * 1200)
    await client.command("fail", {"name": "quick"}, reason="no use")
    task_id = await client.enqueue("quick")
    await tables.execute(
        "UPDATE asynctaskd.tasks SET requested = 'cancelled', request_id = gen_random_uuid() WHERE id = $1",
        task_id,
    )
    await tables.value("SELECT asynctaskd.settle()")
    assert (await tables.task(task_id))["status"] == "cancelled"


async def test_a_task_that_completes_first_wins(client, app, running, soon, tables):
    begun, may_end = asyncio.Event(), asyncio.Event()

    @app.task("stubborn")
    async def stubborn(payload: dict) -> str:
        begun.set()
        try:
            await may_end.wait()
        except asyncio.CancelledError:
            return "done all the same"
        return "done"

    async with running(app):
        task_id = await client.enqueue("stubborn")
        await soon(begun)
        receipt = only(await client.cancel(task_id))
    assert (receipt.outcome, receipt.reason, receipt.status) == ("refused", "finished first", "completed")


async def test_a_failure_with_retries_left_obeys_the_request(client, app, running, soon, tables):
    begun = asyncio.Event()

    @app.task("failing", retry=RetryPolicy("1h", max_attempts=3))
    async def failing(payload: dict) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("oh") from None

    async with running(app):
        task_id = await client.enqueue("failing")
        await soon(begun)
        assert only(await client.cancel(task_id)).outcome == "stopped"
    assert (await tables.task(task_id))["status"] == "cancelled"


@pytest.mark.parametrize("action", ["cancel", "pause", "expire"])
@pytest.mark.parametrize("how", ["snoozed", "retried"])
async def test_whoever_moves_the_task_next_obeys(client, app, running, soon, tables, action, how):
    """The worker hears nothing of the request before the execution ends by itself."""
    begun, may_end = asyncio.Event(), asyncio.Event()

    @app.task("act", retry=RetryPolicy("1h", max_attempts=3))
    async def act(payload: dict) -> None:
        begun.set()
        await may_end.wait()
        raise SnoozeTask("1h") if how == "snoozed" else ValueError("oh")

    async with running(app) as daemon:
        daemon._interrupts.look = lambda: None
        task_id = await client.enqueue("act")
        await soon(begun)
        waiting = asyncio.create_task(client.command(action, {"ids": [task_id]}))
        await tables.until("SELECT requested FROM asynctaskd.tasks WHERE id = $1", task_id)
        may_end.set()
        assert only(await waiting).outcome == "stopped"
    status = {"cancel": "cancelled", "pause": "paused", "expire": "expired"}[action]
    assert (await tables.task(task_id))["status"] == status


async def test_a_final_failure_that_came_first_wins(client, app, running, soon, tables):
    begun, may_end = asyncio.Event(), asyncio.Event()

    @app.task("act")
    async def act(payload: dict) -> None:
        begun.set()
        await may_end.wait()
        raise FatalTaskError("no")

    async with running(app) as daemon:
        daemon._interrupts.look = lambda: None
        task_id = await client.enqueue("act")
        await soon(begun)
        waiting = asyncio.create_task(client.cancel(task_id))
        await tables.until("SELECT requested FROM asynctaskd.tasks WHERE id = $1", task_id)
        may_end.set()
        receipt = only(await waiting)
    assert (receipt.outcome, receipt.reason, receipt.status) == ("refused", "finished first", "failed")


async def test_a_handler_that_does_not_stop_is_named(client, app, running, soon, tables):
    begun, may_end = asyncio.Event(), asyncio.Event()

    @app.task("deaf")
    async def deaf(payload: dict) -> None:
        begun.set()
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue

    async with running(app) as daemon:
        task_id = await client.enqueue("deaf")
        await soon(begun)
        receipt = await client.cancel(task_id, timeout="300ms")
        [one] = receipt.open
        assert (one.task_id, one.worker_id, one.outcome) == (task_id, daemon.worker_id, None)
        assert one.delivered_at is not None
        may_end.set()
        assert only(await client.receipt(receipt.request_id, timeout="10s")).outcome == "refused"


async def test_what_was_asked_of_a_handler_that_did_not_stop_is_done_when_its_worker_ends(
    client, app, daemon_of, tables
):
    begun, may_end = threading.Event(), threading.Event()

    @app.task("thread")
    def thread() -> None:
        begun.set()
        may_end.wait(60)

    daemon = daemon_of(app, grace="0s")
    life = asyncio.create_task(daemon.run())
    try:
        task_id = await client.enqueue("thread")
        assert await asyncio.to_thread(begun.wait, 60)
        receipt = await client.cancel(task_id, timeout="100ms")
        assert len(receipt.open) == 1
        daemon.stop()
        await asyncio.wait_for(life, 60)
    finally:
        may_end.set()
    assert (await tables.task(task_id))["status"] == "cancelled"
    assert only(await client.receipt(receipt.request_id, timeout="10s")).outcome == "stopped"


async def test_a_request_takes_effect_without_notices(client, app, stage, running, held, tables):
    async with running(app, listen="off", renew_interval="50ms", poll_interval="50ms"):
        task_id = await held()
        assert only(await client.cancel(task_id)).outcome == "stopped"


async def test_commands_get_through_when_every_slot_is_taken_and_the_strict_cap_is_zero(
    client, app, stage, running, held, tables
):
    async with running(app, concurrency=2, max_strict_percentage=0, poll_interval="20s") as daemon:
        await tables.until_idle(daemon)
        first, second = await held(), await held()
        assert only(await client.cancel(first)).outcome == "stopped"
        assert only(await client.pause(second)).outcome == "stopped"


async def test_commands_get_through_during_shutdown(client, app, stage, daemon_of, held, tables):
    daemon = daemon_of(app)
    life = asyncio.create_task(daemon.run())
    task_id = await held()
    daemon.stop()
    assert only(await client.cancel(task_id)).outcome == "stopped"
    await life
    assert (await tables.task(task_id))["status"] == "cancelled"


async def test_a_cancel_takes_the_place_of_a_pause(client, app, running, soon, tables):
    begun, may_end = asyncio.Event(), asyncio.Event()

    @app.task("slow")
    async def slow(payload: dict) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await may_end.wait()

    async with running(app):
        task_id = await client.enqueue("slow")
        await soon(begun)
        pause = await client.pause(task_id, timeout="0s")
        again = only(await client.pause(task_id, timeout="0s"))
        assert (again.outcome, again.reason) == ("refused", "it is about to be paused")
        waiting = asyncio.create_task(client.cancel(task_id))
        await tables.until("SELECT requested = 'cancelled' FROM asynctaskd.tasks WHERE id = $1", task_id)
        late = only(await client.pause(task_id, timeout="0s"))
        assert (late.outcome, late.reason) == ("refused", "it is about to be cancelled")
        may_end.set()
        assert only(await waiting).outcome == "stopped"
        former = only(await client.receipt(pause.request_id))
    assert (former.outcome, former.reason) == ("refused", "it is cancelled instead")


async def test_a_pause_that_is_taken_back_in_time_changes_nothing(client, app, running, soon, tables):
    begun, may_end = asyncio.Event(), asyncio.Event()

    @app.task("act")
    async def act(payload: dict) -> None:
        begun.set()
        await may_end.wait()

    async with running(app) as daemon:
        daemon._interrupts.look = lambda: None
        task_id = await client.enqueue("act")
        await soon(begun)
        pause = await client.pause(task_id, timeout="0s")
        assert only(await client.resume(task_id)).outcome == "changed"
        assert only(await client.receipt(pause.request_id)).reason == "it was resumed before it had stopped"
        may_end.set()
        await client.wait(task_id, "10s")


async def test_a_task_that_stops_for_a_pause_that_was_taken_back_is_given_back(
    client, app, running, soon, tables, monkeypatch
):
    begun, stopped, resumed = asyncio.Event(), asyncio.Event(), asyncio.Event()
    finalize = Store.finalize

    async def held(self, batch):
        if any(ended.transition.status is TaskStatus.PAUSED for ended in batch):
            stopped.set()
            await resumed.wait()
        return await finalize(self, batch)

    @app.task("act")
    async def act(ctx: TaskContext) -> None:
        if not resumed.is_set():
            begun.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(Store, "finalize", held)
    task_id = await client.enqueue("act")
    await tables.execute("UPDATE asynctaskd.tasks SET losses = 1, reason = 'lease_lost'")
    async with running(app):
        await soon(begun)
        await client.pause(task_id, timeout="0s")
        await soon(stopped)
        assert only(await client.resume(task_id)).outcome == "changed"
        resumed.set()
        done = await client.wait(task_id, timeout="10s")
    assert (done.attempts, await tables.events(task_id)) == (1, ["released"])
    assert (
        await tables.value("SELECT detail ->> 'reason' FROM asynctaskd.task_events") == "paused by operator"
    )


async def test_a_pause_that_has_just_taken_effect_can_be_taken_back(client, tables, pool):
    """Before anybody has seen to its request."""
    task_id = await client.enqueue("quick")
    request_id = (await client.pause(await client.enqueue("quick"))).request_id
    await tables.execute(
        """INSERT INTO asynctaskd.receipts (request_id, task_id, action, status, requested_at)
           VALUES ($1, $2, 'pause', 'running', now())""",
        request_id,
        task_id,
    )
    for status in ("paused", "pending"):
        await tables.execute(
            "UPDATE asynctaskd.tasks SET status = $2, requested = 'paused', request_id = $3 WHERE id = $1",
            task_id,
            status,
            request_id,
        )
        assert only(await client.resume(task_id)).status == "pending"
        await tables.value("SELECT asynctaskd.settle()")
        assert (await tables.task(task_id))["status"] == "pending"
    receipt = await client.receipt(request_id)
    assert {task.task_id: task.outcome for task in receipt.tasks}[task_id] == "stopped"


async def test_with_no_live_worker_a_running_task_changes_at_once(client, app, stage, running, held, tables):
    async with running(app):
        task_id = await held(delay=None)
        await tables.execute(
            "UPDATE asynctaskd.workers SET expires_at = now() - interval '1 h', lost_at = now()"
        )
        receipt = only(await client.cancel(task_id, timeout="5s"))
        assert (receipt.outcome, receipt.status) == ("changed", "cancelled")


async def test_a_lost_worker_leads_to_what_was_asked(client, app, stage, running, held, tables):
    async with running(app):
        task_id = await held()
        async with tables.transaction() as connection:
            await connection.execute(
                "UPDATE asynctaskd.tasks SET requested = 'cancelled' WHERE id = $1", task_id
            )
            await connection.execute("UPDATE asynctaskd.workers SET lost_at = now()")
        await tables.until_status(task_id, "cancelled")


# Trees


@pytest.fixture
async def tree(client):
    """A root, two children, and two children of the first of them."""
    root = await client.enqueue("quick", delay="1h")
    left, right = [await client.enqueue("quick", parent_id=root, delay="1h") for _ in range(2)]
    leaves = [await client.enqueue("quick", parent_id=left, delay="1h") for _ in range(2)]
    return root, left, right, leaves


async def test_a_whole_tree_is_cancelled(client, tree, tables):
    root, left, right, leaves = tree
    receipt = await client.cancel(root)
    assert [task.task_id for task in receipt.tasks] == [root, left, right, *leaves]
    assert {task.status for task in receipt.tasks} == {"cancelled"}


async def test_a_branch_is_cancelled_and_the_rest_is_not(client, tree, tables):
    root, left, right, leaves = tree
    receipt = await client.cancel(left)
    assert [task.task_id for task in receipt.tasks] == [left, *leaves]
    assert {(await tables.task(one))["status"] for one in (root, right)} == {"scheduled"}


async def test_a_branch_below_a_finished_task_belongs_to_the_tree(client, tree, tables):
    root, left, right, leaves = tree
    await client.cancel(left, cascade=False)
    assert [task.task_id for task in (await client.pause(left)).tasks] == [left, *leaves]
    assert [task.task_id for task in (await client.cancel(root)).tasks] == [root, right, *leaves]


async def test_without_cascade_only_the_task_itself_is_meant(client, tree):
    root, *_ = tree
    assert [task.task_id for task in (await client.pause(root, cascade=False)).tasks] == [root]


async def test_resume_cascades_and_leaves_alone_what_was_not_paused(client, tree, tables):
    root, left, right, leaves = tree
    await client.cancel(right)
    await client.pause(root)
    receipt = await client.resume(root)
    assert [task.task_id for task in receipt.tasks] == [root, left, *leaves]
    assert {task.status for task in receipt.tasks} == {"scheduled"}


async def test_a_child_of_a_cancelled_parent_is_born_cancelled_whatever_the_generation(client, tree, tables):
    _, left, *_ = tree
    await client.cancel(left, cascade=False)
    child = await client.enqueue("quick", parent_id=left)
    grandchild = await client.enqueue("quick", parent_id=child)
    for one in (child, grandchild):
        row = await tables.task(one)
        assert (row["status"], row["reason"]) == ("cancelled", "parent cancelled")


async def test_a_child_of_a_paused_parent_is_born_paused_and_resumes_with_it(client, tree, tables):
    root, *_, leaves = tree
    await client.pause(root)
    child = await client.enqueue("quick", parent_id=leaves[0])
    assert (await tables.task(child))["status"] == "paused"
    assert child in [task.task_id for task in (await client.resume(root)).tasks]
    assert (await tables.task(child))["status"] == "pending"


async def test_a_child_of_a_task_that_is_being_cancelled_is_born_cancelled(
    client, app, stage, running, soon, tables
):
    begun, asked, born = asyncio.Event(), asyncio.Event(), []

    @app.task("parent")
    async def parent(payload: dict, ctx: TaskContext) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asked.wait()
            born.append(await ctx.enqueue("quick"))

    async with running(app):
        task_id = await client.enqueue("parent")
        await soon(begun)
        receipt = await client.cancel(task_id, timeout="0s")
        asked.set()
        await client.receipt(receipt.request_id, timeout="10s")
    assert (await tables.task(born[0]))["status"] == "cancelled"


async def test_whom_a_task_enqueues_that_was_retried_or_resumed_by_itself_is_not_born_as_its_tree(
    client, tables
):
    root = await client.enqueue("quick")
    child = await client.enqueue("quick", parent_id=root)
    await client.pause(root)
    await client.resume(child)
    grandchild = await client.enqueue("quick", parent_id=child)
    assert (await tables.task(grandchild))["status"] == "pending"
    await client.cancel(root)
    await client.retry(child)
    grandchild = await client.enqueue("quick", parent_id=child)
    assert (await tables.task(grandchild))["status"] == "pending"


async def test_a_chain_in_which_each_task_enqueues_the_next_costs_no_more_as_it_grows(client, tables):
    chain = [await client.enqueue("quick")]
    for _ in range(150):
        chain.append(await client.enqueue("quick", parent_id=chain[-1]))
    await tables.execute("SELECT asynctaskd.finish($1, 'expired', 'late')", chain[:-1])
    read = "SELECT sum(idx_scan) FROM pg_stat_xact_user_tables WHERE relname LIKE 'finished_tasks%'"
    async with tables.transaction() as connection:
        await client.enqueue("quick", parent_id=chain[-1], connection=connection)
        assert (await connection.fetchval(read)) < 100


async def test_a_child_and_a_cancel_of_its_tree_exclude_each_other(client, tables, pool):
    root = await client.enqueue("quick")
    async with tables.transaction() as connection:
        child = await client.enqueue("quick", parent_id=root, connection=connection)
        cancelling = asyncio.create_task(client.cancel(root))
        await tables.until(SOMEBODY_WAITS)
    assert [task.task_id for task in (await cancelling).tasks] == [root, child]


@pytest.fixture
async def snapshot(database):
    """A connection within a transaction above READ COMMITTED that has seen how things stand."""
    connections = []

    async def take(isolation: str) -> asyncpg.Connection:
        connections.append(connection := await asyncpg.connect(database.dsn))
        await connection.execute(f"BEGIN ISOLATION LEVEL {isolation}")
        await connection.fetch("SELECT FROM asynctaskd.tasks")
        return connection

    yield take
    for connection in connections:
        await connection.close()


async def family(client, tables, ancestor: str) -> tuple[int, int]:
    """The root of a tree, and who is to be the parent: the root, its child, or a child that has finished."""
    root = await client.enqueue("quick")
    if ancestor == "parent":
        return root, root
    parent = await client.enqueue("quick", parent_id=root)
    if ancestor == "finished":
        await tables.execute("SELECT asynctaskd.finish(ARRAY[$1::bigint], 'expired', 'late')", parent)
    return root, parent


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("ancestor", ["parent", "grandparent", "finished"])
@pytest.mark.parametrize("action", ["cancel", "pause"])
async def test_a_child_whose_snapshot_is_older_than_a_command_on_its_tree_is_a_serialization_failure(
    client, tables, snapshot, isolation, ancestor, action
):
    """It would be born pending, and nothing would ever find it."""
    root, parent = await family(client, tables, ancestor)
    connection = await snapshot(isolation)
    await getattr(client, action)(root)
    with pytest.raises(asyncpg.SerializationError):
        await connection.execute("SELECT asynctaskd.enqueue('quick', parent_id => $1)", parent)


async def test_so_is_a_batch_and_a_child_of_a_task_that_is_only_told_to_stop(
    client, app, stage, running, tables, snapshot
):
    @app.task("stays")
    async def stays(payload: dict) -> None:
        begun.set()
        while not may_end.is_set():
            with suppress(asyncio.CancelledError):
                await may_end.wait()

    begun, may_end = asyncio.Event(), asyncio.Event()
    async with running(app):
        parent = await client.enqueue("stays")
        await asyncio.wait_for(begun.wait(), 60)
        connection = await snapshot("REPEATABLE READ")
        cancelling = asyncio.create_task(client.cancel(parent))
        await tables.until("SELECT requested = 'cancelled' FROM asynctaskd.tasks WHERE id = $1", parent)
        try:
            with pytest.raises(asyncpg.SerializationError):
                await client.enqueue_many([TaskRequest("quick", parent_id=parent)], connection=connection)
        finally:
            may_end.set()
            await cancelling


async def test_above_read_committed_a_child_of_an_untouched_tree_is_born(client, tables, snapshot):
    root, other = await client.enqueue("quick"), await client.enqueue("quick")
    one, two = await snapshot("REPEATABLE READ"), await snapshot("SERIALIZABLE")
    await client.cancel(other)
    for connection in (one, two):
        child = await client.enqueue("quick", parent_id=root, connection=connection)
        await connection.execute("COMMIT")
        assert (await tables.task(child))["status"] == "pending"


async def command_in(connection, action, *ids):
    await connection.execute(
        "SELECT asynctaskd.command($1, jsonb_build_object('ids', to_jsonb($2::bigint[])))", action, list(ids)
    )
    await connection.execute("COMMIT")


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("ancestor", ["parent", "grandparent", "finished"])
@pytest.mark.parametrize(("action", "status"), [("cancel", "cancelled"), ("pause", "paused")])
async def test_a_child_that_a_command_could_not_see_is_found_afterwards(
    client, tables, snapshot, isolation, ancestor, action, status
):
    root, parent = await family(client, tables, ancestor)
    stranger = await client.enqueue("quick", parent_id=await client.enqueue("quick"))
    connection = await snapshot(isolation)
    child = await client.enqueue("quick", parent_id=parent)
    await command_in(connection, action, root)
    assert (await tables.task(child))["status"] == "pending"
    await tables.execute("SELECT asynctaskd.settle()")
    assert (await tables.task(child))["status"] == status
    assert (await tables.task(stranger))["status"] == "pending"
    receipts = "SELECT outcome, status FROM asynctaskd.receipts WHERE task_id = $1"
    assert [tuple(row) for row in await tables._pool.fetch(receipts, child)] == [("changed", status)]


@pytest.mark.parametrize("keep", ["7d", "0"])
async def test_a_child_of_a_task_that_had_ended_or_was_forgotten_is_found_too(client, tables, snapshot, keep):
    root = await client.enqueue("quick", keep=keep)
    if keep != "0":
        await tables.execute("SELECT asynctaskd.finish(ARRAY[$1::bigint], 'expired', 'late')", root)
    connection = await snapshot("REPEATABLE READ")
    child = await client.enqueue("quick", parent_id=root)
    await command_in(connection, "cancel", root)
    await tables.execute("SELECT asynctaskd.settle()")
    assert (await tables.task(child))["status"] == "cancelled"


@pytest.mark.parametrize("action", ["cancel", "pause"])
async def test_what_an_earlier_command_left_alone_is_not_found_by_a_later_one(
    client, tables, snapshot, action
):
    root = await client.enqueue("quick")
    parent, leaf = [await client.enqueue("quick", parent_id=root) for _ in range(2)]
    kept = await client.enqueue("quick", parent_id=parent)
    await client.command(action, {"ids": [parent]}, cascade=False)
    await command_in(await snapshot("REPEATABLE READ"), action, leaf)
    await tables.execute("SELECT asynctaskd.settle()")
    assert (await tables.task(kept))["status"] == "pending"


async def test_nobody_waits_for_a_child_that_somebody_has_locked(client, tables, snapshot):
    root = await client.enqueue("quick")
    connection = await snapshot("REPEATABLE READ")
    child = await client.enqueue("quick", parent_id=root)
    await command_in(connection, "cancel", root)
    async with tables.transaction() as other:
        await other.execute("SELECT FROM asynctaskd.tasks WHERE id = $1 FOR UPDATE", child)
        async with tables.transaction() as housekeeping:
            await housekeeping.execute("SET LOCAL lock_timeout = '10ms'")
            await housekeeping.execute("SELECT asynctaskd.settle()")
    assert (await tables.task(child))["status"] == "pending"
    await tables.execute("SELECT asynctaskd.settle()")
    assert (await tables.task(child))["status"] == "cancelled"


async def test_what_was_resumed_meanwhile_is_left_alone(client, tables, snapshot):
    root = await client.enqueue("quick")
    connection = await snapshot("REPEATABLE READ")
    child = await client.enqueue("quick", parent_id=root)
    await command_in(connection, "pause", root)
    await client.resume(root)
    await tables.execute("SELECT asynctaskd.settle()")
    assert (await tables.task(child))["status"] == "pending"


async def test_running_members_of_a_tree_stop_too(client, app, stage, running, held, tables):
    async with running(app, concurrency=8):
        root = await held()
        children = [await held(parent_id=root) for _ in range(3)]
        waiting = await client.enqueue("quick", parent_id=children[0], delay="1h")
        receipt = await client.cancel(root)
    outcomes = {task.task_id: task.outcome for task in receipt.tasks}
    assert outcomes == dict.fromkeys([root, *children], "stopped") | {waiting: "changed"}


# Selection


async def test_a_tree_is_told_to_stop_by_one_message(client, app, stage, running, held, connection):
    heard = []
    await connection.add_listener("asynctaskd_task_interrupt", lambda *args: heard.append(args[3]))
    async with running(app, concurrency=8):
        root = await held()
        for _ in range(5):
            await held(parent_id=root)
        receipt = await client.cancel(root)
    await connection.execute("SELECT 1")
    await connection.reset()
    assert [task.outcome for task in receipt.tasks] == ["stopped"] * 6
    assert [json.loads(message) for message in heard] == [
        {"op": "interrupt_task", "params": {"request_id": str(receipt.request_id)}}
    ]


async def test_tasks_are_chosen_by_all_of_their_tags(client):
    both = await client.enqueue("quick", tags=["a", "b"])
    await client.enqueue("quick", tags=["a"])
    kept = await client.enqueue("quick", tags=["a", "b", "keep"])
    receipt = await client.pause_by_tags(["a", "b"], except_tags=[["keep", "a"], ["other"]])
    assert [task.task_id for task in receipt.tasks] == [both]
    receipt = await client.cancel_by_tags(["b"])
    assert [task.task_id for task in receipt.tasks] == [both, kept]


async def test_an_excluded_root_is_reached_as_a_descendant(client):
    root = await client.enqueue("quick", tags=["a"])
    child = await client.enqueue("quick", tags=["a", "keep"], parent_id=root)
    alone = await client.enqueue("quick", tags=["a", "keep"])
    receipt = await client.cancel_by_tags(["a"], except_tags=[["keep"]])
    assert [task.task_id for task in receipt.tasks] == [root, child]
    assert alone not in [task.task_id for task in receipt.tasks]


async def test_tasks_are_chosen_by_tags_in_a_transaction_and_awaited_after_it(
    client, app, stage, running, held, tables
):
    async with running(app):
        task_id = await held(tags=["a", "b"])
        async with tables.transaction() as connection:
            receipt = await client.cancel_by_tags(["a"], except_tags=[["c"]], connection=connection)
            assert (await tables.task(task_id))["status"] == "running"
        done = only(await client.receipt(receipt.request_id, timeout="10s"))
    assert (done.task_id, done.outcome, done.status) == (task_id, "stopped", "cancelled")


async def test_a_task_is_chosen_by_its_unique_tag(client):
    task_id = await client.enqueue("quick", unique_tag="u")
    assert only(await client.pause_by_unique_tag("u")).task_id == task_id
    assert only(await client.resume_by_unique_tag("u")).status == "pending"
    assert only(await client.cancel_by_unique_tag("u")).status == "cancelled"
    assert only(await client.retry_by_unique_tag("u")).status == "pending"
    assert (await client.cancel_by_unique_tag("nobody")).tasks == []


@pytest.mark.parametrize(
    "selection",
    [
        {},
        {"ids": []},
        {"ids": ["1"]},
        {"ids": [1.5]},
        {"ids": [2**70]},
        {"name": "x", "since": "foo"},
        {"ids": [1], "name": "x"},
        {"tags": []},
        {"tags": [""]},
        {"tags": "ab"},
        {"tags": ["a"], "except_tags": [[]]},
        {"tags": ["a"], "except_tags": [[""]]},
        {"unique_tag": ""},
        {"status": "gone"},
        {"colour": "red"},
        {"name": ""},
    ],
)
async def test_a_selection_that_names_nothing_is_refused(client, tables, selection):
    await client.enqueue("quick")
    with pytest.raises(InvalidInputError):
        await client.command("cancel", selection)
    assert await tables.value("SELECT count(*) FROM asynctaskd.commands") == 0


async def test_failed_tasks_of_a_name_are_chosen_by_when_they_failed(client, tables):
    early, late = [await client.enqueue("quick") for _ in range(2)]
    await client.enqueue("other")
    await client.fail(early, "x")
    noon = await tables.value("SELECT clock_timestamp()")
    await client.fail(late, "x")
    receipt = await client.command("retry", {"name": "quick", "status": "failed", "since": noon})
    assert [task.task_id for task in receipt.tasks] == [late]
    assert await client.selected("retry", {"name": "quick", "until": noon}) == (1, [early])


# Retry


async def test_a_retried_task_has_its_id_and_a_fresh_budget(client, app, running, wait, tables):
    runs = []

    @app.task("act", retry=RetryPolicy("1ms", max_attempts=2))
    async def act(payload: dict) -> str:
        runs.append(1)
        if len(runs) < 4:
            raise ValueError("not yet")
        return "at last"

    async with running(app):
        task_id = await client.enqueue("act")
        await tables.until_status(task_id, "failed")
        assert only(await client.retry(task_id)).outcome == "changed"
        task = await wait(task_id)
    assert (task.result, task.attempts, task.claim_token) == ("at last", 4, 4)
    assert (await tables.events(task_id))[:3] == ["retried", "failed", "retried_by_operator"]


@pytest.mark.parametrize("status", ["pending", "completed"])
async def test_only_what_ended_without_completing_is_retried(client, app, stage, running, wait, status):
    task_id = await client.enqueue("quick")
    if status == "completed":
        async with running(app):
            await wait(task_id)
    receipt = only(await client.retry(task_id))
    assert (receipt.outcome, receipt.reason) == ("refused", f"it is {status}")


async def test_a_retry_is_refused_where_another_holds_its_unique_tag(client):
    first = await client.enqueue("quick", unique_tag="u", unique_until="finished")
    await client.cancel(first)
    second = await client.enqueue("quick", unique_tag="u", unique_until="finished")
    receipt = only(await client.retry(first))
    assert (receipt.outcome, receipt.reason) == ("refused", f"its unique tag 'u' is held by task {second}")
    await client.cancel(second)
    assert only(await client.retry(first)).outcome == "changed"
    assert await client.enqueue("quick", unique_tag="u") == first


async def test_an_expired_task_can_run_after_all(client, app, stage, running, wait):
    task_id = await client.enqueue("quick", delay="1h", deadline="2h")
    await client.expire(task_id)
    await client.retry(task_id)
    async with running(app):
        assert (await wait(task_id)).result == "done"


async def test_a_retry_waits_for_its_dependencies_again(client, tables):
    first = await client.enqueue("quick")
    second = await client.enqueue("quick", depends_on=[first])
    await client.cancel(first)
    receipt = only(await client.retry(second))
    assert (receipt.outcome, receipt.reason) == (
        "refused",
        f"it depends on task {first}, which is cancelled: retry that first",
    )
    await client.retry(first)
    assert only(await client.retry(second)).status == "waiting"


async def test_a_graph_of_dependencies_is_retried_as_a_whole(client, app, stage, running, wait, tables):
    ids = [await client.enqueue("quick", tags=["g"])]
    for _ in range(3):
        ids.append(await client.enqueue("quick", tags=["g"], depends_on=[ids[-1]]))
    alone = await client.enqueue("quick", tags=["g"], depends_on=[lost := await client.enqueue("quick")])
    for task_id in (ids[0], lost):
        await client.cancel(task_id)
    async with running(app):  # those that depend on them are cancelled too
        await tables.until("SELECT count(*) = 6 FROM asynctaskd.finished_tasks")
    receipt = await client.retry_by_tags(["g"])
    outcomes = {task.task_id: (task.outcome, task.reason) for task in receipt.tasks}
    assert outcomes == dict.fromkeys(ids, ("changed", None)) | {
        alone: ("refused", f"it depends on task {lost}, which is cancelled: retry that first")
    }
    async with running(app):
        await wait(ids[-1])


async def test_of_two_retries_at_once_one_revives_the_task(client, tables, pool):
    task_id = await client.enqueue("quick", depends_on=[await client.enqueue("quick", delay="1h")])
    await client.cancel(task_id)
    async with pool.acquire() as connection, connection.transaction():
        await client.retry(task_id, connection=connection)
        second = asyncio.create_task(client.retry(task_id))
        await tables.until(SOMEBODY_WAITS)
    receipt = only(await second)
    assert (receipt.outcome, receipt.reason) == ("refused", "it is waiting")
    assert (await tables.events(task_id)).count("retried_by_operator") == 1


# Run now


async def test_a_task_runs_out_of_turn(client, app, running, tables):
    order, may_go_on = [], asyncio.Event()

    @app.task("act")
    async def act(who: int) -> None:
        order.append(who)
        await may_go_on.wait()

    async with running(app, concurrency=1, poll_interval="20s") as daemon:
        await tables.until_idle(daemon)
        ids = await client.enqueue_many([TaskRequest("act", {"who": n}) for n in range(20)])
        await tables.until_status(ids[0], "running")
        asked = asyncio.create_task(client.run_now(ids[15]))
        await tables.until("SELECT count(*) = 1 FROM asynctaskd.receipts")
        may_go_on.set()
        receipt = only(await asked)
    assert (receipt.outcome, receipt.status) == ("stopped", "completed")
    assert receipt.worker_id is not None
    assert order.index(15) < 10


async def test_a_scheduled_task_runs_now(client, app, stage, running):
    async with running(app):
        task_id = await client.enqueue("quick", delay="1h")
        assert only(await client.run_now(task_id)).status == "completed"


@pytest.mark.parametrize("listen", ["auto", "off"])
async def test_a_failure_says_how_it_ended(client, app, running, listen):
    @app.task("bad")
    async def bad(payload: dict) -> None:
        raise ValueError("no")

    async with running(app, listen=listen, renew_interval="100ms"):
        task_id = await client.enqueue("bad", delay="1h")
        receipt = only(await client.run_now(task_id))
    assert (receipt.outcome, receipt.status) == ("stopped", "failed")


@pytest.mark.parametrize("keep", ["1d", 0])
async def test_a_task_whose_turn_comes_first_has_run_too(client, app, stage, running, held, tables, keep):
    async with running(app, concurrency=1) as daemon:
        daemon._claimer.run_asked = lambda: None
        first = await held()
        task_id = await client.enqueue("quick", keep=keep)
        asked = asyncio.create_task(client.run_now(task_id))
        await tables.until("SELECT count(*) = 1 FROM asynctaskd.receipts")
        await client.cancel(first)
        receipt = only(await asked)
    assert (receipt.outcome, receipt.status) == ("stopped", "completed")
    assert receipt.worker_id in (
        [daemon.worker_id] if keep else [daemon.worker_id, None]
    )  # there is no record


@pytest.mark.parametrize(
    ("status", "why"), [("waiting", "its serial key"), ("paused", "it was paused by command")]
)
async def test_what_cannot_run_is_not_run_now(client, app, stage, running, tables, status, why):
    async with running(app):
        receipt = only(await client.run_now(await resting(client, tables, status)))
    assert (receipt.outcome, receipt.status) == ("refused", status)
    assert receipt.reason.startswith(why)


@pytest.mark.parametrize(
    ("options", "change", "why"),
    [
        ({"labels": ["elsewhere"]}, {}, "no live worker has all of its labels elsewhere"),
        ({"priority": 1}, {}, "the strict lane is full on each worker that may run it: 0 of 0"),
        ({}, {"paused_names": ["quick"]}, "its name quick is paused by version 1"),
        ({"labels": ["a"]}, {"paused_labels": ["a"]}, "its label a is paused by version 1"),
        ({"labels": ["a"]}, {"limits": {"a": 0}}, "its label a is at its limit: 0 of 0 run"),
    ],
)
async def test_where_no_worker_may_run_it_the_receipt_says_why(
    client, app, stage, running, tables, options, change, why
):
    async with running(app, max_strict_percentage=0, labels=["a"]):
        if change:
            await client.update_runtime_config(**change)
        task_id = await client.enqueue("quick", delay="1h", **options)
        receipt = only(await client.run_now(task_id, timeout="300ms"))
        row = await tables.task(task_id)
    assert (receipt.outcome, row["status"], row["run_at"] > row["created_at"]) == (
        "refused",
        "scheduled",
        True,
    )
    assert receipt.reason.startswith(why)


async def test_a_task_that_a_worker_only_put_back_has_not_run(client, app, stage, running, tables):
    async with running(app):
        unknown = await client.enqueue("nobody")
        await tables.until_status(unknown, "scheduled")
        receipt = only(await client.run_now(unknown, timeout="300ms"))
    assert receipt.outcome == "refused"
    assert "knows the name nobody" in receipt.reason


async def test_without_a_live_worker_nobody_waits_for_a_run(client):
    task_id = await client.enqueue("quick")
    async with asyncio.timeout(30):
        receipt = only(await client.run_now(task_id, timeout="1h"))
    assert (receipt.outcome, receipt.reason) == ("refused", "no worker is live")


async def test_while_a_task_runs_out_of_turn_its_receipt_says_so(client, app, stage, running):
    async with running(app):
        task_id = await client.enqueue("hold", delay="1h")
        receipt = only(await client.run_now(task_id, timeout="2s"))
        assert (receipt.outcome, receipt.status) == (None, "running")
        await client.cancel(task_id)


async def test_a_task_that_is_claimed_while_the_request_is_taken_back_stays_where_it_is(
    client, app, stage, running, tables, pool
):
    async with running(app, concurrency=1) as daemon:
        claim_asked = daemon._claimer.run_asked
        daemon._claimer.run_asked = lambda: None
        task_id = await client.enqueue("quick", delay="1h")
        async with pool.acquire() as connection:
            request_id = (await client.run_now(task_id, connection=connection)).request_id
            async with connection.transaction():
                await connection.execute("SELECT asynctaskd.withdraw($1)", request_id)
                claim_asked()
                await tables.until_idle(daemon)
        receipt = only(await client.receipt(request_id, timeout="5s"))
    assert (receipt.outcome, stage.runs) == ("refused", 0)
    assert (await tables.task(task_id))["status"] == "scheduled"


async def test_a_request_to_run_that_nobody_takes_back_is_refused_in_the_end(client, tables, pool):
    task_id = await client.enqueue("quick")
    async with pool.acquire() as connection:
        request_id = (await client.run_now(task_id, connection=connection)).request_id
    await tables.value("SELECT asynctaskd.settle()")
    assert (await client.receipt(request_id)).open
    await tables.execute("UPDATE asynctaskd.receipts SET requested_at = requested_at - interval '61 minutes'")
    await tables.value("SELECT asynctaskd.settle()")
    assert only(await client.receipt(request_id)).outcome == "refused"


# In a transaction of the caller's


async def test_a_command_in_a_transaction_belongs_to_it_and_does_not_wait(
    client, app, stage, running, held, tables
):
    async with running(app):
        task_id = await held()
        async with tables.transaction() as connection:
            receipt = await client.cancel(task_id, connection=connection)
            assert receipt.open[0].task_id == task_id
        done = only(await client.receipt(receipt.request_id, timeout="10s"))
    assert done.outcome == "stopped"


async def test_a_command_that_rolled_back_never_was(client, tables, pool):
    task_id = await client.enqueue("quick")
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        receipt = await client.cancel(task_id, connection=connection)
        await transaction.rollback()
    assert (await tables.task(task_id))["status"] == "pending"
    with pytest.raises(InvalidInputError, match="there is no request"):
        await client.receipt(receipt.request_id)


# Priorities


async def test_priorities_change_by_label(client, tables):
    a, b = await client.enqueue("quick", labels=["a", "x"]), await client.enqueue("quick", labels=["b"])
    c = await client.enqueue("quick")
    assert await client.reprioritize(["a", "b", "z"], priority=7) == 2
    assert await client.reprioritize(weight=3) == 1
    rows = [await tables.task(one) for one in (a, b, c)]
    assert [(row["priority"], row["weight"]) for row in rows] == [(7, 1), (7, 1), (0, 3)]
    assert await tables.events(c) == ["reprioritized"]
    with pytest.raises(InvalidInputError, match="needs a priority or a weight"):
        await client.reprioritize(["a"])
    with pytest.raises(InvalidInputError, match="weight must be at least 1"):
        await client.reprioritize(weight=0)


async def test_a_task_moved_to_the_strict_lane_runs_first(client, app, running, wait):
    order = []

    @app.task("act")
    async def act(who: str) -> None:
        order.append(who)

    await client.enqueue_many([TaskRequest("act", {"who": str(n)}) for n in range(5)])
    last = await client.enqueue("act", {"who": "late"}, labels=["late"])
    await client.reprioritize(["late"], priority=1)
    async with running(app, concurrency=1, labels=["late"]):
        await wait(last)
    assert order[0] == "late"


async def test_no_command_changes_what_a_task_is(client, tables):
    parent = await client.enqueue("quick", delay="1h")
    task_id = await client.enqueue(
        payload={"order": 7},
        target="orders",
        method="ship",
        idempotence_token="t",
        parent_id=parent,
        metadata={"by": "ada"},
        labels=["x"],
        delay="1h",
    )
    columns = "id, name, payload, unique_tag, parent_id, metadata, created_at, labels, serial_key"
    what_it_is = f"SELECT ROW({columns})::text FROM asynctaskd.all_tasks WHERE id = $1"
    before = await tables.value(what_it_is, task_id)
    await client.reprioritize(["x"], priority=7)
    await client.reprioritize(["x"], weight=3)
    for action in ("pause", "resume", "cancel", "retry", "expire", "retry", "fail", "retry"):
        await client.command(action, {"ids": [task_id]}, reason="no use" if action == "fail" else None)
        assert await tables.value(what_it_is, task_id) == before, action


@pytest.mark.parametrize("change", ["name = 'other'", "unique_tag = 'other'"])
async def test_nobody_makes_another_task_of_a_task(client, tables, change):
    task_id = await client.enqueue("quick", {"a": 1}, unique_tag="t")
    with pytest.raises(asyncpg.PostgresError, match=f"task {task_id} stays what it is") as raised:
        await tables.execute(f"UPDATE asynctaskd.tasks SET {change}")
    assert raised.value.sqlstate == "ATD04"
    await tables.execute("UPDATE asynctaskd.tasks SET payload = '{\"a\": 2}', name = name")
    assert (await client.get_task(task_id)).payload == {"a": 2}
