"""Everything that is measured."""

from __future__ import annotations

from benchmarks.measures.backlog import Backlog
from benchmarks.measures.bulk import Bulk
from benchmarks.measures.drain import Drain
from benchmarks.measures.fleet import Fleet
from benchmarks.measures.horizon import Horizon
from benchmarks.measures.measure import Measure
from benchmarks.measures.memory import Memory
from benchmarks.measures.notify import Notify
from benchmarks.measures.single import Single
from benchmarks.measures.soak import Soak
from benchmarks.measures.steady import Steady
from benchmarks.measures.wakeup import Wakeup

MEASURES: list[Measure] = [
    Bulk(),
    Single(),
    Notify(),
    Drain(),
    Wakeup(),
    Steady(),
    Horizon(),
    Backlog(),
    Fleet(),
    Memory(),
    Soak(),
]


def wanted(names: tuple[str, ...]) -> list[Measure]:
    """The measures of these names; the default set, where no name is given."""
    known = [measure.name for measure in MEASURES]
    for name in names:
        if name not in known:
            raise SystemExit(f"--measure must be one of {', '.join(known)}, got {name!r}")
    return [m for m in MEASURES if m.name in names or (not names and m.by_default)]
