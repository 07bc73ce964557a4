"""The statements go by their indexes whatever the statistics say, and touch what they are about.

The daemon's and the dashboard's run in sessions like their own, enqueuers' in sessions with the server's
settings.

ASYNCTASKD_TEST_ROWS says how many tasks are ready in the one label set (100,000 when it isn't set).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import asyncpg
import pytest

from asynctaskd import Client, TaskRequest
from asynctaskd.postgres.configs import ConfigStore
from asynctaskd.postgres.driver import FRESH_PLANS, PINNED_PLANS, query
from asynctaskd.postgres.measures import MeasureStore
from asynctaskd.postgres.orders import OrderStore
from asynctaskd.postgres.permits import PermitStore, Wish
from asynctaskd.postgres.records import NOTHING_BARRED, START, Barred, Ended, Share, StrictLane
from asynctaskd.postgres.schedules import DueSchedule, ScheduleStore
from asynctaskd.postgres.store import Store, _columns
from asynctaskd.postgres.watchers import WatchStore
from asynctaskd.task import TaskStatus, Transition

if TYPE_CHECKING:
    from asynctaskd.definitions.options import RequestOptions
    from tests.conftest import Database

    Connection = asyncpg.Connection[asyncpg.Record]
    Node = dict[str, Any]
    Call = Callable[[Store, Connection], Awaitable[Awaitable[object]]]

ROWS = int(os.environ.get("ASYNCTASKD_TEST_ROWS", "100000"))
SETS = [f"set{number:03}" for number in range(200)]
WORKER = UUID(int=1)
LABELS = ["a", *SETS]
HOUR = timedelta(hours=1)

INDEXES = {
    "claim": {
        "tasks_ready_strict",
        "tasks_strict",
        "tasks_ready_normal",
        "tasks_pkey",
        "workers_pkey",
        "tasks_suspect",
    },
    "claim_normal": {
        "tasks_strict",
        "tasks_ready_normal",
        "tasks_pkey",
        "workers_pkey",
        "tasks_suspect",
    },
    "ready_sets": {"tasks_ready_normal", "tasks_ready_strict", "tasks_suspect"},
    "measure_waiting": {"tasks_ready_normal", "tasks_strict"},
    "complete": {"tasks_pkey"},
    "finalize": {"tasks_pkey", "unique_tags_pkey"},
    "promote_due": {"tasks_due", "tasks_pkey"},
    "promote_serial": {"tasks_serial_line", "tasks_serial_head"},
    "expire": {"tasks_deadline"},
    "recover": {"tasks_held", "tasks_pkey", "workers_pkey"},
    "declare_lost": {"workers_pkey"},
    "claim_asked": {"receipts_to_run", "receipts_pkey", "tasks_pkey", "workers_pkey"},
    "awaited": {"dependencies_pkey", "tasks_pkey"},
    "renew_lease": {
        "workers_pkey",
        "runtime_configs_pkey",
        "runtime_configs_all",
        "runtime_configs_canary",
        "tasks_requested",
        "receipts_to_run",
    },
    "claim_control": {"tasks_ready_strict", "tasks_suspect", "tasks_pkey", "workers_pkey"},
    "tell_claims": {"workers_pkey"},
    "newest_config": {
        "runtime_configs_pkey",
        "runtime_configs_all",
        "runtime_configs_canary",
        "workers_pkey",
    },
    "acknowledge_config": {"workers_pkey"},
    "count_lagging": {"runtime_configs_all"},
    "config_answers": {"runtime_configs_all", "runtime_configs_identity_key"},
    "watch_canary": {"runtime_configs_identity_key"},
    "set_idle": {"workers_pkey"},
    "register_worker": {"runtime_configs_identity_key"},
    "release_orphans": {"tasks_held"},
    "note_stale": {"task_events_task"},
    "note_progress": {"tasks_pkey"},
    "held_by": {"tasks_held"},
    "namesakes": {"workers_name"},
    "has_work": {
        "tasks_held",
        "tasks_ready_normal",
        "tasks_ready_strict",
        "tasks_serial_line",
        "tasks_serial_head",
        "tasks_suspect",
    },
    "has_suspect": {"tasks_suspect", "label_permits_pkey"},
    "exchange_permits": {"workers_pkey", "label_permits_pkey"},
    "drop_permits": {"label_permits_pkey"},
    "park": {"tasks_ready_normal", "tasks_ready_strict", "tasks_pkey"},
    "unpark": {"tasks_name_paused", "tasks_pkey", "runtime_configs_pkey"},
    "forget_tags": {"unique_tags_forget", "unique_tags_pkey"},
    "due_schedules": {"schedules_due"},
    "forget_slots": {"schedule_slots_age"},
    "open_payloads": {"tasks_pkey"},
    "forget_events": {"task_events_task", "tasks_pkey", "finished_tasks_pkey"},
}

# Suspects are few: a worker runs one at a time, and the next loss ends them. So are tasks that operators want
# to run at once.
WALKED = {"tasks_suspect", "receipts_to_run"}

# A worker is one row, and who is gone for a day is forgotten: there is nothing to index. Nor is there where
# one row is all.
# A permit is a row for each worker and limited label.
SCANNED = {
    "recover": {"workers"},
    "forget_events": {"retention"},
    "exchange_permits": {"workers"},
    "drop_permits": {"label_permits"},
    "unpark": {"workers"},
    "has_suspect": {"label_permits"},
    "count_lagging": {"workers"},
    "config_answers": {"workers"},
    "renew_lease": {"watchers"},
    "tell_claims": {"watchers"},
}

STAGES = {
    "fresh": "planned on tables that were never analysed",
    "empty": "planned on empty tables, analysed",
    "kept": "planned on empty tables, analysed, and kept while they filled",
    "stale": "planned on full tables, while the statistics say that they are empty",
    "analysed": "planned on full tables, analysed",
}

# Everything is in the tables that statements could stumble over: tasks in each status, most of them of one
# label set "a", the lines of serial keys, each with its head, unique tags, some of them forgotten, three days
# of finished tasks, and old events, the first of tasks that nobody knows.
FILL = """
    INSERT INTO asynctaskd.workers (id, name, hostname, pid, version, labels, names, concurrency, expires_at)
    SELECT ('00000000-0000-0000-0000-' || lpad(to_hex(n), 12, '0'))::uuid, gen_random_uuid(), 'host', n, '0',
           '{a}', '{x}', 10, clock_timestamp() + interval '1 day'
    FROM generate_series(1, 50) AS n;

    INSERT INTO asynctaskd.runtime_configs (version, expires_at, expired_at)
    SELECT n, CASE WHEN n % 2 = 0 THEN clock_timestamp() + interval '1 day' END, NULL
    FROM generate_series(1, 1000) AS n;

    INSERT INTO asynctaskd.definitions (name, schema_hash, timeout)
    SELECT 'declared' || n, 'x', '1 h' FROM generate_series(1, $rows / 10) AS n;

    INSERT INTO asynctaskd.tasks (name, status, label_set, weight, payload, unique_tag, deadline)
    SELECT 'x', 'pending', 'a', 1 + n % 3, '{}', CASE WHEN n % 10 = 0 THEN 'tag' || n END,
           CASE WHEN n % 2 = 0 THEN clock_timestamp() + interval '1 day' END
    FROM generate_series(1, $rows) AS n;

    INSERT INTO asynctaskd.tasks (name, status, label_set, payload)
    SELECT 'x', 'pending', 'set' || lpad((n % 200)::text, 3, '0'), '{}'
    FROM generate_series(0, $rows / 5) AS n;

    WITH waiting AS (
        INSERT INTO asynctaskd.tasks (name, status, label_set, payload, depends_on)
        SELECT 'x', 'waiting', 'a', '{}', ARRAY[n] FROM generate_series(1, $rows / 20) AS n
        RETURNING id, depends_on
    )
    INSERT INTO asynctaskd.dependencies (depends_on, task_id) SELECT depends_on[1], id FROM waiting;

    INSERT INTO asynctaskd.tasks (name, status, label_set, priority, payload)
    SELECT 'x', 'pending', 'a', 1 + n % 3, '{}' FROM generate_series(1, $rows / 20) AS n;

    INSERT INTO asynctaskd.tasks (name, status, label_set, payload, run_at, serial_key)
    SELECT 'x', 'scheduled', 'a', '{}', clock_timestamp() + make_interval(secs => 3600 + n),
           CASE WHEN n <= $rows / 50 THEN 'key' || n END
    FROM generate_series(1, $rows / 2) AS n;

    INSERT INTO asynctaskd.tasks (name, status, label_set, payload, serial_key)
    SELECT 'x', 'waiting', 'a', '{}', 'key' || 1 + n % ($rows / 50) FROM generate_series(1, $rows / 5) AS n;

    INSERT INTO asynctaskd.tasks (name, status, label_set, payload, worker_id, claim_token, claimed_at,
                                  attempts, unique_tag)
    SELECT 'x', 'running', 'a', '{}', ('00000000-0000-0000-0000-' || lpad(to_hex(2 + n % 49), 12, '0'))::uuid,
           1, clock_timestamp(), 1, CASE WHEN n % 2 = 0 THEN 'held' || n END
    FROM generate_series(1, $rows / 20) AS n;

    INSERT INTO asynctaskd.unique_tags (tag, task_id, until)
    SELECT unique_tag, id, CASE WHEN id % 4 = 0 THEN 'finished' ELSE 'forgotten' END
    FROM asynctaskd.tasks WHERE unique_tag IS NOT NULL;

    INSERT INTO asynctaskd.finished_tasks (id, claim_token, created_at, finished_at, forget_on, priority,
        weight, attempts, failures, losses, status, name, label_set, tags, depends_on, payload)
    SELECT -n, 1, clock_timestamp(), clock_timestamp(), current_date + 7 + n % 3, 0, 1, 1, 0, 0,
           'completed', 'x', 'a', '{}', '{}', '{}'
    FROM generate_series(1, $rows / 2) AS n;

    INSERT INTO asynctaskd.unique_tags (tag, task_id, until, forget_on)
    SELECT 'forgotten' || n, -n, 'forgotten', current_date - 5 + n % 20
    FROM generate_series(1, $rows / 2) AS n;

    INSERT INTO asynctaskd.task_events (task_id, claim_token, kind, at)
    SELECT CASE WHEN n <= 20 THEN -1000000 - n WHEN n % 2 = 0 THEN n ELSE -n END, 1, 'retried',
           clock_timestamp() - interval '2 days'
    FROM generate_series(1, $rows / 2) AS n;

    INSERT INTO asynctaskd.schedules (name, task, expression, next_at)
    SELECT 's' || n, 'x', '@daily', clock_timestamp() + make_interval(secs => 3600 + n)
    FROM generate_series(1, $rows / 20) AS n;

    INSERT INTO asynctaskd.schedule_slots (schedule, slot, outcome)
    SELECT 's' || n % 50, clock_timestamp() - make_interval(days => 20, secs => n), 'skipped'
    FROM generate_series(1, $rows / 2) AS n;

    INSERT INTO asynctaskd.schedule_slots (schedule, slot, outcome)
    SELECT 'gone', clock_timestamp() - make_interval(days => 40, secs => n), 'skipped'
    FROM generate_series(1, 10) AS n;

    INSERT INTO asynctaskd.audit (actor, action, outcome)
    SELECT 'ada', 'cancel', 'done' FROM generate_series(1, $rows / 2);
