# ruff: noqa: E402, T201  (Django is imported when all is ready for it; what is printed is the answer)
"""Enqueues where there is only psycopg 2, and prints what is stored then."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import Any

sys.modules["psycopg"] = None  # type: ignore[assignment]  # so Django takes psycopg 2
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.support.shop.settings"

import django

django.setup()

from django.db import connection, transaction

from asynctaskd import InvalidInputError, TaskAlreadyExistsError, TaskRequest
from asynctaskd.django import enqueue, enqueue_many

assert connection.Database.__name__ == "psycopg2"


def outcome(**options: Any) -> str:
    try:
        enqueue("note", **options)
    except (InvalidInputError, TaskAlreadyExistsError) as error:
        return f"{type(error).__name__} {getattr(error, 'task_id', '')}"
    return "nothing was refused"


with transaction.atomic():
    enqueue("note")
    transaction.set_rollback(True)

with transaction.atomic():
    first = enqueue(
        "note",
        {"text": "100% :p1 $1 %s"},
        unique_tag="t",
        labels=["b", "a"],
        tags=[],
        run_at=datetime(2030, 1, 1, tzinfo=UTC),
        timeout="1500ms",
        depends_on=[],
        metadata={"a": [1]},
        serial_key="k",
        serial_id=2**40,
        keep=0,
        deadline="9999d",
    )
    enqueue_many([TaskRequest("note", priority=3), TaskRequest("note", tags=["50%"])])

assert outcome(unique_tag="t", on_conflict="raise") == f"TaskAlreadyExistsError {first}"
assert outcome(parent_id=404) == "InvalidInputError "

with connection.cursor() as cursor:
    cursor.execute("SELECT labels, tags, payload ->> 'text', timeout FROM asynctaskd.all_tasks ORDER BY id")
    for row in cursor.fetchall():
        print(*row)
