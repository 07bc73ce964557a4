"""Everyone who takes part."""

from __future__ import annotations

from benchmarks.contenders.asynctaskd import Asynctaskd
from benchmarks.contenders.awa import Awa
from benchmarks.contenders.contender import Contender
from benchmarks.contenders.graphile_worker import GraphileWorker
from benchmarks.contenders.pgqueuer import Pgqueuer
from benchmarks.contenders.procrastinate import Procrastinate

CONTENDERS: list[Contender] = [
    Asynctaskd(10),
    Asynctaskd(100),
    Asynctaskd(1000, leads=True),
    Asynctaskd(1000, keep="0s"),
    Pgqueuer(instances=5, batch=10),
    Pgqueuer(instances=1, batch=500, leads=True),
    Procrastinate(),
    Awa(),
    GraphileWorker(),
]


def chosen(names: list[str]) -> list[Contender]:
    """Those with one of these names, of a configuration or of a project; all, where no name is given."""
    known = {name for contender in CONTENDERS for name in (contender.name, contender.peer)}
    for name in names:
        if name not in known:
            raise SystemExit(f"--only must be one of {', '.join(sorted(known))}, got {name!r}")
    return [c for c in CONTENDERS if not names or c.name in names or c.peer in names]


def named(name: str) -> Contender:
    """The contender of that name."""
    return next(contender for contender in CONTENDERS if contender.name == name)
