"""Histograms of durations, tens of thousands of which come in a second.

prometheus_client's own goes through all buckets for each, and takes a lock each time: that costs more than a
claim. Here many are told at once. They are sorted, and not looked up one by one, since what waited in a
queue comes nearly sorted.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise

from prometheus_client import Metric
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

OF_TASKS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600)
"""Buckets for what tasks take, and wait: from milliseconds to the default timeout."""

OF_CALLS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
"""Buckets for what the database takes to answer."""

OF_FLEETS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
"""Buckets for what all workers together take: a notice takes milliseconds, a renewal of the lease seconds."""


class Durations(Collector):
    """A histogram in seconds, with one label or none."""

    def __init__(self, name: str, says: str, label: str | None = None, *, buckets: tuple[float, ...]) -> None:
        self._name = f"asynctaskd_{name}"
        self._says = says
        self._labels = () if label is None else (label,)
        self._bounds = buckets
        self._series: dict[str, tuple[list[int], list[float]]] = {}  # label → counts, [sum]
        self._lock = threading.Lock()
        if label is None:
            self._series_of("")

    def add(self, durations: Iterable[float], label: str = "") -> None:
        """Take in some, in seconds, of a value of the label, if there is one."""
        ordered = sorted(durations)
        up_to = [0, *(bisect_right(ordered, bound) for bound in self._bounds), len(ordered)]
        with self._lock:
            counts, total = self._series.get(label) or self._series_of(label)
            for place, (before, until) in enumerate(pairwise(up_to)):
                counts[place] += until - before
            total[0] += sum(ordered)

    def _series_of(self, value: str) -> tuple[list[int], list[float]]:
        return self._series.setdefault(value, ([0] * (len(self._bounds) + 1), [0.0]))

    @override
    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._says, labels=self._labels)
        with self._lock:
            for value, (counts, total) in self._series.items():
                family.add_metric([value][: len(self._labels)], self._buckets(counts), total[0])
        yield family

    def _buckets(self, counts: list[int]) -> list[tuple[str, float]]:
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        return list(zip(bounds, map(float, accumulate(counts)), strict=True))
