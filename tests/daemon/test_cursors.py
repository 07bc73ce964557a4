"""Where claims go on between two looks, and when the strict lane does too."""

from __future__ import annotations

import pytest

from asynctaskd.daemon.cursors import Cursors
from asynctaskd.postgres.records import START, Look, Position
from asynctaskd.task import ClaimedTask
from tests.support.claimed import TASK

QUICK, SLOW = 0.0002, 0.05


def look(
    *, seconds: float, normal: dict[str, Position] | None = None, newest: int = 0, sets: int = 2
) -> Look:
    """What a look found: a strict task of priority 1 in each of two label sets, and what is given."""
    found = {"": (-1, 5), "tpu": (-1, 5)}
    return Look(normal or {}, found, suspects=frozenset(), newest=newest, sets=sets, seconds=seconds)


def claimed(task_id: int, **changes: int) -> ClaimedTask:
    return TASK._replace(id=task_id, **changes)


@pytest.fixture
def cursors() -> Cursors:
    """Of a worker that may run what has no label."""
    return Cursors()


def test_the_normal_lane_goes_on_after_its_last_task_and_a_look_puts_it_back(cursors: Cursors) -> None:
    assert cursors.after("") == START
    cursors.put_back(look(seconds=QUICK, normal={"": (-1, 3)}), ())
    cursors.pass_by([claimed(9, weight=1), claimed(4, weight=2)])
    assert cursors.after("") == (-1, 9)
    cursors.put_back(look(seconds=QUICK, normal={"": (-1, 6)}), ())
    assert cursors.after("") == (-1, 6)
    cursors.put_back(look(seconds=QUICK), ())
    assert cursors.after("") == (-1, 6)


def test_while_looks_are_cheap_the_strict_lane_is_read_from_its_start(cursors: Cursors) -> None:
    for newest in (10, 20, 30):
        cursors.put_back(look(seconds=QUICK, newest=newest), ())
        cursors.pass_by([claimed(25, priority=1)])
        assert (cursors.strict, cursors.new_above) == ({}, 0)


def test_where_looks_take_long_it_goes_on_too_and_what_was_not_there_at_the_look_before_is_new(
    cursors: Cursors,
) -> None:
    for newest, known in ((10, {}), (20, {"": (-1, 5)}), (30, {"": (-1, 5)})):
        cursors.put_back(look(seconds=SLOW, newest=newest), ())
        assert (cursors.strict, cursors.new_above) == (known, newest - 10)
    cursors.pass_by([claimed(25, priority=1), claimed(40, priority=2), claimed(50, priority=1, losses=2)])
    assert cursors.strict == {"": (-1, 25)}
    cursors.put_back(look(seconds=QUICK, newest=40), ())
    assert (cursors.strict, cursors.new_above) == ({}, 0)


def test_a_look_at_many_label_sets_may_take_longer_though_they_are_for_other_workers(
    cursors: Cursors,
) -> None:
    for newest in (10, 20):
        cursors.put_back(look(seconds=0.01, sets=1000, newest=newest), ())
    assert cursors.new_above == 0
