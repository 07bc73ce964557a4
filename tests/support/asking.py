"""Asking a worker over HTTP how it is: a process that has logged where it answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

LONG_ENOUGH = 60.0

# In seconds. No answer takes longer, whatever goes on.
_AT_MOST = 1.0


async def ask(process: Any, path: str) -> tuple[int, dict[str, Any]]:
    """The status and what is told."""
    told = await process.until_logged("http.serving")
    return await asyncio.to_thread(_ask, f"http://{told['host']}:{told['port']}{path}")


def _ask(url: str) -> tuple[int, dict[str, Any]]:
    try:
        with urlopen(url, timeout=_AT_MOST) as answer:
            return answer.status, json.loads(answer.read())
    except HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


async def until(process: Any, path: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Until what is told there suits; returns it."""
    async with asyncio.timeout(LONG_ENOUGH):
        while not condition(told := (await ask(process, path))[1]):  # noqa: ASYNC110  (it is another process)
            await asyncio.sleep(0.02)
    return told


async def until_ready(process: Any) -> None:
    await until(process, "/readyz", lambda told: told["ready"])


async def until_failing(process: Any, *names: str) -> dict[str, Any]:
    """Until these conditions, and no others, don't hold; returns all that is told."""
    return await until(process, "/readyz", lambda told: told["failing"] == list(names))
