"""Events as numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from asynctaskd.telemetry import emit
from asynctaskd.telemetry.levels import LEVELS
from asynctaskd.telemetry.metrics import Metrics
from asynctaskd.telemetry.metrics.counters import COUNTED


@pytest.fixture
def metrics():
    counting = Metrics()
    yield counting
    counting.close()


@pytest.fixture
def value(metrics):
    """A metric's value, by its name after the prefix; None where there is none."""
    return lambda name, **labels: metrics.registry.get_sample_value(f"asynctaskd_{name}", labels)


def test_every_event_that_is_counted_is_one_that_is_told():
    assert COUNTED.keys() <= LEVELS.keys()


def test_events_are_counted_by_the_names_of_tasks_and_never_by_ids(value):
    for task_id in (1, 2):
        emit("task.stale_result", task_id=task_id, task="pay", attempt=1, error=None, reason=None, delay=None)
    assert value("stale_results_total", task="pay") == 2
    assert value("stale_results_total", task="pay", task_id="1") is None


def test_what_is_about_many_tasks_adds_as_many(value):
    emit("workers.lost", workers=["a"], tasks=7)
    emit("workers.lost", workers=["b"], tasks=2)
    assert value("tasks_recovered_total") == 9


def test_a_stall_grows_while_it_lasts_and_is_added_up_when_it_is_over(value):
    assert value("loop_blocked_seconds", task="slow") is None
    emit("loop.stalled", task_id=1, task="slow", seconds=1.5, traceback="")
    first = value("loop_blocked_seconds", task="slow")
    assert 1.5 <= first < value("loop_blocked_seconds", task="slow")
    emit("loop.stalled", task_id=1, task="slow", seconds=2.0, traceback="")
    emit("loop.recovered", task_id=1, task="slow", seconds=2.5)
    assert value("loop_blocked_seconds", task="slow") is None
    assert value("loop_stall_seconds_total", task="slow") == 2.5


def test_notices_are_told_as_the_database_counted_them_last(value):
    assert value("notices_sent_total") is None
    emit("notices.counted", sent=3, saved=70)
    emit("notices.counted", sent=4, saved=90)
    assert (value("notices_sent_total"), value("notices_saved_total")) == (4, 90)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells")
def test_the_process_is_measured_too(metrics):
    assert metrics.registry.get_sample_value("process_resident_memory_bytes") > 0


def test_nothing_is_counted_once_it_is_closed(metrics, value):
    metrics.close()
    emit("workers.lost", workers=["a"], tasks=7)
    assert value("tasks_recovered_total") == 0


def test_schedules_that_come_and_go_dont_add_labels_for_ever(metrics, value):
    for number in range(300):
        emit("schedule.skipped", schedule=f"s{number}", reason="overlap", slots=1)
    emit("schedule.skipped", schedule="s7", reason="overlap", slots=2)
    assert value("schedule_slots_skipped_total", schedule="s7") == 3
    assert value("schedule_slots_skipped_total", schedule="s299") is None
    assert value("schedule_slots_skipped_total", schedule="other") == 100
