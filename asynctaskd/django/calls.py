"""A call of a Django task: what is enqueued of it, and how a worker finds the task again."""

from __future__ import annotations

import sys
from importlib import import_module
from inspect import iscoroutinefunction
from typing import Any

from django.apps import apps
from pydantic import BaseModel

from asynctaskd.django.api import Task

IN_THREAD = "django_task"
"""The name of tasks whose function isn't async."""

ON_LOOP = "django_async_task"
"""The name of tasks whose function is."""


class UnknownDjangoTaskError(Exception):
    """Where a call says its task is, there is none that `@task` has made."""


class TaskCall(BaseModel):  # type: ignore[no-redef]  # pydantic's plugin has `kwargs` of its own
    """The payload of both.

    Attributes:
        task: where the task is, `module.function`.
        args: its arguments by position.
        kwargs: its arguments by name.
        backend: the alias of the backend in the settings `TASKS`.
        queue_name: the queue that it was sent to.
        priority: -100 to 100.
    """

    task: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    backend: str = "default"
    queue_name: str = "default"
    priority: int = 0


def name_of(task: Any) -> str:
    """The name that a Django task is enqueued by."""
    return ON_LOOP if iscoroutinefunction(task.func) else IN_THREAD


def load_task(path: str) -> Any:
    """The Django task at `module.function`.

    Nothing is imported that isn't in an app of the project, and nothing is returned that `@task` hasn't made.

    Raises:
        UnknownDjangoTaskError: there is none.
    """
    name, _, function = path.rpartition(".")
    if name not in sys.modules and apps.get_containing_app_config(path) is None:
        raise UnknownDjangoTaskError(f"{path!r} is in none of INSTALLED_APPS, and in no module they import")
    try:
        found = getattr(import_module(name), function, None)
    except ModuleNotFoundError as error:
        raise UnknownDjangoTaskError(f"there is no module {error.name!r} for {path!r}") from None
    if not isinstance(found, Task):
        raise UnknownDjangoTaskError(f"there is no Django task {path!r}; is it decorated with @task?")
    return found
