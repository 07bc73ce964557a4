"""Every metric of the page changes where what it tells of happens: in real stations, by real faults."""

from __future__ import annotations

import asyncio
import io
import re
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry

from asynctaskd import App, Client, Cron, FatalTaskError, RetryPolicy, SnoozeTask, TaskContext, TaskRequest
from asynctaskd.daemon import census, doubts, measures
from asynctaskd.errors import DatabaseUnavailableError, InvalidInputError
from asynctaskd.postgres.measures import MeasureStore
from asynctaskd.postgres.store import Store
from asynctaskd.telemetry import emit
from asynctaskd.telemetry.logs import configure_logging
from asynctaskd.telemetry.metrics import Metrics

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
QUICK = {"lease": "1500ms", "renew_interval": "50ms", "poll_interval": "20ms"}
LONG_ENOUGH = 60.0


@pytest.fixture
def metrics(app, monkeypatch):
    """Those of the test's App, of workers that look often."""
    monkeypatch.setattr(measures, "INTERVAL", 0.02)
    monkeypatch.setattr(census, "INTERVAL", 0.02)
    monkeypatch.setattr(census, "_SPACING_OF_WORKERS", 0.0)
    monkeypatch.setattr(census, "_REST", 1)
    monkeypatch.setattr(census, "_PAUSE", 0.02)
    counting = Metrics(app)
    yield counting
    counting.close()


@pytest.fixture
def value(metrics):
    """A metric's value, of a histogram how many it has seen; None where there is none."""

    def read(name, **labels):
        full = f"asynctaskd_{name}"
        plain = metrics.registry.get_sample_value(full, labels)
        return metrics.registry.get_sample_value(f"{full}_count", labels) if plain is None else plain

    return read


@pytest.fixture
def until(value):
    """Until a metric has come to be so; above 0, if nothing else is said."""

    async def wait(name, condition=lambda value: value > 0, **labels):
        with suppress(TimeoutError):
            async with asyncio.timeout(LONG_ENOUGH):
                while (now := value(name, **labels)) is None or not condition(now):  # noqa: ASYNC110  (numbers tell nobody)
                    await asyncio.sleep(0.01)
                return now
        raise AssertionError(f"{name} {labels} is {value(name, **labels)}")

    return wait


@pytest.fixture
def held(app):
    """A task `hold` whose executions say that they are there, and stay until they are let go."""
    entered, go_on = asyncio.Event(), asyncio.Event()

    @app.task("hold")
    async def hold() -> None:
        entered.set()
        await go_on.wait()

    return entered, go_on


@pytest.fixture
def lost_worker(tables):
    """A worker whose lease has run out while it held a task."""

    async def hold(task_id, *, losses=0):
        await tables.execute(
            """WITH gone AS (
                   INSERT INTO asynctaskd.workers
                          (id, name, hostname, pid, version, labels, names, concurrency, expires_at)
                   VALUES ($2, $2, 'gone', 1, '0', '{}', '{}', 1, clock_timestamp() - interval '1 second'))
               UPDATE asynctaskd.tasks
               SET status = 'running', worker_id = $2, claim_token = 1, attempts = 1, losses = $3,
                   claimed_at = clock_timestamp()
               WHERE id = $1""",
            task_id,
            uuid4(),
            losses,
        )

    return hold


def test_every_metric_of_the_page_is_waited_for_here():
    documented = set(re.findall(r"^\| `asynctaskd_(\w+)` ", PAGE.read_text("utf8"), re.MULTILINE))
    waited_for = set(re.findall(r"until\(\s*\"(\w+)\"", Path(__file__).read_text("utf8")))
    assert waited_for == documented


async def test_what_cant_be_measured_keeps_nothing_else_waiting(app, running, metrics, recorder, monkeypatch):
    async def take_too_long(_):
        raise DatabaseUnavailableError(
            "the database is unavailable: canceling statement due to statement timeout"
        )

    monkeypatch.setattr(MeasureStore, "waiting", take_too_long)
    async with running(app, **QUICK):
        await recorder.wait_for("database.lost", station="census")
        await recorder.wait_for("queue.polled", times=len(recorder.all("queue.polled")) + 2)
    assert recorder.all("database.lost", station="housekeeping") == []