"""


BLOCKS = """
    SELECT relname, pg_stat_get_xact_blocks_fetched(oid) FROM pg_class
    WHERE relnamespace = 'asynctaskd'::regnamespace AND relkind IN ('r', 'i')
"""


async def claim(store: Store, _: Connection) -> Awaitable[object]:
    return store.claim(
        WORKER, LABELS, strict=StrictLane(0), slots=10, shares=[Share("a", "default", 10, 10, 1, 0.0)]
    )


async def claim_plain(store: Store, _: Connection) -> Awaitable[object]:
    share = Share("set007", "default", 10, 10, 1, 0.0, (-1, 500))
    return store.claim(WORKER, LABELS, strict=StrictLane(0), slots=10, shares=[share], plain=True)


async def claim_strict(store: Store, _: Connection) -> Awaitable[object]:
    return store.claim(WORKER, LABELS, strict=StrictLane(10), slots=10, shares=[])


async def claim_strict_beside_the_dead(store: Store, _: Connection) -> Awaitable[object]:
    return store.claim(WORKER, LABELS, strict=StrictLane(10, {"a": START}, 1), slots=10, shares=[])


async def claim_from_200_sets(store: Store, _: Connection) -> Awaitable[object]:
    shares = [Share(label_set, "default", 10, 8, 1, 0.0) for label_set in SETS]  # rows as the daemon asks for
    return store.claim(WORKER, LABELS, strict=StrictLane(0), slots=10, shares=shares)


async def ready_sets(store: Store, _: Connection) -> Awaitable[object]:
    return store.ready_sets(LABELS)


async def measure_waiting(store: Store, _: Connection) -> Awaitable[object]:
    return MeasureStore(store.sessions, store.schema).waiting()


async def running(connection: Connection) -> list[int]:
    """Ten claimed tasks, half of them with a unique tag."""
    held = "SELECT id FROM asynctaskd.tasks WHERE worker_id IS NOT NULL ORDER BY id LIMIT 10"
    return [row[0] for row in await connection.fetch(held)] or [*range(10)]


async def complete(store: Store, connection: Connection) -> Awaitable[object]:
    completed = Transition(TaskStatus.COMPLETED)
    ended = [Ended(task_id, 1, completed, None, False) for task_id in await running(connection)]
    ids, tokens, *_ = _columns(ended)
    return connection.fetch(query("complete", "asynctaskd"), ids, tokens, [], [])


async def batch(connection: Connection, transition: Transition) -> list[Ended]:
    return [Ended(task_id, 1, transition, None) for task_id in await running(connection)]


def write(connection: Connection, ended: list[Ended]) -> Awaitable[object]:
    """Finalize without the look for partitions that precedes it in a transaction."""
    return connection.fetch(query("finalize", "asynctaskd"), *_columns(ended))


async def find_partitions(store: Store, connection: Connection) -> Awaitable[object]:
    return store.ensure_partitions(await batch(connection, Transition(TaskStatus.COMPLETED)))


async def finalize(_: Store, connection: Connection) -> Awaitable[object]:
    completed = Transition(TaskStatus.COMPLETED, result="1")
    return write(connection, await batch(connection, completed))


async def finalize_retried(_: Store, connection: Connection) -> Awaitable[object]:
    retried = Transition(TaskStatus.SCHEDULED, delay=HOUR, error="no", reason="error", failed_execution=True)
    return write(connection, await batch(connection, retried))


async def note_stale(store: Store, connection: Connection) -> Awaitable[object]:
    completed = Transition(TaskStatus.COMPLETED)
    return store.note_stale(await batch(connection, completed))


async def declare_lost(store: Store, _: Connection) -> Awaitable[object]:
    return store.declare_lost([UUID(int=2)], "killed by SIGKILL")


async def nothing_due(store: Store, _: Connection) -> Awaitable[object]:
    return store.promote_due()


async def ten_due(store: Store, connection: Connection) -> Awaitable[object]:
    await connection.execute(TEN.format("run_at", "status = 'scheduled'"))
    return store.promote_due()


async def nothing_expired(store: Store, _: Connection) -> Awaitable[object]:
    return store.expire()


async def ten_expired(store: Store, connection: Connection) -> Awaitable[object]:
    await connection.execute(TEN.format("deadline", "unique_tag LIKE 'tag%'"))
    return store.expire()


async def nothing_lost(store: Store, _: Connection) -> Awaitable[object]:
    return store.recover()


async def ten_lost(store: Store, connection: Connection) -> Awaitable[object]:
    await connection.execute(
        "UPDATE asynctaskd.tasks SET worker_id = gen_random_uuid() WHERE claim_token > 0 AND id = ANY ($1)",
        await running(connection),
    )
    return store.recover()


async def no_orphan(store: Store, connection: Connection) -> Awaitable[object]:
    return store.release_orphans(WORKER, await running(connection), await store.clock())


async def free_a_line(connection: Connection) -> None:
    await connection.execute(
        "DELETE FROM asynctaskd.tasks WHERE serial_key = 'key7' AND status = 'scheduled'"
    )


async def promote_a_key(store: Store, connection: Connection) -> Awaitable[object]:
    await free_a_line(connection)
    return store.promote_serial(["key7"])


async def promote_all_lines(store: Store, connection: Connection) -> Awaitable[object]:
    await free_a_line(connection)
    return store.promote_serial()


async def renew_lease(store: Store, _: Connection) -> Awaitable[object]:
    return store.renew_lease(WORKER, HOUR, running=1)


async def nothing_asked(store: Store, _: Connection) -> Awaitable[object]:
    return OrderStore(store.sessions, store.schema).deliver(WORKER)


async def one_asked(store: Store, connection: Connection) -> Awaitable[object]:
    [first, *_] = await running(connection)
    await connection.execute(f"""SELECT asynctaskd.command('cancel', '{{"ids": [{first}]}}')""")
    return OrderStore(store.sessions, store.schema).deliver(WORKER)


async def nothing_to_run_now(store: Store, _: Connection) -> Awaitable[object]:
    orders = OrderStore(store.sessions, store.schema)
    return orders.claim_asked(WORKER, LABELS, ["x"], strict=True, barred=NOTHING_BARRED)


async def nothing_to_settle(store: Store, _: Connection) -> Awaitable[object]:
    return OrderStore(store.sessions, store.schema).settle()


async def nobody_depends(store: Store, connection: Connection) -> Awaitable[object]:
    return store.settle_dependencies(await running(connection))


async def look_for_awaited(store: Store, _: Connection) -> Awaitable[object]:
    return store.awaited(0, 100)


async def nothing_to_control(store: Store, _: Connection) -> Awaitable[object]:
    return configs(store).claim_control(WORKER, [])


async def claim_a_control_task(store: Store, connection: Connection) -> Awaitable[object]:
    await connection.execute("SELECT asynctaskd.update_runtime_config('{\"default_weight\": 2}')")
    return configs(store).claim_control(WORKER, [])


async def nothing_expires(store: Store, _: Connection) -> Awaitable[object]:
    return configs(store).expire()


async def newest_config(store: Store, _: Connection) -> Awaitable[object]:
    return configs(store).newest(WORKER)


def configs(store: Store) -> ConfigStore:
    return ConfigStore(store.sessions, store.schema)


async def nobody_watches(store: Store, _: Connection) -> Awaitable[object]:
    return WatchStore(store.sessions, store.schema).tell_claims(WORKER, "{}")


async def somebody_watches(store: Store, connection: Connection) -> Awaitable[object]:
    await connection.execute("SELECT asynctaskd.watch($1, 'shares', '1 h')", WORKER)
    return WatchStore(store.sessions, store.schema).tell_claims(WORKER, "{}")


async def note_progress(store: Store, connection: Connection) -> Awaitable[object]:
    [first, *_] = await running(connection)
    return store._fetch("note_progress", first, 1, "1")


async def what_three_hold(store: Store, _: Connection) -> Awaitable[object]:
    return store.held_by([UUID(int=n) for n in (1, 2, 3)])


async def namesakes(store: Store, _: Connection) -> Awaitable[object]:
    return store.namesakes(WORKER)


async def work_of_nobody(store: Store, _: Connection) -> Awaitable[object]:
    return store.has_work(WORKER, ["other"], strict=True)


async def suspect_of_nobody(store: Store, _: Connection) -> Awaitable[object]:
    return store.has_suspect(["other"], strict=True)


async def claim_a_suspect(store: Store, _: Connection) -> Awaitable[object]:
    return store.claim(WORKER, LABELS, strict=StrictLane(1), slots=1, shares=[], suspects_alone=True)


async def exchange_permits(store: Store, _: Connection) -> Awaitable[object]:
    wishes = [Wish("a", 100, 10, 20), Wish("b", 100, 0, 0)]
    return PermitStore(store.sessions, store.schema).exchange(WORKER, 1, wishes)


async def park_ten(store: Store, connection: Connection) -> Awaitable[object]:
    # What a task is doesn't change, but for whoever makes up a past.
    await connection.execute(
        "SET session_replication_role = replica;"
        "UPDATE asynctaskd.tasks SET name = 'held' WHERE id = ANY (ARRAY("
        "SELECT id FROM asynctaskd.tasks WHERE status = 'pending' AND label_set = 'set007' LIMIT 10));"
        "RESET session_replication_role"
    )
    return PermitStore(store.sessions, store.schema).park(["set007"], ["held"])


async def nothing_to_unpark(store: Store, _: Connection) -> Awaitable[object]:
    return PermitStore(store.sessions, store.schema).unpark()


async def unpark_ten(store: Store, connection: Connection) -> Awaitable[object]:
    await connection.execute(
        "UPDATE asynctaskd.tasks SET status = 'paused', reason = 'name paused' WHERE id = ANY (ARRAY("
        "SELECT id FROM asynctaskd.tasks WHERE status = 'pending' ORDER BY id LIMIT 10))"
    )
    return PermitStore(store.sessions, store.schema).unpark()


async def claim_within_a_limit(store: Store, _: Connection) -> Awaitable[object]:
    shares = [Share("a", "default", 10, 10, 1, 0.0)]
    return store.claim(
        WORKER,
        LABELS,
        strict=StrictLane(10),
        slots=10,
        shares=shares,
        barred=Barred(labels=["b"], spare={"a": 3}),
    )


def schedules(store: Store) -> ScheduleStore:
    return ScheduleStore(store.sessions, store.schema)


async def no_schedule_due(store: Store, _: Connection) -> Awaitable[object]:
    return schedules(store).look([])


async def decide_a_slot(store: Store, connection: Connection) -> Awaitable[object]:
    slot = await connection.fetchval(
        "UPDATE asynctaskd.schedules SET next_at = clock_timestamp(), last_task = 5 WHERE name = 's7'"
        " RETURNING next_at"
    )
    slot = slot or await store.clock()  # while the table is empty
    due = DueSchedule("s7", "x", "@daily", "UTC", {}, "once", 100, slot, slot, 1)
    slots = [{"slot": slot.isoformat(), "outcome": "ran", "reason": None, "params": {}}]
    return schedules(store).decide(due, slot + HOUR, slots)


async def forget_ten_slots(store: Store, _: Connection) -> Awaitable[object]:
    return schedules(store).forget_slots()


# Applications, and operators


async def overview(_: Store, connection: Connection) -> Awaitable[object]:
    return Client(connection).overview()


async def read_a_thousand_payloads(_: Store, connection: Connection) -> Awaitable[object]:
    return connection.fetch(query("open_payloads", "asynctaskd"), 5_000, 1_000)


async def look_for_new_tasks(_: Store, connection: Connection) -> Awaitable[object]:
    newest = await connection.fetchval("SELECT max(id) FROM asynctaskd.tasks") or 0
    statement = query("new_tasks", "asynctaskd")
    return connection.fetch(statement, newest - 10, 2000, [*range(1, 11)])


async def look_for_new_events(_: Store, connection: Connection) -> Awaitable[object]:
    newest = await connection.fetchval("SELECT max(id) FROM asynctaskd.task_events") or 0
    statement = query("new_events", "asynctaskd")
    return connection.fetch(statement, newest - 10, 2000, [*range(1, 11)])


async def list_the_newest(_: Store, connection: Connection) -> Awaitable[object]:
    return connection.fetch(query("list_tasks", "asynctaskd"), None, None, None, 100)


async def look_at_the_newest(_: Store, connection: Connection) -> Awaitable[object]:
    return connection.fetch(query("look_at_newest_tasks", "asynctaskd"), None, None, None, 100)


# The dashboard. Nobody waits for a search to be cut short: what is looked for is found before.


def search(connection: Connection, **wanted: object) -> Awaitable[object]:
    asked = json.dumps(wanted), None, 51, HOUR, True
    return connection.fetch(query("search_tasks", "asynctaskd"), *asked)


async def search_the_newest(_: Store, connection: Connection) -> Awaitable[object]:
    return search(connection)


async def search_what_runs(_: Store, connection: Connection) -> Awaitable[object]:
    return search(connection, statuses=["running"])


async def search_what_is_at_rest(_: Store, connection: Connection) -> Awaitable[object]:
    return search(connection, statuses=["waiting", "paused"])


async def search_what_failed(_: Store, connection: Connection) -> Awaitable[object]:
    await connection.execute(
        "SELECT asynctaskd.finish(ARRAY(SELECT id FROM asynctaskd.tasks WHERE status = 'pending' LIMIT 60),"
        " 'failed', 'so')"
    )
    return search(connection, statuses=["failed"])


async def search_a_tag(_: Store, connection: Connection) -> Awaitable[object]:
    return search(connection, unique_tag="tag500")


async def search_since_now(_: Store, connection: Connection) -> Awaitable[object]:
    now = await connection.fetchval("SELECT clock_timestamp()")
    return search(connection, since=now.isoformat())


async def count_tasks(_: Store, connection: Connection) -> Awaitable[object]:
    return connection.fetch(query("count_tasks", "asynctaskd"), 10_000)


async def feel_the_pulse(_: Store, connection: Connection) -> Awaitable[object]:
    return connection.fetch(query("pulse", "asynctaskd"), HOUR, 30, ["a"])


async def look_at_relatives(_: Store, connection: Connection) -> Awaitable[object]:
    [first, *_] = await running(connection)
    await enqueue(connection, f"'x', parent_id => {first}")
    return connection.fetch(query("relatives", "asynctaskd"), first, 50, 5000)


async def look_at_a_task(_: Store, connection: Connection) -> Awaitable[object]:
    return connection.fetch(query("look_at_tasks", "asynctaskd"), [-500])


async def ask_why(_: Store, connection: Connection) -> Awaitable[object]:
    return connection.fetch(query("why", "asynctaskd"), await connection.fetchval(LAST_PENDING))


async def look_at_its_events(_: Store, connection: Connection) -> Awaitable[object]:
    return connection.fetch(query("look_at_events", "asynctaskd"), -501)


async def look_at_slots(_: Store, connection: Connection) -> Awaitable[object]:
    return connection.fetch(query("list_slots", "asynctaskd"), "s7", 50)


async def look_at_the_audit(_: Store, connection: Connection) -> Awaitable[object]:
    return connection.fetch(query("list_audit", "asynctaskd"), None, 50)


async def note_in_the_audit(_: Store, connection: Connection) -> Awaitable[object]:
    done = "ada", None, "cancel", "{}", None, None, "asked"
    return connection.fetch(query("note_audit", "asynctaskd"), *done)


LAST_PENDING = "SELECT max(id) FROM asynctaskd.tasks WHERE status = 'pending' AND label_set = 'a'"


def enqueue(connection: Connection, arguments: str) -> Awaitable[object]:
    return connection.fetch(f"SELECT asynctaskd.enqueue({arguments})")


async def enqueue_one(_: Store, connection: Connection) -> Awaitable[object]:
    return enqueue(connection, "'declared7'")


async def enqueue_tagged(_: Store, connection: Connection) -> Awaitable[object]:
    return enqueue(connection, "'x', unique_tag => 'new', labels => '{a}'")


async def meet_a_tag(_: Store, connection: Connection) -> Awaitable[object]:
    return enqueue(connection, "'x', unique_tag => 'tag500'")


async def enqueue_into_a_line(_: Store, connection: Connection) -> Awaitable[object]:
    return enqueue(connection, "'x', serial_key => 'key7', serial_id => 7")


async def enqueue_a_child(_: Store, connection: Connection) -> Awaitable[object]:
    [first, *_] = await running(connection)
    return enqueue(connection, f"'x', parent_id => {first}")


async def enqueue_a_late_child(_: Store, connection: Connection) -> Awaitable[object]:
    return enqueue(connection, "'x', parent_id => -500")


async def enqueue_a_hundred(client: Client, *, each: Callable[[int], RequestOptions]) -> list[int]:
    return await client.enqueue_many([TaskRequest(f"declared{n % 10}", **each(n)) for n in range(100)])


async def enqueue_many(_: Store, connection: Connection) -> Awaitable[object]:
    return enqueue_a_hundred(Client(connection), each=lambda _: {})


async def enqueue_many_with_options(_: Store, connection: Connection) -> Awaitable[object]:
    return enqueue_a_hundred(Client(connection), each=lambda n: {"labels": [f"set{n:03}"], "tags": [str(n)]})


async def enqueue_many_tagged(_: Store, connection: Connection) -> Awaitable[object]:
    return enqueue_a_hundred(Client(connection), each=lambda n: {"unique_tag": f"tag{n * 5}"})


async def forget_ten_tags(store: Store, _: Connection) -> Awaitable[object]:
    return store.forget_tags(10)


async def forget_ten_events(store: Store, connection: Connection) -> Awaitable[object]:
    await connection.execute("UPDATE asynctaskd.retention SET last_task = -2000000")
    return store.forget_events(10)


async def look_at_events_of_known_tasks(store: Store, connection: Connection) -> Awaitable[object]:
    await connection.execute("UPDATE asynctaskd.retention SET last_task = -1000")
    return store.forget_events(10)


TEN = """
    UPDATE asynctaskd.tasks SET {0} = clock_timestamp()
    WHERE id = ANY (ARRAY(SELECT id FROM asynctaskd.tasks WHERE {1} ORDER BY id LIMIT 10))
