"""Schedules at work: one task per slot, whoever races, dies or was away."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, suppress
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from asynctaskd import Client, Cron, InvalidInputError, InvalidPayloadError, InvalidStateError
from asynctaskd.daemon.cron import Cron as CronLoop
from asynctaskd.errors import DatabaseUnavailableError
from asynctaskd.postgres.schedules import ScheduleStore
from asynctaskd.postgres.store import Store

ROWS = "SELECT {} FROM asynctaskd.schedule_slots WHERE schedule = 'report' ORDER BY slot"


@pytest.fixture
async def store(database):
    opened = await Store.open(database.dsn, schema=database.schema)
    yield opened
    await opened.close()


@pytest.fixture
async def cron(store, app, tables):
    """A worker's loop over schedules, step by step; the schema's clock stands still between two seconds."""
    await set_clock(tables, "date_trunc('second', clock_timestamp()) + interval '0.5 s'")
    return loop_of(store, app)


async def set_clock(tables, moment: str) -> datetime:
    """Stop the schema's clock at a moment, given in SQL."""
    at = await tables.value(f"SELECT {moment}")
    await tables.execute(
        "CREATE OR REPLACE FUNCTION asynctaskd.clock() RETURNS timestamptz"
        f" LANGUAGE sql VOLATILE PARALLEL SAFE RETURN timestamptz '{at.isoformat()}'"
    )
    return at


def loop_of(store, app) -> CronLoop:
    return CronLoop(ScheduleStore(store.sessions, store.schema), app, poll_interval=1.0)


@pytest.fixture
def ran(app):
    """What the task `report` was given, in order."""
    given = []

    @app.task("report")
    async def report(payload: dict) -> None:
        given.append(payload)

    return given


@pytest.fixture
def asleep(tables):
    """As if everything had slept for 35 minutes over a schedule that is due every ten."""

    async def sleep(name: str = "report", since: str = "35 min", step: str = "10 min") -> None:
        await tables.execute(
            "UPDATE asynctaskd.schedules SET since = clock_timestamp() - $2::text::interval,"
            " next_at = clock_timestamp() - $2::text::interval + $3::text::interval WHERE name = $1",
            name,
            since,
            step,
        )
        await tables.execute(
            "UPDATE asynctaskd.schedules SET next_at = since + $2::text::interval WHERE name = $1", name, step
        )

    return sleep


async def due_now(tables, within=None) -> None:
    """The next second comes, and with it the next slot of `report`."""
    now = await set_clock(tables, "date_trunc('second', asynctaskd.clock() + interval '1 s')")
    await (within or tables).execute(
        "UPDATE asynctaskd.schedules SET next_at = $1::timestamptz, since = $1::timestamptz - interval '1 h'"
        " WHERE name = 'report'",
        now,
    )


async def ledger(tables, column: str) -> list:
    return await tables.column(ROWS.format(column))


# One task per slot


async def test_a_slot_is_a_row_and_a_task(running, app, ran, client, tables, recorder) -> None:
    await client.add_schedule("report", Cron("@every 1s", params={"a": 1}, overlap="allow"))
    async with running(app):
        await recorder.wait_for("schedule.ran", times=3)
        await tables.until("SELECT count(*) >= 2 FROM asynctaskd.finished_tasks WHERE status = 'completed'")
    assert {"a": 1} in ran
    slots = await ledger(tables, "slot")
    assert {later - sooner for sooner, later in pairwise(slots)} == {timedelta(seconds=1)}
    assert set(await ledger(tables, "outcome")) == {"ran"}
    tasks = await tables.column("SELECT id FROM asynctaskd.all_tasks WHERE name = 'report' ORDER BY id")
    assert tasks == await ledger(tables, "task_id")


