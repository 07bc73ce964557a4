"""`asynctaskd run --app examples.asyncjobs_style.app:app --labels EMAIL`"""

import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from asynctaskd import App, FatalTaskError, TaskContext

app = App(retry="1s,10s,1m", http_hosts=["127.0.0.1"])  # the policy of all that declare none

# Of all workers together two may send emails at once. `asynctaskd config set limits.EMAIL=50` changes it.
app.label("EMAIL", max_running=2, max_run_time="1m", max_attempts=5)


@app.middleware
async def timed(params: Any, ctx: TaskContext, proceed: Callable[[], Awaitable[Any]]) -> Any:
    began = time.monotonic()
    try:
        return await proceed()
    finally:
        ctx.log.info("took", seconds=round(time.monotonic() - began, 3))


@app.route("email:", labels=["EMAIL"])
async def email(payload: dict[str, Any], ctx: TaskContext) -> str:
    """Every name that begins so and has no handler of its own."""
    if "@" not in payload["to"]:
        raise FatalTaskError(f"{payload['to']!r} is no address")  # ends the task at once
    return f"{ctx.name.removeprefix('email:')} to {payload['to']}"


@app.task("email:monthly", labels=["EMAIL"])
async def monthly(to: list[str]) -> str:
    """The longest name wins."""
    return f"{len(to)} letters"


app.http_task("thumbnail", url=os.environ.get("THUMBNAILS", "http://127.0.0.1:8001/"), timeout="30s")

app.command_task(
    "checksum", command=[sys.executable, str(Path(__file__).with_name("checksum.py"))], timeout="5m"
)
