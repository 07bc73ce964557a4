from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from uuid import uuid4

import asyncpg
import pytest

from asynctaskd import TaskRequest
from asynctaskd.daemon import cursors
from asynctaskd.postgres.driver import PINNED_PLANS, query
from asynctaskd.postgres.store import Store
from tests.support.bad_versions import bad_version


class Stage:
    """Handlers come in, say so and wait to be sent on; the test sees who is there."""

    def __init__(self, app) -> None:
        self.here: list[str] = []
        self.came: list[str] = []
        self.most = Counter()
        self.doors: dict[str, asyncio.Event] = {}
        self._news = asyncio.Event()
        app.task("act")(self.act)

    async def act(self, who: str) -> None:
        self.here.append(who)
        self.came.append(who)
        for kind, there in Counter(name[0] for name in self.here).items():
            self.most[kind] = max(self.most[kind], there)
        self.doors[who] = asyncio.Event()
        self._news.set()
        await self.doors[who].wait()
        self.here.remove(who)
        self._news.set()

    async def full(self, size: int) -> set[str]:
        """Until that many are on the stage; returns who."""
        async with asyncio.timeout(20):
            while len(self.here) < size:
                self._news.clear()
                await self._news.wait()
        assert len(self.here) == size
        return set(self.here)

    async def send_on(self, who: str) -> None:
        self.doors[who].set()
        async with asyncio.timeout(20):
            while who in self.here:
                self._news.clear()
                await self._news.wait()

    async def play(self, count: int) -> None:
        """Let everybody through until that many have come and gone."""
        async with asyncio.timeout(20):
            while len(self.came) < count or self.here:
                for who in list(self.here):
                    self.doors[who].set()
                self._news.clear()
                await self._news.wait()


@pytest.fixture
def stage(app) -> Stage:
    return Stage(app)


def strict(n: int, **options) -> TaskRequest:
    return TaskRequest("act", {"who": f"s{n}"}, priority=n, **options)


def normal(n: int, **options) -> TaskRequest:
    return TaskRequest("act", {"who": f"n{n}"}, **options)


@pytest.fixture(params=["cheap", "dear"])
def looks(request, monkeypatch):
    """What looks cost: where they walk through dead rows, claims go by their cursors in all lanes."""
    if request.param == "dear":
        monkeypatch.setattr(cursors, "_CHEAP", -1.0)


@pytest.mark.usefixtures("looks")
@pytest.mark.parametrize(
    "percentage, first", [(25, "s6 n0 n1 n2"), (50, "s6 s5 n0 n1"), (100, "s6 s5 s4 s3"), (30, "s6 s5 n0 n1")]
)
async def test_strict_tasks_go_first_by_priority_up_to_their_cap(
    app, running, client, stage, percentage, first
):
    await client.enqueue_many([*map(normal, range(6)), *map(strict, range(1, 7))])
    async with running(app, concurrency=4, max_strict_percentage=percentage):
        assert await stage.full(4) == set(first.split())
        await stage.play(12)
    cap = len([who for who in first.split() if who.startswith("s")])
    assert stage.most["s"] == cap


async def test_with_a_cap_of_0_no_strict_task_runs(app, running, client, stage, tables):
    await client.enqueue_many([*map(strict, range(1, 7)), *map(normal, range(6))])
    async with running(app, concurrency=4, max_strict_percentage=0):
        assert await stage.full(4) == {"n0", "n1", "n2", "n3"}
        await stage.play(6)
    assert await tables.value("SELECT count(*) FROM asynctaskd.tasks WHERE status = 'pending'") == 6


@pytest.mark.usefixtures("looks")
async def test_a_free_strict_slot_goes_to_the_most_urgent_task_and_a_normal_one_to_the_next(
    app, running, client, stage
):
    await client.enqueue_many([*map(normal, range(6)), *map(strict, range(1, 7))])
    async with running(app, concurrency=4, max_strict_percentage=50):
        await stage.full(4)
        await stage.send_on("s5")
        assert await stage.full(4) == {"s6", "s4", "n0", "n1"}
        await stage.send_on("n0")
        assert await stage.full(4) == {"s6", "s4", "n1", "n2"}
        await client.enqueue_many([strict(9)])
        await stage.send_on("s6")
        assert await stage.full(4) == {"s9", "s4", "n1", "n2"}
        await stage.play(13)


