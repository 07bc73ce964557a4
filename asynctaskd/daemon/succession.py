"""A worker with the id of another one: it takes over where that one is gone, and gives way where it lives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctaskd.daemon.loops import wait_for
from asynctaskd.daemon.proof import Fate, fate_of
from asynctaskd.daemon.witness import put_back
from asynctaskd.errors import WorkerIdTakenError
from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable
    from datetime import datetime
    from uuid import UUID

    from asynctaskd.postgres.records import Namesake, WorkerRow
    from asynctaskd.postgres.store import Store

_NEXT_LOOK = 0.5


async def succeed(store: Store, worker: WorkerRow, stopping: asyncio.Event) -> bool:
    """Wait until no other live worker has this one's name; False if it was told to stop meanwhile.

    One whose process is provably gone is declared lost, and its tasks are put back at once. Any other is
    given until its lease ends.

    Raises:
        WorkerIdTakenError: the other one lives: it renewed its lease meanwhile.
        DatabaseUnavailableError, DatabaseRefusedError: as the store raises them.
    """
    seen: dict[UUID, datetime] = {}
    while not stopping.is_set():
        others = await _others(store, worker)
        if not others:
            return True
        _refuse_where_renewed(others, seen)
        await wait_for(stopping, _NEXT_LOOK)
    return False


def succeeded(worker: WorkerRow) -> WorkerIdTakenError:
    """The error of a worker that lost its lease, and whose name another one has taken."""
    return WorkerIdTakenError(
        f"worker.id {worker.name} is taken: this worker lost its lease, and another one has started under it "
        "since. If both are meant to run, give one of them an id of its own"
    )


async def _others(store: Store, worker: WorkerRow) -> list[Namesake]:
    namesakes = await store.namesakes(worker.name)
    gone = [one.id for one in namesakes if fate_of(one.process, one.place) is Fate.GONE]
    if gone:
        await put_back(
            store, gone, f"its process is gone: succeeded by process {worker.pid} on {worker.hostname}"
        )
    return [one for one in namesakes if one.is_live and one.id not in gone]


def _refuse_where_renewed(others: Iterable[Namesake], seen: dict[UUID, datetime]) -> None:
    for one in others:
        # By process: one that was declared lost meanwhile goes on under a new identity.
        key = one.process or one.id
        if key not in seen:
            emit("worker.waiting", name=one.name, other=one.id, host=one.hostname, pid=one.pid)
        if seen.setdefault(key, one.renewed_at) != one.renewed_at:
            raise WorkerIdTakenError(
                f"worker.id {one.name} is taken: process {one.pid} on {one.hostname} has just renewed its "
                "lease under it. Stop that one first, or give this one an id of its own"
            )
