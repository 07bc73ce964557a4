"""Backends that are stopped, while their connections look alive."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Freeze = Callable[[int], Awaitable[None]]

WAITS = "SELECT wait_event IS NOT DISTINCT FROM 'ClientRead' FROM pg_stat_activity WHERE pid = $1"


@asynccontextmanager
async def freezer(dsn: str) -> AsyncIterator[Freeze]:
    """A way to stop a backend by its pid; all go on in the end.

    It is stopped where it waits for its client. Anywhere else it may hold a lock inside the server that all
    others need: everything stands still then, and a backend that spins for one ends the whole server.
    """
    pids: set[int] = set()
    connection = await asyncpg.connect(dsn)
    waits = await connection.prepare(WAITS)

    async def waits_for_its_client(pid: int) -> bool:
        asking = asyncio.ensure_future(waits.fetchval(pid))
        await asyncio.wait([asking], timeout=1)
        if asking.done() and asking.result():
            return True
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        await asking
        return False

    async def freeze(pid: int) -> None:
        pids.add(pid)
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(pid, signal.SIGSTOP)
            while not await waits_for_its_client(pid):
                await asyncio.sleep(0.01)
                os.kill(pid, signal.SIGSTOP)

    try:
        yield freeze
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        await connection.close()