@pytest.mark.usefixtures("looks")
async def test_tasks_of_equal_priority_are_claimed_in_the_order_of_their_ids(app, running, client, stage):
    requests = [TaskRequest("act", {"who": f"s{n}"}, priority=5) for n in range(20)]
    await client.enqueue_many(requests)
    async with running(app, concurrency=1):
        await stage.play(20)
    assert stage.came == [f"s{n}" for n in range(20)]


@pytest.mark.usefixtures("looks")
async def test_within_a_group_the_heavier_task_is_claimed_first_and_then_the_older(
    app, running, client, stage
):
    weights = [1, 5, 1, 3, 5, 2]
    await client.enqueue_many([normal(n, weight=weight) for n, weight in enumerate(weights)])
    async with running(app, concurrency=1):
        await stage.play(6)
    assert stage.came == ["n1", "n4", "n3", "n5", "n0", "n2"]


@pytest.mark.parametrize("workers", [1, 2])
async def test_groups_share_the_claims_in_proportion_to_their_weights(app, running, client, tables, workers):
    from contextlib import AsyncExitStack

    order: list[str] = []
    weights = {"five": 5, "three": 3, "one": 1}

    @app.task("count")
    async def count(group: str) -> None:
        order.append(group)

    await tables.execute(
        """INSERT INTO asynctaskd.runtime_configs (version, weights)
           VALUES (1, '{"five": 5, "three": 3, "one": 1}')"""
    )
    await client.enqueue_many(
        [TaskRequest("count", {"group": group}, labels=[group]) for group in weights for _ in range(700)]
    )
    async with AsyncExitStack() as stack:
        for _ in range(workers):
            await stack.enter_async_context(running(app, concurrency=10, labels=["five", "three", "one"]))
        await tables.until("SELECT count(*) >= 1100 FROM asynctaskd.finished_tasks")
    shares = Counter(order[:1000])
    for group, weight in weights.items():
        # The promised 5 %, and one pick of each worker's that the look at the first 1,000 cuts off.
        assert abs(shares[group] - 1000 * weight / 9) <= 0.05 * 1000 * weight / 9 + workers, shares


async def test_a_group_without_weight_shares_as_default(app, running, client, tables):
    order: list[str] = []

    @app.task("count")
    async def count(group: str) -> None:
        order.append(group)

    await tables.execute(
        """INSERT INTO asynctaskd.runtime_configs (version, weights, default_weight)
           VALUES (1, '{"heavy": 3}', 1)"""
    )
    await client.enqueue_many(
        [TaskRequest("count", {"group": "default"}) for _ in range(300)]
        + [TaskRequest("count", {"group": "heavy"}, labels=["heavy", "other"]) for _ in range(300)]
    )
    async with running(app, concurrency=10, labels=["heavy", "other"]):
        await tables.until("SELECT count(*) >= 250 FROM asynctaskd.finished_tasks")
    assert abs(Counter(order[:200])["heavy"] - 150) <= 0.05 * 150 + 1


async def test_a_worker_runs_only_tasks_whose_labels_it_carries_all(app, running, client, tables, wait):
    @app.task("labelled")
    async def labelled() -> None: ...

    both = await client.enqueue("labelled", labels=["a", "b"])
    other = await client.enqueue("labelled", labels=["a", "c"])
    strict_other = await client.enqueue("labelled", labels=["c"], priority=9)
    none = await client.enqueue("labelled")
    async with running(app, labels=["a", "b"]):
        await wait(both)
        await wait(none)
        await wait(await client.enqueue("labelled", labels=["b"]))
    assert (await tables.task(other))["status"] == "pending"
    assert (await tables.task(strict_other))["status"] == "pending"