"""
"""Ten tasks whose time has come."""

# What each call may touch: about twice what it was seen to. It grows with what the call is about, not with
# the tables: a claim or finalize of ten tasks writes each into up to eight indexes.
MOST: dict[Call, int] = {
    claim: 400,
    claim_plain: 400,
    complete: 400,
    claim_strict: 400,
    claim_strict_beside_the_dead: 400,
    claim_a_suspect: 400,
    claim_from_200_sets: 6000,  # locks up to 8 rows of each set: 1,600
    ready_sets: 2000,
    measure_waiting: 60_000,  # looks at 50 tasks in each of 205 ranges
    finalize: 400,
    finalize_retried: 400,
    find_partitions: 100,
    note_stale: 100,
    declare_lost: 50,
    nothing_due: 50,
    ten_due: 400,
    nothing_expired: 50,
    ten_expired: 1200,  # looks in each of fifteen partitions for who depends on each
    nothing_lost: 500,  # looks at each worker once, and at each holder of tasks
    ten_lost: 800,
    no_orphan: 50,
    promote_a_key: 100,
    promote_all_lines: ROWS // 50 * 12,  # looks at each key's line and head
    renew_lease: 50,
    nothing_asked: 20,
    one_asked: 60,
    nothing_to_run_now: 20,
    nothing_to_settle: 20,
    nobody_depends: 200,
    look_for_awaited: 1000,
    nothing_to_control: 20,
    claim_a_control_task: 60,
    nothing_expires: 10,
    newest_config: 20,
    nobody_watches: 20,
    somebody_watches: 40,
    note_progress: 50,
    what_three_hold: 400,  # about 200 tasks
    namesakes: 20,
    suspect_of_nobody: 50,
    exchange_permits: 8000,  # looks at what runs on workers that know nothing of the limit, here 5,000 tasks
    park_ten: 2500,  # looks at the first thousand, here 100
    nothing_to_unpark: 40,
    unpark_ten: 400,
    claim_within_a_limit: 500,
    forget_ten_tags: 200,
    forget_ten_events: 1000,  # looks in each of fifteen partitions for each task
    look_at_events_of_known_tasks: 600,
    no_schedule_due: 30,
    decide_a_slot: 200,
    forget_ten_slots: 200,
    work_of_nobody: 15_000,  # about six a serial key with a line, of which there are 2,000
}
MOST_OF_ENQUEUERS: dict[Call, int] = {
    enqueue_one: 50,
    enqueue_tagged: 60,
    meet_a_tag: 20,
    enqueue_into_a_line: 110,
    enqueue_a_child: 80,
    enqueue_a_late_child: 120,
    enqueue_many: 2000,
    enqueue_many_with_options: 2000,
    enqueue_many_tagged: 4000,
    # Counts 149 tasks in each of 201 label sets, which nobody has vacuumed, and all that run.
    overview: 60_000,
    read_a_thousand_payloads: 1_200,
    look_for_new_tasks: 800,  # each of fifteen partitions for each id that was passed over
    look_for_new_events: 1600,  # and for the task of each event
    list_the_newest: 400,
    look_at_the_newest: 1200,  # looks up each one's progress
}
MOST_OF_THE_DASHBOARD: dict[Call, int] = {
    search_the_newest: 400,  # looks at 204 records, where nothing stays behind
    search_what_runs: 8000,  # takes 51 of the 5,000 that run, by id
    search_what_is_at_rest: 100,
    search_what_failed: 8000,  # each end in each of fifteen partitions, and whether it was the last
    search_a_tag: 200,
    search_since_now: 4000,  # halves the ids until it has the first of that time
    count_tasks: 12_000,  # counts ten thousand of each status
    feel_the_pulse: 700,  # the last 160 pages of each partition
    look_at_relatives: 250,
    look_at_a_task: 100,
    ask_why: 10_000,  # counts what runs: 5,000
    look_at_its_events: 10,
    look_at_slots: 60,
    look_at_the_audit: 15,
    note_in_the_audit: 15,
}
MOST_OF_ALL = MOST | MOST_OF_ENQUEUERS | MOST_OF_THE_DASHBOARD


@dataclass(frozen=True)
class Seen:
    """What was seen while a database filled: plans by stage and statement, blocks by stage and call."""

    plans: dict[tuple[str, str], Node]
    blocks: dict[tuple[str, str], dict[str, int]]


@pytest.fixture(scope="module")
def seen(dsn: str, asynctaskd_template: str) -> Iterator[Seen]:
    name = f"{asynctaskd_template}_plans"
    address = urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))
    asyncio.run(execute(dsn, f'CREATE DATABASE "{name}" TEMPLATE "{asynctaskd_template}"'))
    try:
        yield asyncio.run(look(address))
    finally:
        asyncio.run(execute(dsn, f'DROP DATABASE "{name}" WITH (FORCE)'))


async def execute(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def look(dsn: str) -> Seen:
    """Fill a database, and look how the statements go about it on the way."""
    seen = Seen({}, {})
    tables = ("tasks", "unique_tags", "workers", "task_events", "definitions", "runtime_configs")
    await execute(
        dsn,
        *(f"ALTER TABLE asynctaskd.{table} SET (autovacuum_enabled = off)" for table in tables),
        "SELECT asynctaskd.ensure_finished_partition(current_date + n) FROM generate_series(-2, 12) AS n",
    )
    async with session(dsn) as new:
        await look_at(new, "fresh", seen)
    async with session(dsn) as kept, session(dsn, {}) as enqueuer, session(dsn, FRESH_PLANS) as visitor:
        await execute(dsn, "ANALYZE")
        await look_at(kept, "empty", seen)
        for _ in range(6):  # plpgsql settles on generic plans after five
            await look_at_each(MOST_OF_ENQUEUERS, enqueuer, "empty", seen)
            await look_at_each(MOST_OF_THE_DASHBOARD, visitor, "empty", seen)
        await execute(dsn, FILL.replace("$rows", str(ROWS)))
        await look_at(kept, "kept", seen)
        await look_at_each(MOST_OF_ENQUEUERS, enqueuer, "kept", seen)
        await look_at_each(MOST_OF_THE_DASHBOARD, visitor, "kept", seen)
    for stage in ("stale", "analysed"):
        async with session(dsn) as new, session(dsn, {}) as enqueuer, session(dsn, FRESH_PLANS) as visitor:
            await look_at(new, stage, seen)
            await look_at_each(MOST_OF_ENQUEUERS, enqueuer, stage, seen)
            await look_at_each(MOST_OF_THE_DASHBOARD, visitor, stage, seen)
        await execute(dsn, "ANALYZE")
    return seen


@asynccontextmanager
async def session(dsn: str, settings: dict[str, str] = PINNED_PLANS) -> AsyncIterator[Connection]:
    """A session like the daemon's own, unless it is to have other settings."""
    connection = await asyncpg.connect(dsn, server_settings=settings, command_timeout=100)
    try:
        yield connection
    finally:
        await connection.close()