# What becomes of tasks


async def test_claims_outcomes_and_durations_are_counted_by_name(app, running, client, tables, value, until):
    @app.task("email:new")
    async def email() -> None: ...

    @app.route("order:")
    async def order(payload: dict) -> None: ...

    @app.task("fail", retry=RetryPolicy("1ms", max_attempts=2))
    async def fail() -> None:
        raise ValueError

    @app.task("snooze")
    async def snooze() -> None:
        raise SnoozeTask("1h")

    async with running(app, **QUICK):
        await client.enqueue_many([TaskRequest("email:new")] * 5)
        await client.enqueue_many([TaskRequest(f"order:{n}", {}) for n in range(3)])
        await client.enqueue("fail")
        await client.enqueue("snooze")
        await until("tasks_finished_total", lambda n: n == 5, task="email:new", outcome="completed")
        await until("tasks_finished_total", lambda n: n == 3, task="order:*", outcome="completed")
        await until("tasks_finished_total", lambda n: n == 1, task="fail", outcome="retried")
        await until("tasks_finished_total", lambda n: n == 1, task="fail", outcome="failed")
        await until("tasks_finished_total", lambda n: n == 1, task="snooze", outcome="snoozed")
        await until("tasks_claimed_total", lambda n: n == 5, task="email:new")
        await until("tasks_claimed_total", lambda n: n == 2, task="fail")
        await until("task_duration_seconds", lambda n: n == 5, task="email:new")
        await until("task_wait_seconds", lambda n: n == 10, group="default")
    assert value("tasks_claimed_total", task="order:1") is None


async def test_what_an_operator_or_a_deadline_ends_is_an_outcome_too(
    app, held, running, client, tables, until, soon
):
    entered, _ = held
    async with running(app, concurrency=1, **QUICK):
        for action, outcome in ((client.cancel, "cancelled"), (client.pause, "paused")):
            entered.clear()
            task_id = await client.enqueue("hold")
            await soon(entered)
            await action(task_id)
            await until("tasks_finished_total", lambda n: n == 1, task="hold", outcome=outcome)


async def test_a_duration_is_that_of_the_handler(app, metrics, running, client, wait):
    @app.task("sleep")
    async def sleep() -> None:
        await asyncio.sleep(0.03)

    async with running(app, **QUICK):
        await wait(await client.enqueue("sleep"))
    sample = metrics.registry.get_sample_value
    took = sample("asynctaskd_task_duration_seconds_sum", {"task": "sleep"})
    assert 0.03 <= took < 1
    assert sample("asynctaskd_task_duration_seconds_bucket", {"task": "sleep", "le": "0.025"}) == 0
    assert sample("asynctaskd_task_duration_seconds_bucket", {"task": "sleep", "le": "+Inf"}) == 1


async def test_a_wait_counts_from_when_the_task_was_due_and_by_its_group(
    app, metrics, running, client, tables, configure, until
):
    @app.task("one")
    async def one() -> None: ...

    await configure(weights={"mail": 3})
    delayed = await client.enqueue("one", delay="1h", labels=["mail"])
    await tables.execute(
        "UPDATE asynctaskd.tasks SET created_at = created_at - interval '1 day',"
        " run_at = clock_timestamp() - interval '2 s' WHERE id = $1",
        delayed,
    )
    await client.enqueue("one", priority=1, labels=["mail"])
    async with running(app, labels=["mail"], **QUICK):
        await until("task_wait_seconds", group="mail")
        await until("task_wait_seconds", group="!strict")
    waited = metrics.registry.get_sample_value("asynctaskd_task_wait_seconds_sum", {"group": "mail"})
    assert 2 <= waited < 60


