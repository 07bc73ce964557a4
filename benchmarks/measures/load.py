"""A steady load, from a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.contenders.contender import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.contenders.contender import Contender


@dataclass(frozen=True)
class Sent:
    """What a producer enqueued, and in how many seconds."""

    tasks: int
    seconds: float


@asynccontextmanager
async def load(
    contender: Contender, dsn: str, rate: float, seconds: float
) -> AsyncIterator[asyncio.Task[Sent]]:
    """So many timed tasks a second for so long; what comes is done when the producer is."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.producer", contender.name, dsn, str(rate), str(seconds),
        cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    ending = asyncio.create_task(_ended(process))
    try:
        yield ending
    finally:
        if process.returncode is None:
            process.kill()
        await asyncio.wait([ending])


async def _ended(process: asyncio.subprocess.Process) -> Sent:
    said, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"the producer ended with {process.returncode}")
    line = json.loads(said)
    return Sent(line["sent"], line["seconds"])