async def test_many_daemons_make_one_task_per_slot(running, app, ran, client, tables, recorder) -> None:
    for number in range(5):
        await client.add_schedule(f"s{number}", Cron("* * * * * *", overlap="allow"), task="report")
    async with AsyncExitStack() as stack:
        for _ in range(6):
            await stack.enter_async_context(running(app))
        for number in range(5):
            await recorder.wait_for("schedule.ran", schedule=f"s{number}", times=4)
    tasks = await tables.value("SELECT count(*) FROM asynctaskd.all_tasks")
    slots = await tables.value("SELECT count(*) FROM asynctaskd.schedule_slots WHERE outcome = 'ran'")
    assert (
        tasks == slots == await tables.value("SELECT count(DISTINCT task_id) FROM asynctaskd.schedule_slots")
    )
    assert len(recorder.all("schedule.ran")) == slots
    gaps = await tables.value(
        "SELECT count(*) FROM (SELECT slot - lag(slot) OVER (PARTITION BY schedule ORDER BY slot) AS step"
        " FROM asynctaskd.schedule_slots) AS steps WHERE step <> interval '1 s'"
    )
    assert gaps == 0


async def test_loops_that_look_at_the_same_slot_make_one_task(store, app, client, tables, cron) -> None:
    await client.add_schedule("report", Cron("* * * * * *", overlap="allow"))
    loops = [loop_of(store, app) for _ in range(20)]
    await cron.catch_up()
    await due_now(tables)
    await asyncio.gather(*(loop.step() for loop in loops))
    assert await tables.value("SELECT count(*) FROM asynctaskd.tasks") == len(await ledger(tables, "slot"))


async def test_a_backend_that_dies_in_between_leaves_neither_row_nor_task(
    store, app, client, tables, cron, monkeypatch
) -> None:
    await client.add_schedule("report", "* * * * * *")
    await cron.catch_up()
    await due_now(tables)
    # It dies after the task was inserted, before the slot's transaction is over.
    await tables.execute(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END'"
    )
    await tables.execute(
        "CREATE TRIGGER die AFTER INSERT ON asynctaskd.schedule_slots FOR EACH ROW EXECUTE FUNCTION die()"
    )
    with pytest.raises(DatabaseUnavailableError):
        await cron.step()
    assert await tables.value("SELECT count(*) FROM asynctaskd.tasks") == 0
    assert await ledger(tables, "slot") == []
    await tables.execute("DROP TRIGGER die ON asynctaskd.schedule_slots")

    await cron.catch_up()
    assert await tables.value("SELECT count(*) FROM asynctaskd.tasks") == 1


async def test_an_answer_that_got_lost_makes_no_second_task(client, tables, cron, monkeypatch) -> None:
    await client.add_schedule("report", Cron("* * * * * *", overlap="allow"))
    await cron.catch_up()
    await due_now(tables)
    decide, lost = ScheduleStore.decide, []

    async def deaf(self, *arguments):
        answer = await decide(self, *arguments)
        if not lost:
            lost.append(answer)
            raise DatabaseUnavailableError("the answer got lost")
        return answer

    monkeypatch.setattr(ScheduleStore, "decide", deaf)
    with pytest.raises(DatabaseUnavailableError):
        await cron.step()
    await cron.catch_up()
    assert len(lost[0]) == 1
    assert await tables.value("SELECT count(*) FROM asynctaskd.tasks") == len(await ledger(tables, "slot"))


async def test_a_slot_that_was_decided_isnt_decided_again_by_a_schedule_made_anew(
    client, tables, cron
) -> None:
    await client.add_schedule("report", Cron("* * * * * *", overlap="allow"))
    await cron.catch_up()
    await due_now(tables)
    await cron.catch_up()
    before = await ledger(tables, "slot")
    await client.remove_schedule("report")

    await client.add_schedule("report", Cron("* * * * * *", overlap="allow"))
    await tables.execute("UPDATE asynctaskd.schedules SET next_at = $1, since = $1", before[0])
    await cron.step()
    assert len(await ledger(tables, "slot")) == await tables.value("SELECT count(*) FROM asynctaskd.tasks")