async def test_a_disabled_worker_leaves_every_task_to_others(app, running, client, tables, wait):
    @app.task("note")
    async def note() -> None: ...

    async with running(app, enabled=False, poll_interval="50ms", renew_interval="50ms") as idle:
        ids = [await client.enqueue("note", priority=n % 2) for n in range(6)]
        looked = "SELECT expires_at > $2 FROM asynctaskd.workers WHERE id = $1"
        for _ in range(3):
            [renewed] = await tables.column("SELECT expires_at FROM asynctaskd.workers")
            await tables.until(looked, idle.worker_id, renewed)
        assert await tables.value("SELECT count(*) FROM asynctaskd.tasks WHERE claim_token = 0") == 6
        async with running(app) as able:
            done = [await wait(task_id) for task_id in ids]
    assert {task.worker_id for task in done} == {able.worker_id}


async def test_a_task_can_be_sent_to_one_worker_by_its_id(app, running, client, wait):
    name = uuid4()

    @app.task("here")
    async def here() -> None: ...

    async with running(app), running(app, id=str(name)) as chosen:
        for _ in range(5):
            done = await wait(await client.enqueue("here", labels=[f"worker:{name}"]))
            assert done.worker_id == chosen.worker_id


async def test_a_runtime_configuration_is_followed_from_the_next_renewal_on(
    app, running, client, stage, tables, recorder
):
    await client.enqueue_many([*map(normal, range(6)), *map(strict, range(1, 7))])
    async with running(app, concurrency=4, renew_interval="20ms", max_strict_percentage=0) as daemon:
        assert await stage.full(4) == {"n0", "n1", "n2", "n3"}
        await tables.execute(
            "INSERT INTO asynctaskd.runtime_configs (version, max_strict_percentage) VALUES (1, 100)"
        )
        await recorder.wait_for("config.applied", version=1)
        await stage.send_on("n0")
        assert await stage.full(4) == {"n1", "n2", "n3", "s6"}
        await tables.until(
            "SELECT applied_config_version = 1 FROM asynctaskd.workers WHERE id = $1", daemon.worker_id
        )
        await stage.play(12)


async def test_a_runtime_configuration_that_cannot_be_read_keeps_the_last_good_one(
    app, running, client, stage, tables, recorder
):
    await client.enqueue_many([*map(normal, range(4)), *map(strict, range(1, 5))])
    await tables.execute(
        "INSERT INTO asynctaskd.runtime_configs (version, max_strict_percentage) VALUES (1, 50)"
    )
    async with running(app, concurrency=4, renew_interval="20ms"):
        await stage.full(4)
        await tables.execute(bad_version(2, '{"a": "heavy"}'))
        await recorder.wait_for("config.rejected", version=2)
        await stage.play(8)
        await tables.execute(
            "INSERT INTO asynctaskd.runtime_configs (version, max_strict_percentage) VALUES (3, 25)"
        )
        await recorder.wait_for("config.applied", version=3)
    assert stage.most["s"] == 2


async def test_tasks_of_one_serial_key_run_one_at_a_time_in_their_order(app, running, client, stage, wait):
    ids = [
        await client.enqueue("act", {"who": f"k{n}"}, serial_key="key", serial_id=serial_id)
        for n, serial_id in enumerate([None, 30, 20, 10, None])
    ]
    async with running(app, concurrency=5), running(app, concurrency=5):
        await stage.play(5)
        for task_id in ids:
            await wait(task_id)
    assert stage.came == ["k3", "k2", "k1", "k0", "k4"]
    assert stage.most["k"] == 1


async def test_different_serial_keys_run_beside_each_other(app, running, client, stage):
    for n in range(3):
        await client.enqueue("act", {"who": f"k{n}"}, serial_key=f"key{n}")
    async with running(app):
        await stage.full(3)
        assert sorted(stage.here) == ["k0", "k1", "k2"]
        await stage.play(3)


async def test_a_head_that_waits_for_its_retry_blocks_its_key(app, running, client, tables, recorder, wait):
    from asynctaskd import RetryPolicy

    @app.task("flaky", retry=RetryPolicy("1h", max_attempts=2))
    async def flaky(ok: bool) -> None:
        if not ok:
            raise ValueError

    async with running(app, poll_interval="50ms"):
        head = await client.enqueue("flaky", {"ok": False}, serial_key="key")
        second = await client.enqueue("flaky", {"ok": True}, serial_key="key")
        await recorder.wait_for("task.retried", task_id=head)
        await wait(await client.enqueue("flaky", {"ok": True}))
        assert (await tables.task(second))["status"] == "waiting"
        await tables.execute("UPDATE asynctaskd.tasks SET run_at = clock_timestamp() WHERE id = $1", head)
        await tables.until_status(head, "failed")
        await wait(second)


