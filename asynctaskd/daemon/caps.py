"""What labels allow their tasks at most: how long an execution takes, and how often a task is run."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from asynctaskd.scheduling.retry import NO_RETRY, UNLIMITED

if TYPE_CHECKING:
    from asynctaskd.config import RuntimeConfig
    from asynctaskd.definitions.definition import Definition
    from asynctaskd.task import ClaimedTask

DEFAULT_TIMEOUT = timedelta(hours=1)


def timeout_of(task: ClaimedTask, definition: Definition[..., Any] | None) -> timedelta:
    """How long an execution may take: the task's own timeout, else its definition's."""
    return task.timeout or (definition and definition.options.timeout) or DEFAULT_TIMEOUT


def longest(task: ClaimedTask, config: RuntimeConfig) -> timedelta | None:
    """How long an execution may take whatever it asks for; None: as long as it likes."""
    if not task.label_set or not config.max_run_times:
        return None
    return config.caps_of(task.label_set.split(",")).run_time


def capped(task: ClaimedTask, definition: Definition[..., Any] | None, config: RuntimeConfig) -> ClaimedTask:
    """The task with no more than its labels allow."""
    if not task.label_set or not (config.max_run_times or config.max_attempts):
        return task
    run_time, attempts = config.caps_of(task.label_set.split(","))
    if run_time is not None:
        task = task._replace(timeout=min(timeout_of(task, definition), run_time))
    if attempts is not None:
        task = task._replace(max_attempts=_fewer(_max_attempts(task, definition), attempts))
    return task


def _max_attempts(task: ClaimedTask, definition: Definition[..., Any] | None) -> int:
    declared = (definition and definition.retry) or NO_RETRY
    return declared.max_attempts if task.max_attempts is None else task.max_attempts


def _fewer(own: int, most: int) -> int:
    return most if own == UNLIMITED else min(own, most)