async def test_what_runs_in_which_lane_is_told_beside_how_much_may(app, held, running, client, soon, until):
    entered, go_on = held
    async with running(app, concurrency=4, max_strict_percentage=50, **QUICK):
        await until("slots", lambda n: n == 4)
        await until("strict_cap", lambda n: n == 2)
        await until("strict_saturation_ratio", lambda share: share == 0)
        await client.enqueue("hold")
        await client.enqueue("hold", priority=1)
        await soon(entered)
        await until("running_tasks", lambda n: n == 2)
        await until("strict_running_tasks", lambda n: n == 1)
        await until("strict_saturation_ratio", lambda share: share == 0.5)
        go_on.set()
        await until("running_tasks", lambda n: n == 0)


async def test_what_has_ended_and_cannot_be_written_is_told(app, running, client, tables, until):
    @app.task("one")
    async def one(ctx: TaskContext) -> None:
        ended.append(ctx.task_id)
        await go_on.wait()

    ended, go_on = list[int](), asyncio.Event()
    async with running(app, **QUICK):
        await client.enqueue("one")
        await until("running_tasks", lambda n: n == 1)
        async with tables.transaction() as connection:
            await connection.execute("SELECT FROM asynctaskd.tasks WHERE id = $1 FOR UPDATE", ended[0])
            go_on.set()
            await until("unwritten_results", lambda n: n == 1)
        await until("unwritten_results", lambda n: n == 0)


async def test_results_that_come_too_late_are_counted_as_stale(
    app, held, running, client, tables, soon, until
):
    entered, go_on = held
    async with running(app, **QUICK):
        task_id = await client.enqueue("hold")
        await soon(entered)
        await tables.execute(
            "UPDATE asynctaskd.tasks SET status = 'paused', worker_id = NULL WHERE id = $1", task_id
        )
        await tables.execute(
            "INSERT INTO asynctaskd.task_events (task_id, claim_token, kind) VALUES ($1, 1, 'lease_lost')",
            task_id,
        )
        go_on.set()
        await until("stale_results_total", task="hold")
        await until("tasks_finished_total", task="hold", outcome="stale")


async def test_a_quarantine_and_what_is_taken_from_a_lost_worker_are_counted(
    app, running, client, lost_worker, until
):
    @app.task("killer")
    async def killer() -> None: ...

    await lost_worker(await client.enqueue("killer"), losses=2)
    async with running(app, **QUICK):
        await until("tasks_recovered_total")
        await until("tasks_quarantined_total", task="killer")


async def test_names_that_nobody_declares_make_no_label(app, running, client, value, until):
    async with running(app, **QUICK):
        await client.enqueue_many([TaskRequest(f"made-up-{n}") for n in range(50)])
        await until("unknown_tasks_total", lambda n: n >= 50)
        await until("tasks_claimed_total", lambda n: n >= 50, task="other")
    assert value("tasks_claimed_total", task="made-up-1") is None


async def test_failed_hooks_are_counted_and_are_errors_of_the_daemons_world(app, running, client, until):
    @app.task("ship")
    async def ship() -> None:
        raise FatalTaskError("no stock")

    @ship.on_failed
    async def ship_failed(params, failure, tx) -> None:
        raise LookupError("never")

    async with running(app, **QUICK):
        await client.enqueue("ship")
        await until("hook_failures_total", lambda n: n == 3, task="ship")
        await until("internal_errors_total", lambda n: n == 3, event="hook.failed")
        await until("tasks_finished_total", lambda n: n == 1, task="ship", outcome="failed")


async def test_a_handler_that_does_not_stop_and_what_it_left_running_are_counted(
    app, running, client, until, monkeypatch
):
    monkeypatch.setattr("asynctaskd.daemon.execution._STUCK_AFTER", 0.05)
    go_on = asyncio.Event()

    @app.task("stubborn", timeout="20ms")
    async def stubborn() -> None:
        asyncio.create_task(asyncio.Event().wait())  # noqa: RUF006  (that is the fault)
        while not go_on.is_set():
            with suppress(asyncio.CancelledError):
                await go_on.wait()

    async with running(app, **QUICK):
        await client.enqueue("stubborn")
        await until("stuck_handler_reports_total", task="stubborn", why="timeout")
        go_on.set()
        await until("leaked_asyncio_tasks_total", lambda n: n == 1, task="stubborn")


