"""Dashboards: Grafana's model, their layout, and that each query parses and asks for what there is."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.check.metrics import documented, unknown
from deploy.check.prometheus import promtool
from deploy.check.tools import run

_WIDTH = 24
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# What Grafana puts in the place of its variables, for promtool.
_VARIABLES = {"$__rate_interval": "5m", "$job": "any"}


def check(deploy: Path) -> Iterator[str]:
    """What is wrong with the dashboards."""
    for file in sorted((deploy / "grafana").glob("*.json")):
        try:
            dashboard = json.loads(file.read_text(encoding="utf8"))
        except ValueError as error:
            yield f"{file.name} is no JSON: {error}"
            continue
        yield from (f"{file.name}: {finding}" for finding in _findings(dashboard))


def _findings(dashboard: dict[str, Any]) -> Iterator[str]:
    yield from _fields(dashboard)
    panels = dashboard["panels"]
    yield from _layout(panels)
    if any(source != _DATASOURCE for source in _sources(dashboard)):
        yield "every data source must be the one that is chosen, ${datasource}"
    shown = [panel for panel in panels if panel["type"] != "row"]
    for panel in shown:
        if not panel.get("description"):
            yield f"{panel['title']}: there is no description"
    yield from _queries([(panel["title"], target["expr"]) for panel in shown for target in panel["targets"]])


def _sources(part: Any) -> Iterator[Any]:
    if isinstance(part, dict):
        yield from ([part["datasource"]] if "datasource" in part else [])
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from _sources(each)


def _fields(dashboard: dict[str, Any]) -> Iterator[str]:
    """What Grafana's model of a dashboard doesn't have: it is lost on the way through."""
    register_default_plugins()
    try:
        understood = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        yield f"Grafana's model of a dashboard can't read it: {error!r}"
        return
    for path in _lost(dashboard, understood, ""):
        yield f"{path} isn't in Grafana's model of a dashboard, or isn't of that kind"


def _lost(written: Any, understood: Any, path: str) -> Iterator[str]:
    if isinstance(written, dict) and isinstance(understood, dict):
        for key, value in written.items():
            if value is not None:
                yield from _lost(value, understood.get(key), f"{path}.{key}" if path else key)
    elif isinstance(written, list) and isinstance(understood, list) and len(written) == len(understood):
        for nth, (one, other) in enumerate(zip(written, understood, strict=True)):
            yield from _lost(one, other, f"{path}[{nth}]")
    elif written != understood:
        yield path


def _layout(panels: list[dict[str, Any]]) -> Iterator[str]:
    for number, times in Counter(panel["id"] for panel in panels).items():
        if times > 1:
            yield f"{times} panels have the id {number}"
    for panel in panels:
        if panel["gridPos"]["x"] + panel["gridPos"]["w"] > _WIDTH:
            yield f"{panel['title']}: it goes beyond column {_WIDTH}"
    for one, other in combinations(panels, 2):
        if _overlap(one["gridPos"], other["gridPos"]):
            yield f"{one['title']} and {other['title']} overlap"


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )


def _queries(queries: list[tuple[str, str]]) -> Iterator[str]:
    metrics = documented()
    for title, expression in queries:
        yield from (f"{title}: {what}" for what in unknown(expression, metrics))
    rules = [{"record": f"query:{n}", "expr": _filled(text)} for n, (_, text) in enumerate(queries)]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        json.dump({"groups": [{"name": "queries", "rules": rules}]}, file)  # JSON is YAML
        file.flush()
        said = run(promtool(), "check", "rules", file.name)
    for number, why in re.findall(r'"query:(\d+)": (.*)', said.stdout + said.stderr):
        yield f"{queries[int(number)][0]}: {why}"


def _filled(expression: str) -> str:
    for variable, value in _VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression
