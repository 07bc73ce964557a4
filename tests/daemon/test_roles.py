"""A whole fleet, an application and an operator, each with the rights of its role and no other."""

import asyncio
import json

import asyncpg
import pytest

from asynctaskd import App, Client, Cron, RetryPolicy, TaskContext, TaskRequest
from asynctaskd.config import DaemonConfig
from asynctaskd.daemon.supervisor import Daemon
from asynctaskd.errors import DatabaseRefusedError, TaskCancelledError, TaskFailedError
from tests.support.divided import divided_or_skipped

LIMIT = "20s"


@pytest.fixture
def divided(dsn):
    with divided_or_skipped(dsn) as made:
        yield made


@pytest.fixture
async def clients(divided):
    """A client of each role's, and one of the operator's that reads what became of tasks."""
    opened = {part: Client(url, schema=divided.schema) for part, url in divided.logins.items()}
    yield opened
    for client in opened.values():
        await client.close()


@pytest.fixture
async def fleet(divided, daemon_of, app):
    """Two workers as the role of workers; begun by the test, ended after it."""
    lives: list[tuple[Daemon, asyncio.Task[None]]] = []

    async def begin() -> list[Daemon]:
        for _ in range(2):
            settings = {"url": divided.logins["worker"], "schema": divided.schema}
            daemon = Daemon(app, settings["url"], DaemonConfig.model_validate({"database": settings}))
            lives.append((daemon, asyncio.create_task(daemon.run())))
        for daemon, _ in lives:
            await daemon.ready.wait()
        return [daemon for daemon, _ in lives]

    yield begin
    for daemon, _ in lives:
        daemon.stop()
    await asyncio.gather(*(life for _, life in lives))


@pytest.fixture
async def owner(divided):
    connection = await asyncpg.connect(divided.admin)
    yield connection
    await connection.close()


async def test_a_fleet_works_with_the_rights_of_its_roles_alone(  # noqa: PLR0915  (a day in the life)
    app: App, fleet, clients, recorder, divided, owner
):
    told, begun, ticked = [], asyncio.Event(), asyncio.Event()

    @app.task("add")
    async def add(a: int, b: int) -> int:
        return a + b

    @app.task("flaky", retry=RetryPolicy("1ms", max_attempts=2))
    async def flaky() -> None:
        raise ValueError("not yet")

    @flaky.on_failed
    async def flaky_failed(params, failure, tx) -> None:
        told.append(await tx.fetchval("SELECT current_user"))

    @app.task("stay")
    async def stay() -> None:
        begun.set()
        await asyncio.sleep(3600)

    @app.task("tick", cron=Cron("* * * * * *"))
    async def tick() -> None:
        ticked.set()

    @app.task("spawn")
    async def spawn(ctx: TaskContext) -> None:
        async with ctx.transaction():
            ctx.result = await ctx.enqueue("add", {"a": 5, "b": 5})

    shop, ops = clients["enqueuer"], clients["operator"]
    await owner.execute(divided.sql("SELECT asynctaskd.ensure_finished_partition(current_date - 3)"))
    await fleet()

    # The application enqueues in every way.
    sums = await shop.enqueue_many([TaskRequest("add", {"a": n, "b": 1}) for n in range(20)])
    parent = await shop.enqueue("add", {"a": 1, "b": 1})
    child = await shop.enqueue(
        "add", {"a": 2, "b": 2}, parent_id=parent, depends_on=[parent], unique_tag="once", serial_key="line"
    )
    assert child == await shop.enqueue("add", {"a": 2, "b": 2}, unique_tag="once")
    assert [(await ops.wait(one, LIMIT)).result for one in (*sums, child)] == [*range(1, 21), 4]
    spawned = (await ops.wait(await shop.enqueue("spawn"), LIMIT)).result
    assert (await ops.wait(spawned, LIMIT)).result == 10

    # It retries, and a hook hears of the end; as the worker's login.
    with pytest.raises(TaskFailedError):
        await ops.wait(await shop.enqueue("flaky"), LIMIT)
    assert told == [f"{divided.schema}_as_worker"]

    # A schedule ticks, and the application makes another.
    await asyncio.wait_for(ticked.wait(), 60)
    await shop.enqueue("add", {"a": 0, "b": 0}, cron=Cron("@hourly"))
    assert {one["name"] for one in await ops.list_schedules()} == {"tick", "add"}

    # The operator steers, and the fleet obeys.
    report = await ops.update_runtime_config(default_weight=3, timeout=LIMIT)
    assert (report.status, len(report.applied)) == ("converged", 2)
    stays = await shop.enqueue("stay")
    await asyncio.wait_for(begun.wait(), 60)
    receipt = await ops.cancel(stays, timeout=LIMIT)
    assert [one.outcome for one in receipt.tasks] == ["stopped"]
    with pytest.raises(TaskCancelledError):
        await ops.wait(stays, LIMIT)

    # What has outlived its keep is dropped, by whoever owns nothing.
    dropped = await recorder.wait_for("partition.dropped")
    assert dropped["partition"].startswith("finished_tasks_")
    assert recorder.all("database.lost") == recorder.all("partition.in_use") == []