async def look_at(session: Connection, stage: str, seen: Seen) -> None:
    for name in INDEXES:
        seen.plans[stage, name] = await plan(session, name)
    await look_at_each(MOST, session, stage, seen)


async def look_at_each(calls: Iterable[Call], session: Connection, stage: str, seen: Seen) -> None:
    for call in calls:
        undone = session.transaction()
        await undone.start()
        with suppress(asyncpg.PostgresError):  # on empty tables some have no parent
            seen.blocks[stage, call.__name__] = await blocks(session, call)
        await undone.rollback()


async def plan(session: Connection, name: str) -> Node:
    """The plan of a statement, which the session keeps like the daemon's sessions do."""
    statement = query(name, "asynctaskd")
    if not await session.fetchval("SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE name = $1)", name):
        await session.execute(f"PREPARE {name} AS {statement}")
    arguments = ", ".join("NULL" for _ in set(re.findall(r"\$\d+", re.sub("--.*", "", statement))))
    found = await session.fetchval(
        f"EXPLAIN (FORMAT JSON) EXECUTE {name}" + (f" ({arguments})" if arguments else "")
    )
    return cast("Node", json.loads(found)[0]["Plan"])


async def blocks(session: Connection, call: Call) -> dict[str, int]:
    """How many blocks of each table and index a call touches, the functions it calls included."""
    act = await call(Store(cast("asyncpg.Pool[asyncpg.Record]", session), "asynctaskd"), session)
    before = dict(await session.fetch(BLOCKS))
    await act
    after = dict(await session.fetch(BLOCKS))
    return {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)}


