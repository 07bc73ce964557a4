"""asynctaskd in a Django project: enqueue in Django's own transactions, and run Django's own tasks.

    INSTALLED_APPS = [..., "asynctaskd.django"]
    ASYNCTASKD = {"APP": "shop.tasks:app"}

`manage.py migrate` makes the schema, `manage.py asynctaskd run` starts a worker, and

    TASKS = {"default": {"BACKEND": "asynctaskd.django.TasksBackend"}}

has Django's tasks run by it. It needs `pip install 'asynctaskd[django]'`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import django as _  # noqa: F401
except ImportError as error:
    raise ImportError("asynctaskd.django needs Django: pip install 'asynctaskd[django]'") from error

from asynctaskd.django.database import aenqueue, aenqueue_many, enqueue, enqueue_many

if TYPE_CHECKING:
    from asynctaskd.django.backend import TasksBackend

__all__ = ["TasksBackend", "aenqueue", "aenqueue_many", "enqueue", "enqueue_many"]


def __getattr__(name: str) -> Any:
    if name != "TasksBackend":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Not every project has Django's tasks.
    from asynctaskd.django.backend import TasksBackend  # noqa: PLC0415

    return TasksBackend
