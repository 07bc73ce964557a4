from __future__ import annotations

import asyncpg
import pytest
from pydantic import BaseModel

from asynctaskd import App, Client, InvalidInputError
from asynctaskd.testing import InMemoryClient, assert_enqueued


class Mail(BaseModel):
    to: str


@pytest.fixture
def app() -> App:
    app = App()

    @app.task("mail")
    async def mail(payload: dict) -> None: ...

    @app.task("ship")
    async def ship(payload: dict) -> None: ...

    return app


@pytest.fixture(params=["memory", "client", "pool", "connection"])
def both(request, app, pool, connection):
    """A client to enqueue with, and where to look: no difference is to be seen between them."""
    if request.param == "memory":
        client = InMemoryClient(app)
        return client, client
    client = Client(pool, app)
    return client, {"client": client, "pool": pool, "connection": connection}[request.param]


async def told(where, *wanted, **expected) -> str:
    with pytest.raises(AssertionError) as caught:
        await assert_enqueued(where, *wanted, **expected)
    return str(caught.value)


async def test_a_task_is_found_by_a_part_of_its_payload_and_its_options(app, both):
    client, where = both
    await client.enqueue("mail", {"to": "ada", "how": {"copies": 2, "by": "post"}}, labels=["eu", "mail"])
    task_id = await client.enqueue("mail", {"to": "bob", "parts": [1, 2]}, priority=3, tags=["t"])

    assert (await assert_enqueued(where, "mail")).id == task_id
    assert (await assert_enqueued(where, app["mail"], {"to": "bob"})).id == task_id
    found = await assert_enqueued(where, "mail", {"how": {"copies": 2}}, labels=["mail"])
    assert found.payload["to"] == "ada"
    await assert_enqueued(where, "mail", Mail(to="bob"), priority=3, tags=["t"], status="pending")


async def test_what_is_missing_is_told_with_how_the_nearest_differ(both):
    client, where = both
    near = await client.enqueue("mail", {"to": "ada", "how": {"copies": 2}}, labels=["eu"])
    far = await client.enqueue("mail", {"to": "bob"})

    assert await told(where, "mail", {"to": "ada", "how": {"copies": 3}}, labels=["eu"]) == (
        "no task 'mail' was enqueued with payload={'to': 'ada', 'how': {'copies': 3}}, labels=['eu']\n"
        "of that name there are 2; the nearest:\n"
        f"  task {near} (pending): payload.how.copies is 2, not 3\n"
        f"  task {far} (pending): payload.to is 'bob', not 'ada'; payload has no 'how'; labels [] lack 'eu'"
    )
    assert "priority is 0, not 7" in await told(where, "mail", priority=7)
    assert "payload.how is {'copies': 2}, not 1" in await told(where, "mail", {"how": 1})


async def test_where_none_has_the_name_the_others_are_named(both):
    client, where = both
    assert await told(where, "mail") == (
        "no task 'mail' was enqueued\nof that name there is none; there are no tasks at all"
    )
    for name in ("ship", "ship"):
        await client.enqueue(name)
    assert (await told(where, "mial")).endswith("of that name there is none; there are ship")


async def test_a_list_is_compared_as_a_whole(both):
    client, where = both
    await client.enqueue("mail", {"parts": [1, 2]})
    assert "payload.parts is [1, 2], not [1]" in await told(where, "mail", {"parts": [1]})


async def test_a_field_that_no_task_has_is_refused(both):
    _, where = both
    with pytest.raises(InvalidInputError, match="a task has no field 'labls'; there are attempts, "):
        await assert_enqueued(where, "mail", labls=["eu"])


async def test_in_a_transaction_counts_what_was_enqueued_there(app, pool):
    client = Client(pool, app)
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await client.enqueue("mail", {"to": "ada"}, connection=connection)
        await assert_enqueued(connection, "mail", {"to": "ada"})
        assert "there are no tasks at all" in await told(pool, "mail")
        await transaction.rollback()
        assert isinstance(connection, asyncpg.pool.PoolConnectionProxy)
        assert "there are no tasks at all" in await told(connection, "mail")
