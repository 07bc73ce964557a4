"""The witness: handlers say that they start and how they stop, in a file that the database knows nothing of.

One JSON line for each, appended in a single write, so that lines of many processes never mix. Lines of an
execution that was killed simply end.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from asynctaskd import TaskContext


@contextmanager
def witnessed(ctx: TaskContext) -> Iterator[None]:
    """Say `start`, and at the end of the block `cancelled` or `end`, whatever else it raised."""
    token = token_of(ctx)
    _say(ctx, token, "start")
    how = "end"
    try:
        yield
    except asyncio.CancelledError:
        how = "cancelled"
        raise
    finally:
        _say(ctx, token, how)


def token_of(ctx: TaskContext) -> int:
    """The claim token of an execution: no business of handlers, but this test's."""
    token: int = ctx._execution.task.claim_token  # type: ignore[attr-defined]
    return token


def _say(ctx: TaskContext, token: int, what: str) -> None:
    line = {
        "task": ctx.task_id,
        "token": token,
        "attempt": ctx.attempt,
        "what": what,
        "at": time.time(),
        "pid": os.getpid(),
        "name": ctx.name,
    }
    os.write(_file(), json.dumps(line).encode() + b"\n")


@cache
def _file() -> int:
    return os.open(os.environ["CHAOS_WITNESS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
