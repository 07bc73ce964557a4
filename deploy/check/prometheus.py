"""Rules: promtool's opinion, that each asks for what there is and has a runbook."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from deploy.check.metrics import documented, unknown
from deploy.check.tools import ROOT, complaints, find, run

_SEVERITIES = {"critical", "warning"}


def promtool() -> str:
    """Where promtool is."""
    return find("promtool", package="prometheus", remedy="install Prometheus, Debian's package prometheus")


def check(deploy: Path) -> Iterator[str]:
    """What is wrong with the rules of Prometheus."""
    folder = deploy / "prometheus"
    files = sorted(folder.glob("*.rules.yml"))
    checked = complaints(run(promtool(), "check", "rules", *files), of="promtool")
    yield from checked
    if checked:  # what doesn't parse can't be tested
        return
    rules = [rule for file in files for group in _read(file)["groups"] for rule in group["rules"]]
    yield from _metrics(rules)
    alerts = [rule for rule in rules if "alert" in rule]
    yield from _runbooks(alerts)
    yield from _tested(alerts, _read(folder / "tests.yml"))
    yield from complaints(run(promtool(), "test", "rules", "tests.yml", cwd=folder), of="promtool")


def _read(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf8"))


def _metrics(rules: list[dict[str, Any]]) -> Iterator[str]:
    metrics = documented()
    recorded = {rule["record"] for rule in rules if "record" in rule}
    for rule in rules:
        name = rule.get("alert") or rule["record"]
        yield from (f"{name}: {what}" for what in unknown(rule["expr"], metrics))
        for asked in re.findall(r"\w+:[\w:]+", rule["expr"]):
            if asked not in recorded:
                yield f"{name}: no rule records {asked}"


def _runbooks(alerts: list[dict[str, Any]]) -> Iterator[str]:
    for alert in alerts:
        name, annotations = alert["alert"], alert.get("annotations", {})
        if alert.get("labels", {}).get("severity") not in _SEVERITIES:
            yield f"{name}: severity must be one of {', '.join(sorted(_SEVERITIES))}"
        for said in ("summary", "description"):
            if not annotations.get(said):
                yield f"{name}: there is no {said}"
        page, _, anchor = annotations.get("runbook", "").partition("#")
        if anchor != name.lower() or f"\n### {name}\n" not in _page(page):
            yield f"{name}: runbook must lead to a heading {name}, got {page}#{anchor}"


def _page(path: str) -> str:
    file = ROOT / path
    return file.read_text(encoding="utf8") if file.is_file() else ""


def _tested(alerts: list[dict[str, Any]], tests: dict[str, Any]) -> Iterator[str]:
    """The alerts of which no test shows both that they fire and that they don't."""
    cases = [case for test in tests["tests"] for case in test.get("alert_rule_test", [])]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    silent = {case["alertname"] for case in cases if not case["exp_alerts"]}
    for name in (alert["alert"] for alert in alerts):
        if name not in fires & silent:
            yield f"{name}: tests.yml must have a case in which it fires and one in which it doesn't"
