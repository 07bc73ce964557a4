"""The backend for `TASKS` in the settings: Django's tasks, run by asynctaskd's workers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from asynctaskd.definitions import rules
from asynctaskd.definitions.enqueuing import Enqueue
from asynctaskd.definitions.request import TaskRequest
from asynctaskd.django.api import (
    BaseTaskBackend,
    InvalidTask,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_enqueued,
)
from asynctaskd.django.calls import IN_THREAD, ON_LOOP, TaskCall, UnknownDjangoTaskError, load_task, name_of
from asynctaskd.django.database import find_task, send
from asynctaskd.django.results import amend, result_of
from asynctaskd.errors import InvalidInputError
from asynctaskd.telemetry.publishing import publishing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from asynctaskd.definitions.options import RequestOptions

_ID = re.compile(r"[0-9]{1,18}")
_ANY_WORKER = "default"
"""The queue whose tasks carry no label."""

_WEIGHT_OF_ZERO = 101
_TASK_OPTIONS = ("deadline", "keep", "retry", "tags", "timeout")


class TasksBackend(BaseTaskBackend):
    """`TASKS = {"default": {"BACKEND": "asynctaskd.django.TasksBackend"}}`.

    A task is enqueued in the transaction of Django's connection: both or neither. Its queue is its label,
    save for `default`. A priority above 0 is the strict lane's; from 0 down to -100 it is a weight, from 101
    down to 1.

    `OPTIONS` may have `database` (an alias), and `deadline`, `keep`, `retry`, `tags` and `timeout` for all of
    its tasks.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        """Read the settings.

        Raises:
            ImproperlyConfigured: an option is unknown or breaks its rule.
        """
        super().__init__(alias, params)
        self._database = self.options.get("database")
        self._task_options = _checked(alias, self.options)

    def validate_task(self, task: Any) -> None:
        """Refuse what can't be run.

        Raises:
            InvalidTask: by Django's own rules, or the queue can't be a label.
        """
        super().validate_task(task)
        try:
            rules.labels("queue_name", [task.queue_name])
        except InvalidInputError as error:
            raise InvalidTask(f"Queue {task.queue_name!r} can't be a label: {error}") from None

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Enqueue a call in the transaction of Django's connection.

        Raises:
            InvalidTask: the task can't be run, or a worker wouldn't find it.
            InvalidPayloadError: the arguments can't be stored.
        """
        self.validate_task(task)
        _require_reachable(task)
        result = _new_result(task, args, kwargs, self.alias)
        request = self._request(result)
        with publishing(request) as publication:
            sent = publication.of(Enqueue.one(None, request, None, {}))
            amend(result, id=str(publication.made(send(sent, self._database))))
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        """What became of a call.

        Raises:
            TaskResultDoesNotExist: there is none of that id, or its record was forgotten (`keep`).
            UnknownDjangoTaskError: what it calls isn't there any more.
        """
        record = find_task(int(result_id), self._database) if _ID.fullmatch(result_id) else None
        if record is None or record.name not in (IN_THREAD, ON_LOOP):
            raise TaskResultDoesNotExist(result_id)
        return result_of(record)

    def _request(self, result: Any) -> TaskRequest:
        task = result.task
        call = TaskCall(
            task=task.module_path,
            args=result.args,
            kwargs=result.kwargs,
            backend=self.alias,
            queue_name=task.queue_name,
            priority=task.priority,
        )
        options: RequestOptions = {
            "labels": [] if task.queue_name == _ANY_WORKER else [task.queue_name],
            "priority": max(task.priority, 0),
            "weight": min(_WEIGHT_OF_ZERO + task.priority, _WEIGHT_OF_ZERO),
            "run_at": _aware(task.run_after),
        }
        return TaskRequest(name_of(task), call, **options, **self._task_options)


def _checked(alias: str, given: Mapping[str, Any]) -> dict[str, Any]:
    options = {name: value for name, value in given.items() if name != "database"}
    unknown = sorted(options.keys() - set(_TASK_OPTIONS))
    if unknown:
        known = ", ".join(["database", *_TASK_OPTIONS])
        raise ImproperlyConfigured(f"TASKS[{alias!r}] has no option {unknown[0]!r}; it has {known}")
    try:
        TaskRequest(IN_THREAD, **options)
    except InvalidInputError as error:
        raise ImproperlyConfigured(f"TASKS[{alias!r}]: {error}") from None
    return options


def _require_reachable(task: Any) -> None:
    try:
        found = load_task(task.module_path)
    except UnknownDjangoTaskError as error:
        raise InvalidTask(f"A worker wouldn't find this task: {error}.") from None
    if found.func is not task.func:
        raise InvalidTask(f"A worker would run another task: {task.module_path!r} is one by now.")


def _new_result(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], backend: str) -> Any:
    return TaskResult(
        task=task,
        id="",
        status=TaskResultStatus.READY,
        enqueued_at=timezone.now(),
        started_at=None,
        last_attempted_at=None,
        finished_at=None,
        args=list(args),
        kwargs=dict(kwargs),
        backend=backend,
        errors=[],
        worker_ids=[],
    )


def _aware(moment: datetime | None) -> datetime | None:
    """A moment of the project's; naive ones are in its own time zone."""
    return moment if moment is None or timezone.is_aware(moment) else timezone.make_aware(moment)
