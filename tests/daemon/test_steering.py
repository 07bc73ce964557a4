"""A change of the runtime configuration reaches every worker, and each says so."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import AsyncExitStack
from uuid import uuid4

import asyncpg
import pytest

from asynctaskd import Client, InvalidInputError, InvalidStateError, TaskRequest
from asynctaskd.errors import DatabaseUnavailableError
from asynctaskd.postgres.configs import ConfigStore
from asynctaskd.telemetry.metrics import Metrics
from tests.support.bad_versions import bad_version

LONG_ENOUGH = 60.0


@pytest.fixture
def fleet(app, running):
    """An async context manager: so many daemons at once."""

    class Fleet(AsyncExitStack):
        def __init__(self, count, **settings):
            super().__init__()
            self._count, self._settings = count, settings

        async def __aenter__(self):
            return [
                await self.enter_async_context(running(app, **self._settings)) for _ in range(self._count)
            ]

    return Fleet


async def applied(tables):
    return await tables.column("SELECT applied_config_version FROM asynctaskd.workers ORDER BY 1")


@pytest.mark.parametrize("listen,renew", [("on", "5s"), ("off", "50ms")])
async def test_an_update_converges_with_listen_and_without(fleet, client, tables, listen, renew):
    async with fleet(3, listen=listen, renew_interval=renew) as daemons:
        report = await client.update_runtime_config(weights={"a": 2}, timeout="10s")
        assert (report.version, report.status) == (1, "converged")
        assert set(report.applied) == {daemon.worker_id for daemon in daemons}
        assert (report.lagging, dict(report.rejected)) == ((), {})
        assert await applied(tables) == [1, 1, 1]
        assert (await client.runtime_config()).weights == {"a": 2}


async def test_fields_that_are_left_out_keep_their_value(client):
    await client.update_runtime_config(max_strict_percentage=20, weights={"a": 2, "b": 1})
    await client.update_runtime_config(labels=["c", "c"], weights=[3, 5])
    config = await client.runtime_config()
    assert (config.version, config.max_strict_percentage, config.weights) == (2, 20, {"c": 5})


async def test_without_a_live_worker_the_version_is_written_at_once(client, tables):
    report = await client.update_runtime_config(default_weight=3)
    assert (report.version, report.status, report.applied) == (1, "converged", ())
    assert await tables.column("SELECT status FROM asynctaskd.all_tasks") == ["completed"]


async def test_what_is_written_at_once_does_not_overtake_what_waits(fleet, client, tables):
    silent = await register_silent(tables)
    asked = await client.request_runtime_config(default_weight=5, paused_names=["x"], timeout="1s")
    taken = await client.request_runtime_config(weights={"mail": 5})
    await tables.execute(  # by one that is frozen before it has written anything
        "UPDATE asynctaskd.tasks SET status = 'running', worker_id = $2, claim_token = 1, attempts = 1,"
        " claimed_at = clock_timestamp() WHERE id = $1",
        taken,
        silent,
    )
    await tables.execute("UPDATE asynctaskd.workers SET lost_at = clock_timestamp()")
    newest = await client.update_runtime_config(default_weight=6)
    assert (newest.version, newest.status) == (3, "converged")
    told = await client.runtime_config_report(asked, "0s")
    assert (told.version, told.status) == (1, "superseded")
    async with fleet(1):
        reports = [await client.runtime_config_report(one, "10s") for one in (asked, taken)]
        assert [(one.version, one.status) for one in reports] == [(1, "superseded"), (2, "superseded")]
        assert await applied(tables) == [0, 3]
        config = await client.runtime_config()
    assert (config.version, config.default_weight) == (3, 6)
    assert (config.weights, config.paused_names) == ({"mail": 5}, ["x"])


async def test_what_waits_and_cannot_be_done_without_a_worker_fails_before_what_is_newer(client, tables):
    silent = await register_silent(tables)
    canary = await client.request_runtime_config(default_weight=5, canary="1h")
    broken = await tables.value(
        """INSERT INTO asynctaskd.tasks (name, status, label_set, priority, payload) VALUES
           ('updateWorkerRuntimeConfig', 'pending', '!control', 2147483647, '{"default_weight": 0}')
           RETURNING id"""
    )
    await tables.execute("UPDATE asynctaskd.workers SET lost_at = clock_timestamp() WHERE id = $1", silent)
    assert (await client.update_runtime_config(default_weight=6)).version == 1
    with pytest.raises(InvalidStateError, match="there is no live worker that could try the change"):
        await client.runtime_config_report(canary, "10s")
    with pytest.raises(InvalidInputError, match="default_weight must be at least 1, got 0"):
        await client.runtime_config_report(broken, "10s")


async def test_ten_racing_updates_give_ten_versions_in_commit_order_and_the_last_holds_everywhere(
    fleet, client, tables
):
    async with fleet(3):
        reports = await asyncio.gather(
            *(client.update_runtime_config(default_weight=n, timeout="10s") for n in range(1, 11))
        )
        assert sorted(report.version for report in reports) == list(range(1, 11))
        assert {report.status for report in reports} <= {"converged", "superseded"}
        last = next(report for report in reports if report.version == 10)
        assert last.status == "converged"
        assert await applied(tables) == [10, 10, 10]
    rows = await tables.column("SELECT version FROM asynctaskd.runtime_configs ORDER BY created_at")
    assert rows == list(range(1, 11))


async def test_an_update_gets_through_where_all_slots_are_taken_and_the_strict_lane_is_closed(
    app, running, client, soon
):
    begun, end = asyncio.Event(), asyncio.Event()

    @app.task("hold")
    async def hold() -> None:
        begun.set()
        await end.wait()

    await client.enqueue("hold")
    async with running(app, concurrency=1, max_strict_percentage=0):
        await soon(begun)
        first = await client.update_runtime_config(max_strict_percentage=0, timeout="10s")
        second = await client.update_runtime_config(max_strict_percentage=50, timeout="10s")
        assert (first.status, second.status) == ("converged", "converged")
        end.set()


async def test_a_worker_that_drains_goes_on_obeying(app, running, client, soon, tables):
    begun, end = asyncio.Event(), asyncio.Event()

    @app.task("hold")
    async def hold() -> None:
        begun.set()
        await end.wait()

    await client.enqueue("hold")
    async with running(app, concurrency=1) as daemon:
        await soon(begun)
        daemon.stop()
        report = await client.update_runtime_config(default_weight=2, timeout="10s")
        assert (report.status, report.applied) == ("converged", (daemon.worker_id,))
        end.set()


async def test_a_worker_that_is_lost_meanwhile_does_not_hold_it_up(fleet, client, tables):
    async with fleet(1):
        await register_silent(tables)
        asking = asyncio.create_task(client.update_runtime_config(default_weight=2, timeout="30s"))
        await tables.until("SELECT max(version) = 1 FROM asynctaskd.runtime_configs")
        await tables.execute(
            "UPDATE asynctaskd.workers SET lost_at = clock_timestamp() WHERE hostname = 'far'"
        )
        report = await asyncio.wait_for(asking, LONG_ENOUGH)
        assert report.status == "converged"
        assert len(report.applied) == 1


async def test_a_worker_that_is_frozen_is_named(fleet, client, tables):
    async with fleet(1) as [daemon]:
        silent = await register_silent(tables)
        report = await client.update_runtime_config(default_weight=2, timeout="1s")
        assert report.status == "not_converged"
        assert (report.applied, report.lagging) == ((daemon.worker_id,), (silent,))
        assert report.hosts[silent] == "far:7"


async def test_it_is_not_acknowledged_while_a_claim_under_the_old_one_is_under_way(fleet, client, tables):
    async with fleet(2) as [slow, other]:
        async with slow._steering.between_claims:  # as its claim does
            report = await client.update_runtime_config(default_weight=2, timeout="1s")
            assert report.status == "not_converged"
            assert (report.applied, report.lagging) == ((other.worker_id,), (slow.worker_id,))
        await tables.until("SELECT min(applied_config_version) = 1 FROM asynctaskd.workers")


async def test_where_nobody_picks_it_up_all_live_workers_are_named(client, tables):
    silent = await register_silent(tables)
    report = await client.update_runtime_config(default_weight=2, timeout="300ms")
    assert (report.version, report.status, report.lagging) == (None, "not_converged", (silent,))


async def test_where_only_disabled_workers_live_they_carry_it_out(app, running, client, tables):
    async with running(app, enabled=False) as daemon:
        waiting = await client.enqueue("add", {"a": 1, "b": 2})
        report = await client.update_runtime_config(default_weight=2, timeout="10s")
        assert (report.version, report.status, report.applied) == (1, "converged", (daemon.worker_id,))
        assert await tables.events(waiting) == []


async def test_a_disabled_worker_puts_back_a_control_task_whose_claim_got_no_answer(
    app, running, client, tables, monkeypatch
):
    claim, lost = ConfigStore.claim_control, asyncio.Event()

    async def without_answer(self, *arguments, **options):
        claimed = await claim(self, *arguments, **options)
        if not claimed or lost.is_set():
            return claimed
        lost.set()
        raise DatabaseUnavailableError("the answer got lost")

    monkeypatch.setattr(ConfigStore, "claim_control", without_answer)
    async with running(app, enabled=False, poll_interval="50ms"):
        report = await client.update_runtime_config(default_weight=2, timeout="15s")
    assert lost.is_set()
    assert report.status == "converged"


async def test_a_control_task_that_was_tried_before_keeps_its_version(fleet, client, tables):
    silent = await register_silent(tables)
    asked = await client.request_runtime_config(default_weight=2)
    await tables.execute(
        "SELECT asynctaskd.publish_runtime_config(payload, asynctaskd.config_request(id))"
        " FROM asynctaskd.tasks WHERE id = $1",
        asked,
    )
    await tables.execute("UPDATE asynctaskd.workers SET lost_at = clock_timestamp() WHERE id = $1", silent)
    async with fleet(1):
        report = await client.runtime_config_report(asked, "10s")
    assert (report.version, report.status) == (1, "converged")
    assert await tables.value("SELECT count(*) FROM asynctaskd.runtime_configs") == 1


async def test_an_update_is_superseded_by_a_newer_one(fleet, client, tables):
    async with fleet(1):
        await register_silent(tables)
        first = asyncio.create_task(client.update_runtime_config(default_weight=2, timeout="20s"))
        await tables.until("SELECT max(version) = 1 FROM asynctaskd.runtime_configs")
        second = await client.update_runtime_config(default_weight=3, timeout="500ms")
        assert (await first).status == "superseded"
        assert (second.version, second.status) == (2, "not_converged")


async def test_a_version_that_was_overtaken_is_counted(fleet, client, tables, recorder):
    metrics = Metrics()
    try:
        async with fleet(1):
            await register_silent(tables)
            first = asyncio.create_task(client.update_runtime_config(default_weight=2, timeout="20s"))
            await tables.until("SELECT max(version) = 1 FROM asynctaskd.runtime_configs")
            await client.update_runtime_config(default_weight=3, timeout="500ms")
            await first
            await recorder.wait_for("config.superseded")
            counted = metrics.registry.get_sample_value("asynctaskd_config_superseded_total")
    finally:
        metrics.close()
    assert counted == 1


async def test_a_version_that_cannot_be_read_is_rejected_with_the_reason(fleet, tables, recorder, pool):
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with fleet(1, renew_interval="50ms") as [daemon], pool.acquire() as connection:
        await connection.add_listener(
            "asynctaskd_runtime_config_ack", lambda *args: heard.put_nowait(args[3])
        )
        await tables.execute(bad_version(1, '{"a": "heavy"}'))
        ack = json.loads(await asyncio.wait_for(heard.get(), LONG_ENOUGH))
        row = await pool.fetchrow(
            "SELECT applied_config_version, rejected_config_version, rejected_because FROM asynctaskd.workers"
        )
        assert tuple(row) == (0, 1, "weights[a] must be an integer, got 'heavy'")
        assert ack == {
            "op": "ack",
            "params": {
                "request_id": None,
                "worker_id": str(daemon.worker_id),
                "applied_version": 0,
                "applied_config": None,
                "rejected_version": 1,
                "rejected": row[2],
            },
        }
        await connection.reset()
    assert len(recorder.all("config.rejected")) == 1


async def test_what_is_rejected_ends_the_waiting(fleet, client, tables):
    async with fleet(1):
        silent = await register_silent(tables)
        asking = asyncio.create_task(client.update_runtime_config(default_weight=2, timeout="20s"))
        await tables.until("SELECT max(version) = 1 FROM asynctaskd.runtime_configs")
        await tables.execute(
            "UPDATE asynctaskd.workers SET rejected_config_version = 1, rejected_because = 'too new'"
            " WHERE id = $1",
            silent,
        )
        report = await asyncio.wait_for(asking, LONG_ENOUGH)
    assert (report.status, dict(report.rejected)) == ("not_converged", {silent: "too new"})


async def test_plain_sql_changes_it_too(fleet, client, tables):
    async with fleet(1):
        asked = await tables.value(
            """SELECT asynctaskd.update_runtime_config('{"labels": ["a", "b", "a"], "weights": [1, 2, 3]}')"""
        )
        await tables.until_status(asked, "completed")
        result = json.loads(
            await tables.value("SELECT result FROM asynctaskd.all_tasks WHERE id = $1", asked)
        )
        assert (result["version"], result["status"], len(result["applied"])) == (1, "converged", 1)
        assert (await client.runtime_config()).weights == {"a": 3, "b": 2}


async def test_a_control_task_can_be_enqueued_like_any_other(fleet, client):
    async with fleet(1):
        asked = await client.enqueue("updateWorkerRuntimeConfig", {"default_weight": 2})
        assert (await client.runtime_config_report(asked, "10s")).status == "converged"


async def test_sql_refuses_what_breaks_a_rule_and_names_the_field(tables):
    with pytest.raises(asyncpg.PostgresError, match=r"weights\[a\] must be at least 1, got 0") as refused:
        await tables.execute("""SELECT asynctaskd.update_runtime_config('{"weights": {"a": 0}}')""")
    assert refused.value.sqlstate == "ATD01"


async def test_a_control_task_that_breaks_a_rule_fails_for_good_with_the_field_named(fleet, client, tables):
    async with fleet(1):
        asked = await tables.value(
            """INSERT INTO asynctaskd.tasks (name, status, label_set, priority, payload)
               VALUES ('updateWorkerRuntimeConfig', 'pending', '!control', 2147483647, '{"default_weight":
               0}') RETURNING id"""
        )
        with pytest.raises(InvalidInputError, match="default_weight must be at least 1, got 0"):
            await client.runtime_config_report(asked, "10s")
        assert (await tables.task(asked))["status"] == "failed"


