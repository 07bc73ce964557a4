"""With the rights of a role: an enqueuer enqueues by every driver, and a viewer is told what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
from django.db import transaction
from django.test import override_settings

from asynctaskd import DatabaseRefusedError, TaskAlreadyExistsError, TaskRequest
from asynctaskd.django import api
from tests.support.divided import Divided, divided_or_skipped
from tests.support.shop import tasks
from tests.support.shop.background import app
from tests.support.ways import ORDERS, WAYS, Call, Way, django_at, many, one

by_every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())

EACH_WAY_IN: dict[str, Call] = {
    "one": one("note"),
    "one with options": one("note", {"a": 1}, unique_tag="t", serial_key="k", priority=3, delay="1h"),
    "many": many(TaskRequest("note"), TaskRequest("note")),
    "many with options": many(TaskRequest("note", unique_tag="t", tags=["a"]), TaskRequest("note")),
    "a schedule": one("note", cron="@hourly"),
}


@pytest.fixture(scope="module")
def divided(dsn: str) -> Iterator[Divided]:
    with divided_or_skipped(dsn) as made:
        asyncio.run(_open_shop(made.admin))
        yield made


async def _open_shop(admin: str) -> None:
    connection = await asyncpg.connect(admin)
    await connection.execute(f"{ORDERS}; GRANT INSERT ON orders TO PUBLIC")
    await connection.close()


@pytest.fixture
async def owner(divided: Divided) -> AsyncIterator[asyncpg.Connection]:
    """Sees what is committed, in tables that begin empty."""
    connection = await asyncpg.connect(divided.admin)
    await connection.execute(
        divided.sql("TRUNCATE orders, asynctaskd.tasks, asynctaskd.unique_tags, asynctaskd.schedules CASCADE")
    )
    yield connection
    await connection.close()


async def committed(owner: asyncpg.Connection, divided: Divided) -> tuple[int, int]:
    """How many orders, and tasks or schedules."""
    row = await owner.fetchrow(
        divided.sql(
            "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM asynctaskd.tasks)"
            " + (SELECT count(*) FROM asynctaskd.schedules)"
        )
    )
    assert row is not None
    return row[0], row[1]


@by_every_way
async def test_an_enqueuer_enqueues_by_every_driver(
    way: Way, divided: Divided, owner: asyncpg.Connection
) -> None:
    answers = await way(divided.logins["enqueuer"], *EACH_WAY_IN.values(), app=app, schema=divided.schema)
    assert len(answers) == len(EACH_WAY_IN)
    assert await committed(owner, divided) == (1, 6)  # the second with the tag "t" is the first


@by_every_way
async def test_what_an_enqueuer_rolls_back_was_never_there(
    way: Way, divided: Divided, owner: asyncpg.Connection
) -> None:
    await way(divided.logins["enqueuer"], *EACH_WAY_IN.values(), app=app, schema=divided.schema, commit=False)
    assert await committed(owner, divided) == (0, 0)


@by_every_way
async def test_an_enqueuer_is_told_whose_a_tag_is(
    way: Way, divided: Divided, owner: asyncpg.Connection
) -> None:
    taken = one("note", unique_tag="t", on_conflict="raise")
    [first] = await way(divided.logins["enqueuer"], taken, schema=divided.schema)
    with pytest.raises(TaskAlreadyExistsError) as refused:
        await way(divided.logins["enqueuer"], taken, schema=divided.schema)
    assert refused.value.task_id == first


@by_every_way
@pytest.mark.parametrize("call", EACH_WAY_IN.values(), ids=EACH_WAY_IN.keys())
async def test_a_viewer_is_told_which_role_is_missing(
    way: Way, call: Call, divided: Divided, owner: asyncpg.Connection
) -> None:
    with pytest.raises(DatabaseRefusedError, match=f"GRANT {divided.schema}_enqueuer TO this login"):
        await way(divided.logins["viewer"], call, app=app, schema=divided.schema)
    assert await committed(owner, divided) == (0, 0)


# Django's own tasks


def test_an_enqueuer_enqueues_djangos_own_tasks_and_an_operator_reads_what_became_of_them(
    divided: Divided, owner: asyncpg.Connection
) -> None:
    refused = rf"GRANT {divided.schema}_{{}} TO this login".format
    with override_settings(ASYNCTASKD={"SCHEMA": divided.schema}):
        with django_at(divided.logins["enqueuer"]):
            with transaction.atomic():
                taken_back = tasks.add.enqueue(1, 2)
                transaction.set_rollback(True)
            result = tasks.add.enqueue(3, 4)
            with pytest.raises(DatabaseRefusedError, match=refused("operator")):
                tasks.add.get_result(result.id)
        with (
            django_at(divided.logins["viewer"]),
            pytest.raises(DatabaseRefusedError, match=refused("enqueuer")),
        ):
            tasks.add.enqueue(1, 2)
        with django_at(divided.logins["operator"]):
            assert tasks.add.get_result(result.id).args == [3, 4]
            with pytest.raises(api.TaskResultDoesNotExist):
                tasks.add.get_result(taken_back.id)
