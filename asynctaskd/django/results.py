"""From the record of a task to Django's TaskResult."""

from __future__ import annotations

import re
import traceback
from typing import TYPE_CHECKING, Any

from asynctaskd.definitions.text import describe_error
from asynctaskd.django.api import TaskError, TaskResult, TaskResultStatus
from asynctaskd.django.calls import TaskCall, load_task
from asynctaskd.errors import TaskCancelledError, TaskExpiredError, TaskFailedError
from asynctaskd.task import TaskStatus

if TYPE_CHECKING:
    from asynctaskd.task import Task

_STATUS = {
    TaskStatus.RUNNING: TaskResultStatus.RUNNING,
    TaskStatus.COMPLETED: TaskResultStatus.SUCCESSFUL,
    TaskStatus.FAILED: TaskResultStatus.FAILED,
    TaskStatus.CANCELLED: TaskResultStatus.FAILED,
    TaskStatus.EXPIRED: TaskResultStatus.FAILED,
}
_WITHOUT_EXCEPTION: dict[str, type[Exception]] = {
    TaskStatus.CANCELLED: TaskCancelledError,
    TaskStatus.EXPIRED: TaskExpiredError,
}
_TOLD = re.compile(r"DjangoTaskError: (?P<path>[^\s:]+).*\n(?P<traceback>(?s:.*))")
_UNKNOWN_WORKER = "unknown"


class DjangoTaskError(Exception):
    """A Django task raised; the text is the exception's path and message, and below them its traceback."""

    def __init__(self, error: BaseException, *, ours: int) -> None:
        """So many of the traceback's outermost frames are `ours`, and left out."""
        frames = error.__traceback__
        for _ in range(ours):
            frames = frames and frames.tb_next
        message = describe_error(error).partition(": ")[2].partition("\n")[0]
        told = "".join(traceback.format_exception(type(error), error, frames))
        super().__init__(f"{path_of(type(error))}: {message}\n{told}")


def path_of(kind: type[BaseException]) -> str:
    """`module.qualname` of an exception's class, as Django writes it."""
    return f"{kind.__module__}.{kind.__qualname__}"


def result_of(record: Task) -> Any:
    """What Django is told of a task. Of several attempts the times, the worker and the error are the last's.

    Raises:
        UnknownDjangoTaskError: what it calls isn't there any more.
    """
    call = TaskCall.model_validate(record.payload)
    result = TaskResult(
        task=load_task(call.task).using(
            priority=call.priority,
            queue_name=call.queue_name,
            run_after=record.run_at,
            backend=call.backend,
        ),
        id=str(record.id),
        status=_STATUS.get(record.status, TaskResultStatus.READY),
        enqueued_at=record.created_at,
        started_at=record.claimed_at,
        last_attempted_at=record.claimed_at,
        finished_at=record.finished_at,
        args=call.args,
        kwargs=call.kwargs,
        backend=call.backend,
        errors=_errors(record),
        worker_ids=_workers(record),
    )
    amend(result, _return_value=record.result)
    return result


def amend(result: Any, **fields: Any) -> None:
    """Change fields of a TaskResult, which is frozen for everybody but its backend."""
    for name, value in fields.items():
        object.__setattr__(result, name, value)


def error_of(text: str | None, reason: str | None, status: str = TaskStatus.FAILED) -> Any:
    """The error that a failure's text and reason tell of."""
    told = _TOLD.match(text or "")
    if told is not None:
        return TaskError(exception_class_path=told["path"], traceback=told["traceback"])
    kind = TimeoutError if reason == "timeout" else _WITHOUT_EXCEPTION.get(status, TaskFailedError)
    return TaskError(exception_class_path=path_of(kind), traceback=text or reason or "")


def _errors(record: Task) -> list[Any]:
    failed = _STATUS.get(record.status) == TaskResultStatus.FAILED
    if record.last_error is None and not failed:
        return []
    return [error_of(record.last_error, record.reason, record.status)]


def _workers(record: Task) -> list[str]:
    """One entry an attempt, since Django counts attempts by them; only the last worker is on record."""
    if not record.attempts:
        return []
    last = _UNKNOWN_WORKER if record.worker_id is None else str(record.worker_id)
    return [_UNKNOWN_WORKER] * (record.attempts - 1) + [last]
