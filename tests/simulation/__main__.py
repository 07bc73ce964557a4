"""Run many worlds, or replay one: `python -m tests.simulation --seeds 100000 --jobs 2`, `--seed 4711`."""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import platform
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.simulation.rules import MUTANTS
from tests.simulation.runs import Failure, run, shrink, trace
from tests.simulation.scenario import Scenario, brief, plan

_PORTION = 500
_CHECKPOINT = 20_000  # worlds after which the report is brought up to date


def main() -> int:
    """0 if every world was sound."""
    arguments = _arguments()
    broken = frozenset([arguments.mutant] if arguments.mutant else [])
    if arguments.seed is not None:
        return replay(arguments.seed, broken)
    return explore(arguments, broken)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this seed, and shrink it if it fails")
    parser.add_argument("--seeds", type=int, default=20_000, help="how many worlds (20000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (one a core)")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="break the protocol in this way")
    parser.add_argument("--report", type=Path, help="write a report, in JSON, to this file")
    return parser.parse_args()


def replay(seed: int, broken: frozenset[str]) -> int:
    """Show what happens in one world; if it fails, in the smallest one that fails like it."""
    scenario = plan(seed)
    result = run(scenario, broken)
    if not isinstance(result, Failure):
        _say(*_described(scenario), *trace(scenario, broken), f"seed {seed} is sound")
        return 0
    smallest = shrink(result, broken)
    _say(f"seed {seed}: {result.message}", "The smallest world that fails like it:", "")
    _say(*_described(smallest.scenario), "", *trace(smallest.scenario, broken))
    return 1


def _described(scenario: Scenario) -> list[str]:
    return [brief(one) for one in (*scenario.workers, *scenario.faults)]


def explore(arguments: argparse.Namespace, broken: frozenset[str]) -> int:
    """Run many worlds on several processes; the first failures are told with how to replay them."""
    started, last = time.monotonic(), arguments.first + arguments.seeds
    portions = [
        (first, min(first + _PORTION, last), broken) for first in range(arguments.first, last, _PORTION)
    ]
    tally: Counter[str] = Counter()
    failures: list[tuple[int, str]] = []
    with multiprocessing.Pool(arguments.jobs) as pool:
        for counts, failed in pool.imap_unordered(_run_portion, portions):
            tally.update(counts)
            failures += failed
            _progress(tally, failures, time.monotonic() - started)
            if arguments.report and tally["worlds"] % _CHECKPOINT < _PORTION:
                _write(arguments, tally, failures, time.monotonic() - started)
    seconds = time.monotonic() - started
    _say(
        "", f"{tally['worlds']:,} worlds, {tally['steps']:,} steps in {seconds:.1f} s: {len(failures)} failed"
    )
    for seed, message in sorted(failures)[:10]:
        _say(f"  {message}    replay it: python -m tests.simulation --seed {seed}")
    if arguments.report:
        _write(arguments, tally, failures, seconds)
    return int(bool(failures))


def _run_portion(portion: tuple[int, int, frozenset[str]]) -> tuple[Counter[str], list[tuple[int, str]]]:
    first, last, broken = portion
    tally: Counter[str] = Counter()
    failures = []
    cpu = time.process_time()
    gc.disable()  # worlds are small, and thrown away together
    for seed in range(first, last):
        tally["worlds"] += 1
        try:
            result = run(plan(seed), broken)
        except Exception as error:  # noqa: BLE001  (a slip in the model is a finding too, and ends no long run)
            failures.append((seed, f"the simulation itself failed: {error!r}"))
            continue
        if isinstance(result, Failure):
            failures.append((seed, result.message))
        else:
            tally.update(result.tally())
    gc.enable()
    gc.collect()
    tally["cpu_microseconds"] = round((time.process_time() - cpu) * 1e6)
    return tally, failures


def _progress(tally: Counter[str], failures: list[Any], seconds: float) -> None:
    if sys.stderr.isatty() or tally["worlds"] % 50_000 < _PORTION:
        end = "\r" if sys.stderr.isatty() else "\n"
        rate = tally["worlds"] / seconds if seconds else 0.0
        line = f"{tally['worlds']:>12,} worlds  {tally['steps']:>14,} steps  {seconds:8.1f} s  {rate:7.0f}/s"
        sys.stderr.write(f"{line}  {len(failures)} failed{end}")
        sys.stderr.flush()


def _write(
    arguments: argparse.Namespace, tally: Counter[str], failures: list[tuple[int, str]], seconds: float
) -> None:
    counts = dict(tally)
    report = {
        "first_seed": arguments.first,
        "seeds": counts.pop("worlds"),
        "violations": len(failures),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(counts.pop("cpu_microseconds", 0) / 1e6, 1),
        "jobs": arguments.jobs,
        "python": platform.python_version(),
        **{name: counts[name] for name in sorted(counts)},
        "failed": [{"seed": seed, "invariant": message} for seed, message in sorted(failures)[:100]],
    }
    arguments.report.parent.mkdir(parents=True, exist_ok=True)
    arguments.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf8")


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
