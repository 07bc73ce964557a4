"""One task of an InMemoryClient: what a row of the database would say of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from asynctaskd.daemon.caps import DEFAULT_TIMEOUT
from asynctaskd.definitions.options import TaskOptions
from asynctaskd.scheduling.retry import RetryPolicy
from asynctaskd.task import ClaimedTask, Task, TaskStatus, Transition


@dataclass(eq=False)
class Record:
    """A task and what became of it. Owned by its client.

    `options` are the definition's, overridden by the request's; instants are of the client's clock.
    """

    id: int
    name: str
    payload: str
    options: TaskOptions
    policy: RetryPolicy
    created_at: datetime
    run_at: datetime | None
    deadline: datetime | None
    status: TaskStatus
    attempts: int = 0
    failures: int = 0
    claims: int = 0
    claimed_at: datetime | None = None
    finished_at: datetime | None = None
    result: str | None = None
    error: str | None = None
    reason: str | None = None
    progress: Any = None
    is_failure_task: bool = False

    @property
    def timeout(self) -> timedelta:
        """How long an execution may take."""
        return self.options.timeout or DEFAULT_TIMEOUT

    def claim(self, now: datetime) -> ClaimedTask:
        """Begin an execution."""
        self.status, self.claimed_at = TaskStatus.RUNNING, now
        self.claims += 1
        self.attempts += 1
        return self._claimed(now)

    def end(self, transition: Transition, now: datetime) -> None:
        """Write down what an execution came to."""
        self.status = transition.status
        self.result, self.reason = transition.result, transition.reason
        self.error = transition.error or self.error
        self.attempts -= not transition.attempt_spent
        self.failures += transition.failed_execution
        self.run_at = None if transition.delay is None else now + transition.delay
        self.finished_at = now if self.status.is_terminal else None

    def end_unrun(self, status: TaskStatus, why: str, now: datetime) -> None:
        """It will never run."""
        self.status, self.reason, self.finished_at = status, why, now

    def task(self) -> Task:
        """The record as the database would give it: what a codec wrote stays as it is."""
        given = self.options
        return Task(
            id=self.id,
            name=self.name,
            payload=json.loads(self.payload),
            status=self.status,
            priority=given.priority or 0,
            weight=given.weight or 1,
            labels=list(given.labels or ()),
            tags=list(given.tags or ()),
            unique_tag=given.unique_tag,
            serial_key=given.serial_key,
            serial_id=given.serial_id,
            parent_id=given.parent_id,
            depends_on=list(given.depends_on or ()),
            run_at=self.run_at,
            deadline=self.deadline,
            timeout=self.timeout,
            attempts=self.attempts,
            losses=0,
            max_attempts=self.policy.max_attempts,
            worker_id=None,
            claim_token=self.claims,
            claimed_at=self.claimed_at,
            finished_at=self.finished_at,
            created_at=self.created_at,
            result=None if self.result is None else json.loads(self.result),
            last_error=self.error,
            reason=self.reason,
            progress=self.progress,
            metadata=given.metadata and json.loads(given.metadata),
        )

    def _claimed(self, now: datetime) -> ClaimedTask:
        return ClaimedTask(
            id=self.id,
            claim_token=self.claims,
            name=self.name,
            payload=self.payload,
            label_set=",".join(self.options.labels or ()),
            priority=self.options.priority or 0,
            weight=self.options.weight or 1,
            attempts=self.attempts,
            failures=self.failures,
            losses=0,
            max_attempts=None,
            timeout=self.options.timeout,
            retry=None,
            deadline=self.deadline,
            claimed_at=now,
            created_at=None,
            serial_key=self.options.serial_key,
            unique_tag=self.options.unique_tag,
            reason=self.reason,
            waited=(now - (self.run_at or self.created_at)).total_seconds(),
            traceparent=None,
            tracestate=None,
        )
