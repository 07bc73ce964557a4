"""What this worker's claims and executions come to, told to whoever counts: all of a second at once.

While nobody listens, nothing is gathered.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from operator import attrgetter
from typing import TYPE_CHECKING

from asynctaskd.daemon.audience import STRICT
from asynctaskd.scheduling.lanes import group_of, strict_cap
from asynctaskd.task import EventKind, TaskStatus
from asynctaskd.telemetry.events import emit, is_watched

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import asyncpg

    from asynctaskd.daemon.commands import Steering
    from asynctaskd.daemon.execution import Execution
    from asynctaskd.daemon.slots import Slots
    from asynctaskd.task import ClaimedTask, Transition

INTERVAL = 1.0
"""How often a worker tells how busy it is, in seconds."""

STALE = "stale"
"""The outcome of executions whose result came too late."""

_COMPLETED = TaskStatus.COMPLETED
_name = attrgetter("name")


class Measures:
    """Gathers what is claimed and what ends; once a second it tells that, and how busy this worker is.

    To tell of each claim would cost more than all else here: most are small.
    """

    def __init__(self, slots: Slots, steering: Steering, pool: asyncpg.Pool) -> None:
        self._slots = slots
        self._steering = steering
        self._pool = pool
        self._forget()

    def _forget(self) -> None:
        self._claims: Counter[str] = Counter()  # by name
        self._waits: defaultdict[str, list[float]] = defaultdict(list)  # by label set, in seconds
        self._completed: defaultdict[str, list[float | None]] = defaultdict(list)  # by name, in seconds
        self._others: defaultdict[tuple[str, str], list[float | None]] = defaultdict(list)  # and by outcome

    def claimed(self, tasks: Sequence[ClaimedTask]) -> None:
        """These were claimed just now."""
        if not is_watched("tasks.claimed"):
            return
        self._claims.update(map(_name, tasks))
        waits = self._waits
        for task in tasks:
            if task.claim_token == 1:
                waits[STRICT if task.priority else task.label_set].append(task.waited)

    def ended(self, batch: Iterable[tuple[Execution, Transition]], stale: set[int]) -> None:
        """These were written just now, but for those whose claims were stale."""
        if not is_watched("executions.ended"):
            return
        completed, others = self._completed, self._others
        for execution, transition in batch:
            task = execution.task
            if task.id in stale:
                others[task.name, STALE].append(execution.took)
            elif transition.status is _COMPLETED:
                completed[task.name].append(execution.took)
            else:
                others[task.name, outcome_of(transition)].append(execution.took)

    def tell(self) -> None:
        """Tell what has gathered."""
        claims, waits, completed, others = self._claims, self._waits, self._completed, self._others
        self._forget()
        if claims:
            emit("tasks.claimed", tasks=claims, waits=self._by_group(waits))
        if completed or others:
            ends = {(name, _COMPLETED.value): took for name, took in completed.items()}
            emit("executions.ended", ends=ends | others)

    def _by_group(self, waits: Mapping[str, list[float]]) -> Mapping[str, list[float]]:
        weights = self._steering.config.weights
        groups: defaultdict[str, list[float]] = defaultdict(list)
        for label_set, seconds in waits.items():
            groups[STRICT if label_set == STRICT else group_of(label_set.split(","), weights)] += seconds
        return groups

    async def step(self) -> float:
        """Tell how busy this worker is; returns the pause until then, in seconds."""
        self.tell()
        if is_watched("worker.measured"):
            slots = self._slots
            cap = strict_cap(slots.concurrency, self._steering.max_strict_percentage)
            emit(
                "worker.measured",
                running=slots.running,
                slots=slots.concurrency,
                unwritten=len(slots) - slots.running,
                strict_running=slots.strict,
                strict_cap=cap,
                strict_saturation=slots.strict / cap if cap else 0.0,
                pool_in_use=self._pool.get_size() - self._pool.get_idle_size(),
                pool_size=self._pool.get_max_size(),
            )
        return INTERVAL


def outcome_of(transition: Transition) -> str:
    """What an execution came to, in a word: a status where that is its end, else how it was put back."""
    if transition.status.is_terminal or transition.status is TaskStatus.PAUSED:
        return transition.status.value
    if transition.failed_execution:
        return EventKind.RETRIED
    return EventKind.SNOOZED if transition.event is EventKind.SNOOZED else EventKind.RELEASED
