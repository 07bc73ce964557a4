"""Ways to enqueue in a transaction: the same calls by every driver.

    await way(dsn, one("add", {"a": 1, "b": 2}), commit=False)

Each writes a row of its own into the table `orders` in the same transaction.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import asyncpg
import django
import django.db
import psycopg
import sqlalchemy
import sqlalchemy.exc
from django.db import connections, transaction
from django.test import override_settings
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

import asynctaskd.django
import asynctaskd.psycopg
import asynctaskd.sqlalchemy
from asynctaskd import App, Client, DatabaseUnavailableError, TaskRequest
from tests.support.shop.settings import database_at

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.support.shop.settings"
django.setup()

ORDERS = "CREATE TABLE orders (id integer GENERATED ALWAYS AS IDENTITY, note text)"
INSERT = "INSERT INTO orders DEFAULT VALUES"
SHOP = "tests.support.shop.background:app"

Call = Callable[[Any, Any], Any]
"""(whoever enqueues, a connection) → an id or ids, or an awaitable of them"""


def one(task: Any = None, payload: object = None, **options: Any) -> Call:
    """A call of `enqueue`."""
    return lambda enqueuer, connection: enqueuer.enqueue(connection, task, payload, **options)


def many(*requests: TaskRequest) -> Call:
    """A call of `enqueue_many`."""
    return lambda enqueuer, connection: enqueuer.enqueue_many(connection, requests)


@dataclass(frozen=True)
class Way:
    """One driver, used as its users do. `error` is what it raises where something befalls a transaction."""

    run: Callable[..., Any]
    error: type[Exception]

    async def __call__(
        self, dsn: str, *calls: Call, commit: bool = True, before: str = "", **how: Any
    ) -> Any:
        """The answer to each call, all of them in one transaction. `how` are an `app` and a `schema`."""
        statements = [INSERT, *([before] if before else [])]
        if asyncio.iscoroutinefunction(self.run):
            return await self.run(dsn, statements, calls, commit, **how)
        return await asyncio.to_thread(self.run, dsn, statements, calls, commit, **how)


async def by_asyncpg(
    dsn: str, statements: list[str], calls: tuple[Call, ...], commit: bool, **how: Any
) -> list[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            for statement in statements:
                await connection.execute(statement)
            answers = [await call(_OfClient(connection, how), connection) for call in calls]
            if not commit:
                raise _RollBackError
    except _RollBackError:
        pass
    finally:
        await connection.close()
    return answers


class _RollBackError(Exception):
    pass


class _OfClient:
    """The client, called like the other drivers' enqueuers."""

    def __init__(self, connection: Any, how: dict[str, Any]) -> None:
        self._client = Client(connection, **how)

    def enqueue(self, _: Any, *arguments: Any, **options: Any) -> Awaitable[int]:
        return self._client.enqueue(*arguments, **options)

    def enqueue_many(self, _: Any, requests: Any) -> Awaitable[list[int]]:
        return self._client.enqueue_many(requests)


def by_psycopg(
    dsn: str, statements: list[str], calls: tuple[Call, ...], commit: bool, **how: Any
) -> list[Any]:
    with psycopg.connect(dsn) as connection:
        for statement in statements:
            connection.execute(statement.encode())
        answers = [call(asynctaskd.psycopg.Enqueuer(**how), connection) for call in calls]
        if not commit:
            connection.rollback()
    return answers


async def by_async_psycopg(
    dsn: str, statements: list[str], calls: tuple[Call, ...], commit: bool, **how: Any
) -> list[Any]:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        for statement in statements:
            await connection.execute(statement.encode())
        answers = [await call(asynctaskd.psycopg.AsyncEnqueuer(**how), connection) for call in calls]
        if not commit:
            await connection.rollback()
    return answers


