"""Backlog: what a claim costs where much waits, compared to where nothing does."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from asynctaskd import Client
from asynctaskd.config import load_config
from asynctaskd.daemon.supervisor import Daemon
from asynctaskd.postgres.store import Store
from benchmarks.contenders.asynctaskd import Asynctaskd
from benchmarks.measures.measure import Bench, Sample, percentiles
from benchmarks.noop import app, noop
from benchmarks.server import analyse, connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from benchmarks.contenders.contender import Contender
    from benchmarks.measures.measure import Subject
    from benchmarks.options import Options

SLOTS = 10
PAYLOAD = '{"user_id": 1, "template_id": "welcome"}'

PENDING = f"""
    INSERT INTO asynctaskd.tasks (status, name, label_set, payload)
    SELECT 'pending', 'noop', CASE WHEN $2 > 0 THEN 'set:' || n % $2 ELSE '' END, '{PAYLOAD}'
    FROM generate_series(1, $1::integer) AS n
"""
SCHEDULED = f"""
    INSERT INTO asynctaskd.tasks (status, name, run_at, payload)
    SELECT 'scheduled', 'noop', now() + interval '1 day' + n * interval '1 second', '{PAYLOAD}'
    FROM generate_series(1, $1::integer) AS n
"""
PARTITION = "SELECT asynctaskd.ensure_finished_partition(current_date + 7)"
FINISHED = f"""
    INSERT INTO asynctaskd.finished_tasks (
        id, claim_token, created_at, claimed_at, finished_at, forget_on, priority, weight, attempts, failures,
        losses, status, name, label_set, tags, depends_on, payload)
    SELECT nextval('asynctaskd.task_ids'), 1, now(), now(), now(), current_date + 7, 0, 1, 1, 0,
           0, 'completed', 'noop', '', '{{}}', '{{}}', '{PAYLOAD}'
    FROM generate_series(1, $1::integer) AS n
"""


@dataclass(frozen=True)
class Heap:
    """What lies there. With label sets the pending tasks are spread over so many."""

    case: str
    pending: int = 0
    scheduled: int = 0
    finished: int = 0
    label_sets: int = 0


class Backlog:
    """Claims are timed as the daemon makes them, and it writes the tasks down between."""

    name: ClassVar[str] = "backlog"
    by_default: ClassVar[bool] = True

    def title(self, options: Options) -> str:
        return f"how long a claim takes, {options.claims:,} claims by a daemon of concurrency {SLOTS}"

    def subjects(self, contenders: list[Contender]) -> Sequence[Subject]:
        return [Asynctaskd(SLOTS)] if any(isinstance(c, Asynctaskd) for c in contenders) else []

    async def measure(self, bench: Bench, subject: Any) -> list[Sample]:
        return [await claims_on(bench, subject, heap) for heap in _heaps(bench.options)]


def _heaps(options: Options) -> list[Heap]:
    pending, scheduled, finished = options.pending, options.scheduled, options.finished
    piled = f"{pending:,} pending, {scheduled:,} scheduled, {finished:,} finished"
    spread = max(SLOTS * options.claims, 20 * options.label_sets)
    return [
        Heap(f"nothing but {SLOTS} tasks, refilled"),
        Heap(piled, pending, scheduled, finished),
        Heap(f"1 label set, {spread:,} pending", spread, label_sets=1),
        Heap(f"{options.label_sets:,} label sets, {spread:,} pending", spread, label_sets=options.label_sets),
    ]


async def claims_on(bench: Bench, contender: Asynctaskd, heap: Heap) -> Sample:
    """The latencies of claims where that heap lies."""
    bench.step(heap.case)
    async with bench.server.fresh(contender) as dsn:
        await _pile_up(dsn, heap)
        with timed_claims() as times:
            async with _daemon(dsn, heap), connected(dsn) as connection:
                client = Client(connection, app)
                while len(times) < bench.options.claims:
                    await (asyncio.sleep(0.05) if heap.pending else _refill(client))
    return Sample(contender.name, heap.case, percentiles(times, 50, 99))


async def _pile_up(dsn: str, heap: Heap) -> None:
    async with connected(dsn) as connection:
        await connection.execute(PARTITION)
        await connection.execute(FINISHED, heap.finished)
        await connection.execute(SCHEDULED, heap.scheduled)
        await connection.execute(PENDING, heap.pending, heap.label_sets)
    await analyse(dsn)


async def _refill(client: Client) -> None:
    ids = await client.enqueue_many([noop.request(1, "welcome")] * SLOTS)
    await asyncio.gather(*[client.wait(task_id) for task_id in ids])


@contextmanager
def timed_claims() -> Iterator[list[float]]:
    """How long each claim that brought something took, in seconds, of the daemons that run meanwhile."""
    times: list[float] = []
    claim = Store.claim

    async def timed(self: Store, *arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        claimed = await claim(self, *arguments, **options)
        if claimed:
            times.append(time.perf_counter() - began)
        return claimed

    Store.claim = timed  # type: ignore[method-assign]
    try:
        yield times
    finally:
        Store.claim = claim  # type: ignore[method-assign]


@asynccontextmanager
async def _daemon(dsn: str, heap: Heap) -> AsyncIterator[None]:
    labels = [f"set:{n}" for n in range(heap.label_sets)]
    daemon = Daemon(app, dsn, load_config(None, {}, {"worker.concurrency": SLOTS, "worker.labels": labels}))
    running = asyncio.create_task(daemon.run())
    await daemon.ready.wait()
    try:
        yield
    finally:
        daemon.stop()
        await running
