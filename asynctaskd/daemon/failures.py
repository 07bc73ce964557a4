"""What users are told of a failure, and those who want to hear of every failed attempt."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asynctaskd.definitions.text import describe_error
from asynctaskd.errors import InvalidPayloadError
from asynctaskd.task import TaskFailure
from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asynctaskd.daemon.execution import Execution
    from asynctaskd.definitions.hooks import ErrorHook
    from asynctaskd.task import Failed

_TIMEOUT = 10.0


def failure_of(execution: Execution, error: str | None, reason: str | None) -> TaskFailure:
    """What hooks are told of an execution that failed."""
    task = execution.task
    limit = execution.policy.max_attempts if task.max_attempts is None else task.max_attempts
    return TaskFailure(
        task_id=task.id,
        name=task.name,
        attempts=task.attempts,
        max_attempts=limit,
        error=error or "",
        reason=reason or "",
        payload=execution.payload,
    )


async def report_error(
    hooks: Iterable[ErrorHook], execution: Execution, failed: Failed, raised: BaseException | None
) -> None:
    """Tell the hooks of a failed attempt, whose outcome stands; each has ten seconds."""
    error = _error(failed, raised)
    failure = failure_of(execution, failed.error, failed.reason)
    for hook in hooks:
        try:
            async with asyncio.timeout(_TIMEOUT):
                await hook(failure, error)
        except BaseException as problem:  # noqa: BLE001  (SystemExit too is the hook's failure, not the daemon's)
            _tell(execution, problem)


def _error(failed: Failed, raised: BaseException | None) -> BaseException:
    if failed.reason == "timeout":
        return TimeoutError(failed.error)
    return InvalidPayloadError(failed.error) if raised is None else raised


def _tell(execution: Execution, problem: BaseException) -> None:
    emit(
        "error_hook.failed",
        **execution.facts,
        error=execution.written_error(execution.discreet(describe_error(problem))),
    )