def engine_for(dsn: str, driver: str) -> sqlalchemy.Engine:
    """An engine without a pool; pg8000 has its own words for a socket."""
    url = sqlalchemy.make_url(dsn).set(drivername=f"postgresql+{driver}")
    given = dict(parse_qsl(urlsplit(dsn).query))
    arguments: dict[str, Any] = {}
    if driver == "pg8000" and "host" in given:
        url = url.set(query={})
        arguments = {"unix_sock": f"{given['host']}/.s.PGSQL.{given.get('port', 5432)}"}
    return sqlalchemy.create_engine(url, poolclass=NullPool, connect_args=arguments)


def by_sqlalchemy(driver: str) -> Callable[..., Any]:
    def run(dsn: str, statements: list[str], calls: tuple[Call, ...], commit: bool, **how: Any) -> list[Any]:
        with Session(engine_for(dsn, driver)) as session:
            for statement in statements:
                session.execute(sqlalchemy.text(statement))
            answers = [call(asynctaskd.sqlalchemy.Enqueuer(**how), session) for call in calls]
            session.commit() if commit else session.rollback()
        return answers

    return run


def by_async_sqlalchemy(driver: str) -> Callable[..., Any]:
    async def run(
        dsn: str, statements: list[str], calls: tuple[Call, ...], commit: bool, **how: Any
    ) -> list[Any]:
        url = sqlalchemy.make_url(dsn).set(drivername=f"postgresql+{driver}")
        async with AsyncSession(create_async_engine(url, poolclass=NullPool)) as session:
            for statement in statements:
                await session.execute(sqlalchemy.text(statement))
            answers = [await call(asynctaskd.sqlalchemy.AsyncEnqueuer(**how), session) for call in calls]
            await (session.commit() if commit else session.rollback())
        return answers

    return run


def by_django(
    dsn: str,
    statements: list[str],
    calls: tuple[Call, ...],
    commit: bool,
    app: App | None = None,
    schema: str = "asynctaskd",
) -> list[Any]:
    settings = {"SCHEMA": schema} | ({} if app is None else {"APP": SHOP})
    with override_settings(ASYNCTASKD=settings), django_at(dsn), transaction.atomic():
        with connections["default"].cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        answers = [call(_OfDjango, None) for call in calls]
        transaction.set_rollback(not commit)
    return answers


class _OfDjango:
    """Django's functions, called like the other drivers' enqueuers."""

    @staticmethod
    def enqueue(_: Any, *arguments: Any, **options: Any) -> int:
        return asynctaskd.django.enqueue(*arguments, **options)

    @staticmethod
    def enqueue_many(_: Any, requests: Any) -> list[int]:
        return asynctaskd.django.enqueue_many(requests)


class django_at:  # noqa: N801  (a context manager)
    """Within the block Django's database is that one; this thread's connection is closed at its end."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def __enter__(self) -> None:
        # All connections of an alias, whichever thread they belong to, share this one dict.
        connections.settings["default"].update(database_at(self._dsn))

    def __exit__(self, *_: object) -> None:
        connections["default"].close()


WAYS = {
    "asyncpg": Way(by_asyncpg, DatabaseUnavailableError),
    "psycopg": Way(by_psycopg, psycopg.Error),
    "async psycopg": Way(by_async_psycopg, psycopg.Error),
    "SQLAlchemy over psycopg": Way(by_sqlalchemy("psycopg"), sqlalchemy.exc.DBAPIError),
    "SQLAlchemy over psycopg 2": Way(by_sqlalchemy("psycopg2"), sqlalchemy.exc.DBAPIError),
    "SQLAlchemy over pg8000": Way(by_sqlalchemy("pg8000"), sqlalchemy.exc.DBAPIError),
    "async SQLAlchemy over asyncpg": Way(by_async_sqlalchemy("asyncpg"), sqlalchemy.exc.DBAPIError),
    "async SQLAlchemy over psycopg": Way(by_async_sqlalchemy("psycopg"), sqlalchemy.exc.DBAPIError),
    "Django": Way(by_django, django.db.Error),
}
