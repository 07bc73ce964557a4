"""What is the case now, as far as it was told: of this worker, of the fleet, of the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from asynctaskd.telemetry.events import attach
from asynctaskd.telemetry.metrics.latest import Latest

Detach = Callable[[], None]
TaskLabel = Callable[[str], str]

_TOLD: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "worker.measured": {
        "running": ("running_tasks", "Executions that are running."),
        "slots": ("slots", "How many executions may run at once."),
        "unwritten": ("unwritten_results", "Executions that have ended, whose outcome isn't written yet."),
        "strict_running": ("strict_running_tasks", "Executions of the strict lane that are running."),
        "strict_cap": ("strict_cap", "How many executions of the strict lane may run at once."),
        "strict_saturation": (
            "strict_saturation_ratio",
            "How much of the strict lane's cap is taken, from 0 to 1.",
        ),
        "pool_in_use": ("pool_in_use", "Connections of the handlers' pool that are in use."),
        "pool_size": ("pool_size", "Connections that the handlers' pool may have."),
    },
    "loop.answered": {
        "seconds": ("loop_lag_seconds", "How long the event loop took to answer when it was last asked."),
    },
    "cron.looked": {
        "lag": (
            "cron_lag_seconds",
            "How late the schedule is that has waited longest for a slot to be decided.",
        ),
    },
    "config.lagging": {
        "workers": (
            "lagging_workers",
            "Live workers of the whole fleet that don't apply the newest version, as of the last poll.",
        ),
    },
    "listener.proved": {
        "usage": ("notification_queue_ratio", "How full the server's queue of notices is, from 0 to 1."),
    },
    "fleet.measured": {
        "live_workers": ("live_workers", "Workers of the whole fleet whose lease holds."),
        "oldest_transaction": (
            "oldest_transaction_seconds",
            "For how long the oldest transaction of the database has been open.",
        ),
        "horizon_age": (
            "horizon_age_transactions",
            "How many transactions ago the oldest snapshot was taken for which dead rows are kept.",
        ),
    },
}
"""Event → fact → the gauge that shows what it was last."""

_GROUPS = {
    "waiting": ("waiting_tasks", "Tasks that could run now and wait for a slot; an estimate where many do."),
    "oldest": ("oldest_waiting_seconds", "For how long the task has waited that could run longest."),
}

# What tells whether a connection stands: event → 1 or 0.
_LISTEN_UP = {"listener.up": 1, "listener.lost": 0, "listener.off": 0}
_DB_UP = {"lease.answered": 1, "lease.not_renewed": 0}


def show_what_is_told(registry: CollectorRegistry, task_label: TaskLabel) -> list[Detach]:
    """Show it until detached; a worker that has stopped shows nothing."""
    gauges: list[Latest] = []

    def gauge(name: str, says: str, label: str | None = None) -> Latest:
        made = Latest(name, says, label)
        registry.register(made)
        gauges.append(made)
        return made

    detach = [
        attach(_teller({fact: gauge(*described) for fact, described in facts.items()}), event)
        for event, facts in _TOLD.items()
    ]
    detach.append(_show_groups({fact: gauge(*described, "group") for fact, described in _GROUPS.items()}))
    detach += _show_versions(gauge("config_version", "A version of the runtime configuration.", "state"))
    detach.append(_show_state(gauge("listen_up", "Whether LISTEN stands: 1 or 0."), _LISTEN_UP))
    detach.append(
        _show_state(gauge("db_up", "Whether the database answered the last renewal: 1 or 0."), _DB_UP)
    )
    detach += _show_loop(registry, task_label)
    detach.append(attach(lambda *_: _forget(gauges), "worker.stopped"))
    return detach


def _forget(gauges: list[Latest]) -> None:
    for gauge in gauges:
        gauge.forget()


def _teller(gauges: Mapping[str, Latest]) -> Callable[[str, Mapping[str, Any]], None]:
    def tell(_: str, facts: Mapping[str, Any]) -> None:
        for fact, gauge in gauges.items():
            gauge.tell(facts[fact])

    return tell


def _show_groups(gauges: Mapping[str, Latest]) -> Detach:
    def tell(_: str, facts: Mapping[str, Any]) -> None:
        for fact, gauge in gauges.items():
            gauge.tell_all(facts[fact])

    return attach(tell, "fleet.measured")


def _show_versions(gauge: Latest) -> list[Detach]:
    return [
        attach(lambda _, facts: gauge.tell(facts["version"], "applied"), "config.applied"),
        attach(lambda _, facts: gauge.tell(facts["newest"], "newest"), "config.lagging"),
    ]


def _show_state(gauge: Latest, values: Mapping[str, int]) -> Detach:
    return attach(lambda event, _: gauge.tell(values[event]), *values)


def _show_loop(registry: CollectorRegistry, task_label: TaskLabel) -> list[Detach]:
    stall, notices = _Stall(task_label), _Notices()
    registry.register(stall)
    registry.register(notices)
    return [
        attach(stall.note, "loop.stalled", "loop.recovered"),
        attach(notices.note, "notices.counted"),
    ]


class _Stall(Collector):
    """Who blocks the event loop now, and for how long: told while it lasts."""

    def __init__(self, task_label: TaskLabel) -> None:
        self._task_label = task_label
        self._since: tuple[str, float] | None = None  # task, monotonic time; set by the thread that watches

    def note(self, event: str, facts: Mapping[str, Any]) -> None:
        """A stall begins, goes on, or is over."""
        if event == "loop.recovered":
            self._since = None
        elif self._since is None:
            self._since = self._task_label(facts["task"]), time.monotonic() - facts["seconds"]

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
