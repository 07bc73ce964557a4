"""Fleet: what several worker processes do together, and what they wait for."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.contenders.asynctaskd import Asynctaskd
from benchmarks.contenders.contender import leading
from benchmarks.measures.drain import fill
from benchmarks.measures.measure import Bench, Sample
from benchmarks.process import worker_process
from benchmarks.server import analyse, connected, nothing_left

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import asyncpg

    from benchmarks.contenders.contender import Contender
    from benchmarks.measures.measure import Subject
    from benchmarks.options import Options

PROCESSES = (1, 4)
LOOK = 0.02

WAITS = """
    SELECT wait_event_type || ':' || wait_event FROM pg_stat_activity
    WHERE datname = current_database() AND state = 'active' AND wait_event_type IN ('Lock', 'LWLock')
"""


class Fleet:
    """`asynctaskd run`, and `asynctaskd run --processes 4`."""

    name: ClassVar[str] = "fleet"
    by_default: ClassVar[bool] = True

    def title(self, options: Options) -> str:
        return f"{options.tasks:,} no-op tasks, one and several worker processes"

    def subjects(self, contenders: list[Contender]) -> Sequence[Subject]:
        return leading([contender for contender in contenders if isinstance(contender, Asynctaskd)])

    async def measure(self, bench: Bench, subject: Any) -> list[Sample]:
        fleets = [replace(subject, processes=processes) for processes in PROCESSES]
        return [await drain_together(bench, fleet) for fleet in fleets]


async def drain_together(bench: Bench, fleet: Asynctaskd) -> Sample:
    """The rate of all together, and the sessions that waited for locks."""
    tasks = bench.options.tasks
    bench.step(f"{fleet.processes} worker processes")
    async with bench.server.fresh(fleet) as dsn:
        await fill(fleet, dsn, tasks)
        await analyse(dsn)
        async with (
            connected(dsn) as connection,
            connected(dsn) as onlooker,
            worker_process(fleet, dsn, report="often") as worker,
        ):
            first = await worker.event("first")
            async with lock_waits(onlooker) as waits:
                await worker.count(tasks)
            ended_at = await nothing_left(connection, fleet)
    figures = {"tasks/s": tasks / (ended_at - first["at"]), "sessions in lock waits": waits.sessions}
    return Sample(fleet.name, f"processes: {fleet.processes}", figures, note=waits.summary)


@dataclass
class LockWaits:
    """What sessions were seen waiting for; only `lock_waits` writes here."""

    looks: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    @property
    def sessions(self) -> float:
        """How many waited at a time, on average."""
        return self.seen.total() / max(1, self.looks)

    @property
    def summary(self) -> str:
        """The commonest with their average, such as `LWLock:WALWrite 0.31`."""
        return ", ".join(f"{event} {times / self.looks:.2f}" for event, times in self.seen.most_common(3))


@asynccontextmanager
async def lock_waits(connection: asyncpg.Connection) -> AsyncIterator[LockWaits]:
    """Look again and again while the block runs."""
    waits = LockWaits()

    async def look() -> None:
        while True:
            waits.seen.update(row[0] for row in await connection.fetch(WAITS))
            waits.looks += 1
            await asyncio.sleep(LOOK)

    looking = asyncio.create_task(look())
    try:
        yield waits
    finally:
        looking.cancel()
        await asyncio.wait([looking])
