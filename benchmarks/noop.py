"""Tasks that do nothing, so that what is left to measure is asynctaskd: `--app benchmarks.noop:app`."""

from __future__ import annotations

import asyncio
import os

from asynctaskd import App
from benchmarks.workers.tally import Tally

app = App()
tally = Tally()
keep = os.environ.get("BENCH_KEEP")


@app.task("noop", keep=keep)
async def noop(user_id: int, template_id: str) -> None:
    """Do nothing."""
    tally.tick()


@app.task("stamp", keep=keep)
async def stamp(sent_at: float) -> None:
    """Note the start."""
    tally.stamp(sent_at)


@app.task("hold")
async def hold() -> None:
    """Keep a slot."""
    await asyncio.Event().wait()


@app.task("rest", keep=keep)
async def rest(seconds: float) -> None:
    """Keep a slot for so long."""
    await asyncio.sleep(seconds)
