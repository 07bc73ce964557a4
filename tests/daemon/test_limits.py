"""Limits by label over the whole fleet, on real daemons and a real server."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest

from asynctaskd import TaskRequest
from asynctaskd.config import RuntimeConfig
from asynctaskd.daemon.permits import Permits
from asynctaskd.daemon.slots import Slots
from asynctaskd.errors import DatabaseUnavailableError
from asynctaskd.postgres.permits import Given, PermitStore, Wish
from asynctaskd.postgres.store import Store
from tests.daemon.conftest import stays
from tests.support.bad_versions import bad_version

RUNNING = """
    SELECT count(*) FROM asynctaskd.tasks
    WHERE status = 'running' AND $1 = ANY (string_to_array(label_set, ','))
"""


@asynccontextmanager
async def watching(tables, label: str):
    """From outside, at every moment: how many ran at most."""
    seen: list[int] = []
    over = asyncio.Event()

    async def watch() -> None:
        while not over.is_set():
            seen.append(await tables.value(RUNNING, label))

    watcher = asyncio.create_task(watch())
    yield seen
    over.set()
    await watcher  # cancelled, it would leave a task behind that gives its connection back


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("priority", [0, 5])
async def test_a_limit_holds_over_all_workers_and_is_used_up(
    fleet, hall, client, tables, configure, workers, priority
):
    await configure(limits={"mail": 5})
    await client.enqueue_many(stays(60, "mail", priority=priority))
    async with fleet(workers, concurrency=10, labels=["mail"]), watching(tables, "mail") as seen:
        await hall.until(lambda: len(hall.here) == 5)
        hall.open(3)
        await hall.until(lambda: hall.came == 8 and len(hall.here) == 5)
        hall.open()
        await tables.until("SELECT count(*) = 60 FROM asynctaskd.finished_tasks")
    assert hall.most["mail"] == 5 == max(seen)


async def test_others_take_the_slots_that_a_limit_leaves(fleet, hall, client, tables, configure):
    await configure(limits={"mail": 2})
    await client.enqueue_many([*stays(20, "mail"), *stays(4), *stays(4, priority=3)])
    async with fleet(1, concurrency=10, labels=["mail"]):
        await hall.until(lambda: len(hall.here) == 10)
        assert await tables.value(RUNNING, "mail") == 2
        hall.open()
        await tables.until("SELECT count(*) = 28 FROM asynctaskd.finished_tasks")
    assert hall.most["mail"] == 2


async def test_several_labels_on_a_task_hold_each_for_itself(fleet, hall, client, tables, configure):
    await configure(limits={"mail": 6, "eu": 3, "us": 4}, weights={"mail": 2, "eu": 3})
    tasks = [("mail",), ("mail", "eu"), ("mail", "us"), ("eu",), ("eu", "us"), ("other", "us")]
    await client.enqueue_many([one for labels in tasks for one in stays(20, *labels)])
    await client.enqueue_many([one for labels in tasks for one in stays(5, *labels, priority=1)])
    hall.is_open = True
    async with fleet(2, concurrency=10, labels=["mail", "eu", "us", "other"]), watching(tables, "eu") as seen:
        await tables.until("SELECT count(*) = 150 FROM asynctaskd.finished_tasks")
    assert (hall.most["mail"] <= 6, hall.most["eu"] <= 3, hall.most["us"] <= 4) == (True, True, True), (
        hall.most
    )
    assert max(seen) <= 3


async def test_strict_tasks_behind_a_limit_keep_neither_lane_waiting(fleet, hall, client, tables, configure):
    await configure(limits={"mail": 1})
    await client.enqueue_many([*stays(30, "mail", priority=9), *stays(3, priority=1), *stays(5)])
    async with fleet(1, concurrency=6, labels=["mail"]):
        await hall.until(lambda: len(hall.here) == 6)
        assert await tables.value(RUNNING, "mail") == 1
        assert (
            await tables.value(
                "SELECT count(*) FROM asynctaskd.tasks WHERE worker_id IS NOT NULL AND priority = 1"
            )
            == 3
        )
        hall.open()
        await tables.until("SELECT count(*) = 38 FROM asynctaskd.finished_tasks")
    assert hall.most["mail"] == 1


async def test_a_suspect_does_not_wait_at_a_limit_until_all_others_are_done(
    fleet, hall, client, tables, configure
):
    await configure(limits={"mail": 1})
    [*_, suspect] = await client.enqueue_many(stays(30, "mail"))
    await tables.execute("UPDATE asynctaskd.tasks SET losses = 2 WHERE id = $1", suspect)
    async with fleet(1, concurrency=6, labels=["mail"]):
        await tables.until_status(suspect, "running")
        hall.open()
        await tables.until("SELECT count(*) = 30 FROM asynctaskd.finished_tasks")
    assert hall.most["mail"] == 1


async def test_a_limit_is_raised_and_lowered_at_run_time_and_stops_nothing(
    fleet, hall, client, tables, configure, applied
):
    await configure(limits={"mail": 4})
    await client.enqueue_many(stays(40, "mail"))
    async with fleet(2, concurrency=10, labels=["mail"]):
        await hall.until(lambda: len(hall.here) == 4)
        await configure(limits={"mail": 12})
        await hall.until(lambda: len(hall.here) == 12)
        await applied(await configure(limits={"mail": 3}))
        assert len(hall.here) == 12
        hall.open(7)
        await tables.until("SELECT count(*) = 7 FROM asynctaskd.finished_tasks")
        assert hall.came == 12
        hall.open(3)
        await hall.until(lambda: hall.came == 13 and len(hall.here) == 3)
        await configure()
        await hall.until(lambda: len(hall.here) == 20)
        hall.open()
        await tables.until("SELECT count(*) = 40 FROM asynctaskd.finished_tasks")


async def test_a_limit_that_is_set_while_more_runs_lets_it_end_and_begins_nothing(
    fleet, hall, client, tables, configure, applied
):
    await client.enqueue_many(stays(30, "mail"))
    async with fleet(2, concurrency=5, labels=["mail"]):
        await hall.until(lambda: len(hall.here) == 10)
        await applied(await configure(limits={"mail": 4}))
        await tables.until("SELECT sum(permits) = 10 FROM asynctaskd.label_permits")
        hall.open(6)
        await tables.until("SELECT count(*) = 6 FROM asynctaskd.finished_tasks")
        await tables.until("SELECT sum(permits) = 4 FROM asynctaskd.label_permits")
        assert hall.came == 10
        hall.most.clear()
        hall.open()
        await tables.until("SELECT count(*) = 30 FROM asynctaskd.finished_tasks")
    assert hall.most["mail"] <= 4


async def test_a_worker_without_use_for_its_permits_gives_them_back(
    fleet, hall, client, tables, configure, app, running
):
    await configure(limits={"mail": 2})
    await client.enqueue_many(stays(2, "mail"))
    async with fleet(1, concurrency=5, labels=["mail"]):
        await hall.until(lambda: len(hall.here) == 2)
        async with running(app, concurrency=5, labels=["mail", "eu"]):
            await client.enqueue_many(stays(2, "mail", "eu"))
            hall.open(2)
            await hall.until(lambda: len(hall.here) == 2 and hall.came == 4)
            assert await tables.value(RUNNING, "eu") == 2
            hall.open()
            await tables.until("SELECT sum(permits) = 0 FROM asynctaskd.label_permits")
    assert await tables.value("SELECT count(*) FROM asynctaskd.label_permits") == 0


async def test_a_saturated_worker_leaves_others_their_share(
    fleet, hall, client, tables, configure, app, running
):
    await configure(limits={"mail": 4})
    await client.enqueue_many(stays(5000, "mail"))
    hall.is_open = True
    async with fleet(1, concurrency=10, labels=["mail"]):
        await hall.until(lambda: hall.came > 8)
        async with running(app, concurrency=10, labels=["mail", "eu"]):
            await client.enqueue_many(stays(4, "mail", "eu", priority=1))
            await tables.until(
                "SELECT count(*) = 4 FROM asynctaskd.finished_tasks WHERE label_set = 'eu,mail'"
            )
            # The first is not through: the other one had to be left its share.
            assert await tables.value("SELECT count(*) > 50 FROM asynctaskd.tasks")
    assert hall.most["mail"] == 4


async def test_the_tasks_of_a_lost_worker_count_until_they_are_recovered(
    fleet, hall, client, tables, configure, daemon_of, app
):
    await configure(limits={"mail": 3})
    worker = await tables.value(
        """INSERT INTO asynctaskd.workers (id, name, hostname, pid, version, labels, names, concurrency,
                                           expires_at)
           VALUES (gen_random_uuid(), gen_random_uuid(), 'gone', 1, '0', '{mail}', '{stay}', 5,
                   clock_timestamp() + interval '1 day') RETURNING id"""
    )
    await client.enqueue_many(stays(9, "mail"))
    await tables.execute(
        "INSERT INTO asynctaskd.label_permits (label, worker_id, permits, wanted, request)"
        " VALUES ('mail', $1, 2, 2, 1)",
        worker,
    )
    await tables.execute(
        """UPDATE asynctaskd.tasks SET status = 'running', worker_id = $1, claim_token = 1, attempts = 1,
                  claimed_at = clock_timestamp()
           WHERE id IN (SELECT id FROM asynctaskd.tasks ORDER BY id LIMIT 2)""",
        worker,
    )
    async with fleet(1, concurrency=5, labels=["mail"]), watching(tables, "mail") as seen:
        await hall.until(lambda: len(hall.here) == 1)
        await tables.execute(
            "UPDATE asynctaskd.workers SET lost_at = clock_timestamp() WHERE id = $1", worker
        )
        await hall.until(lambda: len(hall.here) == 3)
        assert (
            await tables.value("SELECT count(*) FROM asynctaskd.label_permits WHERE worker_id = $1", worker)
            == 0
        )
        hall.open()
        await tables.until("SELECT count(*) = 9 FROM asynctaskd.finished_tasks")
    assert max(seen) == 3 == hall.most["mail"]


async def test_what_a_claim_without_an_answer_may_have_taken_counts_until_it_is_known(
    fleet, hall, client, tables, configure, monkeypatch, recorder
):
    from asynctaskd.daemon import doubts

    monkeypatch.setattr(doubts, "_DOUBT", doubts.timedelta(seconds=0.2))
    claim, lost = Store.claim, []

    async def lossy(self, *args, **kwargs):
        claimed = await claim(self, *args, **kwargs)
        if claimed and not lost:
            lost.extend(claimed)
            raise DatabaseUnavailableError("the answer got lost")
        return claimed

    monkeypatch.setattr(Store, "claim", lossy)
    await configure(limits={"mail": 3})
    await client.enqueue_many(stays(12, "mail"))
    async with (
        fleet(2, concurrency=10, labels=["mail"], poll_interval="100ms", lease="1s"),
        watching(tables, "mail") as seen,
    ):
        await recorder.wait_for("claim.lost")
        await hall.until(lambda: len(hall.here) == 3)
        hall.open()
        await tables.until("SELECT count(*) = 12 FROM asynctaskd.finished_tasks")
    assert max(seen) == 3 == hall.most["mail"]


async def test_tasks_without_a_limit_ask_for_no_permit():
    class Ledger:
        asked = 0

        async def exchange(self, worker_id, request, wishes):
            self.asked += 1
            return {wish.label: Given(wish.wants, wish.wants) for wish in wishes}

    ledger, slots = Ledger(), Slots(4, freed=lambda: None)
    lease = SimpleNamespace(worker_id=uuid4(), labels=["mail", "bulk"])
    steering = SimpleNamespace(config=RuntimeConfig(limits={"mail": 1}))
    permits = Permits(ledger, lease, steering, slots)
    await permits.follow()
    assert ledger.asked == 1  # to say that nothing of mail runs
    for _ in range(100):
        await permits.follow()
        await permits.ask(["", "bulk"])
        await permits.keep()
    assert ledger.asked == 1
    await permits.ask(["bulk", "bulk,mail"])
    assert ledger.asked == 2


async def test_what_a_lost_answer_may_have_granted_is_given_back_though_nobody_asks_again():
    class Ledger:
        wanted, answers_get_lost = 0, False

        async def exchange(self, worker_id, request, wishes):
            [wish] = wishes
            self.wanted = wish.wants
            if self.answers_get_lost:
                raise DatabaseUnavailableError("the answer got lost")
            return {wish.label: Given(wish.wants, wish.wants)}

    ledger, slots = Ledger(), Slots(4, freed=lambda: None)
    lease = SimpleNamespace(worker_id=uuid4(), labels=["mail"])
    steering = SimpleNamespace(config=RuntimeConfig(limits={"mail": 1}))
    permits = Permits(ledger, lease, steering, slots)
    ledger.answers_get_lost = False
    await permits.follow()
    ledger.answers_get_lost = True
    with pytest.raises(DatabaseUnavailableError):
        await permits.ask(["mail"])
    assert ledger.wanted == 1
    ledger.answers_get_lost = False
    async with asyncio.timeout(20):
        while ledger.wanted:
            await asyncio.sleep(permits.seconds_to_keep)
            await permits.keep()
    assert permits.spare == {}


async def test_a_permit_is_asked_about_before_each_claim_while_a_worker_does_not_know_of_the_limit(
    client, tables, configure, database
):
    register = """
        INSERT INTO asynctaskd.workers
               (id, name, hostname, pid, version, labels, names, concurrency, expires_at)
        VALUES (gen_random_uuid(), gen_random_uuid(), 'here', 1, '0', '{mail}', '{stay}', 5,
                clock_timestamp() + interval '1 day')
        RETURNING id
    """
    own, stranger = await tables.value(register), await tables.value(register)
    # Longer ago than others wait for workers that don't know of it yet.
    await configure(limits={"mail": 2}, created_at=datetime.now(UTC) - timedelta(hours=1))
    await client.enqueue_many(stays(3, "mail"))
    store = await Store.open(database.dsn, schema="asynctaskd", connections=1)
    lease = SimpleNamespace(worker_id=own, labels=["mail"])
    steering = SimpleNamespace(config=RuntimeConfig(limits={"mail": 2}))
    ledger = PermitStore(store.sessions, store.schema)
    permits = Permits(ledger, lease, steering, Slots(4, freed=lambda: None))
    await permits.ask_for_any()
    assert permits.spare == {"mail": 2}
    await tables.execute(
        """UPDATE asynctaskd.tasks SET status = 'running', worker_id = $1, claim_token = 1, attempts = 1,
                  claimed_at = clock_timestamp()""",
        stranger,
    )
    await permits.ask_for_any()
    assert permits.spare == {}
    await ledger.exchange(stranger, 1, [Wish("mail", 2, 3, 3)])  # now it knows
    assert await ledger.exchange(own, 9, [Wish("mail", 2, 0, 2)]) == {"mail": (0, 0, False)}
    await store.close()


async def test_permits_that_could_not_be_dropped_are_dropped_before_anything_is_claimed_without_a_limit(
    fleet, hall, client, tables, configure, applied, monkeypatch
):
    drop, exchange, is_cut_off, failed = PermitStore.drop, PermitStore.exchange, False, []

    async def drop_later(self, *args, **kwargs):
        if not failed:
            failed.append(args)
            raise DatabaseUnavailableError("connection refused")
        await drop(self, *args, **kwargs)

    async def exchange_while_connected(self, *args):
        if is_cut_off:
            raise DatabaseUnavailableError("connection refused")
        return await exchange(self, *args)

    monkeypatch.setattr(PermitStore, "drop", drop_later)
    monkeypatch.setattr(PermitStore, "exchange", exchange_while_connected)
    async with fleet(1, enabled=False, labels=["mail"]) as [other], fleet(1, labels=["mail"]):
        await configure(limits={"mail": 2})
        await tables.until("SELECT count(*) = 1 FROM asynctaskd.label_permits")
        await applied(await configure())
        await client.enqueue_many(stays(3, "mail"))
        await hall.until(lambda: len(hall.here) == 3)
        is_cut_off = True
        # Longer ago than others wait for workers that don't know of it yet.
        created_at = datetime.now(UTC) - timedelta(hours=1)
        await applied(await configure(limits={"mail": 3}, created_at=created_at))
        asked = "SELECT granted FROM asynctaskd.exchange_permits($1, 1, 'mail', 3, 0, 1)"
        assert (len(failed), await tables.value(asked, other.worker_id)) == (1, 0)
        hall.open()


async def test_a_late_request_of_a_worker_changes_nothing(tables, fleet, hall, configure, database):
    await configure(limits={"mail": 5})
    async with fleet(1, labels=["mail"], renew_interval="5s") as [daemon]:
        await tables.until("SELECT count(*) = 1 FROM asynctaskd.label_permits")
        store = await Store.open(database.dsn, schema="asynctaskd", connections=1)
        permits = PermitStore(store.sessions, store.schema)
        four = {"mail": (4, 4, False)}
        assert await permits.exchange(daemon.worker_id, 90, [Wish("mail", 5, 0, 4)]) == four
        assert await permits.exchange(daemon.worker_id, 89, [Wish("mail", 5, 0, 0)]) == four
        await store.close()


async def test_a_limit_in_a_row_that_cannot_be_read_is_the_one_that_workers_know(tables, fleet, database):
    await tables.execute(bad_version(1, limits='{"mail": "x", "eu": 1e99, "us": -3, "uk": 1.6}'))
    async with fleet(1, labels=["mail"]) as [daemon]:
        store = await Store.open(database.dsn, schema="asynctaskd", connections=1)
        wishes = [Wish(label, 7, 0, 9) for label in ("mail", "eu", "us", "uk", "none")]
        found = await PermitStore(store.sessions, store.schema).exchange(daemon.worker_id, 1, wishes)
        granted = {label: given.granted for label, given in found.items()}
        assert granted == {"mail": 7, "eu": 9, "us": 0, "uk": 2, "none": 7}
        await store.close()


async def test_nothing_spins_while_a_limit_is_used_up_or_a_label_paused(
    fleet, hall, client, tables, configure, calls
):
    await configure(limits={"mail": 1, "eu": 0}, paused_labels=["us"])
    for priority in (0, 3):
        for label in ("mail", "eu", "us"):
            await client.enqueue_many(stays(50, label, priority=priority))
    async with fleet(1, concurrency=10, labels=["mail", "eu", "us"], renew_interval="5s"):
        await hall.until(lambda: len(hall.here) == 1)
        await tables.until("SELECT idle FROM asynctaskd.workers")
        calls.clear()
        began = asyncio.get_running_loop().time()
        for _ in range(20):  # notices of what is blocked change nothing either
            await client.enqueue_many(stays(1, "us"))
        await tables.until(
            "SELECT clock_timestamp() > $1", await tables.value("SELECT clock_timestamp() + interval '2 s'")
        )
        seconds = asyncio.get_running_loop().time() - began
        assert calls["claim"] + calls["claim_normal"] <= 3 * seconds, calls
        assert calls["exchange_permits"] <= 5 * seconds, calls
        assert len(hall.here) == 1


async def test_once_ends_though_what_is_paused_is_left(app, hall, client, tables, configure, daemon_of):
    hall.is_open = True
    await configure(limits={"eu": 0, "mail": 1}, paused_labels=["us"], paused_names=["other"])
    await client.enqueue_many([*stays(3, "us"), *stays(3, "eu", priority=1), *stays(5, "mail"), *stays(2)])
    await client.enqueue_many([TaskRequest("other"), TaskRequest("other", priority=2)])
    async with asyncio.timeout(20):
        await daemon_of(app, labels=["us", "eu", "mail"]).run(once=True)
    assert hall.came == 7
    assert await tables.column("SELECT count(*) FROM asynctaskd.tasks GROUP BY status ORDER BY status") == [
        2,
        6,
    ]


async def test_a_worker_that_claims_nothing_keeps_nobody_from_a_limit(app, running, tables, configure):
    async with running(app, enabled=False, labels=["mail"]), running(app, labels=["mail"]) as daemon:
        await configure(limits={"mail": 5}, created_at=datetime.now(UTC) + timedelta(hours=1))
        asked = "SELECT granted FROM asynctaskd.exchange_permits($1, 1, 'mail', 5, 0, 3)"
        assert await tables.value(asked, daemon.worker_id) == 3
