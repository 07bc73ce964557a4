"""The command line, and how large everything is."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

from benchmarks.options import names


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything there is in one round."""

    rounds: int = 3
    updates: int = 10
    updates_unheard: int = 10
    backlog: int = 20_000
    claims: int = 1_000
    interventions: int = 5
    tree: int = 3_000
    limit_workers: int = 10
    limited: int = 10_000
    pending: int = 1_000_000
    label_sets: int = 100
    asked: int = 500
    looks: int = 20
    drained: int = 40_000


QUICK = Sizes(
    rounds=1,
    updates=5,
    updates_unheard=1,
    backlog=8_000,
    claims=400,
    interventions=2,
    tree=300,
    limit_workers=3,
    limited=1_000,
    pending=20_000,
    label_sets=20,
    asked=50,
    looks=3,
    drained=3_000,
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a run was asked for."""

    database: str
    only: tuple[str, ...]
    rounds: int | None
    quick: bool
    as_json: bool

    @property
    def sizes(self) -> Sizes:
        """A number of rounds that is given wins."""
        sizes = QUICK if self.quick else Sizes()
        return sizes if self.rounds is None else replace(sizes, rounds=self.rounds)

    @property
    def is_partial(self) -> bool:
        """Whether the figures are no record: too small, or questions left out."""
        return self.quick or bool(self.only)


def parse(arguments: list[str] | None = None) -> Options:
    """The options of a command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.steering",
        description="Measure what steering a running fleet promises, beside the bounds that are to hold.",
    )
    parser.add_argument(
        "--database",
        default="embedded",
        metavar="URL",
        help="a PostgreSQL; its role needs CREATEDB (default: embedded)",
    )
    parser.add_argument(
        "--only", default=(), metavar="NAME,…", type=names, help="only these questions; no record"
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help=f"how often each is asked (default: {Sizes.rounds})"
    )
    parser.add_argument("--quick", action="store_true", help="small numbers: a minute, and no record")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON instead of a table")
    return Options(**vars(parser.parse_args(arguments)))