# Enqueues


async def test_enqueues_are_counted_with_their_time_and_with_why_they_failed(app, metrics, pool, until):
    @app.task("one")
    async def one() -> None: ...

    client = Client(pool, app)
    await client.enqueue("one")
    await client.enqueue_many([TaskRequest("one")] * 4)
    await until("tasks_enqueued_total", lambda n: n == 5, task="one")
    await until("enqueue_duration_seconds", lambda n: n == 2)
    with pytest.raises(InvalidInputError):
        await client.enqueue("one", priority=-1)
    await until("enqueue_failures_total", lambda n: n == 1, reason="invalid")
    with suppress(DatabaseUnavailableError):
        await Client("postgresql://nobody@127.0.0.1:1/none", app).enqueue("one")
    await until("enqueue_failures_total", lambda n: n == 1, reason="unavailable")
    await until("tasks_enqueued_total", lambda n: n == 5, task="one")


async def test_an_application_has_them_in_a_registry_of_its_own_too(app, pool):
    registry = CollectorRegistry()
    counting = Metrics(app, registry=registry)
    await Client(pool).enqueue("undeclared")
    counting.close()
    await Client(pool).enqueue("undeclared")
    assert registry.get_sample_value("asynctaskd_tasks_enqueued_total", {"task": "other"}) == 1
    assert registry.get_sample_value("process_cpu_seconds_total") is None  # the application has these itself


async def test_without_an_app_the_first_names_are_told_apart(pool):
    counting = Metrics()
    for n in range(300):
        emit("task.enqueued", tasks={f"task{n}": 1}, seconds=0.001)
    told = counting.registry.get_sample_value
    counting.close()
    assert told("asynctaskd_tasks_enqueued_total", {"task": "task199"}) == 1
    assert told("asynctaskd_tasks_enqueued_total", {"task": "other"}) == 100


# The fleet and its database


async def test_what_waits_is_told_by_group_with_its_age(app, held, running, client, tables, configure, until):
    _, go_on = held
    await configure(weights={"mail": 3})
    requests = [TaskRequest("hold", labels=["mail"])] * 30 + [TaskRequest("hold")] * 4
    await client.enqueue_many([*requests, TaskRequest("hold", priority=1), TaskRequest("hold", delay="1h")])
    await tables.execute("UPDATE asynctaskd.tasks SET created_at = created_at - interval '1 minute'")
    async with running(app, enabled=False, **QUICK):
        await until("waiting_tasks", lambda n: n == 30, group="mail")
        await until("waiting_tasks", lambda n: n == 4, group="default")
        await until("waiting_tasks", lambda n: n == 1, group="!strict")
        await until("oldest_waiting_seconds", lambda seconds: 60 <= seconds < 120, group="mail")
        await until("live_workers", lambda n: n == 1)
        await tables.execute("DELETE FROM asynctaskd.tasks")
        await until("waiting_tasks", lambda n: n == 0, group="mail")
        await until("oldest_waiting_seconds", lambda seconds: seconds == 0, group="mail")
    go_on.set()


async def test_an_old_transaction_is_told_by_its_age_and_by_what_it_keeps(
    app, metrics, running, tables, until
):
    async with running(app, **QUICK):
        async with tables.transaction() as connection:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            await connection.execute("SELECT 1")
            for _ in range(3):
                await tables.execute("SELECT pg_current_xact_id()")
            await until("oldest_transaction_seconds", lambda seconds: seconds > 0.1)
            await until("horizon_age_transactions", lambda n: n >= 3)
        await until("oldest_transaction_seconds", lambda seconds: seconds < 0.1)


