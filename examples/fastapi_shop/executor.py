"""How the tasks are carried out."""

from __future__ import annotations

from datetime import timedelta

import asyncpg

from asynctaskd import FatalTaskError, TaskContext

from .services import OutOfStockError, Services
from .tasks_gen import (
    DeleteOpaqueKeyParams,
    Executor,
    ProcessDailyReportsParams,
    ProcessOrderParams,
    SendEmailParams,
    SendNotificationParams,
)


class ShopTasks(Executor):
    def __init__(self, pool: asyncpg.Pool, services: Services) -> None:
        self._pool = pool
        self._services = services

    async def execute_send_email(self, params: SendEmailParams, ctx: TaskContext) -> None:
        address = await self._pool.fetchval("SELECT email FROM users WHERE id = $1", params.user_id)
        if address is None:
            raise FatalTaskError(f"there is no user {params.user_id}")
        await self._services.send_email(address, params.template_id, params.variables or {})

    async def execute_process_daily_reports(
        self, params: ProcessDailyReportsParams, ctx: TaskContext
    ) -> None:
        yesterday = params.date - timedelta(days=1)
        async with ctx.transaction() as connection:  # the report and the task's end are one commit
            await connection.execute(
                "INSERT INTO reports SELECT $1, count(*) FROM orders WHERE placed_on = $1"
                " ON CONFLICT (day) DO UPDATE SET orders = excluded.orders",
                yesterday,
            )

    async def execute_process_order(self, params: ProcessOrderParams, ctx: TaskContext) -> None:
        try:
            await self._services.pack(params.order_id)
        except OutOfStockError as error:
            raise FatalTaskError("out of stock") from error  # all other errors are tried again
        async with ctx.transaction() as connection:
            user_id = await connection.fetchval(
                "UPDATE orders SET status = 'sent' WHERE id = $1 RETURNING user_id", params.order_id
            )
            notification = SendNotificationParams(user_id=user_id, message="Your order is on its way")
            await ctx.enqueue("SendNotification", notification)

    async def on_process_order_failed(
        self, task_id: int, params: ProcessOrderParams | None, tx: asyncpg.Connection
    ) -> None:
        if params is not None:  # None where the payload couldn't be read
            await tx.execute("UPDATE orders SET status = 'failed' WHERE id = $1", params.order_id)
        await note(tx, task_id, f"ProcessOrder {params}")

    async def execute_send_notification(self, params: SendNotificationParams, ctx: TaskContext) -> None:
        await self._services.push(params.user_id, params.message, loud=params.priority == "high")

    async def on_send_notification_failed(
        self, task_id: int, params: SendNotificationParams | None, tx: asyncpg.Connection
    ) -> None:
        await note(tx, task_id, f"SendNotification {params}")

    async def execute_delete_opaque_key(self, params: DeleteOpaqueKeyParams, ctx: TaskContext) -> None:
        try:
            await self._services.delete_key(params.key_id)
        except PermissionError as error:
            raise FatalTaskError(str(error)) from error

    async def on_delete_opaque_key_failed(
        self, task_id: int, params: DeleteOpaqueKeyParams | None, tx: asyncpg.Connection
    ) -> None:
        await note(tx, task_id, f"deleteOpaqueKey {params}")


async def note(tx: asyncpg.Connection, task_id: int, problem: str) -> None:
    """Leave something for a person to see to: in the transaction in which the task becomes failed."""
    await tx.execute("INSERT INTO problems VALUES ($1, $2)", task_id, problem)
