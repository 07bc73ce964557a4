"""The way of tasks in numbers: enqueued, claimed, ended, and how long that took.

Workers tell of all tasks of a second at once, so that one costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter

from asynctaskd.telemetry.events import attach
from asynctaskd.telemetry.metrics.durations import OF_CALLS, OF_FLEETS, OF_TASKS, Durations

Detach = Callable[[], None]
TaskLabel = Callable[[str], str]

# Event → the histogram of its fact `seconds`.
_TIMED = {
    "lease.answered": ("lease_renew_seconds", "How long renewals of the lease took.", OF_CALLS),
    "listener.proved": (
        "listen_probe_seconds",
        "How long a notice took from this worker to itself, by which it proves that it hears.",
        OF_CALLS,
    ),
    "config.converged": (
        "convergence_seconds",
        "How long the whole fleet took to apply a version, of those published here.",
        OF_FLEETS,
    ),
}


def measure_flow(registry: CollectorRegistry, task_label: TaskLabel) -> list[Detach]:
    """Measure until detached."""
    detach = [_measure_enqueues(registry, task_label)]
    detach.append(_measure_claims(registry, task_label))
    detach.append(_measure_ends(registry, task_label))
    return detach + [_time(event, registry) for event in _TIMED]


def _measure_enqueues(registry: CollectorRegistry, task_label: TaskLabel) -> Detach:
    count = _counter(
        "tasks_enqueued", "Tasks that clients in this process have enqueued.", ["task"], registry
    )
    took = _durations(
        "enqueue_duration_seconds", "How long calls of a client's enqueue took.", None, OF_CALLS, registry
    )

    def note(_: str, facts: Mapping[str, Any]) -> None:
        took.add([facts["seconds"]])
        for name, number in facts["tasks"].items():
            count.labels(task_label(name)).inc(number)

    return attach(note, "task.enqueued")


def _measure_claims(registry: CollectorRegistry, task_label: TaskLabel) -> Detach:
    count = _counter("tasks_claimed", "Tasks that were claimed.", ["task"], registry)
    child = cache(count.labels)
    waits = _durations(
        "task_wait_seconds",
        "How long tasks waited, from when they were due until they were first claimed.",
        "group",
        OF_TASKS,
        registry,
    )

    def note(_: str, facts: Mapping[str, Any]) -> None:
        for group, seconds in facts["waits"].items():
            waits.add(seconds, group)
        for name, number in facts["tasks"].items():
            child(task_label(name)).inc(number)

    return attach(note, "tasks.claimed")


def _measure_ends(registry: CollectorRegistry, task_label: TaskLabel) -> Detach:
    count = _counter(
        "tasks_finished", "Executions that ended, by what they came to.", ["task", "outcome"], registry
    )
    child = cache(count.labels)  # it takes a lock each time; and there are few
    took = _durations("task_duration_seconds", "How long executions took.", "task", OF_TASKS, registry)

    def note(_: str, facts: Mapping[str, Any]) -> None:
        for (name, outcome), seconds in facts["ends"].items():
            label = task_label(name)
            child(label, outcome).inc(len(seconds))
            took.add(filter(None, seconds), label)  # None: it never began

    return attach(note, "executions.ended")


def _time(event: str, registry: CollectorRegistry) -> Detach:
    name, says, buckets = _TIMED[event]
    durations = _durations(name, says, None, buckets, registry)
    return attach(lambda _, facts: durations.add([facts["seconds"]]), event)


def _counter(name: str, says: str, labels: list[str], registry: CollectorRegistry) -> Counter:
    return Counter(f"asynctaskd_{name}", says, labels, registry=registry)


def _durations(
    name: str, says: str, label: str | None, buckets: tuple[float, ...], registry: CollectorRegistry
) -> Durations:
    durations = Durations(name, says, label, buckets=buckets)
    registry.register(durations)
    return durations
