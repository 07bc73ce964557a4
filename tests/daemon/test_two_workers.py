"""What one claim locks and doesn't take, the worker beside it finds by a notice."""

from __future__ import annotations

import asyncio
from collections import Counter

import asyncpg
import pytest

from asynctaskd import TaskRequest
from asynctaskd.postgres.driver import query
from asynctaskd.postgres.store import Store

SELDOM = "1h"
"""A poll interval no test lives through: only a notice can be the reason that a task is found."""

IDLE = "SELECT count(*) = $1 FROM asynctaskd.workers WHERE idle"


@pytest.fixture
def crossing(monkeypatch, pool):
    """The first claim that takes anything commits when a claim of the other worker came back with nothing.

    Arm it with `crossing.set()` when both are idle; without it the two would only sometimes meet.
    """
    armed, met, turn = asyncio.Event(), asyncio.Event(), asyncio.Lock()
    fetch, first = Store._fetch, []

    async def crossed(self: Store, name: str, *arguments: object) -> list[asyncpg.Record]:
        if name != "claim" or not armed.is_set() or met.is_set():
            return await fetch(self, name, *arguments)
        async with pool.acquire() as connection, connection.transaction():
            async with turn:  # whoever comes second finds locked what the first has found
                rows = await connection.fetch(query(name, self.schema), *arguments)
                comes_first = bool(rows) and not first
                if comes_first:
                    first.append(self)
            if comes_first:
                async with asyncio.timeout(20):
                    await met.wait()
            elif first and first[0] is not self:
                met.set()
        return rows

    monkeypatch.setattr(Store, "_fetch", crossed)
    return armed


@pytest.mark.parametrize("priority", [0, 5], ids=["normal lane", "strict lane"])
async def test_two_idle_workers_start_all_they_have_slots_for_by_notices_alone(
    app, running, client, wait, tables, recorder, crossing, priority
):
    here, full, go_on = Counter(), asyncio.Event(), asyncio.Event()

    @app.task("hold")
    async def hold(label: str) -> None:
        here[label] += 1
        if here.total() == 20:
            full.set()
        await go_on.wait()

    worker = {"labels": ["a", "b"], "concurrency": 10, "poll_interval": SELDOM}
    async with running(app, **worker), running(app, **worker):
        await recorder.wait_for("listener.up", times=2)
        await tables.until(IDLE, 2)
        crossing.set()
        ids = await client.enqueue_many(
            [
                TaskRequest("hold", {"label": label}, labels=[label], priority=priority)
                for label in "ab"
                for _ in range(10)
            ]
        )
        try:
            await asyncio.wait_for(full.wait(), 60)
        except TimeoutError:
            raise AssertionError(f"of 20 tasks only these were started: {dict(here)}") from None
        finally:
            go_on.set()
        for task_id in ids:
            await wait(task_id)
    assert here == {"a": 10, "b": 10}
    assert await tables.column(
        "SELECT count(*) FROM asynctaskd.finished_tasks GROUP BY worker_id ORDER BY 1"
    ) == [10, 10]


async def test_workers_beside_each_other_run_every_task_once_by_notices_alone(
    app, running, client, tables, recorder
):
    ran = Counter()

    @app.task("quick")
    async def quick(n: int) -> None:
        ran[n] += 1
        await asyncio.sleep(0)

    worker = {"labels": ["a", "b", "c"], "concurrency": 4, "poll_interval": SELDOM}
    sent = 0
    async with running(app, **worker), running(app, **worker), running(app, **worker):
        await recorder.wait_for("listener.up", times=3)
        for priority in (0, 5) * 10:
            await client.enqueue_many(
                [
                    TaskRequest("quick", {"n": n}, labels=["abc"[n % 3]], priority=priority)
                    for n in range(sent, sent + 30)
                ]
            )
            sent += 30
            await tables.until("SELECT count(*) = $1 FROM asynctaskd.finished_tasks", sent)
    assert ran == Counter(range(sent))
