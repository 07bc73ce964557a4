"""What steering a running fleet promises, measured: `python -m benchmarks.steering`."""

from __future__ import annotations

from benchmarks.steering.busy import busy
from benchmarks.steering.converge import converge
from benchmarks.steering.limit import limit
from benchmarks.steering.price import price
from benchmarks.steering.question import Question
from benchmarks.steering.shares import shares
from benchmarks.steering.tree import tree
from benchmarks.steering.why import why

QUESTIONS = (
    Question("converge", "from the call of an update until all workers apply it", converge),
    Question("shares", "shares of successive claims beside the weights", shares),
    Question("busy", "the same, and a cancel, where the strict lane is closed and no slot is free", busy),
    Question("tree", "cancel of a tree that runs", tree),
    Question("limit", "tasks of a limited label that run at once", limit),
    Question("why", "why a task isn't running, and the fleet at one moment, where many wait", why),
    Question("price", "what limits cost a drain", price),
)


def wanted(names: tuple[str, ...]) -> list[Question]:
    """The questions of these names; all, where no name is given."""
    known = [question.name for question in QUESTIONS]
    for name in names:
        if name not in known:
            raise SystemExit(f"--only must be one of {', '.join(known)}, got {name!r}")
    return [question for question in QUESTIONS if question.name in names or not names]
