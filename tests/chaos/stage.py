"""One run, from an empty database to a judgement."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from rich.console import Console

from asynctaskd.postgres.migrate import migrate
from asynctaskd.postgres.scratch import run_script
from tests.chaos import audit, measures
from tests.chaos.enqueuer import Enqueuer
from tests.chaos.faults import Breaker
from tests.chaos.fleet import Fleet
from tests.chaos.history import History, read_lines
from tests.chaos.journal import Journal
from tests.chaos.judge import duplicates, judge
from tests.chaos.mutants import MUTANTS
from tests.chaos.operator import Operator
from tests.chaos.plan import GRACE, LEASE, Event, make_plan
from tests.chaos.report import Findings
from tests.chaos.servers import Servers
from tests.support.proxy import Proxy
from tests.support.scripts import INVARIANTS

START_LIMIT = 60.0
_TELL_INTERVAL = 15.0
DRAIN_LIMIT = 60.0
"""Seconds from the last fault to the last terminal status. Snoozes, retries and delays are short; the longest
wait is a lease, three times in a row."""


@dataclass(frozen=True)
class Options:
    """What one run is."""

    seed: int
    tasks: int
    events: int
    seconds: float
    workers: int
    mutant: str = ""
    kinds: tuple[str, ...] = ()
    drain_limit: float = DRAIN_LIMIT


@dataclass
class Run:
    """One run in a directory of its own."""

    options: Options
    directory: Path
    console: Console
    wrong: list[str] = field(default_factory=list)

    @property
    def witness(self) -> Path:
        """What handlers said."""
        return self.directory / "witness.jsonl"

    @property
    def ledger(self) -> Path:
        """What the enqueuer knows."""
        return self.directory / "ledger.jsonl"

    async def __call__(self) -> Findings:
        """Start everything, break it, let it drain, and judge."""
        options = self.options
        self.journal = Journal(self.directory / "faults.jsonl")
        self.servers = Servers(self.directory, self.journal)
        self.fleet = Fleet(
            self.servers, self.directory, self.journal, workers=options.workers, mutant=options.mutant
        )
        self.proxy = Proxy(lambda: self.servers.dsn)
        try:
            await self._prepare()
            await self._break_things()
            await self._drain()
            await self.fleet.stop()
            self.wrong += self._surprises()
            self.journal.event("run_ended")
            self.journal.close()
            return await self._judge()
        finally:
            await self.fleet.close()
            await self.proxy.stop()
            await self.servers.stop()

    async def _prepare(self) -> None:
        await self.servers.start()
        await migrate(self.servers.dsn)
        await run_script(self.servers.dsn, INVARIANTS)
        await audit.install(self.servers.dsn)
        if self.options.mutant:
            await MUTANTS[self.options.mutant].prepare(self.servers.dsn)
        await self.proxy.start()
        settings = {"lease": LEASE, "grace": GRACE, "strict_percentage": 100}
        self.journal.event("run_began", seed=self.options.seed, **settings)
        await self.fleet.start()
        try:
            await self._until("SELECT count(*) FROM asynctaskd.workers", self.fleet.processes, START_LIMIT)
        except TimeoutError:
            raise SystemExit(f"the workers don't come up: {self.fleet.last_words()}") from None

    async def _break_things(self) -> None:
        options = self.options
        self.enqueuer = Enqueuer(
            self.proxy, self.ledger, seed=options.seed, total=options.tasks, seconds=options.seconds
        )
        mutant = MUTANTS.get(options.mutant)
        self.operator = Operator(
            self.proxy,
            self.journal,
            seed=options.seed,
            seconds=options.seconds if mutant is None or mutant.is_steered else 0.0,
            contest=mutant is None or "group_shares" in mutant.caught_by,
        )
        self.breaker = Breaker(self.servers, self.fleet, self.enqueuer, self.proxy, self.journal)
        self.plan = make_plan(
            options.seed,
            events=options.events,
            seconds=options.seconds,
            workers=list(self.fleet.workers),
            parents=self.fleet.parents,
            kinds=options.kinds,
        )
        self.began = time.monotonic()
        progress = asyncio.create_task(self._tell())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.enqueuer.run())
                group.create_task(self.operator.run())
                for event in self.plan:
                    group.create_task(self._strike(event))
        finally:
            progress.cancel()
            await self.breaker.close()
        self.broke_for = time.monotonic() - self.began

    async def _strike(self, event: Event) -> None:
        await asyncio.sleep(self.began + event.at - time.monotonic())
        await self.breaker.strike(event)

    async def _tell(self) -> None:
        """How far it is: one line that changes on a terminal, else a line now and then."""
        if not self.console.is_terminal:
            while True:
                await asyncio.sleep(_TELL_INTERVAL)
                self.console.print(await self._progress(), highlight=False)
        with self.console.status("breaking things") as line:
            while True:
                line.update(await self._progress())
                await asyncio.sleep(1)

    async def _progress(self) -> str:
        passed = time.monotonic() - self.began
        begun = sum(event.at <= passed for event in self.plan)
        return (
            f"{passed:5.0f} s: {self.enqueuer.drawn:,} of {self.options.tasks:,} orders, "
            f"{begun:,} of {len(self.plan):,} faults, {await self._left()} tasks under way"
        )

    async def _left(self) -> str:
        try:
            connection = await asyncpg.connect(self.servers.dsn, timeout=2)
            async with asyncio.timeout(2):
                left = await connection.fetchval("SELECT count(*) FROM asynctaskd.tasks")
            await connection.close()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return "nobody knows how many"
        return f"{left:,}"

    async def _drain(self) -> None:
        began = time.monotonic()
        await self.servers.protected(timeout=START_LIMIT)
        await self.operator.restore()
        self.journal.event("draining")
        resuming = asyncio.create_task(self.operator.resume_all())
        try:
            await self._until("SELECT -count(*) FROM asynctaskd.tasks", 0, self.options.drain_limit)
        except TimeoutError:
            self.wrong += await self._hanging()
        finally:
            resuming.cancel()
        self.journal.event("drained", left=len(self.wrong))
        self.drained_in = time.monotonic() - began

    async def _hanging(self) -> list[str]:
        connection = await asyncpg.connect(self.servers.dsn)
        rows = await connection.fetch(
            "SELECT t.id, t.name, t.status, t.reason, t.attempts, t.losses, t.serial_key, t.run_at,"
            " t.claimed_at, w.pid, w.lost_at, w.stopped_at, asynctaskd.is_live(w) AS holder_is_live,"
            " clock_timestamp() AS now FROM asynctaskd.tasks AS t LEFT JOIN asynctaskd.workers AS w"
            " ON w.id = t.worker_id ORDER BY t.id LIMIT 20"
        )
        await connection.close()
        late = f"{self.options.drain_limit:g} s after the last fault"
        return [f"a task isn't finished {late}: {describe(dict(row))}" for row in rows]

    async def _until(self, question: str, at_least: int, limit: float) -> None:
        async with asyncio.timeout(limit):
            connection = await asyncpg.connect(self.servers.dsn)
            try:
                while await connection.fetchval(question) < at_least:
                    await asyncio.sleep(0.1)
            finally:
                connection.terminate()

    def _surprises(self) -> list[str]:
        """Processes that ended as nobody asked, but for those that a task took with it."""
        poisoned = {line["pid"] for line in read_lines(self.witness) if line["name"] == "poison"}
        return [what for pid, what in self.fleet.surprises if pid not in poisoned]

    async def _judge(self) -> Findings:
        self.console.print("judging")
        began = time.monotonic()
        history = await History.load(
            self.servers.dsn, witness=self.witness, faults=self.directory / "faults.jsonl", ledger=self.ledger
        )
        verdicts = judge(history)
        return Findings(
            options=asdict(self.options),
            facts={
                "seconds of faults": round(self.broke_for, 1),
                "seconds to drain": round(self.drained_in, 1),
                "seconds to judge": round(time.monotonic() - began, 1),
                "orders committed": self.enqueuer.committed,
                "orders whose commit was unknown at first": self.enqueuer.unknown,
                "longest enqueue, in seconds": round(self.enqueuer.longest_wait, 2),
                "commands and changes answered": self.operator.answered,
                "commands and changes unanswered": self.operator.unanswered,
                "faults that found nothing to hit": len(self.breaker.skipped),
            },
            faults=dict(self.journal.faults),
            skipped=[f"{event.number} {event.kind}: {why}" for event, why in self.breaker.skipped],
            wrong=self.wrong,
            verdicts=verdicts,
            figures=measures.measure(history),
            counts=measures.counts(history),
            duplicates=duplicates(history),
        )


def describe(facts: dict[str, Any]) -> str:
    """Facts that are known, in one line."""
    return ", ".join(f"{name}={value}" for name, value in facts.items() if value is not None)


async def run_once(options: Options, console: Console, *, keep: bool) -> Findings:
    """One run; its directory is kept where something was wrong, or if asked for."""
    directory = Path(tempfile.mkdtemp(prefix="asynctaskd-chaos-", dir=_fast_directory()))
    directory.chmod(0o755)
    console.print(
        f"seed {options.seed}: {options.tasks:,} tasks, {options.events} faults, {options.workers} workers, "
        f"about {options.seconds:g} s, in {directory}"
    )
    kept = True
    try:
        findings = await Run(options, directory, console)()
        kept = keep or (not findings.is_clean and not options.mutant)
    finally:
        if kept:
            for cluster in () if keep else ("a", "b"):
                shutil.rmtree(directory / cluster, ignore_errors=True)
            console.print(f"logs and what was recorded are in {directory}")
        else:
            shutil.rmtree(directory)
    return findings


def _fast_directory() -> str:
    """Memory where there is enough: a standby is copied after every failover."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**32
    return str(memory) if roomy else tempfile.gettempdir()
