"""One run of the demo: enqueue everything, steer, and look on until the queue is empty."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from asynctaskd import Client
from asynctaskd.cli.demo_app import app
from asynctaskd.cli.demo_files import LATER_WEIGHTS, WEIGHTS, DemoFailedError, Work
from asynctaskd.cli.demo_progress import Rate, Shares, Snapshot, take_snapshot
from asynctaskd.cli.demo_steered import Steered
from asynctaskd.cli.demo_steering import WeightChange, change_weights
from asynctaskd.cli.demo_summary import Run
from asynctaskd.cli.demo_tree import cancel_tree
from asynctaskd.cli.demo_view import Progress, View, duration
from asynctaskd.cli.demo_workers import CONCURRENCY, WORKERS, Workers
from asynctaskd.postgres.driver import connect, translated

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

SCHEMA = "asynctaskd_demo"
"""The demo's own schema, made anew at every start. No other one is touched."""

# The channel on which workers say which version they apply.
_ACKS = f"{SCHEMA}_runtime_config_ack"

_LOOK_EVERY = 0.2
_URGENT_EVERY = 0.06
_PATIENCE = 30.0  # seconds without any progress, after which the demo gives up


class Demo:
    """One run.

    Args:
        dsn: where the enqueuer connects to, and where the workers' answers are listened for.
        connection: another connection, to look on with.
        workers: the processes, started but perhaps not ready.
        work: what to enqueue.
        view: where to tell what happens.
    """

    def __init__(
        self, dsn: str, connection: asyncpg.Connection, workers: Workers, work: Work, view: View
    ) -> None:
        self._dsn = dsn
        self._connection = connection
        self._workers = workers
        self._work = work
        self._view = view
        self._rolled_back: Sequence[int] = ()  # owned by the enqueuer, like the next one
        self._queue_is_full = False  # before, a group may be short of tasks through no fault of the weights
        self._before = Shares(WEIGHTS)
        self._after = Shares(LATER_WEIGHTS)
        self._change: WeightChange | None = None  # owned by who looks on
        self._rate = Rate()
        self._began = time.monotonic()

    async def run(self) -> Run:
        """Enqueue, wait until everything has ended, and cancel what came after.

        Raises:
            DemoFailedError: nothing moved for half a minute.
        """
        client = Client(self._connection, app, schema=SCHEMA)
        await self._await_workers(client)
        self._began = time.monotonic()
        enqueuing = asyncio.create_task(self._enqueue())
        try:
            last = await self._look_on(enqueuing, client)
        finally:
            enqueuing.cancel()
            await asyncio.gather(enqueuing, return_exceptions=True)
        took = self._elapsed
        if self._change is None:
            raise DemoFailedError("the queue was empty before the weights could change")
        tree = await cancel_tree(client, self._connection, WORKERS * CONCURRENCY, self._view)
        steered = Steered(self._before, self._after, self._change, tree)
        return Run(self._work, took, last, steered, self._rolled_back)

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    async def _await_workers(self, client: Client) -> None:
        while len(await client.list_workers()) < WORKERS:
            if self._elapsed > _PATIENCE:
                raise DemoFailedError("the workers don't get ready", log=self._workers.last_words())
            await asyncio.sleep(_LOOK_EVERY / 4)
        self._view.tell(
            f"{WORKERS} workers of {CONCURRENCY} tasks each are ready after {duration(self._elapsed)}"
        )

    async def _enqueue(self) -> None:
        """What an application would do: enqueue on its own connection, inside its own transactions."""
        async with connect(self._dsn) as connection:
            client = Client(connection, app, schema=SCHEMA)
            with translated():
                await self._enqueue_and_roll_back(client, connection)
                await self._enqueue_ordinary(client, connection)
            await self._enqueue_urgent(client)

    async def _enqueue_and_roll_back(self, client: Client, connection: asyncpg.Connection) -> None:
        transaction = connection.transaction()
        await transaction.start()
        self._rolled_back = await client.enqueue_many(self._work.batches[0], connection=connection)
        await transaction.rollback()
        self._view.tell(f"{len(self._rolled_back)} tasks enqueued and rolled back: they must never run")

    async def _enqueue_ordinary(self, client: Client, connection: asyncpg.Connection) -> None:
        began, batches = time.monotonic(), self._work.batches
        for batch in batches:
            async with connection.transaction():
                await client.enqueue_many(batch, connection=connection)
        count, took = sum(map(len, batches)), duration(time.monotonic() - began)
        self._queue_is_full = True
        self._view.tell(f"{count:,} tasks enqueued in {len(batches)} transactions, in {took}")

    async def _enqueue_urgent(self, client: Client) -> None:
        # One now and then, as they come in life. Each finds a long queue, and shouldn't have to wait in it.
        for request in self._work.urgent:
            await client.enqueue(request)
            await asyncio.sleep(_URGENT_EVERY)
        self._view.tell(
            f"{len(self._work.urgent)} urgent tasks enqueued, one by one, while the others waited"
        )

    async def _look_on(self, enqueuing: asyncio.Task[None], client: Client) -> Snapshot:
        """Show how far it is until everything has ended, and steer when it is time; returns the last look."""
        patience = _Patience()
        while True:
            # Asked before the look: what is enqueued in between is seen the next time.
            all_there = enqueuing.done()
            snapshot = await take_snapshot(self._connection)
            self._show(snapshot)
            if all_there:
                enqueuing.result()
                if snapshot.all.ended == snapshot.all.tasks:
                    return snapshot
            patience.require_movement(snapshot, self._workers)
            if self._change is None and self._is_time_to_change(snapshot):
                self._change = await change_weights(client, self._dsn, _ACKS, self._view)
            await asyncio.sleep(_LOOK_EVERY)

    def _is_time_to_change(self, snapshot: Snapshot) -> bool:
        counted = self._before.counted >= self._work.turning_point
        return self._queue_is_full and (counted or not snapshot.is_saturated)

    def _show(self, snapshot: Snapshot) -> None:
        shares = self._before if self._change is None else self._after
        if self._queue_is_full:
            shares.observe(snapshot)
        rate = self._rate.observe(self._elapsed, snapshot.all.ended)
        self._view.update(Progress(snapshot, self._elapsed, rate, shares))


class _Patience:
    """Ends a demo in which nothing moves any more."""

    def __init__(self) -> None:
        self._seen: Snapshot | None = None
        self._since = time.monotonic()

    def require_movement(self, snapshot: Snapshot, workers: Workers) -> None:
        """Raise DemoFailedError if nothing has been claimed or ended for too long."""
        if self._seen is None or snapshot.all != self._seen.all:
            self._seen, self._since = snapshot, time.monotonic()
        elif time.monotonic() - self._since > _PATIENCE:
            raise DemoFailedError(f"nothing has moved for {_PATIENCE:.0f} s", log=workers.last_words())
