"""Slots that have come due: on time, late, skipped."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from asynctaskd.scheduling.cron import Timetable
from asynctaskd.scheduling.missed import Due, decide

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
GRACE = timedelta(seconds=11)


def decided(expression: str, ago: timedelta, missed: str, limit: int = 100) -> list[Due]:
    """What becomes of a schedule's slots at noon, the first of them due so long ago."""
    timetable = Timetable.read(expression, anchor=NOON)
    return decide(timetable, NOON - ago, NOON, missed=missed, limit=limit, grace=GRACE)


def outcomes(due: list[Due]) -> str:
    return "".join(slot.outcome[0] for slot in due)


@pytest.mark.parametrize("missed", ["skip", "once", "all"])
def test_a_slot_within_the_grace_runs_whatever_the_policy(missed: str) -> None:
    assert decided("0 * * * * *", timedelta(), missed) == [Due(NOON, "ran")]


@pytest.mark.parametrize("missed", ["skip", "once", "all"])
def test_several_slots_within_the_grace_all_run(missed: str) -> None:
    assert outcomes(decided("* * * * * *", timedelta(seconds=5), missed)) == "rrrrrr"


def test_skip_leaves_out_what_was_missed_and_runs_what_is_on_time() -> None:
    due = decided("0 */10 * * * *", timedelta(hours=1), "skip")
    assert outcomes(due) == "ssssssr"
    assert due[0] == Due(NOON - timedelta(hours=1), "skipped", "missed: nothing ran")


def test_once_runs_the_latest_for_all_others() -> None:
    due = decided("0 5-59/10 * * * *", timedelta(minutes=55), "once")
    assert outcomes(due) == "sssssl"
    assert due[-1].at == NOON - timedelta(minutes=5)
    assert due[0].reason == "missed: the slot 2026-05-01 11:55:00Z stands for it"


def test_all_runs_the_latest_up_to_the_limit() -> None:
    due = decided("0 5-59/10 * * * *", timedelta(minutes=55), "all", limit=2)
    assert outcomes(due) == "ssssll"


def test_what_is_due_and_not_missed_takes_nothing_of_the_limit() -> None:
    due = decided("* * * * * *", timedelta(seconds=20), "all", limit=5)
    assert outcomes(due) == "ssss" + "lllll" + "r" * 12
    assert due[3].reason == "missed: only the latest 5 are made up for"
    assert due[8].at == NOON - timedelta(seconds=12)


def test_after_a_long_outage_all_makes_up_for_the_latest_missed_and_runs_what_is_on_time() -> None:
    due = decided("* * * * * *", timedelta(days=30), "all", limit=3)
    assert outcomes(due) == "s" + "s" * 97 + "lll" + "r" * 12
    assert due[0] == Due(
        NOON - timedelta(days=30), "skipped", "missed, as were all until 2026-05-01 11:58:09Z: nothing ran"
    )


def test_a_long_outage_is_told_by_its_last_slots_and_one_for_the_rest() -> None:
    due = decided("* * * * * *", timedelta(days=30), "once")
    assert len(due) == 101
    assert due[0].at == NOON - timedelta(days=30)
    assert due[0].reason == "missed, as were all until 2026-05-01 11:58:21Z: nothing ran"
    assert due[-1] == Due(NOON, "ran")


def test_a_rare_schedule_is_found_however_long_ago() -> None:
    first = datetime(2024, 2, 29, tzinfo=UTC)
    due = decided("0 0 0 29 2 *", NOON - first, "all")
    assert due == [Due(first, "late", "missed: nothing ran")]
