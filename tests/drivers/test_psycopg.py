"""psycopg: whatever the connection was made with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from asynctaskd import DatabaseUnavailableError, TaskAlreadyExistsError, TaskRequest
from asynctaskd.psycopg import AsyncEnqueuer, Enqueuer
from tests.support.shop.background import app

tasks = Enqueuer(app)


@pytest.fixture
def other(dsn_of_shop: str) -> Iterator[psycopg.Connection]:
    """Sees what is committed."""
    with psycopg.connect(dsn_of_shop, autocommit=True) as connection:
        yield connection


def count(other: psycopg.Connection) -> int:
    [found] = other.execute("SELECT count(*) FROM asynctaskd.tasks").fetchone() or [None]
    return int(found or 0)


def test_nothing_is_committed_but_by_the_connection(dsn_of_shop: str, other: psycopg.Connection) -> None:
    with psycopg.connect(dsn_of_shop) as connection:
        tasks.enqueue(connection, "note")
        assert connection.info.transaction_status is psycopg.pq.TransactionStatus.INTRANS
        assert count(other) == 0
        connection.commit()
        assert count(other) == 1


def test_with_autocommit_it_is_there_at_once(dsn_of_shop: str, other: psycopg.Connection) -> None:
    with psycopg.connect(dsn_of_shop, autocommit=True) as connection:
        tasks.enqueue(connection, "note")
        assert count(other) == 1
        with connection.transaction(force_rollback=True):
            tasks.enqueue(connection, "note")
        assert count(other) == 1


@pytest.mark.parametrize(
    "made_with",
    [
        {"row_factory": dict_row},
        {"cursor_factory": psycopg.RawCursor},
        {"cursor_factory": psycopg.ClientCursor},
        {"prepare_threshold": 0},
        {"prepare_threshold": None},
    ],
    ids=["dict_row", "RawCursor", "ClientCursor", "prepared at once", "never prepared"],
)
def test_how_the_connection_was_made_makes_no_difference(
    dsn_of_shop: str, other: psycopg.Connection, made_with: dict[str, Any]
) -> None:
    with psycopg.connect(dsn_of_shop, **made_with) as connection:
        first = tasks.enqueue(connection, "note", tags=["a"], priority=3)
        [second, third] = tasks.enqueue_many(
            connection, [TaskRequest("note"), TaskRequest("note", delay="1h")]
        )
    assert first < second < third
    assert count(other) == 3


def test_a_pipeline_will_do(dsn_of_shop: str, other: psycopg.Connection) -> None:
    with psycopg.connect(dsn_of_shop) as connection, connection.pipeline():
        connection.execute("INSERT INTO orders DEFAULT VALUES")
        tasks.enqueue(connection, "note")
    assert count(other) == 1


def test_a_refused_tag_in_a_savepoint_leaves_the_rest_of_the_transaction(
    dsn_of_shop: str, other: psycopg.Connection
) -> None:
    with psycopg.connect(dsn_of_shop) as connection:
        first = tasks.enqueue(connection, "note", unique_tag="t")
        with pytest.raises(TaskAlreadyExistsError) as refused, connection.transaction():
            tasks.enqueue(connection, "note", unique_tag="t", on_conflict="raise")
        assert refused.value.task_id == first
    assert count(other) == 1


def test_a_connection_that_ended_is_told_in_psycopgs_words(
    dsn_of_shop: str, other: psycopg.Connection
) -> None:
    with psycopg.connect(dsn_of_shop) as connection:
        other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
        with pytest.raises(psycopg.OperationalError) as told:
            tasks.enqueue(connection, "note")
    assert not isinstance(told.value, DatabaseUnavailableError)


def test_an_aborted_transaction_is_told_in_psycopgs_words(dsn_of_shop: str) -> None:
    with psycopg.connect(dsn_of_shop) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1/0")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            tasks.enqueue(connection, "note")


async def test_async_connections_take_turns(dsn_of_shop: str) -> None:
    async_tasks = AsyncEnqueuer(app)
    async with await psycopg.AsyncConnection.connect(dsn_of_shop, row_factory=dict_row) as connection:
        ids = await asyncio.gather(*(async_tasks.enqueue(connection, "note") for _ in range(10)))
        [more] = await async_tasks.enqueue_many(connection, [TaskRequest("note")])
    assert len({*ids, more}) == 11