async def test_a_change_while_a_slot_is_decided_goes_first(
    client, tables, store, app, monkeypatch, cron
) -> None:
    await client.add_schedule("report", Cron("* * * * * *", params={"v": 1}))
    await cron.catch_up()
    await due_now(tables)
    decide = ScheduleStore.decide

    async def overtaken(self, *arguments):
        await client.change_schedule("report", params={"v": 2})
        monkeypatch.setattr(ScheduleStore, "decide", decide)
        return await decide(self, *arguments)

    monkeypatch.setattr(ScheduleStore, "decide", overtaken)
    await cron.catch_up()
    await cron.catch_up()
    payloads = await tables.column("SELECT payload::text FROM asynctaskd.tasks ORDER BY id")
    assert payloads[0] == '{"v": 2}'


# Slots that were missed


@pytest.mark.parametrize(
    ("missed", "outcomes"),
    [("skip", ["skipped"] * 3), ("once", ["skipped", "skipped", "late"]), ("all", ["late"] * 3)],
)
async def test_missed_slots(client, tables, cron, asleep, missed, outcomes) -> None:
    await client.add_schedule("report", Cron("@every 10m", missed=missed))
    await cron.catch_up()
    await asleep()
    await cron.catch_up()
    assert await ledger(tables, "outcome") == outcomes
    assert await tables.value("SELECT count(*) FROM asynctaskd.tasks") == outcomes.count("late")
    assert await tables.value("SELECT next_at > clock_timestamp() FROM asynctaskd.schedules")
    [row] = await client.list_schedules()
    assert (row["last_outcome"], row["last_reason"]) == (outcomes[-1], "missed: nothing ran")


async def test_all_has_a_limit(client, tables, cron, asleep) -> None:
    await client.add_schedule("report", Cron("@every 10m", missed="all", limit=2))
    await cron.catch_up()
    await asleep()
    await cron.catch_up()
    assert await ledger(tables, "outcome") == ["skipped", "late", "late"]
    assert (await ledger(tables, "reason"))[0] == "missed: only the latest 2 are made up for"


# Overlap


async def test_a_slot_is_skipped_while_the_last_task_is_pending(client, tables, cron, recorder) -> None:
    await client.add_schedule("report", "* * * * * *")
    await cron.catch_up()
    await due_now(tables)
    await cron.step()
    [first] = await tables.column("SELECT id FROM asynctaskd.tasks")
    await recorder.wait_for("schedule.ran")
    await due_now(tables)
    await cron.step()
    assert (await ledger(tables, "reason"))[-1] == f"task {first} is still pending"
    assert recorder.all("schedule.skipped")[0]["reason"] == f"task {first} is still pending"


async def last_task(tables, cron, client, status: str, **columns: str) -> int:
    """A schedule's task that is in this state when the next slot comes."""
    await client.add_schedule("report", "@every 10m")
    await cron.catch_up()
    task_id = await client.enqueue("report")
    changes = ", ".join(f"{name} = {value}" for name, value in columns.items())
    await tables.execute(f"UPDATE asynctaskd.tasks SET status = '{status}', {changes} WHERE id = $1", task_id)
    await tables.execute("UPDATE asynctaskd.schedules SET last_task = $1", task_id)
    await due_now(tables)
    await tables.execute("UPDATE asynctaskd.schedules SET since = next_at - interval '10 min'")
    return task_id


RUNNING = {"worker_id": "gen_random_uuid()", "claim_token": "1", "claimed_at": "now()"}
LATER = {"run_at": "now() + interval '1 h'"}