async def test_notices_and_their_queue_are_told_as_the_database_has_them(app, held, running, client, until):
    await client.enqueue("hold")  # nobody is there to hear of it
    _, go_on = held
    async with running(app, **QUICK) as daemon:
        await until("notices_saved_total")
        go_on.set()
        await daemon._claimer._say_idle(True)
        await client.enqueue("hold")
        await until("notices_sent_total")
        await until("notification_queue_ratio", lambda share: 0 <= share < 1)


# The worker and what it depends on


async def test_an_outage_shows_wherever_it_is_felt(app, running, proxy, recorder, until):
    async with running(app, url=proxy.dsn, lease="3s", renew_interval="100ms", poll_interval="50ms"):
        await until("db_up", lambda up: up == 1)
        await until("listen_up", lambda up: up == 1)
        await until("lease_renew_seconds")
        await until("listen_probe_seconds")
        proxy.refuse()
        proxy.cut()
        await until("db_up", lambda up: up == 0)
        await until("listen_up", lambda up: up == 0)
        await until("lease_renew_failures_total")
        await until("database_outages_total", station="lease")
        await until("internal_errors_total", event="database.lost")
        await until("listener_losses_total")
        await proxy.restore()
        await until("db_up", lambda up: up == 1)
        await until("listen_up", lambda up: up == 1)


async def test_a_lease_that_was_taken_is_counted(app, running, tables, until):
    async with running(app, **QUICK):
        await tables.execute("UPDATE asynctaskd.workers SET lost_at = clock_timestamp()")
        await until("leases_lost_total")


async def test_a_claim_that_got_lost_on_its_way_is_counted(app, held, running, client, until, monkeypatch):
    monkeypatch.setattr(doubts, "_DOUBT", doubts.timedelta(seconds=0.2))
    claim, lost = Store.claim, []

    async def lossy(self, *args, **kwargs):
        claimed = await claim(self, *args, **kwargs)
        if claimed and not lost:
            lost.extend(claimed)
            raise DatabaseUnavailableError("the answer got lost")
        return claimed

    monkeypatch.setattr(Store, "claim", lossy)
    async with running(app, **QUICK):
        await client.enqueue("hold")
        await until("claims_lost_total")


async def test_connections_of_handlers_are_told_while_they_are_in_use(app, running, client, soon, until):
    entered, go_on = asyncio.Event(), asyncio.Event()

    @app.task("commit")
    async def commit(ctx: TaskContext) -> None:
        async with ctx.transaction():
            entered.set()
            await go_on.wait()

    async with running(app, pool_size=3, **QUICK):
        await until("pool_size", lambda n: n == 3)
        await until("pool_in_use", lambda n: n == 0)
        await client.enqueue("commit")
        await soon(entered)
        await until("pool_in_use", lambda n: n == 1)
        go_on.set()
        await until("pool_in_use", lambda n: n == 0)


async def test_a_blocked_loop_is_told_while_it_lasts_and_afterwards(app, metrics, running, client, until):
    during = []

    @app.task("block")
    async def block() -> None:
        sample = metrics.registry.get_sample_value
        while not (now := sample("asynctaskd_loop_blocked_seconds", {"task": "block"})):
            time.sleep(0.05)  # noqa: ASYNC251  (that is the fault)
        during.append(now)

    async with running(app, **QUICK):
        await until("loop_lag_seconds", lambda seconds: 0 < seconds < 1)
        await client.enqueue("block")
        await until("loop_stall_seconds_total", lambda seconds: seconds >= 1, task="block")
        await until("loop_lag_seconds", lambda seconds: seconds < 1)
    assert during[0] >= 1


async def test_a_stall_that_lasts_has_the_name_of_its_task(metrics, until):
    emit("loop.stalled", task_id=1, task="made up by somebody", seconds=1.5, traceback="")
    await until("loop_blocked_seconds", lambda seconds: seconds >= 1.5, task="other")


