"""The check of the rules finds each fault that is planted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.deploy.conftest import Copy

ALERTS = "prometheus/alerts.rules.yml"
RECORDED = "prometheus/recording.rules.yml"
TESTS = "prometheus/tests.yml"


def test_what_is_shipped_is_well(copy: Copy) -> None:
    assert list(copy.findings("prometheus")) == []


@pytest.mark.parametrize(
    "file, old, new, found",
    [
        (ALERTS, "max by (job) (asynctaskd_cron_lag_seconds)", "max by (job (x)", "could not parse"),
        (ALERTS, "  expr: asynctaskd_db_up", "  expression: asynctaskd_db_up", "field expression not found"),
        (ALERTS, "asynctaskd_listen_up == 0", "asynctaskd_listens_up == 0", "asynctaskd_listens_up isn't in"),
        (RECORDED, 'outcome=~"failed|retried"', 'result=~"failed"', "finished_total has no label result"),
        (ALERTS, "waiting_seconds:max > 300", "waiting:max > 300", "no rule records"),
        # It would never fire, or always, or too late.
        (ALERTS, "queue_ratio) > 0.1", "queue_ratio) > 10", "AsynctaskdNotificationQueue"),
        (ALERTS, "waiting_seconds:max > 300", "waiting_seconds:max > 0", "AsynctaskdLag"),
        (ALERTS, "for: 2m", "for: 2h", "AsynctaskdNoWorker"),
        (RECORDED, "sum by (job) (asynctaskd_running", "avg by (job) (asynctaskd_running", "taken:ratio"),
        (ALERTS, "severity: critical", "severity: page", "severity must be one of"),
        (ALERTS, "          summary: No worker is live\n", "", "AsynctaskdNoWorker: there is no summary"),
        (ALERTS, "alerts.md#asynctaskdlag", "alerts.md#lag", "AsynctaskdLag: runbook must lead to"),
        (ALERTS, "runbook: docs/how-to/alerts", "runbook: docs/how-to/run", "runbook must lead to a heading"),
        (TESTS, "{ alertname: AsynctaskdDeaf,", "{ alertname: AsynctaskdLag,", "AsynctaskdDeaf: tests"),
    ],
)  # fmt: skip
def test_a_fault_is_found(
    assert_found: Callable[..., None], file: str, old: str, new: str, found: str
) -> None:
    assert_found("prometheus", file, old, new, found)
