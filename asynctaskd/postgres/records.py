"""Rows to values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from asynctaskd.task import Task, TaskStatus

if TYPE_CHECKING:
    import asyncpg

_JSON_COLUMNS = ("payload", "result", "progress", "metadata")


def task_of(row: asyncpg.Record) -> Task:
    """A row of `all_tasks` as a Task."""
    values: dict[str, Any] = dict(row)
    for name in _JSON_COLUMNS:
        values[name] = None if values[name] is None else json.loads(values[name])
    values["status"] = TaskStatus(values["status"])
    return Task(**values)
