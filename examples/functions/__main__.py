"""`python -m examples.functions ALBUM PICTURE…` enqueues, and runs nothing."""

import asyncio
import os
import sys

from asynctaskd import Client

from .app import app, upload


async def main(album: str, *paths: str) -> None:
    async with Client(os.environ.get("ASYNCTASKD_DATABASE_URL", "embedded"), app) as client:
        print(await upload(client, album, list(paths)))


asyncio.run(main(*sys.argv[1:]))