async def test_a_head_that_failed_was_snoozed_or_expired_lets_its_key_go_on(
    app, running, client, tables, wait
):
    @app.task("try")
    async def attempt(ok: bool) -> None:
        if not ok:
            raise ValueError

    async with running(app, poll_interval="50ms"):
        failed = await client.enqueue("try", {"ok": False}, serial_key="key")
        late = await client.enqueue("try", {"ok": True}, serial_key="key", delay="1h", deadline="100ms")
        last = await client.enqueue("try", {"ok": True}, serial_key="key")
        await wait(last)
    assert (await tables.task(failed))["status"] == "failed"
    assert (await tables.task(late))["status"] == "expired"


async def test_a_scheduled_task_starts_when_it_is_due_and_not_before(app, running, client, wait):
    @app.task("later")
    async def later() -> None: ...

    async with running(app, poll_interval="50ms"):
        done = await wait(await client.enqueue("later", delay="50ms"))
    assert done.run_at <= done.claimed_at < done.run_at + timedelta(seconds=5)


async def test_a_task_whose_deadline_passed_expires_without_running(app, running, client, tables, wait):
    ran = []

    @app.task("late")
    async def late() -> None:
        ran.append(1)

    pending = await client.enqueue("late", deadline="1ms")
    scheduled = await client.enqueue("late", deadline="1ms", delay="1h")
    strict_one = await client.enqueue("late", deadline="1ms", priority=3)
    await tables.until("SELECT bool_and(deadline < clock_timestamp()) FROM asynctaskd.tasks")
    async with running(app):
        for task_id in (pending, scheduled, strict_one):
            row = await tables.until_status(task_id, "expired")
            assert row["attempts"] == 0
            assert await tables.events(task_id) == ["expired"]
    assert ran == []


async def test_serial_lines_behind_20000_heads_are_passed_by_their_indexes(database, tables):
    keys = 20_000
    # What would make the server plan anew has no place here: the plan of an empty table has to do.
    await tables.execute("ALTER TABLE asynctaskd.tasks SET (autovacuum_enabled = off)")
    session = await asyncpg.connect(database.dsn, server_settings=PINNED_PLANS)
    try:
        await session.execute(f"PREPARE promote (text[]) AS {query('promote_serial', 'asynctaskd')}")
        await session.execute("EXECUTE promote (NULL)")
        await session.execute(
            f"""INSERT INTO asynctaskd.tasks
                       (status, name, payload, serial_key, claim_token, claimed_at, worker_id)
                SELECT 'running', 'x', '{{}}', 'key' || n, 1, now(), gen_random_uuid()
                FROM generate_series(1, {keys}) AS n"""
        )
        await session.execute(
            f"""INSERT INTO asynctaskd.tasks (status, name, payload, serial_key)
                SELECT 'waiting', 'x', '{{}}', 'key' || n FROM generate_series(0, {keys}) AS n"""
        )
        plan = await session.fetchval("EXPLAIN (FORMAT JSON) EXECUTE promote (NULL)")
        assert "Join Filter" not in plan
        assert "Materialize" not in plan
        [done] = json.loads(
            await session.fetchval("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE promote (NULL)")
        )
    finally:
        await session.close()
    blocks = done["Plan"]["Shared Hit Blocks"] + done["Plan"]["Shared Read Blocks"]
    assert blocks <= 20 * keys  # a look at each key's line and one at its head, through three levels each
    headless = await tables.column("SELECT serial_key FROM asynctaskd.tasks WHERE status = 'pending'")
    assert headless == ["key0"]


