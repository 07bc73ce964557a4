"""`asynctaskd run --app examples.calls.app:app --once`"""

import os

import asyncpg

from asynctaskd import App, Client, TaskFailure
from asynctaskd.codecs import AesGcmCodec

from .payments import Payments

app = App()
# Nothing but what is exposed can be called. In the table a card's number is seen by nobody.
payments = app.expose(Payments, "payments", retry="1m,10m", codec=AesGcmCodec({"1": os.environ["TASK_KEY"]}))


@app.on_error
async def report(failure: TaskFailure, error: BaseException) -> None:
    """For Sentry and its like: sees every failed attempt."""
    print(f"{failure.name} {failure.task_id}, attempt {failure.attempts}: {error}", flush=True)


async def place(connection: asyncpg.Connection, order: int, card: str) -> int:
    """An order and the call that charges for it, together or not at all; returns the task's id."""
    async with connection.transaction():
        await connection.execute("CREATE TABLE IF NOT EXISTS placed (id integer PRIMARY KEY)")
        await connection.execute("INSERT INTO placed VALUES ($1) ON CONFLICT DO NOTHING", order)
        return await Client(connection, app).enqueue(
            target="payments",
            method="charge",
            payload={"order": order, "card": card},
            idempotence_token=f"order-{order}",  # asked for twice, it is one call
        )
