"""Events that are counted, each by a counter of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter

from asynctaskd.telemetry.events import attach
from asynctaskd.telemetry.levels import LEVELS, SEVERITY
from asynctaskd.telemetry.metrics.names import FirstNames

Detach = Callable[[], None]
Label = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Counted:
    """An event that is counted: under which name, by which facts, and which fact is added (1 by default)."""

    name: str
    says: str
    labels: tuple[str, ...] = ()
    amount: str | None = None


COUNTED: Mapping[str, Counted] = {
    "loop.recovered": Counted(
        "loop_stall_seconds",
        "For how long tasks have blocked the event loop, those that still do left out.",
        ("task",),
        "seconds",
    ),
    "lease.lost": Counted(
        "leases_lost", "Leases that ran out or were taken; what ran under them was stopped."
    ),
    "lease.not_renewed": Counted("lease_renew_failures", "Tries to renew the lease that failed."),
    "workers.lost": Counted(
        "tasks_recovered", "Tasks of lost workers that were put back here.", amount="tasks"
    ),
    "claim.lost": Counted("claims_lost", "Tasks whose claim got lost on its way, put back.", amount="tasks"),
    "task.unknown_name": Counted(
        "unknown_tasks", "Claims of tasks whose name this worker doesn't know, put back."
    ),
    "task.stale_result": Counted(
        "stale_results", "Results that came too late and changed nothing.", ("task",)
    ),
    "task.quarantined": Counted("tasks_quarantined", "Tasks that lost three workers in a row.", ("task",)),
    "handler.stuck": Counted(
        "stuck_handler_reports",
        "Reports of handlers that go on though they were told to stop.",
        ("task", "why"),
    ),
    "handler.leaked_tasks": Counted(
        "leaked_asyncio_tasks", "Asyncio tasks that handlers left behind.", ("task",), "count"
    ),
    "hook.failed": Counted("hook_failures", "Failed tries of failure hooks.", ("task",)),
    "database.lost": Counted(
        "database_outages", "Outages of the database, as each station saw them.", ("station",)
    ),
    "listener.lost": Counted("listener_losses", "LISTEN connections that were lost or found deaf."),
    "schedule.skipped": Counted(
        "schedule_slots_skipped", "Slots of schedules that got no task.", ("schedule",), "slots"
    ),
    "partition.dropped": Counted(
        "partitions_dropped", "Partitions of finished tasks that were dropped, their day having come."
    ),
    "config.superseded": Counted(
        "config_superseded",
        "Versions of the runtime configuration that a newer one overtook, among those published here.",
    ),
    "child.died": Counted("children_died", "Processes for tasks that may kill their worker, which died."),
    "enqueue.failed": Counted(
        "enqueue_failures", "Calls of a client's enqueue that enqueued nothing.", ("reason",)
    ),
}

# It tells where each thread was when a worker gave up, and comes once a thread.
_PART_OF_ANOTHER = {"thread.stack"}

INTERNAL_ERRORS = sorted(
    event
    for event, level in LEVELS.items()
    if level and SEVERITY[level] >= SEVERITY["error"] and event not in _PART_OF_ANOTHER
)
"""The events that tell of an error of the daemon's own: a task's failure is none."""


def count_events(registry: CollectorRegistry, task_label: Label) -> list[Detach]:
    """Count until detached."""
    bounded: Mapping[str, Label] = {"task": task_label, "schedule": FirstNames()}
    detach = [_count(event, counted, registry, bounded) for event, counted in COUNTED.items()]
    errors = Counter(
        "asynctaskd_internal_errors",
        "The daemon's own errors, by the event of the log that tells them.",
        ["event"],
        registry=registry,
    )
    by_event = {event: errors.labels(event) for event in INTERNAL_ERRORS}  # there from the start, with 0
    return [*detach, attach(lambda event, _: by_event[event].inc(), *INTERNAL_ERRORS)]


def _count(event: str, counted: Counted, registry: CollectorRegistry, bounded: Mapping[str, Label]) -> Detach:
    counter = Counter(f"asynctaskd_{counted.name}", counted.says, counted.labels, registry=registry)

    def value(label: str, fact: Any) -> Any:
        return bounded[label](fact) if label in bounded else fact

    def note(_: str, facts: Mapping[str, Any]) -> None:
        values = [value(label, facts[label]) for label in counted.labels]
        which = counter.labels(*values) if values else counter
        which.inc(1 if counted.amount is None else facts[counted.amount])

    return attach(note, event)
