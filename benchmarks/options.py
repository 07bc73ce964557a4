"""The command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields

QUICK = {
    "rounds": 1,
    "tasks": 5_000,
    "rows": 10_000,
    "wakeups": 50,
    "lost": 3,
    "single_seconds": 1.0,
    "rate": 5_000,
    "seconds": 4.0,
    "horizon_rounds": 3,
    "horizon_tasks": 3_000,
    "pending": 20_000,
    "scheduled": 20_000,
    "finished": 50_000,
    "label_sets": 50,
    "claims": 100,
    "minutes": 0.5,
    "idle_seconds": 3.0,
}
"""What --quick changes, where no flag says otherwise."""

HELP = {
    "rounds": "how often each contender is measured, in turn with the others",
    "tasks": "drain, fleet: tasks, for those that aren't slow",
    "rows": "bulk: rows",
    "wakeups": "wakeup: tasks, one after another",
    "lost": "wakeup: tasks where every notice is lost",
    "single_seconds": "single: seconds for each number of connections",
    "rate": "steady: tasks a second, the same for all contenders",
    "seconds": "steady: seconds for each rate",
    "horizon_rounds": "horizon: fillings and drains, one after another",
    "horizon_tasks": "horizon: tasks for each",
    "pending": "backlog: pending tasks",
    "scheduled": "backlog: scheduled tasks",
    "finished": "backlog: finished tasks",
    "label_sets": "backlog: label sets",
    "claims": "backlog: claims that are timed",
    "minutes": "soak: minutes",
    "soak_rate": "soak: tasks a second",
    "idle_seconds": "memory: seconds",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a run was asked for."""

    database: str = "embedded"
    only: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()
    quick: bool = False
    as_json: bool = False

    rounds: int = 3
    tasks: int = 50_000
    rows: int = 50_000
    wakeups: int = 300
    lost: int = 20
    single_seconds: float = 5.0
    rate: int = 15_000
    seconds: float = 20.0
    horizon_rounds: int = 10
    horizon_tasks: int = 20_000
    pending: int = 1_000_000
    scheduled: int = 1_000_000
    finished: int = 5_000_000
    label_sets: int = 1_000
    claims: int = 2_000
    minutes: float = 30.0
    soak_rate: int = 1_000
    idle_seconds: float = 30.0

    @property
    def is_partial(self) -> bool:
        """Whether the figures are no record: too few tasks, or somebody left out."""
        return self.quick or bool(self.only)


def parse(arguments: list[str] | None = None) -> Options:
    """The options of a command line."""
    given = vars(_parser().parse_args(arguments))
    numbers = QUICK if given["quick"] else {}
    return Options(**(numbers | {name: value for name, value in given.items() if value is not None}))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure asynctaskd and its peers on one server, one after another.",
    )
    parser.add_argument(
        "--database", metavar="URL", help="a PostgreSQL; its role needs CREATEDB (default: embedded)"
    )
    parser.add_argument("--only", metavar="CONTENDER,…", type=names, help="leave the others out")
    parser.add_argument(
        "--measure", metavar="NAME,…", type=names, dest="measures", help="only these measures"
    )
    parser.add_argument("--quick", action="store_true", help="small numbers: a few minutes, and no record")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON instead of tables")
    for field in fields(Options):
        if field.name in HELP:
            kind = float if field.type == "float" else int
            flag = f"--{field.name.replace('_', '-')}"
            parser.add_argument(
                flag, type=kind, metavar="N", help=f"{HELP[field.name]} (default: {field.default:,})"
            )
    return parser


def names(text: str) -> tuple[str, ...]:
    """What a list with commas names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
