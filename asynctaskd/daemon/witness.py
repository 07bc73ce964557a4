"""A death that somebody saw: what the dead process held goes back at once, not when its lease ends."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from asynctaskd.postgres.store import Store

# The server may still be busy with the last statement of a process that is gone, and hold locks for it.
_PATIENCE = 5.0
_NEXT_LOOK = 0.05


async def put_back(store: Store, workers: Sequence[UUID], because: str) -> Counter[UUID]:
    """Declare workers lost whose process is gone, and put back what they hold; returns how many tasks each.

    What can't be put back within a few seconds is left to the next round of any worker's housekeeping.
    Raises what the store raises.
    """
    await store.declare_lost(workers, because)
    found: Counter[UUID] = Counter()
    until = time.monotonic() + _PATIENCE
    while await store.is_held(workers) and time.monotonic() < until:
        # Only those whose death was seen: who just came here can't judge the silence of others.
        recovered = [row["holder"] for row in await store.recover(judge=False)]
        found.update(holder for holder in recovered if holder in workers)
        if not recovered:
            await asyncio.sleep(_NEXT_LOOK)
    if found:
        emit("workers.lost", workers=sorted(map(str, found)), tasks=found.total(), cause=because)
    return found