def walk(node: Node, *above: Node) -> Iterator[tuple[Node, tuple[Node, ...]]]:
    """Every node of a plan, with those above it, the nearest first."""
    yield node, above
    for below in node.get("Plans", ()):
        yield from walk(below, node, *above)


def walks_through(node: Node, above: tuple[Node, ...]) -> bool:
    """Whether a node may read a whole table or index.

    A sequential scan does, and so does an index scan without a condition, which the planner takes where
    sequential scans are off. Only the first entry of a partial index may be looked up so, below a LIMIT.
    """
    if node["Node Type"] in {"Seq Scan", "Parallel Seq Scan", "Sample Scan", "Bitmap Heap Scan"}:
        return True
    if node.get("Index Name") in WALKED:
        return False
    if not node["Node Type"].startswith("Index") or "Index Cond" in node:
        return False
    nearest = next((other for other in above if other["Node Type"] != "Result"), None)
    return nearest is None or nearest["Node Type"] != "Limit" or "Filter" in node


def of_any_day(index: str) -> str:
    return re.sub(r"_\d{8}(?=_)", "", index)


@pytest.mark.parametrize("name", INDEXES)
@pytest.mark.parametrize("stage", STAGES)
def test_a_statement_goes_by_its_indexes_whatever_the_statistics_say(
    seen: Seen, stage: str, name: str
) -> None:
    plan = seen.plans[stage, name]
    used = {of_any_day(node["Index Name"]) for node, _ in walk(plan) if "Index Name" in node}
    through = {
        f"{node['Node Type']} {node.get('Relation Name')} {node.get('Index Name', '')}"
        for node, above in walk(plan)
        if walks_through(node, above) and node.get("Relation Name") not in SCANNED.get(name, ())
    }
    assert (through, used) == (set(), INDEXES[name]), STAGES[stage]