@pytest.mark.parametrize(
    ("status", "columns"),
    [
        ("running", RUNNING),
        ("paused", {"reason": "'x'"}),
        ("scheduled", LATER),
        ("scheduled", LATER | {"failures": "1"}),  # snoozed after a failure
        ("scheduled", LATER | {"failures": "1", "reason": "'unknown_name'"}),
    ],
)
async def test_what_isnt_over_keeps_the_next_slot_away(client, tables, cron, status, columns) -> None:
    task_id = await last_task(tables, cron, client, status, **columns)
    await cron.catch_up()
    assert await ledger(tables, "reason") == [f"task {task_id} is still {status}"]
    assert await tables.column("SELECT id FROM asynctaskd.tasks") == [task_id]


async def test_a_task_that_only_waits_for_its_retry_is_superseded(client, tables, cron) -> None:
    task_id = await last_task(tables, cron, client, "scheduled", failures="1", reason="'error'", **LATER)
    await cron.catch_up()
    [slot] = await ledger(tables, "slot")
    old = await client.get_task(task_id)
    assert (old.status, old.reason) == ("cancelled", f"superseded by slot {slot:%Y-%m-%dT%H:%M:%SZ}")
    [new] = await ledger(tables, "task_id")
    assert (await client.get_task(new)).attempts == 0
    assert await ledger(tables, "outcome") == ["ran"]


async def test_a_task_that_somebody_has_in_hand_isnt_waited_for(client, tables, cron) -> None:
    task_id = await last_task(tables, cron, client, "scheduled", failures="1", reason="'error'", **LATER)
    async with tables.transaction() as connection:
        await connection.execute("SELECT FROM asynctaskd.tasks WHERE id = $1 FOR UPDATE", task_id)
        await cron.catch_up()
        assert await ledger(tables, "reason") == [f"task {task_id} is still scheduled"]


async def test_a_failing_task_never_stops_its_schedule(running, app, client, tables, recorder) -> None:
    @app.task("report")
    async def report() -> None:
        raise ValueError("no")

    await client.add_schedule("report", "* * * * * *")
    async with running(app):
        await recorder.wait_for("task.failed", times=3)
    assert await tables.value("SELECT paused_at IS NULL FROM asynctaskd.schedules")


# Declared


async def test_a_declared_schedule_begins_with_the_first_worker(
    running, app, client, tables, recorder
) -> None:
    days = []

    @app.task("report", cron=Cron("* * * * * *", zone="Pacific/Kiritimati", params={"size": 3}))
    async def report(day: date, at: datetime, size: int, note: date | None = None) -> None:
        days.append((day, at, size, note))

    async with running(app):
        told = await recorder.wait_for("schedule.ran")
        await client.wait(told["task_id"], "20s")
        [row] = await client.list_schedules()
        assert (row["name"], row["declared"], row["tended"], row["task"]) == ("report", True, True, "report")
    day, at, size, note = days[0]
    assert at == told["slot"]
    assert at.utcoffset() == timedelta(hours=14)
    assert (day, size, note) == (at.date(), 3, None)
    [row] = await client.list_schedules()
    assert not row["tended"]


def declare(app, **options) -> None:
    @app.task("report", **options)
    async def report(day: date) -> None: ...


async def test_a_restart_leaves_what_an_operator_changed(store, app, client) -> None:
    declare(app, cron="0 0 2 * * *")
    await loop_of(store, app).declare()
    await client.change_schedule("report", expression="0 0 3 * * *", params={"day": "2026-01-01"})
    await client.pause_schedule("report")

    await loop_of(store, app).declare()
    [row] = await client.list_schedules()
    assert (row["expression"], row["params"]) == ("0 0 3 * * *", {"day": "2026-01-01"})
    assert row["paused_at"] is not None
    assert row["next"] == []


async def test_a_changed_declaration_wins_and_a_pause_stays(store, app, client) -> None:
    declare(app, cron="0 0 2 * * *")
    await loop_of(store, app).declare()
    await client.change_schedule("report", expression="0 0 3 * * *")
    await client.pause_schedule("report")

    newer = type(app)()
    declare(newer, cron=Cron("0 0 4 * * *", zone="Europe/Vienna"))
    await loop_of(store, newer).declare()
    [row] = await client.list_schedules()
    assert (row["expression"], row["zone"]) == ("0 0 4 * * *", "Europe/Vienna")
    assert row["paused_at"] is not None


