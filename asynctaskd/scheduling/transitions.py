"""What becomes of a task after an execution: from an outcome to the transition that is to be written."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from asynctaskd.errors import InvalidInputError
from asynctaskd.scheduling.retry import UNLIMITED, Random, RetryPolicy
from asynctaskd.task import (
    ClaimedTask,
    Completed,
    EventKind,
    Failed,
    Outcome,
    Overdue,
    Released,
    Snoozed,
    Stopped,
    TaskStatus,
    Transition,
    Unroutable,
)

_SOONEST_REROUTE = timedelta(seconds=5)
_LATEST_REROUTE = timedelta(minutes=5)


def decide(
    outcome: Outcome, task: ClaimedTask, policy: RetryPolicy, now: datetime, rng: Random
) -> Transition:
    """What is to be written for an outcome.

    `policy` is the one that applies to this task; `task.max_attempts`, if set, replaces its limit.
    `now` is an aware datetime by the database's clock; `rng` gives numbers from 0 to below 1. A policy
    whose function misbehaves makes the failure final, with that in the error text.
    """
    match outcome:
        case Completed(result):
            return Transition(TaskStatus.COMPLETED, result=result)
        case Failed():
            return _after_failure(outcome, task, policy, now, rng)
        case Snoozed(delay, reason, error):
            return replace(_put_back(delay, reason=reason, event=EventKind.SNOOZED), error=error)
        case Released(delay):
            return _released(delay)
        case Unroutable():
            return _put_back(_reroute_delay(task, now), reason="unknown_name")
        case Stopped(status):
            return _stopped(status)
        case Overdue():
            return Transition(
                TaskStatus.EXPIRED, reason="deadline passed", attempt_spent=False, event=EventKind.EXPIRED
            )


def _reroute_delay(task: ClaimedTask, now: datetime) -> timedelta:
    if task.created_at is None:  # it is known only of names that were unknown before
        return _SOONEST_REROUTE
    # Waiting as long as it has waited already doubles the delay each time, without a counter.
    return min(max(now - task.created_at, _SOONEST_REROUTE), _LATEST_REROUTE)


def _released(delay: timedelta | None) -> Transition:
    if delay is None:
        return Transition(TaskStatus.PENDING, attempt_spent=False, event=EventKind.RELEASED)
    return _put_back(delay, event=EventKind.RELEASED)


def _stopped(status: TaskStatus) -> Transition:
    if status is TaskStatus.PAUSED:  # its event is written where the request is settled, whoever obeyed it
        return Transition(status, attempt_spent=False, reason="paused by operator")
    return Transition(status, reason=f"{status} by operator", event=EventKind(status))


def _put_back(delay: timedelta, *, reason: str | None = None, event: EventKind | None = None) -> Transition:
    return Transition(TaskStatus.SCHEDULED, delay=delay, reason=reason, attempt_spent=False, event=event)


def _after_failure(
    failure: Failed, task: ClaimedTask, policy: RetryPolicy, now: datetime, rng: Random
) -> Transition:
    if failure.fatal or failure.reason == "quarantined" or not _may_retry(task, policy):
        return _failed_for_good(failure)
    try:
        delay = policy.delay(task.failures + 1, rng)
    except InvalidInputError as error:
        return _failed_for_good(_but(failure, str(error)))
    if task.deadline is not None and now + delay >= task.deadline:
        return _failed_for_good(_but(failure, f"the retry would start after the deadline {task.deadline}"))
    return _retried(failure, delay)


def _may_retry(task: ClaimedTask, policy: RetryPolicy) -> bool:
    limit = policy.max_attempts if task.max_attempts is None else task.max_attempts
    return limit == UNLIMITED or task.failures + 1 < limit


def _retried(failure: Failed, delay: timedelta) -> Transition:
    return Transition(
        TaskStatus.SCHEDULED,
        delay=delay,
        error=failure.error,
        reason=failure.reason,
        failed_execution=True,
        event=None if failure.quiet else EventKind.RETRIED,
    )


def _failed_for_good(failure: Failed) -> Transition:
    # Nothing was executed when a quarantine is decided: its losses are counted apart from failures.
    quarantined = failure.reason == "quarantined"
    return Transition(
        TaskStatus.FAILED,
        error=failure.error,
        reason=failure.reason,
        failed_execution=not quarantined,
        event=EventKind.QUARANTINED if quarantined else EventKind.FAILED,
    )


def _but(failure: Failed, why: str) -> Failed:
    return replace(failure, error=f"{failure.error} (not retried: {why})")
