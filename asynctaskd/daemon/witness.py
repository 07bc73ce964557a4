"""A death that somebody saw: what the dead process held goes back at once, not when its lease ends."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from asynctaskd.postgres.store import Store

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
