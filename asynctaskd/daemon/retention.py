"""Retention: what has outlived its keep is forgotten, a little at a time, and nobody waits for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asynctaskd.postgres.retention import NotDroppedError
from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from asynctaskd.postgres.records import DuePartition
    from asynctaskd.postgres.retention import Partitions
    from asynctaskd.postgres.store import Store

INTERVAL = 600.0
_SOON = 60.0  # seconds to the next round where something was in the way
_BATCH = 1000
_REST = 4  # a pause of so many times as long as a batch took
_WORTH_SAYING = 3600.0


class Retention:
    """Run by every worker, on connections opened for a round: what waits here keeps nothing else waiting.

    Args:
        open_store: opens a store of its own.
        alone: what drops partitions, for one worker of the fleet at a time.
        worth_saying: for how long a partition may be in use before that is told, in seconds.
    """

    def __init__(
        self,
        open_store: Callable[[], Awaitable[Store]],
        alone: Callable[[Store], AbstractAsyncContextManager[Partitions | None]],
        *,
        worth_saying: float = _WORTH_SAYING,
    ) -> None:
        self._open_store = open_store
        self._alone = alone
        self._worth_saying = worth_saying
        self._in_use: dict[str, float] = {}  # since when, or when that was told last
        self.wake = asyncio.Event()

    async def step(self) -> float:
        """Forget what is due; returns the pause, in seconds."""
        store = await self._open_store()
        try:
            await _in_batches(store.forget_tags)
            if await store.due_partitions():
                await self._drop_partitions(store)
            else:
                self._in_use.clear()  # another worker came to it
            await _in_batches(store.forget_events)
        finally:
            await store.close()
        return _SOON if self._in_use else INTERVAL

    async def _drop_partitions(self, store: Store) -> None:
        async with self._alone(store) as partitions:
            if partitions is None:
                return
            # In the same breath: what becomes due later is looked at before it is dropped.
            await _in_batches(store.keep_failed)
            self._in_use, before = {}, self._in_use
            for partition in await store.due_partitions():
                if not await self._drop(partitions, partition, before) and partition.detach:
                    return  # the server detaches no other before this one

    async def _drop(
        self, partitions: Partitions, partition: DuePartition, in_use: Mapping[str, float]
    ) -> bool:
        try:
            if await partitions.drop(partition):
                emit("partition.dropped", partition=partition.name)
        except NotDroppedError as error:
            self._note_in_use(partition.name, error, in_use)
            return False
        return True

    def _note_in_use(self, name: str, error: NotDroppedError, in_use: Mapping[str, float]) -> None:
        """A long report, a dump: no news, unless it goes on."""
        now = asyncio.get_running_loop().time()
        since = in_use.get(name, now)
        if now - since >= self._worth_saying:
            emit("partition.in_use", partition=name, error=str(error), blockers=error.blockers)
            since = now
        self._in_use[name] = since


async def _in_batches(forget: Callable[[int], Awaitable[int]]) -> None:
    """All that is due, at the expense of a fraction of one of the server's processes."""
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        if await forget(_BATCH) < _BATCH:
            return
        await asyncio.sleep((loop.time() - began) * _REST)
