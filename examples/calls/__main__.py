"""`python -m examples.calls ORDER CARD` places an order."""

import asyncio
import os
import sys

import asyncpg

from asynctaskd.postgres import embedded

from .app import place

dsn = embedded.resolve(os.environ.get("ASYNCTASKD_DATABASE_URL", "embedded"))


async def main(order: str, card: str) -> None:
    connection = await asyncpg.connect(dsn)
    print(await place(connection, int(order), card))
    await connection.close()


asyncio.run(main(*sys.argv[1:]))