async def test_a_declaration_that_is_gone_rests(store, app, client, tables) -> None:
    declare(app, cron="@yearly")
    await loop_of(store, app).declare()
    stranger = loop_of(store, type(app)())
    await loop_of(store, app).catch_up()
    await due_now(tables)
    await stranger.catch_up()
    look = await ScheduleStore(store.sessions, store.schema).look([])
    assert (look.lag, look.next_in) == (0.0, None)  # nothing waits for it, nor wakes anybody
    assert await ledger(tables, "slot") == []
    await loop_of(store, app).catch_up()
    assert await ledger(tables, "slot") != []


async def test_a_row_that_an_operator_has_locked_is_looked_at_again_later(client, tables, cron) -> None:
    await client.add_schedule("report", "* * * * * *")
    async with tables.transaction() as connection:
        await connection.execute("SELECT FROM asynctaskd.schedules FOR UPDATE")
        assert await cron.step() > 0
        await due_now(tables, within=connection)
        assert await cron.step() > 0
    assert await cron.step() == 0


# Managed at run time


async def test_a_schedule_is_paused_and_resumed(client, tables, cron, asleep) -> None:
    await client.add_schedule("report", "@every 10m")
    await cron.catch_up()
    await asleep()
    await client.pause_schedule("report")
    await cron.catch_up()
    assert await ledger(tables, "slot") == []
    await client.resume_schedule("report")
    await cron.catch_up()
    assert await ledger(tables, "slot") == []  # what it slept over while it was paused wasn't missed
    [row] = await client.list_schedules(count=2)
    assert row["paused_at"] is None
    assert row["next"][1] - row["next"][0] == timedelta(minutes=10)
    assert row["next"][0] == row["next_at"]


async def test_options_travel_with_every_task(client, tables, cron) -> None:
    await client.add_schedule(
        "report", "* * * * * *", labels=["b", "a"], priority=5, timeout="30s", retry="1m,2m", tags=["x"]
    )
    await client.change_schedule("report", priority=7, keep="1d", metadata={"k": 1})
    await cron.catch_up()
    await due_now(tables)
    await cron.catch_up()
    task_id = (await ledger(tables, "task_id"))[0]  # the next second may have come too
    task = await client.get_task(task_id)
    assert (task.labels, task.priority, task.timeout, task.tags) == (
        ["a", "b"],
        7,
        timedelta(seconds=30),
        ["x"],
    )
    assert (task.max_attempts, task.metadata) == (10, {"k": 1})


async def test_what_cant_be_is_refused_with_its_reason(client) -> None:
    with pytest.raises(InvalidInputError, match="hour must be from 0 to 23, got 25"):
        await client.add_schedule("report", "0 0 25 * * *")
    with pytest.raises(InvalidInputError, match="zone must be a name such as"):
        await client.add_schedule("report", Cron("@daily", zone="Vienna"))
    with pytest.raises(InvalidInputError, match="missed must be skip or once or all, got 'never'"):
        Cron("@daily", missed="never")
    with pytest.raises(InvalidInputError, match="cron and unique_tag exclude each other"):
        await client.add_schedule("report", "@daily", unique_tag="x")
    with pytest.raises(InvalidInputError, match="must be a duration"):
        await client.add_schedule("report", "@daily", deadline=datetime.now(UTC))
    assert await client.list_schedules() == []
    await client.add_schedule("report", "@daily")
    with pytest.raises(InvalidStateError, match="there is a schedule 'report' already"):
        await client.add_schedule("report", "@daily")
    for change in (
        client.pause_schedule,
        client.resume_schedule,
        client.remove_schedule,
        client.change_schedule,
    ):
        with pytest.raises(InvalidStateError, match="there is no schedule 'other'"):
            await change("other")


