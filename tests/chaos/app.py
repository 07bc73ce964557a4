"""The tasks of the chaos run: well-behaved ones, failing ones, and handlers that do what they shouldn't."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from datetime import datetime
from typing import Any

from asynctaskd import (
    App,
    FatalTaskError,
    RetryPolicy,
    RetryQuietlyError,
    SnoozeTask,
    TaskContext,
    TaskFailure,
)
from tests.chaos.witness import token_of, witnessed

app = App()

_PATIENT = RetryPolicy("200ms", max_attempts=5)
_TWICE = RetryPolicy("200ms", max_attempts=2)


class WentWrongError(Exception):
    """What handlers and hooks of this module raise on purpose."""


@app.task("quick")
async def quick(ctx: TaskContext) -> str:
    with witnessed(ctx):
        return "done"


@app.task("brief")
async def brief(ctx: TaskContext) -> None:
    """One of many that compete."""
    with witnessed(ctx):
        await asyncio.sleep(0.1)


@app.task("ticking")
async def ticking(slot: datetime, ctx: TaskContext) -> None:
    """A slot of a schedule that goes on all the time."""
    with witnessed(ctx):
        pass


@app.task("tocking")
async def tocking(slot: datetime, ctx: TaskContext) -> None:
    """A slot of a schedule that is paused now and then."""
    with witnessed(ctx):
        await asyncio.sleep(0.5)


@app.task("slow")
async def slow(seconds: float, ctx: TaskContext) -> None:
    with witnessed(ctx):
        await asyncio.sleep(seconds)


@app.task("serial")
async def serial(seconds: float, ctx: TaskContext) -> None:
    with witnessed(ctx):
        await asyncio.sleep(seconds)


@app.task("flaky", retry=_PATIENT)
async def flaky(times: int, ctx: TaskContext) -> None:
    """Fails as often as it is told, then succeeds."""
    with witnessed(ctx):
        if ctx.attempt <= times:
            raise WentWrongError(f"attempt {ctx.attempt}")


@app.task("quiet", retry=_PATIENT)
async def quiet(ctx: TaskContext) -> None:
    """Fails once without an event."""
    with witnessed(ctx):
        if ctx.attempt == 1:
            raise RetryQuietlyError("not worth an event")


@app.task("snoozing")
async def snoozing(ctx: TaskContext) -> None:
    with witnessed(ctx):
        if token_of(ctx) == 1:
            raise SnoozeTask("300ms")


@app.task("exiting", retry=_PATIENT)
async def exiting(ctx: TaskContext) -> None:
    """Takes itself for the whole process."""
    with witnessed(ctx):
        if ctx.attempt == 1:
            raise SystemExit(1)


@app.task("doomed", retry=_TWICE)
async def doomed(fatal: bool, ctx: TaskContext) -> None:
    """Fails for good; its hook writes a row in the same transaction."""
    with witnessed(ctx):
        raise FatalTaskError("no use") if fatal else WentWrongError("again")


@doomed.on_failed
async def doomed_failed(params: Any, failure: TaskFailure, tx: Any) -> None:
    await tx.execute("INSERT INTO chaos.hooks (task_id) VALUES ($1)", failure.task_id)


@app.task("overtime", timeout="300ms")
async def overtime(ctx: TaskContext) -> None:
    """Fails for good by its timeout."""
    with witnessed(ctx):
        await asyncio.sleep(60)


@overtime.on_failed
async def overtime_failed(params: Any, failure: TaskFailure, tx: Any) -> None:
    await tx.execute("INSERT INTO chaos.hooks (task_id) VALUES ($1)", failure.task_id)


@app.task("accursed")
async def accursed(ctx: TaskContext) -> None:
    """Fails for good, and its hook fails too, after it has written."""
    with witnessed(ctx):
        raise WentWrongError("for good")


@accursed.on_failed
async def accursed_failed(params: Any, failure: TaskFailure, tx: Any) -> None:
    await tx.execute("INSERT INTO chaos.hooks (task_id) VALUES ($1)", failure.task_id)
    raise WentWrongError("the hook too")


@app.task("poison")
async def poison(ctx: TaskContext) -> None:
    """Takes its process with it, every time."""
    with witnessed(ctx):
        os.kill(os.getpid(), signal.SIGKILL)


@poison.on_failed
async def poison_failed(params: Any, failure: TaskFailure, tx: Any) -> None:
    await tx.execute("INSERT INTO chaos.hooks (task_id) VALUES ($1)", failure.task_id)


@app.task("threaded")
def threaded(seconds: float, ctx: TaskContext) -> None:
    with witnessed(ctx):
        time.sleep(seconds)


@app.task("blocking")
async def blocking(ctx: TaskContext) -> None:
    """Keeps the event loop to itself."""
    with witnessed(ctx):
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            pass


@app.task("stubborn")
async def stubborn(ctx: TaskContext) -> None:
    """Doesn't obey at once when told to stop."""
    with witnessed(ctx):
        try:
            await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            await asyncio.sleep(0.7)


@app.task("effect")
async def effect(ctx: TaskContext) -> None:
    """Writes a row in the transaction that completes it."""
    with witnessed(ctx):
        async with ctx.transaction() as connection:
            await connection.execute(
                "INSERT INTO chaos.effects (task_id, token) VALUES ($1, $2)", ctx.task_id, token_of(ctx)
            )


@app.task("family")
async def family(children: int, ctx: TaskContext, generations: int = 1) -> None:
    """Takes its time between one child and the next, so that whoever cancels it comes in the middle."""
    with witnessed(ctx):
        for _ in range(children):
            if generations > 1:
                await ctx.enqueue("family", {"children": children, "generations": generations - 1})
            else:
                await ctx.enqueue("slow", {"seconds": 0.3})
            await asyncio.sleep(0.1)


@app.task("big")
async def big(kilobytes: int, ctx: TaskContext) -> str:
    """Over 1024 its result can't be stored, which is a failure."""
    with witnessed(ctx):
        return "x" * (1024 * kilobytes)
