"""SQLAlchemy: every kind of session and connection, and what of the session's is left alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from asynctaskd import TaskAlreadyExistsError, TaskRequest
from asynctaskd.sqlalchemy import AsyncEnqueuer, Enqueuer
from tests.support.shop.background import add, app
from tests.support.ways import engine_for


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(sqlalchemy.Identity(always=True), primary_key=True)
    note: Mapped[str | None]


tasks = Enqueuer(app)
async_tasks = AsyncEnqueuer(app)


@pytest.fixture
def engine(dsn_of_shop: str) -> sqlalchemy.Engine:
    return engine_for(dsn_of_shop, "psycopg")


@pytest.fixture
async def async_engine(dsn_of_shop: str) -> AsyncIterator[AsyncEngine]:
    url = sqlalchemy.make_url(dsn_of_shop).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url, poolclass=NullPool)
    yield engine
    await engine.dispose()


def count(engine: sqlalchemy.Engine, table: str = "asynctaskd.tasks") -> int:
    with engine.connect() as connection:
        return int(connection.execute(sqlalchemy.text(f"SELECT count(*) FROM {table}")).scalar_one())


def test_a_session_in_a_block_commits_at_its_end(engine: sqlalchemy.Engine) -> None:
    with Session(engine) as session, session.begin():
        order = Order(note="a book")
        session.add(order)
        session.flush()
        task_id = tasks.enqueue(session, add, {"a": order.id, "b": 1}, priority=2)
        assert count(engine) == 0
    assert (task_id > 0, count(engine), count(engine, "orders")) == (True, 1, 1)


def test_a_block_that_raises_leaves_neither(engine: sqlalchemy.Engine) -> None:
    def buy() -> None:
        with Session(engine) as session, session.begin():
            session.add(Order(note="a book"))
            tasks.enqueue(session, "note")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        buy()
    assert (count(engine), count(engine, "orders")) == (0, 0)


def test_nothing_is_committed_but_by_the_session(engine: sqlalchemy.Engine) -> None:
    with Session(engine) as session:
        tasks.enqueue(session, "note")
        tasks.enqueue_many(session, [TaskRequest("note")])
        assert session.in_transaction()
    assert count(engine) == 0


def test_a_session_without_autoflush_is_not_flushed(engine: sqlalchemy.Engine) -> None:
    with Session(engine, autoflush=False) as session:
        order = Order(note="a book")
        session.add(order)
        tasks.enqueue(session, "note")
        assert order in session.new
        session.commit()
    assert (count(engine), count(engine, "orders")) == (1, 1)


def test_connections_and_scoped_sessions_will_do(engine: sqlalchemy.Engine) -> None:
    with engine.begin() as connection:
        tasks.enqueue(connection, "note")
    scoped = scoped_session(sessionmaker(engine))
    tasks.enqueue(scoped, "note")
    scoped.commit()
    scoped.remove()
    assert count(engine) == 2


def test_a_refused_tag_in_a_savepoint_leaves_the_rest_of_the_transaction(engine: sqlalchemy.Engine) -> None:
    with Session(engine) as session, session.begin():
        first = tasks.enqueue(session, "note", unique_tag="t")
        with pytest.raises(TaskAlreadyExistsError) as refused, session.begin_nested():
            tasks.enqueue(session, "note", unique_tag="t", on_conflict="raise")
        assert refused.value.task_id == first
        tasks.enqueue(session, "note")
    assert count(engine) == 2


def test_parameters_are_not_in_the_cache_of_statements(engine: sqlalchemy.Engine) -> None:
    with Session(engine) as session, session.begin():
        for value in range(3):
            tasks.enqueue(session, "add", {"a": value, "b": 0}, tags=[str(value)])
        rows = session.execute(
            sqlalchemy.text("SELECT payload, tags FROM asynctaskd.tasks ORDER BY id")
        ).all()
    assert [tuple(row) for row in rows] == [({"a": value, "b": 0}, [str(value)]) for value in range(3)]


async def test_async_sessions_and_connections_will_do(
    async_engine: AsyncEngine, look: asyncpg.Connection
) -> None:
    async with AsyncSession(async_engine) as session, session.begin():
        await async_tasks.enqueue(session, "note")
    async with async_engine.begin() as connection:
        await async_tasks.enqueue_many(connection, [TaskRequest("note"), TaskRequest("note")])

    def here() -> str:
        return "the one scope"

    scoped = async_scoped_session(sessionmaker(async_engine, class_=AsyncSession), scopefunc=here)  # type: ignore[call-overload]
    await async_tasks.enqueue(scoped, "note")
    await scoped.commit()
    await scoped.remove()
    assert await look.fetchval("SELECT count(*) FROM asynctaskd.tasks") == 4


async def test_a_refused_tag_in_an_async_savepoint_leaves_the_rest(
    async_engine: AsyncEngine, look: asyncpg.Connection
) -> None:
    async with AsyncSession(async_engine) as session, session.begin():
        await async_tasks.enqueue(session, "note", unique_tag="t")
        with pytest.raises(TaskAlreadyExistsError):
            async with session.begin_nested():
                await async_tasks.enqueue(session, "note", unique_tag="t", on_conflict="raise")
    assert await look.fetchval("SELECT count(*) FROM asynctaskd.tasks") == 1


def test_a_json_serializer_of_the_engines_own_changes_nothing(engine: sqlalchemy.Engine) -> None:
    def refuse(_: Any) -> str:
        raise AssertionError("it isn't asked")

    own = sqlalchemy.create_engine(engine.url, poolclass=NullPool, json_serializer=refuse)
    with own.begin() as connection:
        tasks.enqueue(connection, "note", {"a": 1}, metadata={"b": 2})
    assert count(engine) == 1


@pytest.mark.parametrize(
    "module, package", [("sqlalchemy", "sqlalchemy"), ("psycopg", "psycopg"), ("django", "django")]
)
def test_a_package_that_is_missing_is_named_with_its_extra(module: str, package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; import asynctaskd; import asynctaskd.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"pip install 'asynctaskd[{module}]'" in done.stderr


def test_importing_asynctaskd_imports_none_of_the_drivers() -> None:
    code = "import sys, asynctaskd; print({'sqlalchemy', 'psycopg', 'django'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