async def test_a_client_with_an_app_checks_the_params(app, pool) -> None:
    declare(app)
    client = Client(pool, app)
    await client.add_schedule("report", "@daily")  # the day is the slot's
    with pytest.raises(InvalidPayloadError, match="day: "):
        await client.change_schedule("report", params={"day": "tomorrow"})


async def test_a_schedule_that_nobody_can_read_is_paused_and_says_why(client, tables, cron, recorder) -> None:
    await tables.execute("SELECT asynctaskd.put_schedule('report', expression => '0 0 25 * * *')")
    await client.add_schedule("other", "* * * * * *")
    await cron.catch_up()
    [_, row] = await client.list_schedules()
    assert "hour must be from 0 to 23" in row["paused_because"]
    assert recorder.all("schedule.refused", schedule="report")
    assert await tables.value("SELECT next_at IS NOT NULL FROM asynctaskd.schedules WHERE name = 'other'")

    await client.change_schedule("report", expression="0 0 2 * * *")
    await cron.catch_up()
    [_, row] = await client.list_schedules()
    assert (row["paused_at"], row["paused_because"]) == (None, None)
    assert row["next_at"] is not None


async def test_params_that_break_a_rule_skip_the_slot_and_the_schedule_goes_on(client, tables, cron) -> None:
    await client.add_schedule("report", "* * * * * *")
    await cron.catch_up()
    deep = json.dumps({"a": json.loads("[" * 70 + "]" * 70)})
    await tables.execute("UPDATE asynctaskd.schedules SET params = $1::text::jsonb", deep)
    await due_now(tables)
    await cron.catch_up()
    assert "levels" in (await ledger(tables, "reason"))[0]
    assert await tables.value("SELECT next_at > asynctaskd.clock() FROM asynctaskd.schedules")


async def test_a_change_is_heard_at_once(running, app, ran, client, recorder, tables) -> None:
    async with running(app, poll_interval="1h"):
        await recorder.wait_for("listener.up")
        await client.add_schedule("report", "* * * * * *")
        await recorder.wait_for("schedule.ran")


async def test_a_schedule_of_a_transaction_that_rolled_back_never_was(client, tables) -> None:
    with suppress(ZeroDivisionError):
        async with tables.transaction() as connection:
            await client.add_schedule("report", "@daily", connection=connection)
            raise ZeroDivisionError
    assert await client.list_schedules() == []


# The option cron of an enqueue


async def test_cron_at_enqueue_makes_a_schedule_whose_first_task_has_the_id(client, tables, cron) -> None:
    promised = await client.enqueue("report", {"a": 1}, cron="* * * * * *", priority=3)
    again = await client.enqueue("report", {"a": 2}, cron=Cron("* * * * * *", overlap="allow"))
    assert again == promised
    await cron.catch_up()
    await due_now(tables)
    await cron.step()
    task = await client.get_task(promised)
    assert (task.payload, task.priority, task.status) == ({"a": 2}, 3, "pending")
    assert (await ledger(tables, "task_id"))[0] == promised
    await client.enqueue("report", cron="@daily")
    [row] = await client.list_schedules()
    assert (row["expression"], row["options"], row["params"]) == ("@daily", {"priority": 3}, {})


async def test_cron_at_enqueue_from_sql(tables, client) -> None:
    settings = '{"zone": "Europe/Vienna", "missed": "all", "labels": ["a"]}'
    promised = await tables.value(
        "SELECT asynctaskd.schedule_by_enqueue('report', '{}', '@every 10m', $1::text::jsonb)", settings
    )
    [row] = await client.list_schedules()
    assert (row["zone"], row["missed"], row["options"]) == ("Europe/Vienna", "all", {"labels": ["a"]})
    assert promised > 0


