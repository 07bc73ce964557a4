"""Django's tasks: those of Django 6, or the package django-tasks, which has the same for Django before it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from asynctaskd.django.configuration import tasks_module

_module = tasks_module()
if _module is None or not hasattr(import_module(f"{_module}.base").TaskResultStatus, "SUCCESSFUL"):
    raise ImportError("asynctaskd needs the tasks of Django 6, or: pip install 'django-tasks>=0.12'")

_base = import_module(f"{_module}.base")
_exceptions = import_module(f"{_module}.exceptions")
_signals = import_module(f"{_module}.signals")

task_backends: Any = import_module(_module).task_backends

BaseTaskBackend: Any = import_module(f"{_module}.backends.base").BaseTaskBackend
Task: Any = _base.Task
TaskContext: Any = _base.TaskContext
TaskError: Any = _base.TaskError
TaskResult: Any = _base.TaskResult
TaskResultStatus: Any = _base.TaskResultStatus

InvalidTask: Any = getattr(_exceptions, "InvalidTask", None) or _exceptions.InvalidTaskError
TaskResultDoesNotExist: Any = _exceptions.TaskResultDoesNotExist

task_enqueued: Any = _signals.task_enqueued
task_finished: Any = _signals.task_finished
task_started: Any = _signals.task_started
