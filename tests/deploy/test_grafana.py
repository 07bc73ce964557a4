"""The check of the dashboard finds each fault that is planted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from deploy.check.metrics import documented
from deploy.check.tools import ROOT

if TYPE_CHECKING:
    from tests.deploy.conftest import Copy


def test_what_is_shipped_is_well(copy: Copy) -> None:
    assert list(copy.findings("grafana")) == []


def test_every_metric_has_a_panel_or_an_alert() -> None:
    asked = "".join(
        (ROOT / "deploy" / path).read_text(encoding="utf8")
        for path in ("grafana/asynctaskd.json", "prometheus/alerts.rules.yml")
    )
    assert [name for name in documented() if name not in asked] == []


@pytest.mark.parametrize(
    "old, new, found",
    [
        ('"uid": "asynctaskd",', '"uid": "asynctaskd"', "is no JSON"),
        ('"schemaVersion": 39', '"schemaversion": 39', "schemaversion isn't in Grafana's model"),
        ('"graphMode": "area"', '"graphmode": "area"', "options.graphmode isn't in Grafana's model"),
        ('"panels": [\n    {', '"panels": [\n    7,{', "Grafana's model of a dashboard can't read it"),
        ('"id": 2,', '"id": 3,', "2 panels have the id 3"),
        ('"w": 12,\n        "x": 12', '"w": 13,\n        "x": 12', "beyond column 24"),
        ('"w": 12,\n        "x": 0', '"w": 13,\n        "x": 0', "overlap"),
        ("sum by (outcome) (rate(", "sum by (outcome) rate((", "by outcome: could not parse expression"),
        ("asynctaskd_pool_in_use", "asynctaskd_pool_used", "asynctaskd_pool_used isn't in"),
        ('state=\\"newest\\"', 'status=\\"newest\\"', "asynctaskd_config_version has no label status"),
        ('"uid": "${datasource}"', '"uid": "P1809F7CD0C75ACF3"', "every data source must be"),
        ('"description": "Workers that hold', '"comment": "Workers', "there is no description"),
    ],
)  # fmt: skip
def test_a_fault_is_found(assert_found: Callable[..., None], old: str, new: str, found: str) -> None:
    assert_found("grafana", "grafana/asynctaskd.json", old, new, found)
