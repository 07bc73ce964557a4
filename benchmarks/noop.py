"""A task that does nothing: what is left to measure is asynctaskd."""

import asyncio

from asynctaskd import App

app = App()


@app.task("noop")
async def noop(user_id: int, template_id: str) -> None:
    """Do nothing."""


@app.task("hold")
async def hold() -> None:
    await asyncio.Event().wait()
