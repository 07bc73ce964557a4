"""The fleet at one moment: what each figure counts, and what it costs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from asynctaskd import Client
from asynctaskd.control.fleet import Overview
from asynctaskd.control.fleet_facts import compared

if TYPE_CHECKING:
    from tests.conftest import Pool


@pytest.fixture
def client(pool: Pool) -> Client:
    return Client(pool)


async def worker(pool: Pool, *, labels: str = "a b", concurrency: int = 10, **columns: Any) -> UUID:
    worker_id = uuid4()
    await pool.execute(
        """INSERT INTO asynctaskd.workers
                  (id, name, hostname, pid, version, labels, names, concurrency, expires_at)
           VALUES ($1, $1, 'host', 7, '0', $2, '{}', $3, clock_timestamp() + interval '1 h')""",
        worker_id, labels.split(), concurrency,
    )  # fmt: skip
    for column, value in columns.items():
        await pool.execute(f"UPDATE asynctaskd.workers SET {column} = $2 WHERE id = $1", worker_id, value)
    return worker_id


async def run(pool: Pool, task_id: int, worker_id: UUID, age: str = "0 s") -> None:
    await pool.execute(
        "UPDATE asynctaskd.tasks SET status = 'running', worker_id = $2, claim_token = 1, attempts = 1,"
        " claimed_at = clock_timestamp() - $3::text::interval WHERE id = $1",
        task_id, worker_id, age,
    )  # fmt: skip


async def record(pool: Pool, seconds: str, age: str = "0 s") -> None:
    """Finished tasks that took so long."""
    await pool.execute("SELECT asynctaskd.ensure_finished_partition(current_date + 8)")
    await pool.execute(
        f"""INSERT INTO asynctaskd.finished_tasks (
                id, claim_token, created_at, claimed_at, finished_at, forget_on, priority, weight, attempts,
                failures, losses, status, name, label_set, tags, depends_on, payload)
            SELECT nextval('asynctaskd.task_ids'), 1, now(), ended - make_interval(secs => n), ended,
                   current_date + 8, 0, 1, 1, 0, 0, 'failed', 'done', '', '{{}}', '{{}}', '{{}}'
            FROM (VALUES {seconds}) AS taken(n), (SELECT now() - $1::text::interval AS ended) AS moment""",
        age,
    )


def group(overview: Overview, name: str) -> Any:
    return next(one for one in overview.groups if one.name == name)


async def test_an_empty_fleet_has_the_group_default_and_nothing_in_it(client: Client) -> None:
    overview = await client.overview()
    assert [(one.name, one.weight, one.ready, one.oldest) for one in overview.groups] == [
        ("default", 1, 0, None)
    ]
    assert (overview.strict.ready, overview.strict.cap) == (0, 0)
    assert not [*overview.workers, *overview.limits, *overview.handlers, *overview.commands]


async def test_groups_are_those_of_the_weights_and_share_what_is_ready(client: Client, pool: Pool) -> None:
    await client.update_runtime_config(weights={"a": 5, "b": 2, "c": 9})
    await worker(pool)
    first = await client.enqueue("x", labels=["a"], weight=1)
    await client.enqueue("x", labels=["a"], weight=3)
    await client.enqueue("x", labels=["a", "b"])
    await client.enqueue("x", labels=["b"], delay="1h")
    await client.enqueue("x", labels=["z", "c"])  # which nobody may run
    await client.enqueue("x")
    overview = await client.overview()
    assert [(one.name, one.weight, one.ready, one.wanted) for one in overview.groups] == [
        ("a", 5, 3, 5 / 6), ("b", 2, 0, None), ("c", 9, 1, None), ("default", 1, 1, 1 / 6),
    ]  # fmt: skip
    assert group(overview, "a").oldest == first


async def test_a_paused_label_wants_no_share(client: Client, pool: Pool) -> None:
    await client.update_runtime_config(weights={"a": 5}, paused_labels=["a"])
    await worker(pool)
    await client.enqueue("x", labels=["a"])
    await client.enqueue("x")
    overview = await client.overview()
    assert [(one.is_paused, one.wanted) for one in overview.groups] == [(True, None), (False, 1.0)]


async def test_counting_ends_at_a_bound_and_says_so(client: Client, pool: Pool) -> None:
    await pool.execute("SELECT asynctaskd.enqueue('x') FROM generate_series(1, 20)")
    [row] = await pool.fetch("SELECT * FROM asynctaskd.ready_by_label_set(5, 10)")
    assert (row["ready"], row["is_more"], row["oldest"]) == (5, True, 1)
    [row] = await pool.fetch("SELECT * FROM asynctaskd.ready_by_label_set(20, 10)")
    assert (row["ready"], row["is_more"]) == (20, False)


async def test_of_many_label_sets_each_is_counted_less_far(client: Client, pool: Pool) -> None:
    for label in "abcdef":
        for _ in range(3):
            await client.enqueue("x", labels=[label])
    rows = await pool.fetch("SELECT * FROM asynctaskd.ready_by_label_set(4, 10)")
    assert [(row["ready"], row["is_more"]) for row in rows] == [(2, True)] * 6
    assert len(await pool.fetch("SELECT * FROM asynctaskd.ready_by_label_set(4, 2)")) == 2


async def test_workers_show_what_they_hold_apply_and_suffer(client: Client, pool: Pool) -> None:
    await client.update_runtime_config(max_strict_percentage=20)
    able = await worker(pool, applied_config_version=1)
    await worker(
        pool,
        rejected_config_version=1,
        rejected_because="too new",
        stall='{"task": "spin", "task_id": 7, "seconds": 3.5}',
    )
    await worker(pool, lost_at=await pool.fetchval("SELECT now()"))
    await run(pool, await client.enqueue("x"), able)
    await run(pool, await client.enqueue("x", priority=1), able)
    overview = await client.overview()
    held, other = sorted(overview.workers, key=lambda one: -one.running)
    assert (held.id, held.running, held.strict, held.strict_cap, held.host) == (able, 2, 1, 2, "host:7")
    assert (held.config_version, held.rejected, held.stall) == (1, None, None)
    assert (other.config_version, other.rejected, other.rejected_because) == (0, 1, "too new")
    assert other.stall == {"task": "spin", "task_id": 7, "seconds": 3.5}
    assert (overview.strict.running, overview.strict.cap) == (1, 4)


async def test_the_strict_lane_and_limits_are_counted(client: Client, pool: Pool) -> None:
    await client.update_runtime_config(limits={"a": 3, "b": 1})
    able = await worker(pool)
    first = await client.enqueue("x", labels=["a"], priority=3)
    await client.enqueue("x", priority=9)
    await run(pool, await client.enqueue("x", labels=["a"]), able)
    await run(pool, await client.enqueue("x", labels=["a", "c"], priority=1), able)
    overview = await client.overview()
    assert (overview.strict.ready, overview.strict.oldest, overview.strict.is_more) == (2, first, False)
    assert [(one.label, one.running, one.limit) for one in overview.limits] == [("a", 2, 3), ("b", 0, 1)]


async def test_the_slowest_names_come_first(client: Client, pool: Pool) -> None:
    able = await worker(pool)
    quick, slow = await client.enqueue("quick"), await client.enqueue("slow")
    await run(pool, quick, able)
    await run(pool, slow, able, "1 min")
    await run(pool, await client.enqueue("slow"), able, "30 s")
    await record(pool, "(1), (2), (3)")
    overview = await client.overview()
    assert [one.name for one in overview.handlers] == ["slow", "done", "quick"]
    running, finished, _ = overview.handlers
    assert (running.running, running.longest_id, running.mean) == (2, slow, None)
    assert running.longest == pytest.approx(60, abs=10)
    assert (finished.running, finished.longest, finished.finished, finished.failed) == (0, None, 3, 3)
    assert finished.mean == pytest.approx(2, abs=0.9)
    assert finished.p95 == pytest.approx(3, abs=0.9)


async def test_records_older_than_a_minute_and_beyond_the_last_pages_are_not_looked_at(
    client: Client, pool: Pool
) -> None:
    for age in ("0 s", "1 h"):
        await record(pool, ", ".join(f"({n})" for n in range(200)), age)
    count = "SELECT count(*) FROM asynctaskd.finished_lately('1 minute', $1)"
    assert await pool.fetchval(count, 1000) == 200
    assert await pool.fetchval(count, 1) < 100


async def test_open_commands_are_shown_until_they_are_obeyed(client: Client, pool: Pool) -> None:
    able = await worker(pool)
    task_id = await client.enqueue("x")
    await run(pool, task_id, able)
    await pool.execute("""SELECT asynctaskd.command('cancel', '{"ids": [1]}')""")
    [command] = (await client.overview()).commands
    assert (command.action, command.open, list(command.workers)) == ("cancel", 1, [able])


async def test_shares_had_are_of_what_was_claimed_between_two_snapshots(client: Client) -> None:
    await client.update_runtime_config(weights={"a": 3})
    one, other, newcomer = uuid4(), uuid4(), uuid4()
    empty = await client.overview()
    before = replace(empty, claims={one: {"a": 100, "default": 50}, other: {"a": 7}})
    now = replace(
        empty,
        claims={one: {"a": 104, "default": 52, "!strict": 9}, other: {"a": 7}, newcomer: {"a": 2}},
    )
    shown = compared(before, now)
    assert [(one.name, one.had) for one in shown.groups] == [("a", 6 / 8), ("default", 2 / 8)]
    assert [one.had for one in compared(now, now).groups] == [None, None]


async def test_a_watcher_is_a_row_while_it_watches_and_wakes_workers_once(
    client: Client, pool: Pool, connection: Any
) -> None:
    heard: list[str] = []
    await connection.add_listener("asynctaskd_ready", lambda *told: heard.append(told[-1]))
    overviews = client.follow("20ms")
    for _ in range(3):
        await anext(overviews)
    assert [row["wants"] for row in await pool.fetch("SELECT * FROM asynctaskd.watchers")] == ["shares"]
    await overviews.aclose()
    live = "SELECT count(*) FROM asynctaskd.watchers WHERE expires_at > clock_timestamp()"
    assert await pool.fetchval(live) == 0
    await connection.fetchval("SELECT 1")
    assert heard == ["!watched"]


async def test_a_watcher_that_died_is_forgotten(client: Client, pool: Pool) -> None:
    watch = "SELECT asynctaskd.watch($1, 'events', '15 s')"
    await pool.execute(watch, uuid4())
    await pool.execute("UPDATE asynctaskd.watchers SET expires_at = clock_timestamp() - interval '2 minutes'")
    await pool.execute(watch, uuid4())
    assert await pool.fetchval("SELECT count(*) FROM asynctaskd.watchers") == 1


async def test_nobody_watches_for_more_than_a_minute_without_saying_so_again(pool: Pool) -> None:
    watcher = uuid4()
    for _ in range(2):
        await pool.execute("SELECT asynctaskd.watch($1, 'events', '1000 years')", watcher)
        left = await pool.fetchval("SELECT max(expires_at) - clock_timestamp() FROM asynctaskd.watchers")
        assert timedelta() < left <= timedelta(minutes=1)


async def test_the_end_of_what_nobody_watches_any_more_wakes_nobody(pool: Pool, connection: Any) -> None:
    heard: list[Any] = []
    await connection.add_listener("asynctaskd_ready", lambda *notice: heard.append(notice[-1]))
    await pool.execute("SELECT asynctaskd.watch($1, 'events', '0 s')", uuid4())
    await pool.execute("SELECT pg_notify('asynctaskd_ready', 'last')")
    async with asyncio.timeout(10):
        while "last" not in heard:
            await connection.fetchval("SELECT 1")
    assert heard == ["last"]
    assert await pool.fetchval("SELECT count(*) FROM asynctaskd.watchers") == 0


async def test_after_a_look_that_took_long_it_rests(client: Client, monkeypatch: Any) -> None:
    rests: list[float] = []

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr("asynctaskd.control.overview.asyncio.sleep", rest)
    overviews = client.follow("1ms")
    await anext(overviews)
    await anext(overviews)
    await overviews.aclose()
    assert rests[0] > 0.001
