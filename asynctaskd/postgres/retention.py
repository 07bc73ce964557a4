"""Dropping partitions of finished tasks so that nobody waits for it: no reader, no finalize, no worker.

`DETACH PARTITION … CONCURRENTLY` runs in no transaction. It marks the partition, so that new statements leave
it alone, holds no lock while it waits for transactions that still use finished tasks, and takes its last
locks when they are gone. What is cancelled after the mark is finished later, by `… FINALIZE`.

Only an owner may do that. A worker that owns nothing calls a function, which detaches in one go and gives up
after a tenth of a second; so much others may have to wait.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg

from asynctaskd.postgres.driver import CONNECTION_LOSS, connect, query, translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asynctaskd.postgres.connection import Connection
    from asynctaskd.postgres.records import DuePartition
    from asynctaskd.postgres.store import Store

PATIENCE = 8.0
"""For how long a partition's detaching may wait for others, in seconds."""

# Should this process freeze, the server gives up by itself. Behind a pooler no setting holds outside a
# transaction; there only `yield_detach` ends it.
_LIMITS = {"lock_timeout": "8500ms", "statement_timeout": "9s"}
_LOOK_INTERVAL = 0.1


class NotDroppedError(Exception):
    """A partition has to stay for now: it is in use, or the server refuses.

    Attributes:
        blockers: the server's processes that were in the way.
    """

    def __init__(self, reason: str, blockers: list[int]) -> None:
        super().__init__(reason)
        self.blockers = blockers


class Partitions:
    """What drops partitions, for whoever is alone at it.

    Args:
        hand: a connection that is in no transaction.
        store: looks what there is to do, and meanwhile whether somebody waits.
        schema: where the tables are.
        patience: for how long detaching may wait, in seconds.
    """

    def __init__(self, hand: Connection, store: Store, schema: str, patience: float) -> None:
        self._hand = hand
        self._store = store
        self._schema = schema
        self._patience = patience

    async def drop(self, partition: DuePartition) -> bool:
        """Detach and drop it; False if it was gone already.

        Raises:
            NotDroppedError: it stays for now. Tried again, it goes on from where it got.
        """
        blockers: list[int] = []
        try:
            if partition.detach is not None:
                await self._detach(partition.detach, blockers)
            return bool(await self._hand.fetchval(query("drop_partition", self._schema), partition.name))
        except CONNECTION_LOSS:
            raise
        except asyncpg.PostgresError as error:
            raise NotDroppedError(str(error), blockers or _blockers_in(error)) from error

    async def _detach(self, statement: str, blockers: list[int]) -> None:
        call = asyncio.create_task(self._hand.execute(statement))
        try:
            await self._watch(call, statement, blockers)
        finally:
            if not call.done():
                self._hand.terminate()
                await asyncio.gather(call, return_exceptions=True)
        call.result()

    async def _watch(self, call: asyncio.Task[str], statement: str, blockers: list[int]) -> None:
        """Until it is over: cancelled where somebody waits for it, or its time is up."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience
        while not (await asyncio.wait({call}, timeout=_LOOK_INTERVAL))[0]:
            blockers += await self._store.yield_detach(statement, is_up=loop.time() >= until)


def _blockers_in(error: asyncpg.PostgresError) -> list[int]:
    """Those whom `detach_finished_partition` names."""
    named = getattr(error, "detail", None) or ""
    return [int(pid) for pid in named.split(",") if pid.isdigit()]


@asynccontextmanager
async def alone(
    dsn: str, store: Store, *, schema: str, patience: float = PATIENCE
) -> AsyncIterator[Partitions | None]:
    """What drops partitions, for one worker of the fleet at a time; None where another one is at it.

    The lock is one of a transaction that is open and does nothing, since a pooler keeps none of a session.

    Raises:
        DatabaseUnavailableError: the database went away.
        DatabaseRefusedError: it refused.
    """
    with translated():
        # It must hold no snapshot, or detaching would wait for it: so READ COMMITTED, and the simple
        # protocol, since a portal of the other one keeps its snapshot until the next statement.
        async with connect(dsn) as guard, guard.transaction(isolation="read_committed"):
            if await guard.execute(query("take_retention", schema)) != "SELECT 1":
                yield None
                return
            async with connect(dsn, **_LIMITS) as hand:
                yield Partitions(hand, store, schema, patience)
