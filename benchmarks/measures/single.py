"""Single enqueues: tasks a second, each in a transaction of its own."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from asynctaskd import Client
from benchmarks.contenders.asynctaskd import Asynctaskd
from benchmarks.contenders.contender import leading
from benchmarks.measures.bulk import producing
from benchmarks.measures.measure import Bench, Sample
from benchmarks.measures.reference import INSERT, INSERT_AND_NOTIFY, Reference
from benchmarks.noop import app, hold
from benchmarks.process import worker_process
from benchmarks.server import connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from benchmarks.contenders.contender import Contender, Producer
    from benchmarks.measures.measure import Subject
    from benchmarks.options import Options

MANY = 50
SLOTS = 10


class Single:
    """On one connection, and on fifty from one process. Nobody takes the tasks meanwhile."""

    name: ClassVar[str] = "single"
    by_default: ClassVar[bool] = True

    def title(self, options: Options) -> str:
        return f"single enqueues, each committed, for {options.single_seconds:g} s"

    def subjects(self, contenders: list[Contender]) -> Sequence[Subject]:
        bare = [Reference("a bare INSERT", INSERT), Reference("a bare INSERT with NOTIFY", INSERT_AND_NOTIFY)]
        return [*leading(contenders), *bare]

    async def measure(self, bench: Bench, subject: Any) -> list[Sample]:
        seconds = bench.options.single_seconds
        samples = []
        for connections in (1, MANY):
            bench.step(f"{connections} connections")
            async with producing(bench.server, subject, connections) as producer:
                rate = await enqueue_for(producer, connections, seconds)
            case = "1 connection" if connections == 1 else f"{connections} connections"
            samples.append(Sample(subject.name, case, {"tasks/s": rate}))
        if isinstance(subject, Asynctaskd):
            async with beside_a_busy_worker(bench, subject) as producer:
                rate = await enqueue_for(producer, MANY, seconds)
            samples.append(Sample(subject.name, f"{MANY} connections, a busy fleet", {"tasks/s": rate}))
        return samples


async def enqueue_for(producer: Producer, connections: int, seconds: float) -> float:
    """Tasks a second of so many that enqueue side by side."""
    began = time.perf_counter()
    count = 0

    async def enqueue() -> None:
        nonlocal count
        while time.perf_counter() - began < seconds:
            await producer.enqueue()
            count += 1

    await asyncio.gather(*[enqueue() for _ in range(connections)])
    return count / (time.perf_counter() - began)


@asynccontextmanager
async def beside_a_busy_worker(bench: Bench, contender: Asynctaskd) -> AsyncIterator[Producer]:
    """A worker is there, and has no slot free: no notice is due."""
    busy = replace(contender, concurrency=SLOTS)
    async with (
        bench.server.fresh(busy) as dsn,
        worker_process(busy, dsn),
        busy.producer(dsn, connections=MANY) as producer,
        connected(dsn) as connection,
    ):
        await Client(connection, app).enqueue_many([hold.request()] * SLOTS)
        running = "SELECT count(*) FROM asynctaskd.tasks WHERE status = 'running'"
        while await connection.fetchval(running) < SLOTS:  # noqa: ASYNC110  (rows tell nobody)
            await asyncio.sleep(0.05)
        yield producer
