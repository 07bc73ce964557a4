"""Metrics: what happened, as numbers for Prometheus. A subscriber like the log.

What is going on, such as a blocked event loop, is computed when it is asked for, on the asker's thread: it is
told while it lasts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from asynctaskd.telemetry.events import attach

# In seconds: a notice takes milliseconds, a renewal of the lease some seconds.
_CONVERGENCE = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


@dataclass(frozen=True, slots=True)
class _Counted:
    """An event that is counted: under which name, by which facts, and which fact is added (1 by default)."""

    name: str
    says: str
    labels: tuple[str, ...] = ()
    amount: str | None = None


_COUNTED: Mapping[str, _Counted] = {
    "loop.recovered": _Counted(
        "loop_stall_seconds",
        "For how long tasks have blocked the event loop, those that still do left out.",
        ("task",),
        "seconds",
    ),
    "lease.lost": _Counted(
        "leases_lost", "Leases that ran out or were taken; what ran under them was stopped."
    ),
    "workers.lost": _Counted(
        "tasks_recovered", "Tasks of lost workers that were put back here.", amount="tasks"
    ),
    "claim.lost": _Counted("claims_lost", "Tasks whose claim got lost on its way, put back.", amount="tasks"),
    "task.stale_result": _Counted(
        "stale_results", "Results that came too late and changed nothing.", ("task",)
    ),
    "task.quarantined": _Counted("tasks_quarantined", "Tasks that lost three workers in a row.", ("task",)),
    "handler.stuck": _Counted(
        "stuck_handler_reports",
        "Reports of handlers that go on though they were told to stop.",
        ("task", "why"),
    ),
    "handler.leaked_tasks": _Counted(
        "leaked_asyncio_tasks", "Asyncio tasks that handlers left behind.", ("task",), "count"
    ),
    "hook.failed": _Counted("hook_failures", "Failed tries of failure hooks.", ("task",)),
    "database.lost": _Counted(
        "database_outages", "Outages of the database, as each station saw them.", ("station",)
    ),
    "listener.lost": _Counted("listener_losses", "LISTEN connections that were lost or found deaf."),
    "schedule.skipped": _Counted(
        "schedule_slots_skipped", "Slots of schedules that got no task.", ("schedule",), "slots"
    ),
    "partition.dropped": _Counted(
        "partitions_dropped", "Partitions of finished tasks that were dropped, their day having come."
    ),
    "config.superseded": _Counted(
        "config_superseded",
        "Versions of the runtime configuration that a newer one overtook, among those published here.",
    ),
    "child.died": _Counted("children_died", "Processes for tasks that may kill their worker, which died."),
}


class Metrics:
    """Counts what is told, until it is closed; `registry` has the numbers.

    The label `task` is a task's name and `station` a loop of the daemon; never an id, so that there are few.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        stall = _Stall()
        notices = _Notices()
        self.registry.register(stall)
        self.registry.register(notices)
        lag = Gauge(
            "asynctaskd_cron_lag_seconds",
            "How late the schedule is that has waited longest for a slot to be decided.",
            registry=self.registry,
        )
        self._detach = [attach(stall.note, "loop.stalled", "loop.recovered")]
        self._detach += [attach(notices.note, "notices.counted")]
        self._detach += _watch_config(self.registry)
        self._detach += [attach(lambda _, facts: lag.set(facts["lag"]), "cron.looked")]
        self._detach += [_count(event, counted, self.registry) for event, counted in _COUNTED.items()]

    def close(self) -> None:
        """Count no more."""
        for detach in self._detach:
            detach()


def _count(event: str, counted: _Counted, registry: CollectorRegistry) -> Callable[[], None]:
    counter = Counter(f"asynctaskd_{counted.name}", counted.says, counted.labels, registry=registry)

    def note(_: str, facts: Mapping[str, Any]) -> None:
        which = counter.labels(*(facts[name] for name in counted.labels)) if counted.labels else counter
        which.inc(1 if counted.amount is None else facts[counted.amount])

    return attach(note, event)


def _watch_config(registry: CollectorRegistry) -> list[Callable[[], None]]:
    version = Gauge(
        "asynctaskd_config_version",
        "The version of the runtime configuration in force here.",
        registry=registry,
    )
    lagging = Gauge(
        "asynctaskd_lagging_workers",
        "Live workers of the whole fleet that don't apply the newest version, as of the last poll.",
        registry=registry,
    )
    seconds = Histogram(
        "asynctaskd_convergence_seconds",
        "How long the whole fleet took to apply a version, of those published here.",
        buckets=_CONVERGENCE,
        registry=registry,
    )
    return [
        attach(lambda _, facts: version.set(facts["version"]), "config.applied"),
        attach(lambda _, facts: lagging.set(facts["workers"]), "config.lagging"),
        attach(lambda _, facts: seconds.observe(facts["seconds"]), "config.converged"),
    ]


class _Stall(Collector):
    """Who blocks the event loop now, and for how long: told while it lasts."""

    def __init__(self) -> None:
        self._since: tuple[str, float] | None = None  # task, monotonic time; set by the thread that watches

    def note(self, event: str, facts: Mapping[str, Any]) -> None:
        """A stall begins, goes on, or is over."""
        if event == "loop.recovered":
            self._since = None
        elif self._since is None:
            self._since = facts["task"], time.monotonic() - facts["seconds"]

    @override
    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "asynctaskd_loop_blocked_seconds", "For how long the event loop is blocked.", labels=["task"]
        )
        if (since := self._since) is not None:
            task, began = since
            family.add_metric([task], time.monotonic() - began)
        yield family


class _Notices(Collector):
    """What the database has counted, as it was last told: not this process's own doing."""

    def __init__(self) -> None:
        self._counted: tuple[int, int] | None = None  # sent, saved

    def note(self, _: str, facts: Mapping[str, Any]) -> None:
        """Somebody has looked."""
        self._counted = facts["sent"], facts["saved"]

    @override
    def collect(self) -> Iterator[Metric]:
        sent = CounterMetricFamily(
            "asynctaskd_notices_sent", "Notices that were sent, in the whole database: an idle worker waited."
        )
        saved = CounterMetricFamily(
            "asynctaskd_notices_saved", "Notices that were not sent, in the whole database: nobody waited."
        )
        if self._counted is not None:
            sent.add_metric([], self._counted[0])
            saved.add_metric([], self._counted[1])
        yield from (sent, saved)
