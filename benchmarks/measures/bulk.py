"""Bulk enqueue: rows a second, on one connection."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.contenders.contender import leading
from benchmarks.measures.measure import Bench, Sample
from benchmarks.measures.reference import Reference

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from benchmarks.contenders.contender import Contender, Producer
    from benchmarks.measures.measure import Subject
    from benchmarks.options import Options
    from benchmarks.server import Server


class Bulk:
    """The requests are made before the clock runs."""

    name: ClassVar[str] = "bulk"
    by_default: ClassVar[bool] = True

    def title(self, options: Options) -> str:
        return f"bulk enqueue of {options.rows:,} tasks, on one connection"

    def subjects(self, contenders: list[Contender]) -> Sequence[Subject]:
        return [*leading(contenders), Reference("a bare COPY")]

    async def measure(self, bench: Bench, subject: Any) -> list[Sample]:
        rows = max(1, int(bench.options.rows * getattr(subject, "share", 1)))
        async with producing(bench.server, subject, 1) as producer:
            requests = producer.requests(rows)
            began = time.perf_counter()
            await producer.enqueue_many(requests)
            seconds = time.perf_counter() - began
        return [Sample(subject.name, figures={"rows/s": rows / seconds, "rows": rows})]


@asynccontextmanager
async def producing(server: Server, subject: Any, connections: int) -> AsyncIterator[Producer]:
    """A producer in a fresh database, of a contender or of a reference."""
    if isinstance(subject, Reference):
        async with subject.producer(server, connections) as producer:
            yield producer
        return
    async with (
        server.fresh(subject) as dsn,
        subject.producer(dsn, connections=connections) as producer,
    ):
        yield producer
