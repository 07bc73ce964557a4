"""What docs/reference/metrics.md says there is, and what a PromQL expression asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from deploy.check.tools import ROOT

_OF_A_HISTOGRAM = re.compile(r"_(bucket|sum|count)$")
_METRIC = re.compile(r"\b(asynctaskd_\w+)\s*(\{[^}]*\})?")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
# What a scrape adds.
_ADDED = {"job", "instance", "namespace", "pod", "le"}


def documented() -> Mapping[str, set[str]]:
    """The labels of each metric, by its name."""
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf8")
    rows = re.findall(r"^\| (`asynctaskd_[^|]*)\|([^|]*)\|", page, re.MULTILINE)
    return {
        name: set(re.findall(r"\w+", labels)) for names, labels in rows for name in re.findall(r"\w+", names)
    }


def unknown(expression: str, metrics: Mapping[str, set[str]]) -> Iterator[str]:
    """What an expression asks for that no worker tells; a name with colons is a recording rule's."""
    asked = dict.fromkeys(_METRIC.findall(re.sub(r"\w+:[\w:]+", "", expression)))
    for name, selector in asked:
        base = name if name in metrics else _OF_A_HISTOGRAM.sub("", name)
        if base not in metrics:
            yield f"{name} isn't in docs/reference/metrics.md"
            continue
        for label in _LABEL.findall(selector):
            if label not in metrics[base] | _ADDED:
                yield f"{name} has no label {label}"
