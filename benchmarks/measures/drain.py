"""Drain: how fast tasks that wait are run and written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.measures.measure import Bench, Sample
from benchmarks.process import worker_process
from benchmarks.server import analyse, connected, nothing_left

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.contenders.contender import Contender
    from benchmarks.measures.measure import Subject
    from benchmarks.options import Options


@dataclass(frozen=True)
class Drained:
    """What a drain took: seconds, and the seconds of processors."""

    tasks: int
    seconds: float
    worker_cpu: float
    server_cpu: float | None

    @property
    def rate(self) -> float:
        """Tasks a second."""
        return self.tasks / self.seconds

    def each(self, cpu: float | None) -> float | None:
        """Microseconds a task."""
        return None if cpu is None else 1e6 * cpu / self.tasks


class Drain:
    """The tasks are there before the worker is."""

    name: ClassVar[str] = "drain"
    by_default: ClassVar[bool] = True

    def title(self, options: Options) -> str:
        return (
            f"{options.tasks:,} no-op tasks (a tenth for those that are slow), one worker process: "
            "from the first start until the database says that nothing is left"
        )

    def subjects(self, contenders: list[Contender]) -> Sequence[Subject]:
        return contenders

    async def measure(self, bench: Bench, subject: Any) -> list[Sample]:
        drained = await fill_and_drain(bench, subject)
        figures = {
            "tasks/s": drained.rate,
            "worker CPU µs/task": drained.each(drained.worker_cpu),
            "PostgreSQL CPU µs/task": drained.each(drained.server_cpu),
            "tasks": drained.tasks,
        }
        return [Sample(subject.name, subject.history, figures)]


async def fill_and_drain(bench: Bench, contender: Contender) -> Drained:
    """In a fresh database."""
    tasks = int(bench.options.tasks * contender.share)
    async with bench.server.fresh(contender) as dsn:
        await fill(contender, dsn, tasks)
        await analyse(dsn)
        return await drain(bench, contender, dsn, tasks)


async def fill(contender: Contender, dsn: str, tasks: int) -> None:
    """Enqueue so many that do nothing."""
    async with contender.producer(dsn) as producer:
        await producer.enqueue_many(producer.requests(tasks))


async def drain(bench: Bench, contender: Contender, dsn: str, tasks: int) -> Drained:
    """Start a worker on what is there, and wait until it is done."""
    async with connected(dsn) as connection, worker_process(contender, dsn, tasks=tasks) as worker:
        first = await worker.event("first")
        server_cpu = bench.server.cpu()
        await worker.event("all")
        # Only now: whoever asks earlier competes with the worker.
        ended_at = await nothing_left(connection, contender)
        worker_cpu = worker.cpu() - first["cpu"]
        server_cpu = None if server_cpu is None else (bench.server.cpu() or 0) - server_cpu
    return Drained(tasks, ended_at - first["at"], worker_cpu, server_cpu)
