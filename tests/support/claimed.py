"""A claimed task as plain as can be, for tests that have no database."""

from __future__ import annotations

from datetime import UTC, datetime

from asynctaskd.task import ClaimedTask

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

TASK = ClaimedTask(
    id=7,
    claim_token=1,
    name="send_email",
    payload="{}",
    label_set="",
    priority=0,
    weight=1,
    attempts=1,
    failures=0,
    losses=0,
    max_attempts=None,
    timeout=None,
    retry=None,
    deadline=None,
    claimed_at=NOW,
    created_at=None,
    serial_key=None,
    unique_tag=None,
    reason=None,
    waited=0.0,
    traceparent=None,
    tracestate=None,
)
