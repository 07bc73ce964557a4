"""Gauges of what was told last; of what nobody has told there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override


class Latest(Collector):
    """A gauge, with one label or none. Not there before it was told: 0 would be a statement too."""

    def __init__(self, name: str, says: str, label: str | None = None) -> None:
        self._name = f"asynctaskd_{name}"
        self._says = says
        self._labels = () if label is None else (label,)
        self._values: Mapping[str, float] = {}  # replaced as a whole

    def tell(self, value: float, label: str = "") -> None:
        """The value now; those of other labels stay."""
        self._values = {**self._values, label: value}

    def tell_all(self, values: Mapping[str, float]) -> None:
        """The values of all labels that there are now."""
        self._values = dict(values)

    def forget(self) -> None:
        """Nobody is there to tell."""
        self._values = {}

    @override
    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(self._name, self._says, labels=self._labels)
        for label, value in self._values.items():
            family.add_metric([label][: len(self._labels)], value)
        yield family
