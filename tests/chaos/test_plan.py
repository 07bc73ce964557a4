"""The plan of a chaos run is a pure function of its seed."""

from __future__ import annotations

import pytest

from tests.chaos.faults import Breaker
from tests.chaos.plan import KINDS, make_plan

WORKERS = ["w1", "w2", "w3"]


def plan(seed: int, **options):
    return make_plan(seed, **({"events": 40, "seconds": 100.0, "workers": WORKERS} | options))


def test_a_seed_replays_its_plan():
    assert plan(7) == plan(7)
    assert plan(7) != plan(8)


def test_events_come_in_order_within_the_time_given():
    times = [event.at for event in plan(7)]
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] <= 100
    assert [event.number for event in plan(7)] == list(range(1, 41))


def test_every_kind_comes_where_there_is_room():
    assert {event.kind for event in plan(7, parents=["p1"])} == set(KINDS)


def test_without_parents_no_death_is_witnessed():
    assert not {"kill_child", "kill_release"} & {event.kind for event in plan(7, events=500)}


def test_children_are_killed_under_parents_only():
    events = plan(7, events=500, parents=["p1"])
    assert {event.target for event in events if event.kind == "kill_child"} == {"p1"}


def test_a_plan_may_be_restricted_to_some_kinds():
    assert {event.kind for event in plan(7, kinds=("kill", "failover"))} == {"kill", "failover"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_caused(kind):
    assert callable(getattr(Breaker, f"_{kind}"))
