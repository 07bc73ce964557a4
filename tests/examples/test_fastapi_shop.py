"""The shop's requests, and what becomes of the tasks that they enqueue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx
import pytest

from asynctaskd import App, Client
from examples.fastapi_shop.executor import ShopTasks
from examples.fastapi_shop.services import OutOfStockError, Services
from examples.fastapi_shop.tasks_gen import ProcessOrderParams, SendNotificationParams, TaskRunner, register
from examples.fastapi_shop.web import TABLES, make_web


class Witness(Services):
    """Services that note what they are asked for; what should fail is told to them."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.done: list[object] = []

    async def send_email(self, address, template, variables) -> None:
        self._do(f"{template} to {address}")

    async def pack(self, order_id) -> None:
        self._do(f"order {order_id}")

    async def push(self, user_id, message, *, loud) -> None:
        self._do((user_id, message, loud))

    async def delete_key(self, key_id) -> None:
        self._do(f"key {key_id}")

    def _do(self, what: object) -> None:
        if self.failure is not None:
            raise self.failure
        self.done.append(what)


@pytest.fixture
def services() -> Witness:
    return Witness()


@pytest.fixture
async def web(database, services) -> AsyncIterator[httpx.AsyncClient]:
    """The shop, running."""
    shop = make_web(database.dsn, services)
    async with (
        shop.router.lifespan_context(shop),
        httpx.AsyncClient(transport=httpx.ASGITransport(shop), base_url="http://shop") as client,
    ):
        yield client


async def ended(pool: asyncpg.Pool, task_id: int) -> None:
    await Client(pool).wait(task_id, timeout="60s")


async def test_a_user_who_signs_up_gets_an_email(web, services, pool) -> None:
    reply = await web.post("/users", json={"email": "ada@example.org"})
    assert reply.status_code == 202
    assert reply.json() == {"user_id": 1, "task_id": 1}

    await ended(pool, 1)

    assert services.done == ["welcome to ada@example.org"]
    assert (await web.get("/tasks/1")).json() == {"status": "completed", "attempts": 1, "error": None}


async def test_an_order_is_packed_and_then_its_user_is_told(web, services, pool) -> None:
    await web.post("/users", json={"email": "ada@example.org"})
    task_id = (await web.post("/orders", json={"user_id": 1})).json()["task_id"]
    await ended(pool, task_id)
    await ended(pool, task_id + 1)
    assert [done for done in services.done if done != "welcome to ada@example.org"] == [
        "order 1",
        (1, "Your order is on its way", False),
    ]
    assert await pool.fetchval("SELECT status FROM orders") == "sent"


async def test_an_order_that_was_refused_has_no_task(web, pool) -> None:
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await web.post("/orders", json={"user_id": 99})
    assert await Client(pool).list_tasks() == []


async def test_a_key_is_deleted_once_however_often_that_is_asked_for(web, services, pool) -> None:
    first, second = [(await web.delete("/keys/7")).json() for _ in range(2)]
    assert first == second == {"message": "Key deletion queued", "task_id": first["task_id"]}
    await ended(pool, first["task_id"])
    assert services.done == ["key 7"]


async def test_a_task_that_is_not_there_is_a_404(web) -> None:
    assert (await web.get("/tasks/99")).status_code == 404


# Failures and nights, with a clock that can be moved


@pytest.fixture
async def app(pool, services) -> App:
    await pool.execute(TABLES)
    await pool.execute("INSERT INTO users (email) VALUES ('ada@example.org')")
    await pool.execute("INSERT INTO orders (user_id) VALUES (1)")
    app = App()
    register(app, ShopTasks(pool, services))
    return app


async def test_an_order_that_can_never_be_packed_has_failed(app, services, pool, asynctaskd_worker) -> None:
    services.failure = OutOfStockError()
    async with asynctaskd_worker(app) as worker:
        task_id = await TaskRunner(Client(pool, app)).run_process_order(ProcessOrderParams(order_id=1))
        await worker.drain()
    assert await pool.fetchval("SELECT status FROM orders") == "failed"
    assert tuple(await pool.fetchrow("SELECT * FROM problems")) == (task_id, "ProcessOrder order_id=1")


async def test_a_notification_is_tried_four_times(
    app, services, pool, asynctaskd_worker, asynctaskd_clock
) -> None:
    services.failure = ConnectionError("no network")
    client = Client(pool, app)
    params = SendNotificationParams(user_id=1, message="hello", priority="high")
    async with asynctaskd_worker(app) as worker:
        task_id = await TaskRunner(client).run_send_notification(params)
        for _ in range(4):
            await worker.drain()
            await asynctaskd_clock.advance("30m")
    task = await client.get_task(task_id)
    assert (task.status, task.attempts) == ("failed", 4)
    assert await pool.fetchval("SELECT task_id FROM problems") == task_id


async def test_each_night_there_is_the_report_of_the_day_before(
    app, pool, asynctaskd_worker, asynctaskd_clock
) -> None:
    tomorrow = (await asynctaskd_clock.now()).date() + timedelta(days=1)
    nights = [
        datetime(day.year, day.month, day.day, 1, tzinfo=UTC)
        for day in (tomorrow + timedelta(days=days) for days in range(2))
    ]
    await pool.execute("UPDATE orders SET placed_on = $1", tomorrow)
    async with asynctaskd_worker(app) as worker:
        for night in nights:
            await asynctaskd_clock.advance_to(night)
            await worker.drain()
    reports = await pool.fetch("SELECT * FROM reports ORDER BY day")
    assert [tuple(report) for report in reports] == [(tomorrow - timedelta(days=1), 0), (tomorrow, 1)]
