"""A live application that enqueues in transactions of its own, and keeps a ledger of what it knows."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import asyncpg

from asynctaskd import Client
from asynctaskd.errors import AsynctaskdError
from tests.chaos.workload import Order, draw
from tests.support.proxy import Proxy

_OUTAGE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, AsynctaskdError)
_ANSWER_LIMIT = 3.0
_ROLLED_BACK_SHARE = 0.05
_CONNECTIONS = 4


class RollBackError(Exception):
    """On purpose."""


class Enqueuer:
    """Enqueues `total` orders at a steady rate over `seconds`, bursts included.

    Every order has a unique tag, so that an unknown commit is resolved by enqueuing it again: the tag finds
    what is there, or there was nothing.
    """

    def __init__(self, proxy: Proxy, ledger: Path, *, seed: int, total: int, seconds: float) -> None:
        self._dsn = proxy.dsn
        self._random = Random(seed + 1)
        self._ledger = ledger.open("a", buffering=1)
        self._total = total
        self._seconds = seconds
        self._next = 0
        self._owed = 0
        self._free = asyncio.Semaphore(_CONNECTIONS)
        self._pool: list[asyncpg.Connection] = []
        self._busy: set[asyncio.Task[None]] = set()
        self.committed = 0
        self.unknown = 0
        self.longest_wait = 0.0

    @property
    def drawn(self) -> int:
        """How many orders have been begun."""
        return self._next

    def burst(self, orders: int) -> None:
        """So many more at once; they count towards the total."""
        self._owed += orders

    async def run(self) -> None:
        """Until every order is committed or rolled back."""
        began = time.monotonic()
        while self._next < self._total:
            passed = (time.monotonic() - began) / self._seconds
            while self._next < min(self._total, int(passed * self._total) + 1 + self._owed):
                await self._free.acquire()
                self._begin()
            await asyncio.sleep(0.02)
        while self._busy:
            await asyncio.wait(self._busy)
        for connection in self._pool:
            connection.terminate()
        self._ledger.close()

    def _begin(self) -> None:
        self._next += 1
        order = draw(self._random, self._next)
        order.options.setdefault("unique_tag", f"order-{self._next}")
        rolled_back = self._random.random() < _ROLLED_BACK_SHARE
        task = asyncio.create_task(self._see_through(self._next, order, rolled_back=rolled_back))
        self._busy.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._busy.discard(task)
        self._free.release()
        task.result()

    async def _see_through(self, number: int, order: Order, *, rolled_back: bool) -> None:
        """Try until the outcome is known."""
        began = time.monotonic()
        tries = 0
        while True:
            tries += 1
            try:
                task_id = await self._enqueue(order, rolled_back=rolled_back)
            except _OUTAGE:
                await asyncio.sleep(self._random.uniform(0.1, 0.5))
            else:
                break
        self.unknown += tries > 1
        self.committed += not rolled_back
        self.longest_wait = max(self.longest_wait, time.monotonic() - began)
        outcome = "rolled_back" if rolled_back else "committed"
        self._note(order=number, task=task_id, name=order.name, outcome=outcome, tries=tries)

    async def _enqueue(self, order: Order, *, rolled_back: bool) -> int:
        connection = await self._connection()
        kept = False
        try:
            async with asyncio.timeout(_ANSWER_LIMIT):
                task_id = 0
                with suppress(RollBackError):
                    async with connection.transaction():
                        task_id = await Client(connection).enqueue(order.name, order.payload, **order.options)
                        if rolled_back:
                            raise RollBackError
            kept = True
            return task_id
        finally:
            if kept and not connection.is_closed():
                self._pool.append(connection)
            else:
                connection.terminate()

    async def _connection(self) -> asyncpg.Connection:
        return self._pool.pop() if self._pool else await asyncpg.connect(self._dsn, timeout=_ANSWER_LIMIT)

    def _note(self, **line: Any) -> None:
        self._ledger.write(json.dumps({"at": time.time(), **line}) + "\n")