@pytest.mark.parametrize("expression", ["0 0 2", "@reboot", "a; b", "@every", "0 0 L# * *", None])
async def test_sql_refuses_what_is_no_expression_at_all(tables, expression) -> None:
    from asyncpg import PostgresError

    with pytest.raises(PostgresError, match="cron must"):
        await tables.value("SELECT asynctaskd.schedule_by_enqueue('report', '{}', $1, '{}')", expression)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('{"missed": "foo"}', "missed must be skip or once or all, got 'foo'"),
        ('{"missed_limit": 5000}', "missed_limit must be at most 1000, got 5000"),
        ('{"missed_limit": 0}', "missed_limit must be at least 1, got 0"),
        ('{"missed_limit": "many"}', "missed_limit must be an integer, got 'many'"),
        ('{"overlap": "never"}', "overlap must be skip or allow, got 'never'"),
    ],
)
async def test_sql_names_the_rule_of_a_schedule_that_is_broken(tables, settings, message) -> None:
    from asyncpg import PostgresError

    with pytest.raises(PostgresError) as refused:
        await tables.value(
            "SELECT asynctaskd.schedule_by_enqueue('report', '{}', '@daily', $1::text::jsonb)", settings
        )
    assert (refused.value.sqlstate, str(refused.value)) == ("ATD01", message)


async def test_a_schedule_put_by_sql_keeps_to_the_rules(tables) -> None:
    from asyncpg import PostgresError

    for given, message in [
        ("missed => 'foo'", "missed must be skip or once or all, got 'foo'"),
        ("missed_limit => 5000", "missed_limit must be at most 1000, got 5000"),
        ("overlap => 'never'", "overlap must be skip or allow, got 'never'"),
    ]:
        with pytest.raises(PostgresError) as refused:
            await tables.execute(f"SELECT asynctaskd.put_schedule('report', expression => '@daily', {given})")
        assert (refused.value.sqlstate, str(refused.value)) == ("ATD01", message)
    assert await tables.value("SELECT count(*) FROM asynctaskd.schedules") == 0


async def test_a_request_with_cron_isnt_one_of_many(client) -> None:
    from asynctaskd import TaskRequest

    with pytest.raises(InvalidInputError, match="request 1: cron is an option of `enqueue`"):
        await client.enqueue_many([TaskRequest("report", cron="@daily")])


async def test_a_handler_may_make_a_schedule(running, app, client, tables, wait) -> None:
    from asynctaskd import TaskContext

    @app.task("plan")
    async def plan(ctx: TaskContext) -> None:
        await ctx.enqueue("report", {}, cron="@daily")

    @app.task("report")
    async def report() -> None: ...

    async with running(app):
        await wait(await client.enqueue("plan"))
    assert [row["name"] for row in await client.list_schedules()] == ["report"]


# Upkeep


async def test_once_sees_to_what_is_due(daemon_of, app, ran, client, tables, cron, asleep) -> None:
    await client.add_schedule("report", Cron("@every 10m", params={"a": 1}))
    await cron.catch_up()
    await asleep()
    await daemon_of(app).run(once=True)
    assert ran == [{"a": 1}]


async def test_the_ledger_forgets_after_30_days(client, tables, cron) -> None:
    await tables.execute(
        "INSERT INTO asynctaskd.schedule_slots (schedule, slot, outcome)"
        " SELECT 'report', asynctaskd.clock() - make_interval(days => n, mins => 1), 'skipped'"
        " FROM generate_series(1, 60) AS n"
    )
    await cron.step()
    assert len(await ledger(tables, "slot")) == 29


async def test_list_slots_says_why(client, tables, cron, asleep) -> None:
    await client.add_schedule("report", "@every 10m")
    await cron.catch_up()
    await asleep()
    await cron.catch_up()
    newest, *older = await client.list_slots("report")
    assert (newest["outcome"], newest["task_id"] is not None) == ("late", True)
    assert {row["outcome"] for row in older} == {"skipped"}
    assert all("stands for it" in row["reason"] for row in older)