async def test_a_worker_wakes_all_tasks_that_waited_for_somebody_to_know_their_name(app, running, tables):
    ran = Counter()

    @app.task("known")
    async def known(n: int) -> None:
        ran[n] += 1

    await tables.execute(
        """INSERT INTO asynctaskd.tasks (status, name, payload, reason, run_at)
           SELECT 'scheduled', name, jsonb_build_object('n', n), 'unknown_name', now() + interval '1 hour'
           FROM unnest(ARRAY['known', 'strange']) AS name, generate_series(1, 5000) AS n"""
    )
    async with running(app, concurrency=100, poll_interval="20ms"):
        await tables.until("SELECT count(*) = 5000 FROM asynctaskd.finished_tasks WHERE status = 'completed'")
    assert ran == Counter(range(1, 5001))
    assert (
        await tables.value(
            "SELECT count(*) FROM asynctaskd.tasks WHERE name = 'strange' AND run_at > now() AND attempts = 0"
        )
        == 5000
    )


async def test_a_suspect_of_the_strict_lane_keeps_to_its_share(app, running, client, tables, wait):
    @app.task("one")
    async def one() -> None: ...

    suspect = await client.enqueue("one", priority=5)
    await tables.execute("UPDATE asynctaskd.tasks SET losses = 2")
    async with running(app, max_strict_percentage=0, poll_interval="20ms"):
        for _ in range(3):  # each is claimed by a look at suspects too
            await wait(await client.enqueue("one"))
        assert (await tables.task(suspect))["status"] == "pending"
    async with running(app):
        await wait(suspect)


async def test_a_strict_slot_that_comes_free_is_taken_at_once_though_nothing_else_is_there(
    app, running, client, wait
):
    @app.task("urgent")
    async def urgent() -> None:
        await asyncio.sleep(0.05)  # so that the worker has said that it is idle, and looked

    ids = await client.enqueue_many([TaskRequest("urgent", {}, priority=1)] * 6)
    async with running(app, concurrency=2, max_strict_percentage=50, poll_interval="60s"):
        # Long before the poll: `wait` has less patience than that.
        assert [(await wait(task_id)).status for task_id in ids] == ["completed"] * 6


@pytest.fixture
def trips(monkeypatch):
    """What each claim was: for the normal lane alone (True) or for all, and how many tasks it brought."""
    made, claim = [], Store.claim

    async def noted(*arguments, plain=False, **options):
        claimed = await claim(*arguments, plain=plain, **options)
        made.append((plain, len(claimed)))
        return claimed

    monkeypatch.setattr(Store, "claim", noted)
    return made


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_a_strict_task_for_another_worker_costs_no_claim_a_second_trip(
    app, running, client, wait, tables, trips, when
):
    @app.task("normal")
    async def normal() -> None: ...

    async def strict_elsewhere():
        await client.enqueue("normal", labels=["elsewhere"], priority=1)

    if when == "before":
        await strict_elsewhere()
    async with running(app, concurrency=5, poll_interval="60s") as daemon:
        await tables.until_idle(daemon)
        await wait(await client.enqueue("normal"))
        await wait(await client.enqueue("normal"))
        if when == "meanwhile":
            await strict_elsewhere()
        for task_id in await client.enqueue_many([TaskRequest("normal")] * 50):
            await wait(task_id)
    in_vain = [first for first, second in pairwise(trips) if first == (True, 0) and second[1]]
    assert len(in_vain) <= 2, trips


async def test_a_strict_task_of_a_new_label_set_goes_first_though_many_wait_for_other_workers(
    app, running, client, stage
):
    await client.enqueue_many([*map(normal, range(3)), *(strict(1, labels=["gpu"]) for _ in range(120))])
    async with running(app, concurrency=1, poll_interval="1h", labels=["cpu"]):
        await stage.full(1)
        await client.enqueue_many([strict(2, labels=["cpu"])])
        await stage.play(4)
    assert stage.came == ["n0", "s2", "n1", "n2"]


async def test_a_worker_without_a_strict_lane_claims_normal_tasks_beside_a_strict_one_for_less(
    app, running, client, wait, trips
):
    @app.task("normal")
    async def normal() -> None: ...

    await client.enqueue("normal", priority=1)
    ids = await client.enqueue_many([TaskRequest("normal")] * 50)
    async with running(app, concurrency=5, max_strict_percentage=0):
        for task_id in ids:
            await wait(task_id)
    assert sum(brought for plain, brought in trips if plain) == 50