@pytest.mark.parametrize("call", MOST_OF_ALL, ids=lambda call: call.__name__)
@pytest.mark.parametrize("stage", ["kept", "stale", "analysed"])
def test_a_call_touches_only_what_it_is_about(seen: Seen, stage: str, call: Call) -> None:
    touched = seen.blocks[stage, call.__name__]
    assert sum(touched.values()) <= MOST_OF_ALL[call], (STAGES[stage], touched)


async def test_an_end_in_a_users_transaction_keeps_to_its_indexes_and_the_users_statements_to_their_settings(
    database: Database,
) -> None:
    async with session(database.dsn, {}) as users, session(database.dsn, {}) as other:
        store = Store(cast("asyncpg.Pool[asyncpg.Record]", users), "asynctaskd")
        await other.execute("SELECT asynctaskd.ensure_finished_partition(current_date + 8); ANALYZE")
        nobody = Ended(1, 1, Transition(TaskStatus.COMPLETED), None)
        for _ in range(8):  # by then the server keeps a plan for good, made while the table was empty
            async with users.transaction():
                assert await store.finalize_on(users, nobody) is None
        await other.execute(
            "INSERT INTO asynctaskd.tasks (name, status, payload) SELECT 'x', 'pending', '{}'"
            " FROM generate_series(1, 20000)"
        )
        async with users.transaction():
            before = dict(await users.fetch(BLOCKS))
            settings = await users.fetch("SELECT name, setting FROM pg_settings ORDER BY name")
            await store.finalize_on(users, nobody)
            after = dict(await users.fetch(BLOCKS))
            assert settings == await users.fetch("SELECT name, setting FROM pg_settings ORDER BY name")
        assert sum(after.values()) - sum(before.values()) < 50


def test_the_tables_were_full(seen: Seen) -> None:
    assert all(seen.blocks["kept", name]["tasks"] for name in ("claim", "finalize", "ten_due", "ten_lost"))
    assert seen.blocks["kept", "forget_ten_events"]["task_events"] > 10
