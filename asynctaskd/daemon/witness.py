"""A death that somebody saw: what the dead process held goes back at once, not when its lease ends."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from asynctaskd.daemon.loops import OUTAGE, Backoff
from asynctaskd.postgres.store import Store
from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from asynctaskd.daemon.child import Child

# The server may still be busy with the last statement of a process that is gone, and hold locks for it.
_PATIENCE = 5.0
_NEXT_LOOK = 0.05


async def put_back(store: Store, workers: Sequence[UUID], because: str) -> dict[UUID, int]:
    """Declare workers lost whose process is gone, and put back what they hold; returns how many tasks each.

    What can't be put back within a few seconds is left to the next round of any worker's housekeeping.
    Raises what the store raises.
    """
    held = await store.held_by(workers)  # before: once they are lost, any worker may put it back
    await store.declare_lost(workers, because)
    until = time.monotonic() + _PATIENCE
    while await store.held_by(workers) and time.monotonic() < until:
        # Only those whose death was seen: who just came here can't judge the silence of others.
        if not await store.recover(judge=False):
            await asyncio.sleep(_NEXT_LOOK)
    if held:
        emit("workers.lost", workers=sorted(map(str, held)), tasks=sum(held.values()), cause=because)
    return held


async def put_back_after(child: Child, because: str, dsn: str, schema: str) -> None:
    """Put back what a dead child held, as soon as the database can be reached."""
    backoff = Backoff("release")
    while True:
        try:
            await _put_back_after(child, because, dsn, schema)
        except OUTAGE as error:
            await backoff.wait(error)
        except Exception as error:  # noqa: BLE001  (whoever saw it die goes on; its lease sees to its tasks)
            emit("release.failed", child=child.pid, error=error)
            return
        else:
            backoff.reset()
            return


async def _put_back_after(child: Child, because: str, dsn: str, schema: str) -> None:
    # Its own connection for a moment: a death is rare, and an idle one would have to be watched too.
    store = await Store.open(dsn, schema=schema, connections=1)
    try:
        await put_back(store, await store.workers_of(child.process), because)
    finally:
        await store.close()
