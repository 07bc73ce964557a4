"""What liveness and readiness depend on, told by events."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from asynctaskd.telemetry import emit
from asynctaskd.telemetry.events import is_watched
from asynctaskd.telemetry.health import Health
from asynctaskd.telemetry.levels import LEVELS

LIMIT = 60.0


@pytest.fixture
def clock():
    """Seconds, moved on by the test."""
    return SimpleNamespace(now=1000.0)


@pytest.fixture
def health(clock):
    facts = Health(stall_limit=LIMIT, clock=lambda: clock.now)
    yield facts
    facts.close()


def failing(health: Health) -> list[str]:
    return [check.name for check in health.failing()]


def reason(health: Health, name: str) -> str:
    return next(check.reason for check in health.checks() if check.name == name)


def start() -> None:
    """What a worker tells until it is ready."""
    emit("database.suits", schema_version="1.18")
    emit("lease.renewed", worker_id="w", seconds=24.0)
    emit("listener.up", channels=[])
    emit("queue.polled", interval=1.0, running=3)


def test_every_event_that_is_listened_to_is_one_that_is_told(health):
    assert health._notes().keys() <= LEVELS.keys()


def test_nothing_is_ready_before_anything_was_told(health):
    assert failing(health) == ["database", "primary", "schema", "listening", "lease"]
    assert health.is_alive()


def test_a_worker_that_has_started_is_ready(health):
    start()
    assert health.failing() == []
    assert reason(health, "schema") == "version 1.18"


def test_a_loop_that_stands_still_past_the_limit_is_not_alive_until_it_turns_again(health, clock):
    clock.now += LIMIT
    assert health.is_alive()
    clock.now += 0.1
    assert not health.is_alive()
    health.turn()
    assert health.is_alive()


def test_an_outage_is_named_until_each_station_that_saw_it_gets_through(health):
    start()
    for station in ("lease", "housekeeping"):
        emit("database.lost", station=station, cause="unavailable", error="connection refused")
    assert (failing(health), reason(health, "database")) == (["database"], "connection refused")
    emit("database.restored", station="lease")
    assert failing(health) == ["database"]
    emit("database.restored", station="housekeeping")
    assert failing(health) == []


def test_an_outage_at_the_start_has_its_reason(health):
    emit("database.lost", station="start", cause="unavailable", error="no such host")
    assert reason(health, "database") == "no such host"


def test_an_outage_that_only_a_passer_by_saw_is_not_kept(health):
    start()
    emit("database.lost", station="stop", cause="unavailable", error="no answer")
    assert failing(health) == []


def test_a_standby_answers_and_is_no_primary(health):
    start()
    emit("database.lost", station="lease", cause="unavailable", error="connection refused")
    emit("database.lost", station="lease", cause="standby", error="it takes no writes")
    assert (failing(health), reason(health, "primary")) == (["primary"], "it takes no writes")


def test_without_notices_a_poll_will_do_as_long_as_it_gets_through(health, clock):
    start()
    emit("listener.lost", error="closed", retry_in=0.1)
    assert (failing(health), reason(health, "listening")) == ([], "no notices; it polls every 1 s")
    clock.now += 11.1
    assert failing(health) == ["listening"]


def test_where_notices_are_required_a_poll_will_not_do(clock):
    health = Health(stall_limit=LIMIT, requires_notices=True, clock=lambda: clock.now)
    start()
    assert failing(health) == []
    emit("listener.lost", error="closed", retry_in=0.1)
    assert failing(health) == ["listening"]
    health.close()


def test_a_lease_is_fresh_until_it_runs_out_or_is_lost(health, clock):
    start()
    clock.now += 23.9
    emit("queue.polled", interval=1.0, running=3)
    assert failing(health) == []
    clock.now += 0.2
    assert (failing(health), reason(health, "lease")) == (["lease"], "it ran out")
    emit("lease.renewed", worker_id="w", seconds=24.0)
    emit("lease.lost", worker_id="w", error="declared lost")
    assert (failing(health), reason(health, "lease")) == (["lease"], "it was lost: declared lost")
    emit("lease.renewed", worker_id="v", seconds=24.0)
    assert failing(health) == []


def test_a_worker_that_drains_is_alive_and_not_ready(health):
    start()
    emit("worker.stopping", worker_id="w", running=3)
    assert (failing(health), health.is_alive()) == (["draining"], True)


def test_it_is_told_in_one_line_with_the_numbers_that_were_told_last():
    health = Health(stall_limit=LIMIT, counts=True)
    start()
    assert health.summary() == "3 running, config v0"
    emit("config.applied", version=7)
    emit("fleet.measured", waiting={"default": 300, "mail": 40}, oldest={})
    assert health.summary() == "3 running, 340 waiting, config v7"
    emit("database.lost", station="lease", cause="unavailable", error="connection refused")
    assert health.summary() == "3 running, 340 waiting, config v7; database: connection refused"
    health.close()


def test_what_waits_is_counted_only_where_it_is_asked_for(health):
    assert not is_watched("fleet.measured")


def test_nothing_is_heard_once_it_is_closed(health):
    health.close()
    start()
    assert failing(health) == ["database", "primary", "schema", "listening", "lease"]
