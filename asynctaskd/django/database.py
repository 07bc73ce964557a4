"""Enqueue on Django's own connections, and read there what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from asgiref.sync import sync_to_async
from django.db import connections

from asynctaskd.definitions.enqueuing import Enqueue
from asynctaskd.django.configuration import configuration, project_app
from asynctaskd.postgres.foreign import PYFORMAT, named, query_with, translated_from_any_driver
from asynctaskd.postgres.records import task_of
from asynctaskd.postgres.roles import role_for
from asynctaskd.telemetry.publishing import publishing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asynctaskd.definitions.enqueuing import Enqueued
    from asynctaskd.definitions.options import RequestOptions
    from asynctaskd.definitions.request import TaskRequest
    from asynctaskd.task import Task


def enqueue(
    task: Enqueued = None,
    payload: object = None,
    *,
    using: str | None = None,
    **options: Unpack[RequestOptions],
) -> int:
    """Enqueue one task on Django's connection, so in its transaction, and return its id.

    Inside `transaction.atomic()` it is committed with the block or not at all; outside, at once. See
    `Client.enqueue`; the App is the one that the settings name.

    Args:
        using: the alias of the database, if not the one that the settings name.

    Raises:
        InvalidInputError: name, payload or an option breaks a rule.
        TaskAlreadyExistsError: the unique tag is taken, and `on_conflict="raise"`.
        SchemaVersionError: the schema isn't there, or too old: run `manage.py migrate`.
        django.db.Error: what befalls the connection or the transaction.
    """
    with publishing(task) as publication:
        sent = publication.of(Enqueue.one(project_app(), task, payload, options))
        task_id: int = publication.made(send(sent, using))
        return task_id


def enqueue_many(requests: Iterable[TaskRequest], *, using: str | None = None) -> list[int]:
    """Enqueue tasks in one round trip, all or none; returns their ids in the order given.

    Raises: like `enqueue`.
    """
    with publishing() as publication:
        ids: list[int] = send(publication.of(Enqueue.many(project_app(), requests)), using)
        return ids


async def aenqueue(
    task: Enqueued = None,
    payload: object = None,
    *,
    using: str | None = None,
    **options: Unpack[RequestOptions],
) -> int:
    """The same from async code, in the thread where Django's connections of that code are."""
    task_id: int = await sync_to_async(enqueue)(task, payload, using=using, **options)
    return task_id


async def aenqueue_many(requests: Iterable[TaskRequest], *, using: str | None = None) -> list[int]:
    """The same from async code."""
    ids: list[int] = await sync_to_async(enqueue_many)(requests, using=using)
    return ids


def send(sent: Enqueue, using: str | None = None) -> Any:
    """Have the database enqueue; returns its answer. Raises like `enqueue`."""
    [[answer]], _ = _rows(sent.statement, sent.arguments, using)
    return answer


def find_task(task_id: int, using: str | None = None) -> Task | None:
    """The record of a task, or None."""
    rows, columns = _rows("get_tasks", [[task_id]], using)
    return task_of(dict(zip(columns, rows[0], strict=True))) if rows else None


def _rows(
    statement: str, arguments: Sequence[Any], using: str | None
) -> tuple[list[tuple[Any, ...]], list[str]]:
    """What a statement answers: its rows, and the names of their columns."""
    settings = configuration()
    with (
        translated_from_any_driver(role_for(statement, settings.schema)),
        connections[using or settings.database].cursor() as cursor,
    ):
        cursor.execute(query_with(PYFORMAT, statement, settings.schema), named(arguments))
        return cursor.fetchall(), [column[0] for column in cursor.description]
