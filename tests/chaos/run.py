"""The chaos runner: real workers, a real server and its standby, real faults; judged from what was recorded.

    python -m tests.chaos.run --seed 7 --tasks 2000 --events 40 --seconds 150

The seed decides what is enqueued and what is broken when. Exit code 0 means that every promise held.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.mutant import Mutant
from tests.chaos.mutants import MUTANTS
from tests.chaos.report import Caught, write_json
from tests.chaos.stage import Options, run_once


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
