"""The web application, with a worker inside: `uvicorn examples.fastapi_shop.web:web`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from asynctaskd import App, Client, TaskNotFoundError
from asynctaskd.postgres import embedded

from .executor import ShopTasks
from .services import Services
from .tasks_gen import (
    DeleteOpaqueKeyParams,
    ProcessOrderParams,
    SendEmailParams,
    TaskRunner,
    register,
)

TABLES = Path(__file__).with_name("schema.sql").read_text("utf8")


class NewUser(BaseModel):
    email: str


class NewOrder(BaseModel):
    user_id: int


def make_web(url: str, services: Services) -> FastAPI:
    @asynccontextmanager
    async def lifespan(web: FastAPI) -> AsyncIterator[None]:
        dsn = await asyncio.to_thread(embedded.resolve, url)
        async with asyncpg.create_pool(dsn, min_size=1) as pool:
            await pool.execute(TABLES)
            app = App()
            register(app, ShopTasks(pool, services))
            web.state.pool = pool
            web.state.client = Client(pool, app)
            web.state.tasks = TaskRunner(web.state.client)
            async with app.worker(dsn, concurrency=4):
                yield

    web = FastAPI(lifespan=lifespan)

    @web.post("/users", status_code=202)
    async def sign_up(user: NewUser) -> dict[str, int]:
        # The user and the email to them are committed together, or neither is.
        async with web.state.pool.acquire() as connection, connection.transaction():
            user_id = await connection.fetchval(
                "INSERT INTO users (email) VALUES ($1) RETURNING id", user.email
            )
            email = SendEmailParams(user_id=user_id, template_id="welcome")
            task_id = await web.state.tasks.run_send_email(email, connection=connection)
        return {"user_id": user_id, "task_id": task_id}

    @web.post("/orders", status_code=202)
    async def place_order(order: NewOrder) -> dict[str, int]:
        async with web.state.pool.acquire() as connection, connection.transaction():
            order_id = await connection.fetchval(
                "INSERT INTO orders (user_id) VALUES ($1) RETURNING id", order.user_id
            )
            task_id = await web.state.tasks.run_process_order(
                ProcessOrderParams(order_id=order_id), connection=connection
            )
        return {"order_id": order_id, "task_id": task_id}

    @web.delete("/keys/{key_id}", status_code=202)
    async def delete_key(key_id: int) -> dict[str, object]:
        # However often it is asked for, there is one task for each key.
        task_id = await web.state.tasks.run_delete_opaque_key(
            DeleteOpaqueKeyParams(key_id=key_id), unique_tag=f"delete-key-{key_id}"
        )
        return {"message": "Key deletion queued", "task_id": task_id}

    @web.get("/tasks/{task_id}")
    async def show_task(task_id: int) -> dict[str, object]:
        try:
            task = await web.state.client.get_task(task_id)
        except TaskNotFoundError as error:
            raise HTTPException(404, str(error)) from error
        return {"status": task.status, "attempts": task.attempts, "error": task.last_error}

    return web


web = make_web(os.environ.get("ASYNCTASKD_DATABASE_URL", "embedded"), Services())
