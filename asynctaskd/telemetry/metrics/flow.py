"""The way of tasks in numbers: enqueued, claimed, ended, and how long that took.

The stations tell of as many tasks at once as they have in hand, so that a task costs next to nothing.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Mapping
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
        took.add_one(facts["seconds"])
        for name, number in facts["tasks"].items():
            count.labels(task_label(name)).inc(number)

    return attach(note, "task.enqueued")


def _measure_claims(registry: CollectorRegistry, task_label: TaskLabel) -> Detach:
    count = _counter("tasks_claimed", "Tasks that were claimed.", ["task"], registry)
    waits = _durations(
        "task_wait_seconds",
        "How long tasks waited, from when they were due until they were first claimed.",
        "group",
        OF_TASKS,
        registry,
    )

    def note(_: str, facts: Mapping[str, Any]) -> None:
        waits.add(facts["waits"])
        for name, number in facts["tasks"].items():
            count.labels(task_label(name)).inc(number)

    return attach(note, "claim.made")


def _measure_ends(registry: CollectorRegistry, task_label: TaskLabel) -> Detach:
    count = _counter(
        "tasks_finished", "Executions that ended, by what they came to.", ["task", "outcome"], registry
    )
    took = _durations("task_duration_seconds", "How long executions took.", "task", OF_TASKS, registry)

    def note(_: str, facts: Mapping[str, Any]) -> None:
        ends = facts["ends"]  # name, outcome, seconds or None
        tally = Tally((name, outcome) for name, outcome, _ in ends)
        labels = {name: task_label(name) for name, _ in tally}
        took.add((labels[name], seconds) for name, _, seconds in ends if seconds is not None)
        for (name, outcome), number in tally.items():
            count.labels(labels[name], outcome).inc(number)

    return attach(note, "finalize.made")


def _time(event: str, registry: CollectorRegistry) -> Detach:
    name, says, buckets = _TIMED[event]
    durations = _durations(name, says, None, buckets, registry)
    return attach(lambda _, facts: durations.add_one(facts["seconds"]), event)


def _counter(name: str, says: str, labels: list[str], registry: CollectorRegistry) -> Counter:
    return Counter(f"asynctaskd_{name}", says, labels, registry=registry)


def _durations(
    name: str, says: str, label: str | None, buckets: tuple[float, ...], registry: CollectorRegistry
) -> Durations:
    durations = Durations(name, says, label, buckets=buckets)
    registry.register(durations)
    return durations
