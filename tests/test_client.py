"""The client: what it asks, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import asyncpg
import pytest

from asynctaskd import (
    Client,
    ConfigError,
    DatabaseUnavailableError,
    InvalidInputError,
    InvalidPayloadError,
    InvalidStateError,
    TaskCancelledError,
    TaskExpiredError,
    TaskFailedError,
    TaskNotFoundError,
    TaskRequest,
    TaskStatus,
)


async def end(pool: asyncpg.Pool, task_id: int, status: str) -> None:
    """End a task: cancelled as an operator would, or as if a worker had run it."""
    await pool.execute("SELECT asynctaskd.finish(ARRAY[$1::bigint], 'cancelled', 'for the test')", task_id)
    await pool.execute("UPDATE asynctaskd.finished_tasks SET status = $2 WHERE id = $1", task_id, status)


async def test_a_wait_ends_with_the_record_of_the_completed_task(pool: asyncpg.Pool) -> None:
    client = Client(pool)
    task_id = await client.enqueue("a", {"n": 1})
    await end(pool, task_id, "completed")
    task = await client.wait(task_id, "10s")
    assert (task.id, task.status, task.payload) == (task_id, TaskStatus.COMPLETED, {"n": 1})


@pytest.mark.parametrize(
    "status, error",
    [("failed", TaskFailedError), ("cancelled", TaskCancelledError), ("expired", TaskExpiredError)],
)
async def test_a_wait_for_a_task_that_does_not_complete_raises_how_it_ended(
    pool: asyncpg.Pool, status: str, error: type[Exception]
) -> None:
    client = Client(pool)
    task_id = await client.enqueue("a")
    await end(pool, task_id, status)
    with pytest.raises(error) as caught:
        await client.wait(task_id)
    assert caught.value.task_id == task_id  # type: ignore[attr-defined]  # each of them has it


async def test_what_does_not_exist_is_not_waited_for(pool: asyncpg.Pool) -> None:
    with pytest.raises(TaskNotFoundError):
        await Client(pool).wait(404)
    with pytest.raises(TaskNotFoundError):
        await Client(pool).get_task(404)


async def test_a_wait_ends_at_its_timeout(pool: asyncpg.Pool) -> None:
    client = Client(pool)
    with pytest.raises(TimeoutError):
        await client.wait(await client.enqueue("a"), "10ms")


async def test_a_hundred_waits_ask_with_one_query(pool: asyncpg.Pool) -> None:
    client = Client(pool)
    ids = await client.enqueue_many([TaskRequest("a") for _ in range(100)])
    looks: list[int] = []

    async def counted(asked: Any) -> dict[int, TaskStatus]:
        looks.append(len(list(asked)))
        return dict.fromkeys(ids, TaskStatus.COMPLETED)

    for task_id in ids:
        await end(pool, task_id, "completed")
    client.statuses = counted  # type: ignore[method-assign]  # to see what is asked
    await asyncio.gather(*(client.wait(task_id) for task_id in ids))
    assert looks == [100]


async def test_a_list_holds_the_newest_tasks_that_fit_every_condition(pool: asyncpg.Pool) -> None:
    client = Client(pool)
    first = await client.enqueue("a", labels=["x", "y"])
    second = await client.enqueue("a", labels=["x"])
    third = await client.enqueue("b", labels=["x", "y"])
    await end(pool, third, "cancelled")

    async def found(**conditions: Any) -> list[int]:
        return [task.id for task in await client.list_tasks(**conditions)]

    assert await found() == [third, second, first]
    assert await found(name="a") == [second, first]
    assert await found(labels=["y"]) == [third, first]
    assert await found(status="cancelled") == [third]
    assert await found(limit=1) == [third]
    with pytest.raises(InvalidInputError, match="status must be one of"):
        await found(status="canceled")


async def test_a_client_with_a_url_opens_and_closes_a_pool_of_its_own(database: Any) -> None:
    async with Client(database.dsn) as client:
        task_id = await client.enqueue("a")
        assert (await client.get_task(task_id)).status is TaskStatus.PENDING


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # as Python says of what a closed loop had
def test_a_client_with_a_url_goes_on_in_the_next_event_loop(database: Any) -> None:
    client = Client(database.dsn)
    assert [asyncio.run(client.enqueue("a")) for _ in range(3)] == [1, 2, 3]
    asyncio.run(client.close())
    gc.collect()


async def enqueued_and_closed(client: Client) -> None:
    async with client:
        await client.enqueue("a")


async def test_a_client_with_a_url_is_refused_to_a_second_event_loop_beside_the_first(database: Any) -> None:
    def elsewhere(call: Callable[[], Coroutine[Any, Any, object]]) -> Any:
        with pytest.raises(InvalidStateError, match="belong to another event loop: make a client in each"):
            asyncio.run(call())

    async with Client(database.dsn) as client:
        task_id = await client.enqueue("a")
        for call in (partial(client.enqueue, "a"), partial(client.enqueue, "a"), client.close):
            await asyncio.to_thread(elsewhere, call)
        assert await client.statuses([task_id, task_id + 1]) == {task_id: TaskStatus.PENDING}
    # Closed, it belongs to nobody.
    await asyncio.to_thread(lambda: asyncio.run(enqueued_and_closed(client)))


async def test_a_task_enqueued_on_a_connection_shares_its_transaction(pool: asyncpg.Pool) -> None:
    client = Client(pool)
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        task_id = await client.enqueue("a", connection=connection)
        assert (await client.get_task(task_id, connection=connection)).id == task_id
        await transaction.rollback()
    with pytest.raises(TaskNotFoundError):
        await client.get_task(task_id)


async def test_a_connection_with_a_json_codec_of_its_own_changes_nothing(
    connection: asyncpg.Connection,
) -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    client = Client(connection)
    task_id = await client.enqueue("a", {"n": 1}, metadata={"m": 2})
    [many] = await client.enqueue_many([TaskRequest("a", {"n": 3}, tags=["t"])])
    assert (await client.get_task(task_id)).payload == {"n": 1}
    assert (await client.get_task(task_id)).metadata == {"m": 2}
    assert (await client.get_task(many)).payload == {"n": 3}


async def test_a_payload_that_is_refused_among_many_leaves_the_callers_transaction_as_it_was(
    connection: asyncpg.Connection,
) -> None:
    client = Client(connection)
    deep: list[Any] = []
    for _ in range(64):
        deep = [deep]
    async with connection.transaction():
        with pytest.raises(InvalidPayloadError, match=r"^request 2: payload is nested 65 levels deep"):
            await client.enqueue_many([TaskRequest("a"), TaskRequest("a", deep)], connection=connection)
        task_id = await client.enqueue("a", connection=connection)
    assert await connection.fetch("SELECT id FROM asynctaskd.tasks") == [(task_id,)]


@pytest.mark.parametrize("stranger", ["a", None, {"name": "a"}])
async def test_what_is_no_request_is_refused_by_its_place(
    connection: asyncpg.Connection, stranger: Any
) -> None:
    with pytest.raises(InvalidInputError, match=r"^request 2: a TaskRequest is needed, got "):
        await Client(connection).enqueue_many([TaskRequest("a"), stranger])


async def test_one_request_is_no_list_of_them(connection: asyncpg.Connection) -> None:
    with pytest.raises(InvalidInputError, match="requests must be a list of TaskRequests, got TaskRequest"):
        await Client(connection).enqueue_many(TaskRequest("a"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ask", "rule"),
    [
        (lambda client: client.get_task("1"), "task_id must be an integer, got '1'"),
        (lambda client: client.get_tasks("12"), "task_ids must be a list of task ids, got '12'"),
        (lambda client: client.wait("1"), "task_id must be an integer, got '1'"),
        (lambda client: client.list_tasks(limit="x"), "limit must be an integer, got 'x'"),
        (lambda client: client.list_tasks(labels="abc"), "labels must be a list of strings, got 'abc'"),
    ],
)
async def test_a_question_of_another_type_is_refused_by_the_argument_that_is_wrong(
    connection: asyncpg.Connection, ask: Any, rule: str
) -> None:
    with pytest.raises(InvalidInputError, match=rule):
        await ask(Client(connection))


@pytest.mark.parametrize("database", [None, 5, b"postgresql://u:hunter2@h/x"])
def test_what_is_no_database_is_refused_at_once(database: Any) -> None:
    with pytest.raises(
        InvalidInputError, match="database must be a pool or connection .* or a URL"
    ) as caught:
        Client(database)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "nonsense", "mysql://u:hunter2@h/x", "u:hunter2@h/x", "host=h password=hunter2"]
)
async def test_what_is_no_url_of_postgresql_is_an_error_of_the_configuration(url: str) -> None:
    with pytest.raises(
        ConfigError, match="database.url isn't one of PostgreSQL: write postgresql:"
    ) as caught:
        await Client(url).enqueue("a")
    assert "hunter2" not in str(caught.value)


class Patient(asyncpg.Pool):
    """A pool whose connection notes how long a call may take, and answers at once."""

    def __init__(self) -> None:
        self.limits: list[float] = []

    async def acquire(self) -> Any:  # type: ignore[override]
        return self

    async def release(self, *_: object) -> None:  # type: ignore[override]
        pass

    async def fetch(self, *_: object, timeout: float) -> list[Any]:  # type: ignore[override]
        self.limits.append(timeout)
        return [[[1]]]


async def test_many_large_payloads_have_the_time_that_they_take() -> None:
    pool = Patient()
    large = TaskRequest("a", {"text": "x" * 1_000_000})
    await Client(pool).enqueue("a")
    await Client(pool).enqueue_many([TaskRequest("a")])
    await Client(pool).enqueue_many([large] * 100)
    assert pool.limits == [
        pytest.approx(8, abs=0.1),
        pytest.approx(8, abs=0.1),
        pytest.approx(108, abs=0.1),
    ]


@pytest.mark.parametrize(
    "ask",
    [lambda client: client.enqueue("a"), lambda client: anext(client.watch())],
    ids=["a call", "a connection to listen on"],
)
async def test_a_call_on_a_used_up_pool_says_so_instead_of_waiting_for_its_own_caller(
    database: Any, monkeypatch: pytest.MonkeyPatch, ask: Any
) -> None:
    monkeypatch.setattr("asynctaskd.postgres.caller.LONG", 0.01)
    async with asyncpg.create_pool(database.dsn, min_size=1, max_size=1) as pool:
        client = Client(pool)
        async with pool.acquire() as connection, connection.transaction():
            with pytest.raises(
                DatabaseUnavailableError, match="no connection of the pool came free .*connection="
            ):
                await ask(client)
            task_id = await client.enqueue("a", connection=connection)
        # Whoever gave up waiting has left nothing behind: the connection is there for the next one.
        assert (await client.get_task(task_id)).name == "a"


async def test_a_pool_that_can_not_open_another_connection_does_not_count_as_used_up(
    proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asyncpg.create_pool(proxy.dsn, min_size=0, max_size=1) as pool:
        proxy.silence()
        monkeypatch.setattr("asynctaskd.postgres.caller.LONG", 0.01)
        with pytest.raises(DatabaseUnavailableError, match="no answer in time"):
            await Client(pool).enqueue("a")


async def test_what_looks_like_sql_is_text_wherever_it_is_given(connection: asyncpg.Connection) -> None:
    client = Client(connection)
    evil = "'; DROP TABLE asynctaskd.tasks; --\" $1 \\"
    task_id = await client.enqueue(
        "x", {evil: evil}, tags=[evil], unique_tag=evil, serial_key=evil, metadata={evil: evil}
    )
    task = await client.get_task(task_id)
    assert (task.payload, task.tags, task.unique_tag, task.serial_key) == ({evil: evil}, [evil], evil, evil)
    assert await client.enqueue("x", unique_tag=evil) == task_id
    for option in ({"labels": [evil]}, {"name": evil}):
        with pytest.raises(InvalidInputError):
            await client.enqueue(option.pop("name", "x"), **option)
    assert await connection.fetchval("SELECT count(*) FROM asynctaskd.tasks") == 1


async def test_an_id_beyond_64_bits_is_a_wrong_value(pool: asyncpg.Pool) -> None:
    client = Client(pool)
    with pytest.raises(InvalidInputError, match="ids must be at most 9223372036854775807"):
        await client.cancel(2**70)
    with pytest.raises(InvalidInputError, match="refused a value"):
        await client.why(2**70)
