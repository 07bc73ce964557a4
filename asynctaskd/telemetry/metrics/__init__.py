"""Metrics: what happened, as numbers for Prometheus. A subscriber like the log.

What is going on, such as a blocked event loop, is computed when it is asked for, on the asker's thread: it is
told while it lasts.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from asynctaskd.telemetry.logs import dropped_lines
from asynctaskd.telemetry.metrics.counters import count_events
from asynctaskd.telemetry.metrics.flow import measure_flow
from asynctaskd.telemetry.metrics.gauges import show_what_is_told
from asynctaskd.telemetry.metrics.names import Declared, TaskNames
from asynctaskd.version import __version__

__all__ = ["Metrics"]


class Metrics:
    """Counts what is told in this process, until it is closed; `registry` has the numbers.

    Make one beside a client, or a worker that you embed: `Metrics(app, registry=prometheus_client.REGISTRY)`.
    A worker of the command line makes its own.

    It hears all that is told in the process. Of several workers in one, counters and histograms add up; a
    gauge shows what one of them told last, whichever that was, and all are gone when the first one stops.

    The label `task` is the name of a declared task, or that of a route, never an id and never what somebody
    else made up, so that there are few values.

    Args:
        app: the App whose names are told apart, all others being `other`; without one, the first 200.
        registry: one of yours, to add these to; else one of their own, with the process's own metrics.
    """

    def __init__(self, app: Declared | None = None, *, registry: CollectorRegistry | None = None) -> None:
        if registry is None:
            registry = CollectorRegistry()
            _OwnProcess(registry=registry)
        self.registry = registry
        task_label = TaskNames(app)
        registry.register(_Process())
        self._detach = count_events(registry, task_label)
        self._detach += show_what_is_told(registry, task_label)
        self._detach += measure_flow(registry, task_label)

    def close(self) -> None:
        """Count no more."""
        for detach in self._detach:
            detach()


class _OwnProcess(ProcessCollector):
    """The library's, where systemd hides the file in which that looks for the boot (`ProcSubset=pid`)."""

    def _boot_time(self) -> float:
        if not hasattr(time, "CLOCK_BOOTTIME"):
            raise FileNotFoundError("this system has no /proc")
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


class _Process(Collector):
    """What the process itself knows."""

    @override
    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily(
            "asynctaskd_build_info", "Which version runs: always 1.", labels=["version", "python"]
        )
        build.add_metric([__version__, platform.python_version()], 1)
        yield build
        yield CounterMetricFamily(
            "asynctaskd_log_lines_dropped", "Log lines that nobody took.", value=dropped_lines()
        )