async def test_what_an_application_may_not_do_says_which_role_to_grant(app: App, clients, divided):
    shop, viewer = clients["enqueuer"], clients["viewer"]
    task_id = await shop.enqueue("add")
    for asked in (
        shop.get_task(task_id),
        shop.wait(task_id, LIMIT),
        shop.cancel(task_id),
        viewer.get_task(task_id),
    ):
        with pytest.raises(DatabaseRefusedError, match=f"GRANT {divided.schema}_operator TO"):
            await asked
    for asked in (shop.why(task_id), shop.overview(), shop.list_workers()):
        with pytest.raises(DatabaseRefusedError, match=f"GRANT {divided.schema}_viewer TO"):
            await asked
    with pytest.raises(DatabaseRefusedError, match=f"GRANT {divided.schema}_operator TO"):
        await viewer.update_runtime_config(default_weight=2)
    with pytest.raises(DatabaseRefusedError, match=f"GRANT {divided.schema}_enqueuer TO"):
        await viewer.enqueue("add")
    with pytest.raises(DatabaseRefusedError, match=f"GRANT {divided.schema}_"):
        await clients["stranger"].enqueue("add")


async def test_a_daemon_without_the_rights_of_workers_says_which_role_to_grant(app: App, divided):
    for part in ("enqueuer", "viewer", "operator", "stranger"):
        settings = {"url": divided.logins[part], "schema": divided.schema}
        daemon = Daemon(app, settings["url"], DaemonConfig.model_validate({"database": settings}))
        with pytest.raises(DatabaseRefusedError, match=f"GRANT {divided.schema}_worker TO"):
            await daemon.run()


async def test_what_a_stranger_sends_on_the_channels_changes_nothing(app: App, fleet, clients, divided):
    """NOTIFY knows no rights: any login of the database may send on any channel."""
    started = []

    @app.task("add")
    async def add(n: int) -> int:
        started.append(n)
        return n

    ops = clients["operator"]
    await fleet()
    before = (await ops.runtime_config()).version
    waits = await ops.enqueue("add", {"n": 1}, delay="1h")
    stranger = await asyncpg.connect(divided.logins["stranger"])
    request = "00000000-0000-0000-0000-000000000001"
    messages = {
        "ready": ["", "*", "!control", "!awaited", "!watched", "'; DROP TABLE tasks; --", "x" * 7999],
        "task_interrupt": [
            json.dumps({"op": op, "params": {"request_id": request}})
            for op in ("interrupt_task", "run_task", "stop", "")
        ]
        + ["{", "[]", "7"],
        "runtime_config": [
            json.dumps({"op": "up_config", "params": {"request_id": request, "version": 999}})
        ],
        "runtime_config_ack": ["{}", json.dumps({"op": "ack", "params": {"applied_version": 999}})],
        "task_interrupt_ack": [json.dumps({"op": "ack", "params": {"request_id": request}})],
        "schedules": ["forged"],
    }
    for channel, payloads in messages.items():
        for payload in payloads:
            await stranger.execute("SELECT pg_notify($1, $2)", f"{divided.schema}_{channel}", payload)
    await stranger.close()
    done = await ops.enqueue("add", {"n": 2})
    assert (await ops.wait(done, LIMIT)).result == 2
    report = await ops.update_runtime_config(default_weight=3, timeout=LIMIT)
    assert (report.status, report.version, len(report.applied)) == ("converged", before + 1, 2)
    assert (await ops.get_task(waits)).status == "scheduled"
    assert started == [2]
