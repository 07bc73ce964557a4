"""Enqueue in the transaction of a SQLAlchemy session or connection, whatever driver is below it.

    tasks = Enqueuer(app)

    with Session(engine) as session, session.begin():
        session.add(order)
        tasks.enqueue(session, ship, {"order_id": order.id})

Both are committed, or neither is. It needs `pip install 'asynctaskd[sqlalchemy]'`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Unpack

from asynctaskd.definitions.enqueuing import Enqueue
from asynctaskd.postgres.foreign import NAMED, named, query_with, translated_from_any_driver
from asynctaskd.postgres.roles import role_for
from asynctaskd.telemetry.publishing import publishing

try:
    from sqlalchemy import TextClause, text
except ImportError as error:
    raise ImportError(
        "asynctaskd.sqlalchemy needs SQLAlchemy 2: pip install 'asynctaskd[sqlalchemy]'"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
    from sqlalchemy.orm import Session, scoped_session

    from asynctaskd.definitions.enqueuing import Enqueued
    from asynctaskd.definitions.options import RequestOptions
    from asynctaskd.definitions.registry import Registry
    from asynctaskd.definitions.request import TaskRequest

    AnySession = Session | scoped_session[Any] | Connection
    AnyAsyncSession = AsyncSession | async_scoped_session[Any] | AsyncConnection

__all__ = ["AsyncEnqueuer", "Enqueuer"]


class Enqueuer:
    """Enqueues with sessions and connections that aren't async; it has no connection of its own.

    Args:
        app: with an App, unknown names and payloads that don't fit are refused before anything is sent.
        schema: where asynctaskd's tables are.
    """

    def __init__(self, app: Registry | None = None, *, schema: str = "asynctaskd") -> None:
        self._app = app
        self._schema = schema

    def enqueue(
        self,
        session: AnySession,
        task: Enqueued = None,
        payload: object = None,
        **options: Unpack[RequestOptions],
    ) -> int:
        """Enqueue one task in the session's transaction, and return its id; see `Client.enqueue`.

        It is one statement, as if you executed it yourself; nothing is committed. Whether the session is
        flushed first is up to SQLAlchemy: 2.1 does so unless `autoflush=False`, 2.0 doesn't. What is pending
        in it is part of the same transaction either way.

        Raises:
            InvalidInputError: name, payload or an option breaks a rule.
            TaskAlreadyExistsError: the unique tag is taken, and `on_conflict="raise"`.
            SchemaVersionError: the schema isn't there, or too old.
            sqlalchemy.exc.DBAPIError: what befalls the connection or the transaction.
        """
        with publishing(task) as publication:
            sent = publication.of(Enqueue.one(self._app, task, payload, options))
            task_id: int = publication.made(self._send(session, sent))
            return task_id

    def enqueue_many(self, session: AnySession, requests: Iterable[TaskRequest]) -> list[int]:
        """Enqueue tasks in one round trip, all or none; returns their ids in the order given.

        Raises: like `enqueue`.
        """
        with publishing() as publication:
            return list(self._send(session, publication.of(Enqueue.many(self._app, requests))))

    def _send(self, session: AnySession, sent: Enqueue) -> Any:
        with translated_from_any_driver(role_for(sent.statement, self._schema)):
            answer = session.execute(_statement(sent.statement, self._schema), named(sent.arguments))
            return answer.scalar_one()


class AsyncEnqueuer:
    """The same with async sessions and connections.

    Args:
        app: with an App, unknown names and payloads that don't fit are refused before anything is sent.
        schema: where asynctaskd's tables are.
    """

    def __init__(self, app: Registry | None = None, *, schema: str = "asynctaskd") -> None:
        self._app = app
        self._schema = schema

    async def enqueue(
        self,
        session: AnyAsyncSession,
        task: Enqueued = None,
        payload: object = None,
        **options: Unpack[RequestOptions],
    ) -> int:
        """Enqueue one task in the session's transaction, and return its id; see `Enqueuer.enqueue`."""
        with publishing(task) as publication:
            sent = publication.of(Enqueue.one(self._app, task, payload, options))
            task_id: int = publication.made(await self._send(session, sent))
            return task_id

    async def enqueue_many(self, session: AnyAsyncSession, requests: Iterable[TaskRequest]) -> list[int]:
        """Enqueue tasks in one round trip, all or none; returns their ids in the order given."""
        with publishing() as publication:
            return list(await self._send(session, publication.of(Enqueue.many(self._app, requests))))

    async def _send(self, session: AnyAsyncSession, sent: Enqueue) -> Any:
        with translated_from_any_driver(role_for(sent.statement, self._schema)):
            answer = await session.execute(_statement(sent.statement, self._schema), named(sent.arguments))
            return answer.scalar_one()


@cache
def _statement(name: str, schema: str) -> TextClause:
    return text(query_with(NAMED, name, schema))
