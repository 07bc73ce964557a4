"""Enqueue in the transaction of a psycopg 3 connection.

    tasks = Enqueuer(app)

    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO orders (id) VALUES (%s)", [order_id])
        tasks.enqueue(connection, ship, {"order_id": order_id})

Both are committed, or neither is. It needs `pip install 'asynctaskd[psycopg]'`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from asynctaskd.definitions.enqueuing import Enqueue
from asynctaskd.postgres.foreign import PYFORMAT, named, query_with, translated_from_any_driver
from asynctaskd.postgres.roles import role_for
from asynctaskd.telemetry.publishing import publishing

try:
    from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor
    from psycopg.rows import tuple_row
except ImportError as error:
    raise ImportError("asynctaskd.psycopg needs psycopg 3: pip install 'asynctaskd[psycopg]'") from error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asynctaskd.definitions.enqueuing import Enqueued
    from asynctaskd.definitions.options import RequestOptions
    from asynctaskd.definitions.registry import Registry
    from asynctaskd.definitions.request import TaskRequest

__all__ = ["AsyncEnqueuer", "Enqueuer"]


class Enqueuer:
    """Enqueues with connections that aren't async; it has none of its own.

    Args:
        app: with an App, unknown names and payloads that don't fit are refused before anything is sent.
        schema: where asynctaskd's tables are.
    """

    def __init__(self, app: Registry | None = None, *, schema: str = "asynctaskd") -> None:
        self._app = app
        self._schema = schema

    def enqueue(
        self,
        connection: Connection[Any],
        task: Enqueued = None,
        payload: object = None,
        **options: Unpack[RequestOptions],
    ) -> int:
        """Enqueue one task in the connection's transaction, and return its id; see `Client.enqueue`.

        Raises:
            InvalidInputError: name, payload or an option breaks a rule.
            TaskAlreadyExistsError: the unique tag is taken, and `on_conflict="raise"`.
            SchemaVersionError: the schema isn't there, or too old.
            psycopg.Error: what befalls the connection or the transaction.
        """
        with publishing(task) as publication:
            sent = publication.of(Enqueue.one(self._app, task, payload, options))
            task_id: int = publication.made(self._send(connection, sent))
            return task_id

    def enqueue_many(self, connection: Connection[Any], requests: Iterable[TaskRequest]) -> list[int]:
        """Enqueue tasks in one round trip, all or none; returns their ids in the order given.

        Raises: like `enqueue`.
        """
        with publishing() as publication:
            ids: list[int] = self._send(connection, publication.of(Enqueue.many(self._app, requests)))
            return ids

    def _send(self, connection: Connection[Any], sent: Enqueue) -> Any:
        # Not by connection.execute(): its cursors may have other placeholders, and rows of another kind.
        with (
            translated_from_any_driver(role_for(sent.statement, self._schema)),
            Cursor(connection, row_factory=tuple_row) as cursor,
        ):
            cursor.execute(_statement(sent, self._schema), named(sent.arguments))
            return _value(cursor.fetchone())


class AsyncEnqueuer:
    """The same with async connections.

    Args:
        app: with an App, unknown names and payloads that don't fit are refused before anything is sent.
        schema: where asynctaskd's tables are.
    """

    def __init__(self, app: Registry | None = None, *, schema: str = "asynctaskd") -> None:
        self._app = app
        self._schema = schema

    async def enqueue(
        self,
        connection: AsyncConnection[Any],
        task: Enqueued = None,
        payload: object = None,
        **options: Unpack[RequestOptions],
    ) -> int:
        """Enqueue one task in the connection's transaction, and return its id; see `Enqueuer.enqueue`."""
        with publishing(task) as publication:
            sent = publication.of(Enqueue.one(self._app, task, payload, options))
            task_id: int = publication.made(await self._send(connection, sent))
            return task_id

    async def enqueue_many(
        self, connection: AsyncConnection[Any], requests: Iterable[TaskRequest]
    ) -> list[int]:
        """Enqueue tasks in one round trip, all or none; returns their ids in the order given."""
        with publishing() as publication:
            ids: list[int] = await self._send(connection, publication.of(Enqueue.many(self._app, requests)))
            return ids

    async def _send(self, connection: AsyncConnection[Any], sent: Enqueue) -> Any:
        with translated_from_any_driver(role_for(sent.statement, self._schema)):
            async with AsyncCursor(connection, row_factory=tuple_row) as cursor:
                await cursor.execute(_statement(sent, self._schema), named(sent.arguments))
                return _value(await cursor.fetchone())


def _statement(sent: Enqueue, schema: str) -> bytes:
    # As bytes, since a str has to be a literal for the type checkers.
    return query_with(PYFORMAT, sent.statement, schema).encode()


def _value(row: tuple[Any, ...] | None) -> Any:
    return row and row[0]