async def test_the_client_refuses_before_anything_is_written(client, tables):
    for change, message in [
        ({}, "at least one field"),
        ({"default_weight": 0}, "default_weight must be at least 1"),
        ({"default_weight": 1, "expires": "soon"}, "expires"),
        ({"expires": "1h"}, "at least one field"),
        ({"default_weight": 1, "canary": "0s"}, "canary"),
        ({"default_weight": 1, "canary": "1m", "canary_worker": "w"}, "canary_worker"),
        ({"labels": ["a"], "weights": [1, 2]}, "same length"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            await client.update_runtime_config(**change)
    assert await tables.value("SELECT count(*) FROM asynctaskd.all_tasks") == 0


async def test_a_change_in_a_transaction_is_asked_for_and_awaited_after_the_commit(fleet, client, tables):
    async with fleet(1):
        async with tables.transaction() as connection:
            asked = await client.request_runtime_config(connection=connection, default_weight=2)
            inside = Client(connection)
            with pytest.raises(InvalidStateError, match="request_runtime_config"):
                await inside.update_runtime_config(default_weight=3)
        report = await client.runtime_config_report(asked, "10s")
    assert (report.version, report.status) == (1, "converged")


@pytest.mark.parametrize(
    "payload",
    ["", "no json", "[]", "17", '{"op": "dance"}', '{"op": "up_config", "params": 7}', "{}" * 1000],
)
async def test_messages_that_cannot_be_read_end_no_loop(fleet, client, tables, payload):
    async with fleet(1):
        for channel in ("asynctaskd_runtime_config", "asynctaskd_runtime_config_ack", "asynctaskd_ready"):
            await tables.execute("SELECT pg_notify($1, $2)", channel, payload)
        assert (await client.update_runtime_config(default_weight=2, timeout="10s")).status == "converged"


# Where a standby takes over that didn't have the last versions


async def lose_versions_after(tables, last):
    """As after a failover to a standby that had come that far, with what it knew of the workers."""
    await tables.execute("DELETE FROM asynctaskd.runtime_configs WHERE version > $1", last)


async def test_a_version_whose_number_was_given_before_is_applied_and_only_then_acknowledged(
    fleet, client, tables, recorder
):
    async with fleet(2, renew_interval="10s") as daemons:
        for weight in range(2, 7):
            await client.update_runtime_config(default_weight=weight, timeout="10s")
        await lose_versions_after(tables, 3)
        report = await client.update_runtime_config(weights={"b": 9}, paused_labels=["danger"], timeout="10s")
        assert (report.version, report.status, len(report.applied)) == (4, "converged", 2)
        for daemon in daemons:
            config = daemon._steering.config
            assert (config.version, config.weights, config.paused_labels) == (4, {"b": 9}, ["danger"])
        report = await client.update_runtime_config(default_weight=7, timeout="10s")
        assert (report.version, report.status) == (5, "converged")
        assert [daemon._steering.config.default_weight for daemon in daemons] == [7, 7]
    assert recorder.all("config.stepped_back", before=5, version=4)


async def test_who_did_not_apply_the_new_version_of_an_old_number_lags(fleet, client, tables):
    async with fleet(2, renew_interval="10s") as [slow, other]:
        for weight in range(2, 5):
            await client.update_runtime_config(default_weight=weight, timeout="10s")
        await lose_versions_after(tables, 1)
        async with slow._steering.between_claims:  # as its claim does
            report = await client.update_runtime_config(default_weight=9, timeout="1s")
            assert (report.version, report.status) == (2, "not_converged")
            assert (report.applied, report.lagging) == ((other.worker_id,), (slow.worker_id,))
            assert await tables.value(
                "SELECT count(*) FROM asynctaskd.workers"
                " WHERE asynctaskd.known_version(applied_config_version, applied_config) = 0"
            )


async def test_a_version_that_was_rejected_and_lost_says_nothing_about_the_next_of_its_number(client, tables):
    lost = "SELECT asynctaskd.known_version(2, gen_random_uuid())"
    assert await tables.value(lost) == 0
    silent = await register_silent(tables)
    await tables.execute(
        "UPDATE asynctaskd.workers SET rejected_config_version = 2, rejected_config = gen_random_uuid()"
    )
    report = await client.update_runtime_config(default_weight=2, timeout="300ms")
    assert (report.lagging, dict(report.rejected)) == ((silent,), {})


@pytest.mark.parametrize("last", [0, 1])
async def test_a_renewal_tells_a_worker_that_what_it_applies_was_lost(fleet, client, tables, recorder, last):
    async with fleet(1, renew_interval="20ms") as [daemon]:
        await client.update_runtime_config(default_weight=2, timeout="10s")
        await client.update_runtime_config(default_weight=3, timeout="10s")
        await lose_versions_after(tables, last)
        await recorder.wait_for("config.stepped_back", before=2, version=last)
        await tables.until("SELECT applied_config_version = $1 FROM asynctaskd.workers", last)
        assert daemon._steering.config.default_weight == last + 1


async def test_an_answer_that_was_lost_is_given_again(fleet, client, tables):
    async with fleet(1, renew_interval="20ms"):
        await client.update_runtime_config(default_weight=2, timeout="10s")
        await tables.execute(
            "UPDATE asynctaskd.workers SET applied_config = NULL, applied_config_version = 0"
        )
        await tables.until("SELECT applied_config_version = 1 FROM asynctaskd.workers")


async def test_a_control_task_whose_version_was_lost_takes_no_other_for_it(fleet, client, tables):
    async with fleet(1):
        silent = await register_silent(tables)
        asking = asyncio.create_task(client.update_runtime_config(default_weight=2, timeout="2s"))
        await tables.until("SELECT max(applied_config_version) = 1 FROM asynctaskd.workers")
        await lose_versions_after(tables, 0)
        await tables.execute("SELECT asynctaskd.publish_runtime_config('{\"default_weight\": 5}')")
        await tables.execute("UPDATE asynctaskd.workers SET applied_config_version = 1 WHERE id = $1", silent)
        report = await asking
    assert (report.status, report.applied, len(report.lagging)) == ("not_converged", (), 2)


async def test_an_acknowledged_version_holds_for_every_claim_from_then_on(app, running, client, tables):
    order: list[str] = []

    @app.task("note")
    async def note(group: str) -> None:
        order.append(group)

    async with running(app, concurrency=5, labels=["a", "b"]):
        await client.update_runtime_config(weights={"a": 1, "b": 1}, timeout="10s")
        requests = [TaskRequest("note", {"group": g}, labels=[g]) for g in ("a", "b") for _ in range(1500)]
        await client.enqueue_many(requests)
        report = await client.update_runtime_config(
            weights={
                "a": 9,
                "b": 1,
            },
            timeout="10s",
        )
        since = len(order)
        assert report.status == "converged"
        await tables.until("SELECT count(*) = 0 FROM asynctaskd.tasks")
    shares = order[since : since + 500]
    assert abs(shares.count("a") - 450) <= 25


# What expires


async def test_a_change_expires_as_far_as_nothing_newer_has_another_value(fleet, client, tables):
    await client.update_runtime_config(max_strict_percentage=50, default_weight=4)
    async with fleet(2, poll_interval="50ms"):
        await client.update_runtime_config(
            max_strict_percentage=20, default_weight=9, expires="1h", timeout="10s"
        )
        await client.update_runtime_config(default_weight=7, weights={"a": 2}, timeout="10s")
        await tables.execute(
            "UPDATE asynctaskd.runtime_configs SET expires_at = '-infinity' WHERE version = 2"
        )
        await tables.until("SELECT min(applied_config_version) = 4 FROM asynctaskd.workers")
    config = await client.runtime_config()
    assert (config.max_strict_percentage, config.default_weight, config.weights) == (50, 7, {"a": 2})
    assert await tables.value("SELECT count(*) FROM asynctaskd.runtime_configs") == 4


async def test_what_expires_twice_goes_back_to_what_was_before_both(client, tables):
    await client.update_runtime_config(max_strict_percentage=50)
    await client.update_runtime_config(max_strict_percentage=20, expires="1h")
    await client.update_runtime_config(max_strict_percentage=10, expires="2h")
    for version in (2, 3):
        await tables.execute(
            "UPDATE asynctaskd.runtime_configs SET expires_at = '-infinity' WHERE version = $1", version
        )
        await tables.execute("SELECT asynctaskd.expire_runtime_configs()")
    assert (await client.runtime_config()).max_strict_percentage == 50
    assert await tables.value("SELECT asynctaskd.expire_runtime_configs()") == 0


async def expire(tables, version):
    await tables.execute(
        "UPDATE asynctaskd.runtime_configs SET expires_at = '-infinity' WHERE version = $1", version
    )
    return await tables.value("SELECT asynctaskd.expire_runtime_configs()")


async def test_each_entry_of_a_mapping_or_list_expires_by_itself(client, tables):
    await client.update_runtime_config(weights={"a": 1, "b": 1, "c": 1}, paused_labels=["x"])
    await client.update_runtime_config(
        weights={"a": 9, "b": 9, "mail": 9}, paused_labels=["eu"], paused_names=["n"], expires="1h"
    )
    await client.update_runtime_config(
        weights={"a": 9, "b": 3, "mail": 9, "bulk": 2}, paused_labels=["eu", "us"], paused_names=[]
    )
    assert await expire(tables, 2) == 1
    config = await client.runtime_config()
    assert config.weights == {"a": 1, "b": 3, "c": 1, "bulk": 2}
    assert (config.paused_labels, config.paused_names) == (["us", "x"], [])
    newest = (await client.runtime_config_history())[0]
    assert newest["changes"] == {"weights": config.weights, "paused_labels": ["us", "x"]}


@pytest.mark.parametrize("order", [(2, 3), (3, 2)])
async def test_entries_that_expire_one_after_the_other_leave_what_was_before_both(client, tables, order):
    await client.update_runtime_config(limits={"a": 1})
    await client.update_runtime_config(limits={"a": 9, "mail": 9}, expires="1h")
    await client.update_runtime_config(limits={"a": 5, "mail": 9, "bulk": 2}, expires="2h")
    for version in order:
        await expire(tables, version)
    assert (await client.runtime_config()).limits == {"a": 1}


async def test_an_entry_that_expires_does_not_bring_one_back_that_has_expired_meanwhile(client, tables):
    await client.update_runtime_config(limits={"a": 1})
    await client.update_runtime_config(limits={"a": 9}, expires="1h")
    await client.update_runtime_config(limits={"a": 9, "bulk": 2})
    await client.update_runtime_config(limits={"a": 5, "bulk": 2}, expires="2h")
    assert await expire(tables, 2) == 0
    assert await expire(tables, 4) == 1
    assert (await client.runtime_config()).limits == {"a": 1, "bulk": 2}


@pytest.mark.parametrize("change", [{"max_strict_percentage": 20}, {"limits": {"a": 9}}])
async def test_what_is_said_again_for_longer_expires_when_that_does(client, tables, change):
    await client.update_runtime_config(max_strict_percentage=50, limits={"b": 1})
    await client.update_runtime_config(**change, expires="1h")
    await client.update_runtime_config(**change, expires="3h")
    assert await expire(tables, 2) == 0
    [field] = change
    assert getattr(await client.runtime_config(), field) == change[field]
    assert await expire(tables, 3) == 1
    config = await client.runtime_config()
    assert (config.max_strict_percentage, config.limits) == (50, {"b": 1})


@pytest.mark.parametrize("change", [{"max_strict_percentage": 20}, {"limits": {"a": 9}}])
async def test_what_is_said_again_for_a_shorter_time_expires_with_the_first(client, tables, change):
    await client.update_runtime_config(**change, expires="3h")
    await client.update_runtime_config(**change, expires="1h")
    assert await expire(tables, 2) == 0
    assert await expire(tables, 1) == 1
    config = await client.runtime_config()
    assert (config.max_strict_percentage, config.limits) == (None, {})


@pytest.mark.parametrize("change", [{"max_strict_percentage": 20}, {"paused_labels": ["a"]}])
async def test_what_is_said_again_for_good_stays(client, tables, change):
    await client.update_runtime_config(**change, expires="1h")
    await client.update_runtime_config(**change)
    assert await expire(tables, 1) == 0
    [field] = change
    assert getattr(await client.runtime_config(), field) == change[field]


async def test_what_was_removed_comes_back_however_long_ago_that_was_first_said(client, tables):
    await client.update_runtime_config(limits={"a": 1})
    await client.update_runtime_config(limits={}, expires="1h")
    await client.update_runtime_config(default_weight=3)
    await client.update_runtime_config(limits={}, expires="3h")
    assert await expire(tables, 2) == 0
    assert await expire(tables, 4) == 1
    assert (await client.runtime_config()).limits == {"a": 1}


async def test_a_value_expires_in_time_after_thousands_of_versions(client, tables):
    await tables.execute(
        """INSERT INTO asynctaskd.runtime_configs (version, default_weight, limits, based_on, changes)
           SELECT n, 1 + n % 2, (SELECT jsonb_object_agg('l' || i, 1) FROM generate_series(1, 50) AS i),
                  n - 1, jsonb_build_object('default_weight', 1 + n % 2) FROM generate_series(1, 3000) AS n"""
    )
    await client.update_runtime_config(limits={f"l{i}": 2 for i in range(1, 51)}, expires="1h")
    async with tables.transaction() as connection:
        await connection.execute("SET LOCAL statement_timeout = '8s'")  # as housekeeping has it
        await connection.execute(
            "UPDATE asynctaskd.runtime_configs SET expires_at = '-infinity' WHERE version = 3001"
        )
        assert await connection.fetchval("SELECT asynctaskd.expire_runtime_configs()") == 1
    assert (await client.runtime_config()).limits == {f"l{i}": 1 for i in range(1, 51)}


async def test_a_worker_starts_with_what_has_not_expired(app, running, client, tables):
    await client.update_runtime_config(default_weight=2, expires="1h")
    await tables.execute("UPDATE asynctaskd.runtime_configs SET expires_at = '-infinity'")
    async with running(app) as daemon:
        assert daemon._steering.config.default_weight == 1
        assert await applied(tables) == [2]


# What one worker tries first


async def test_a_canary_is_tried_by_one_worker_and_promoted(fleet, client, tables):
    async with fleet(3) as daemons:
        chosen = daemons[1].worker_id
        asking = asyncio.create_task(
            client.update_runtime_config(
                default_weight=2, canary="500ms", canary_worker=chosen, timeout="10s"
            )
        )
        await tables.until("SELECT applied_config_version = 1 FROM asynctaskd.workers WHERE id = $1", chosen)
        assert await applied(tables) == [0, 0, 1]
        report = await asking
        assert (report.version, report.status, len(report.applied)) == (1, "converged", 3)
        assert (report.canary.worker, report.canary.outcome) == (chosen, "promoted")
        assert await applied(tables) == [1, 1, 1]


async def test_a_disabled_worker_tries_nothing_unless_it_is_named(app, running, client):
    async with running(app, enabled=False) as daemon:
        with pytest.raises(InvalidStateError, match="there is no live worker that could try the change"):
            await client.update_runtime_config(default_weight=2, canary="100ms", timeout="10s")
        report = await client.update_runtime_config(
            default_weight=2, canary="100ms", canary_worker=daemon.worker_id, timeout="10s"
        )
        assert report.canary.worker == daemon.worker_id
        async with running(app) as enabled:
            report = await client.update_runtime_config(default_weight=3, canary="100ms", timeout="10s")
            assert report.canary.worker == enabled.worker_id


async def test_a_canary_that_fails_more_often_is_rolled_back(fleet, client, tables):
    async with fleet(2, renew_interval="50ms") as daemons:
        await client.update_runtime_config(default_weight=4, timeout="10s")
        chosen = daemons[0].worker_id
        asking = asyncio.create_task(
            client.update_runtime_config(default_weight=2, canary="2s", canary_worker=chosen, timeout="10s")
        )
        await tables.until("SELECT applied_config_version = 2 FROM asynctaskd.workers WHERE id = $1", chosen)
        daemons[0]._slots.count(20, 10)
        daemons[1]._slots.count(20, 0)
        report = await asking
        assert (report.version, report.status) == (3, "converged")
        assert report.canary.outcome == "rolled_back"
        # The first change itself may be one of them, counted late.
        assert re.fullmatch("10 of 2[01] executions failed, 0 of 2[01] of the others", report.canary.because)
        assert await applied(tables) == [3, 3]
        assert (await client.runtime_config()).default_weight == 4


async def test_a_canary_that_is_lost_is_rolled_back(fleet, client, tables):
    async with fleet(1):
        silent = await register_silent(tables)
        asking = asyncio.create_task(
            client.update_runtime_config(default_weight=2, canary="1h", canary_worker=silent, timeout="20s")
        )
        await tables.until("SELECT max(version) = 1 FROM asynctaskd.runtime_configs")
        await tables.execute("UPDATE asynctaskd.workers SET applied_config_version = 1 WHERE id = $1", silent)
        await tables.execute(
            "UPDATE asynctaskd.workers SET lost_at = clock_timestamp() WHERE id = $1", silent
        )
        report = await asyncio.wait_for(asking, LONG_ENOUGH)
    assert (report.version, report.canary.outcome, report.canary.because) == (2, "rolled_back", "it was lost")


async def test_a_canary_is_promoted_or_rolled_back_when_an_operator_says_so(fleet, client, tables):
    async with fleet(2) as daemons:
        chosen = daemons[0].worker_id
        for settle, versions in [(client.promote_runtime_config, 1), (client.rollback_runtime_config, 3)]:
            asking = asyncio.create_task(
                client.update_runtime_config(
                    default_weight=2 + versions, canary="1h", canary_worker=chosen, timeout="20s"
                )
            )
            await tables.until(
                "SELECT max(applied_config_version) = max(runtime_configs.version)"
                " FROM asynctaskd.workers, asynctaskd.runtime_configs WHERE reach = 'canary'"
            )
            settled = await settle(timeout="10s")
            assert (settled.version, settled.status, len(settled.applied)) == (versions, "converged", 2)
            canary = (await asking).canary
            assert canary.outcome == ("promoted" if versions == 1 else "superseded")
        assert (await client.runtime_config()).default_weight == 3


async def test_an_ordinary_update_during_a_canary_is_based_on_what_holds_for_all(fleet, client, tables):
    async with fleet(2) as daemons:
        asking = asyncio.create_task(
            client.update_runtime_config(
                default_weight=2, canary="1h", canary_worker=daemons[0].worker_id, timeout="20s"
            )
        )
        await tables.until("SELECT max(applied_config_version) = 1 FROM asynctaskd.workers")
        await client.update_runtime_config(weights={"a": 1}, timeout="10s")
        assert (await asking).status == "superseded"
        config = await client.runtime_config()
    assert (config.version, config.default_weight, config.weights) == (2, 1, {"a": 1})


async def test_promoting_nothing_says_so(fleet, client):
    with pytest.raises(InvalidStateError, match="there is no canary to promote"):
        await client.promote_runtime_config()
    async with fleet(1):
        with pytest.raises(InvalidStateError, match="there is no canary to promote"):
            await client.promote_runtime_config(timeout="10s")


# Back, and before


async def test_a_rollback_is_a_new_version_of_old_content(client):
    await client.update_runtime_config(default_weight=2)
    await client.update_runtime_config(default_weight=3)
    assert (await client.rollback_runtime_config()).version == 3
    assert (await client.runtime_config()).default_weight == 2
    assert (await client.rollback_runtime_config(0)).version == 4
    assert (await client.runtime_config()).default_weight == 1
    with pytest.raises(InvalidInputError, match="there is no version 17"):
        await client.rollback_runtime_config(17)


async def test_what_cannot_be_read_is_copied_into_no_other_version(client, tables):
    await client.update_runtime_config(default_weight=2)
    await client.update_runtime_config(default_weight=1, expires="1h")
    await tables.execute(bad_version(3, '{"default": 3}'))
    named = "version 3 of the runtime configuration can't be read: weights can't name the label default"
    with pytest.raises(InvalidStateError, match=named):
        await client.update_runtime_config(paused_labels=["x"])
    with pytest.raises(InvalidStateError, match=named):
        await client.runtime_config()
    assert await expire(tables, 2) == 0
    assert (await client.rollback_runtime_config()).version == 4
    with pytest.raises(InvalidStateError, match=named):
        await client.rollback_runtime_config()
    with pytest.raises(InvalidStateError, match=named):
        await client.rollback_runtime_config(3)
    assert await expire(tables, 2) == 1
    await tables.execute(bad_version(6, '{"mail": 0}'))
    assert (await client.update_runtime_config(weights={"mail": 1})).version == 7
    assert (await client.runtime_config()).weights == {"mail": 1}


async def test_a_worker_refuses_to_put_a_change_on_top_of_what_cannot_be_read(fleet, client, tables):
    await tables.execute(bad_version(1, '{"mail": 0}'))
    async with fleet(1):
        with pytest.raises(
            InvalidStateError, match=r"version 1 .* weights\[mail\] must be at least 1, got 0"
        ):
            await client.update_runtime_config(default_weight=3, timeout="10s")
        report = await client.update_runtime_config(weights={"mail": 1}, timeout="10s")
    assert (report.version, report.status) == (2, "converged")


async def test_the_history_says_who_changed_what(client, tables):
    await client.update_runtime_config(default_weight=2, expires="1h")
    await client.update_runtime_config(weights={"a": 1})
    newest, first = await client.runtime_config_history()
    assert (newest["version"], newest["based_on"], newest["changes"]) == (2, 1, {"weights": {"a": 1}})
    assert first["expires_at"] is not None
    assert first["created_by"] == await tables.value("SELECT current_user")


async def test_a_preview_changes_nothing(fleet, client, tables):
    await client.update_runtime_config(weights={"a": 3})
    async with fleet(1, concurrency=10, max_strict_percentage=50) as [daemon]:
        preview = await client.preview_runtime_config(weights={"b": 1}, max_strict_percentage=5)
    assert dict(preview.shares) == {"a": (0.75, None), "b": (None, 0.5), "default": (0.25, 0.5)}
    assert [(one.worker_id, one.before, one.after) for one in preview.caps] == [(daemon.worker_id, 5, 1)]
    assert await tables.value("SELECT max(version) FROM asynctaskd.runtime_configs") == 1


async def test_a_shutdown_hands_a_control_task_on_with_its_attempt(app, running, client, tables):
    async with running(app) as first:
        await register_silent(tables)
        asked = await client.request_runtime_config(default_weight=2, timeout="30s")
        await tables.until("SELECT max(version) = 1 FROM asynctaskd.runtime_configs")
        async with running(app):
            first.stop()
            await tables.until(
                "SELECT stopped_at IS NOT NULL FROM asynctaskd.workers WHERE id = $1", first.worker_id
            )
            assert await tables.events(asked) == ["released"]
            await tables.execute(
                "UPDATE asynctaskd.workers SET lost_at = clock_timestamp() WHERE hostname = 'far'"
            )
            report = await client.runtime_config_report(asked, "10s")
    assert (report.version, report.status) == (1, "converged")
    assert (await tables.task(asked))["attempts"] == 1


async def test_a_control_task_whose_worker_loses_its_lease_is_taken_up_again(app, running, client, tables):
    async with running(app, renew_interval="50ms", poll_interval="50ms") as daemon:
        silent = await register_silent(tables)
        asked = await client.request_runtime_config(default_weight=2, timeout="30s")
        await tables.until("SELECT max(version) = 1 FROM asynctaskd.runtime_configs")
        await tables.execute(
            "UPDATE asynctaskd.workers SET lost_at = clock_timestamp() WHERE id = ANY ($1)",
            [daemon.worker_id],
        )
        await tables.until("SELECT claim_token = 2 FROM asynctaskd.all_tasks WHERE id = $1", asked)
        await tables.execute(
            "UPDATE asynctaskd.workers SET lost_at = clock_timestamp() WHERE id = $1", silent
        )
        report = await client.runtime_config_report(asked, "10s")
        assert (report.version, report.status, report.applied) == (1, "converged", (daemon.worker_id,))
    assert set(await tables.events(asked)) & {"lease_lost", "released"}  # whoever was first


async def test_many_control_tasks_at_once_listen_with_one_connection(fleet, client, tables, recorder):
    async with fleet(1):
        silent = await register_silent(tables)
        asked = [await client.request_runtime_config(default_weight=n, timeout="30s") for n in range(1, 6)]
        await tables.until("SELECT max(version) = 5 FROM asynctaskd.runtime_configs")
        ups = [told["channels"] for told in recorder.all("listener.up")]
        assert ups.count(["asynctaskd_runtime_config_ack"]) == 1
        await tables.execute(
            "UPDATE asynctaskd.workers SET lost_at = clock_timestamp() WHERE id = $1", silent
        )
        reports = [await client.runtime_config_report(one, "10s") for one in asked]
        assert [report.status for report in reports][-1] == "converged"


async def test_what_expires_waits_for_nobody_who_writes_a_version(client, tables):
    await client.update_runtime_config(default_weight=2, expires="1h")
    await tables.execute("UPDATE asynctaskd.runtime_configs SET expires_at = '-infinity'")
    async with tables.transaction() as connection:
        await connection.execute("SELECT asynctaskd.lock_runtime_configs()")
        assert await tables.value("SELECT asynctaskd.expire_runtime_configs()") == 0
    assert await tables.value("SELECT asynctaskd.expire_runtime_configs()") == 1


async def test_what_is_steered_is_measured(fleet, client, tables, recorder):
    metrics = Metrics()
    try:
        async with fleet(1, poll_interval="20ms"):
            silent = await register_silent(tables)
            await client.update_runtime_config(default_weight=2, timeout="300ms")
            await recorder.wait_for("config.lagging", workers=1)
            await tables.execute(
                "UPDATE asynctaskd.workers SET lost_at = clock_timestamp() WHERE id = $1", silent
            )
            await client.update_runtime_config(default_weight=2, timeout="10s")
            await recorder.wait_for("config.converged")
            lagging = len(recorder.all("config.lagging"))
            await recorder.wait_for("config.lagging", times=lagging + 2)
            value = metrics.registry.get_sample_value
            versions = [value("asynctaskd_config_version", {"state": one}) for one in ("applied", "newest")]
            assert versions == [2, 2]
            assert value("asynctaskd_lagging_workers") == 0
            assert value("asynctaskd_convergence_seconds_count") == 1
    finally:
        metrics.close()


async def register_silent(tables):
    """A worker that lives, and never answers."""
    worker = uuid4()
    await tables.execute(
        """INSERT INTO asynctaskd.workers (id, name, hostname, pid, version, labels, names, concurrency,
           expires_at) VALUES ($1, $1, 'far', 7, '0', '{}', '{}', 1, clock_timestamp() + interval '1
           hour')""",
        worker,
    )
    return worker