async def test_versions_of_the_configuration_are_told_until_all_have_applied_them(
    app, running, client, tables, until
):
    async with running(app, **QUICK):
        silent = uuid4()
        await tables.execute(
            """INSERT INTO asynctaskd.workers
                      (id, name, hostname, pid, version, labels, names, concurrency, expires_at)
               VALUES ($1, $1, 'far', 7, '0', '{}', '{}', 1, clock_timestamp() + interval '1 hour')""",
            silent,
        )
        first = asyncio.create_task(client.update_runtime_config(default_weight=2, timeout="20s"))
        await until("config_version", lambda version: version == 1, state="applied")
        await until("config_version", lambda version: version == 1, state="newest")
        await until("lagging_workers", lambda n: n == 1)
        await client.update_runtime_config(default_weight=3, timeout="100ms")
        await first
        await until("config_superseded_total", lambda n: n == 1)
        await tables.execute("DELETE FROM asynctaskd.workers WHERE id = $1", silent)
        await client.update_runtime_config(default_weight=4, timeout="10s")
        await until("convergence_seconds", lambda n: n == 1)
        await until("lagging_workers", lambda n: n == 0)


async def test_schedules_that_are_late_and_slots_without_a_task_are_told(app, running, client, tables, until):
    async with running(app, **QUICK):
        await until("cron_lag_seconds", lambda seconds: seconds == 0)
        await client.add_schedule("report", Cron("@every 10m", missed="skip"))
        await tables.until("SELECT next_at IS NOT NULL FROM asynctaskd.schedules")
        async with tables.transaction() as connection:
            await connection.execute(
                "UPDATE asynctaskd.schedules SET next_at = next_at - interval '1 hour',"
                " since = since - interval '1 hour'"
            )
        await until("schedule_slots_skipped_total", schedule="report")


async def test_a_partition_that_was_dropped_is_counted(app, running, client, tables, wait, until):
    @app.task("one")
    async def one() -> None: ...

    async with running(app):
        await wait(await client.enqueue("one", keep="1d"))
    await tables.execute(
        "CREATE OR REPLACE FUNCTION asynctaskd.clock() RETURNS timestamptz LANGUAGE sql VOLATILE"
        " PARALLEL SAFE RETURN clock_timestamp() + interval '3 days'"
    )
    async with running(app):
        await until("partitions_dropped_total")


async def test_a_process_that_a_suspect_has_killed_is_counted(
    running, client, connection, until, tmp_path, monkeypatch
):
    (tmp_path / "deadly.py").write_text(
        "import os\nfrom asynctaskd import App\napp = App()\n\n"
        "@app.task('cursed')\nasync def cursed() -> None:\n    os._exit(3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{PAGE.parents[2]}")
    deadly = __import__("deadly")
    async with running(deadly.app, app_path="deadly:app", lease="15s", poll_interval="50ms"):
        async with connection.transaction():
            task_id = await client.enqueue("cursed", connection=connection)
            await connection.execute("UPDATE asynctaskd.tasks SET losses = 2 WHERE id = $1", task_id)
        await until("children_died_total")


async def test_lines_of_the_log_that_nobody_takes_are_counted(metrics, until):
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    logs = configure_logging("info", "json", Full())
    try:
        emit("worker.stopping", worker_id=None, running=0)
        logs.flush()
        await until("log_lines_dropped_total", lambda n: n >= 1)
    finally:
        logs.close()


async def test_what_runs_is_told_with_its_version(metrics, until):
    from platform import python_version

    from asynctaskd.version import __version__

    await until("build_info", lambda one: one == 1, version=__version__, python=python_version())


async def test_a_worker_that_has_stopped_tells_nothing_of_itself(app, running, value, until):
    async with running(app, **QUICK):
        await until("slots")
    assert value("slots") is None
    assert value("db_up") is None


def test_an_app_that_declares_nothing_tells_no_names_apart():
    assert App().declared_name("anything") is None
