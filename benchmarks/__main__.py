"""`python -m benchmarks`, which `make bench` runs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import uvloop
from rich.console import Console

from asynctaskd.postgres import embedded
from benchmarks import charts, results, table
from benchmarks.contenders.contender import ROOT
from benchmarks.options import parse
from benchmarks.progress import shown
from benchmarks.results import RECORD, SCRATCH
from benchmarks.runner import run
from benchmarks.server import Server

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.options import Options
    from benchmarks.results import Taken

IMAGES = ROOT / "docs" / "images"


def main() -> None:
    """Measure, print, and write down."""
    options = parse()
    # Before the event loop: it may take a while, and has nothing to do beside it.
    with shown() as progress:
        dsn = embedded.resolve(options.database, progress=progress.say)
    taken = uvloop.run(measure(options, dsn))
    files = [_record(options), *charts.draw(taken, SCRATCH if options.is_partial else IMAGES)]
    if options.as_json:
        print(json.dumps(results.as_json(taken), indent=1, ensure_ascii=False))
    else:
        print("written:", *(file.relative_to(ROOT) for file in files), sep="\n  ")


async def measure(options: Options, dsn: str) -> dict[str, Taken]:
    """Take the measures; each one is shown and written down as soon as it can be."""
    console = Console(width=None if sys.stdout.isatty() else 180)
    everything: dict[str, Taken] = {}
    with shown() as progress:
        async with Server.connected(dsn) as server:
            async for name, taken in run(options, server, progress):
                if not options.as_json and not everything:
                    console.print(table.contenders(taken))
                if not options.as_json:
                    console.print(table.table(name, taken, options.rounds))
                everything[name] = taken
                results.merge_into(_record(options), results.as_json({name: taken}))
    return everything


def _record(options: Options) -> Path:
    return (SCRATCH if options.is_partial else RECORD) / "bench.json"


if __name__ == "__main__":
    main()
