"""The chaos runner: real workers, a real server and its standby, real faults; judged from what was recorded.

    python -m tests.chaos.run --seed 7 --tasks 2000 --events 40 --seconds 150

The seed decides what is enqueued and what is broken when. Exit code 0 means that every promise held.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from rich.console import Console
from rich.table import Table

from asynctaskd.postgres.migrate import migrate
from tests.chaos import audit, measures
from tests.chaos.enqueuer import Enqueuer
from tests.chaos.faults import Breaker
from tests.chaos.fleet import Fleet
from tests.chaos.history import History, read_lines
from tests.chaos.journal import Journal
from tests.chaos.judge import duplicates, judge
from tests.chaos.mutants import MUTANTS, Mutant
from tests.chaos.plan import GRACE, LEASE, Event, make_plan
from tests.chaos.proxy import Proxy
from tests.chaos.report import Caught, Findings, write_json
from tests.chaos.servers import Servers

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
        self.proxy = Proxy(lambda: self.servers.primary.socket)
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
            self.proxy,
            self.servers.database,
            self.ledger,
            seed=options.seed,
            total=options.tasks,
            seconds=options.seconds,
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
        self.journal.event("draining")
        try:
            await self._until("SELECT -count(*) FROM asynctaskd.tasks", 0, self.options.drain_limit)
        except TimeoutError:
            self.wrong += await self._hanging()
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


def main() -> int:
    """Run once, or once for every mutant."""
    try:
        return asyncio.run(_run(_arguments(), Console(soft_wrap=True)))
    except asyncio.CancelledError:
        return 130


async def _run(arguments: argparse.Namespace, console: Console) -> int:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    if arguments.mutants is not None:
        names = arguments.mutants or list(MUTANTS)
        caught = [await run_mutant(MUTANTS[name], arguments.seed, console) for name in names]
        return show_caught(caught, arguments, console)
    findings = await run_once(_options(arguments), console, keep=arguments.keep)
    findings.show(console)
    if arguments.report:
        write_json(findings.as_dict(), Path(arguments.report))
    return 0 if findings.is_clean else 1


def _options(arguments: argparse.Namespace) -> Options:
    return Options(
        seed=arguments.seed,
        tasks=arguments.tasks,
        events=arguments.events,
        seconds=arguments.seconds,
        workers=arguments.workers,
        mutant=arguments.mutant,
        kinds=tuple(arguments.kinds),
    )


async def run_mutant(mutant: Mutant, seed: int, console: Console) -> Caught:
    """A short run with a mistake built in, which an invariant that is meant to must catch."""
    findings = await run_once(_mutant_options(mutant, seed), console, keep=False)
    by = {one.invariant: len(one.violations) for one in findings.verdicts if one.violations}
    caught = Caught(mutant.name, mutant.what, sorted(mutant.caught_by & by.keys()), by)
    console.print(f"{mutant.name}: {caught.verdict}", style="green" if caught.by else "red", highlight=False)
    return caught


def show_caught(mutants: list[Caught], arguments: argparse.Namespace, console: Console) -> int:
    """The table of all mutants, and the same as JSON; the exit code."""
    table = Table("mutant", "what it does wrong", "caught by", title="Mutants")
    for one in mutants:
        table.add_row(one.name, one.what, one.verdict, style="" if one.by else "red")
    console.print(table)
    caught = sum(bool(one.by) for one in mutants)
    summary = f"chaos: {caught} of {len(mutants)} mutants caught; seed {arguments.seed}"
    console.print(summary, highlight=False)
    if arguments.report:
        rows = [asdict(one) for one in mutants]
        write_json({"summary": summary, "mutants": rows}, Path(arguments.report))
    return 0 if caught == len(mutants) else 1


def _mutant_options(mutant: Mutant, seed: int) -> Options:
    return Options(
        seed=seed,
        tasks=700,
        events=24 if mutant.faults else 0,
        seconds=30,
        workers=3,
        mutant=mutant.name,
        kinds=mutant.faults,
        drain_limit=20,
    )


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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="replays that plan")
    parser.add_argument("--tasks", type=int, default=2000, help="orders to enqueue (default: 2000)")
    parser.add_argument("--events", type=int, default=40, help="faults to cause (default: 40)")
    parser.add_argument("--seconds", type=float, default=150, help="over how long (default: 150)")
    parser.add_argument("--workers", type=int, default=4, help="worker processes (default: 4)")
    parser.add_argument("--kinds", nargs="*", default=[], help="only these kinds of faults")
    parser.add_argument("--report", help="write the report to this file, as JSON")
    parser.add_argument("--mutant", default="", help="break the workers in this way")
    parser.add_argument("--mutants", nargs="*", help="a short run for each (of those)")
    parser.add_argument("--keep", action="store_true", help="keep logs, records and databases")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
