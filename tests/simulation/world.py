"""The scheduler: which event comes next, what gets lost on its way, and when a world is over."""

from __future__ import annotations

from heapq import heappop, heappush
from random import Random
from typing import TYPE_CHECKING, Any

from asynctaskd.task import TaskStatus
from tests.simulation.judge import InvariantError, Judge
from tests.simulation.model import Database
from tests.simulation.process import OUTAGE, ProcessGoneError
from tests.simulation.rows import PENDING, Clock, Row
from tests.simulation.rules import CALL_TIMEOUT, DOUBT, LEASE
from tests.simulation.scenario import NAMES, TRAPS, Fault, Scenario, TaskSpec
from tests.simulation.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

# After the last fault: long enough for losses in a row, and for a task that waits to be known by name.
_PATIENCE = 25 * LEASE
_STEPS_AT_MOST = 20_000

# Those of a worker that its lease's thread does, stalled or not.
_IN_LEASE_THREAD = frozenset(
    {
        "_enter",
        "_renew",
        "in_thread",
        "_register_again",
        "_registered_again",
        "_look_again",
        "crash",
        "_wake_up",
    }
)


class World:
    """One run of a scenario."""

    def __init__(
        self, scenario: Scenario, *, broken: frozenset[str] = frozenset(), traced: bool = False
    ) -> None:
        self.scenario = scenario
        self.broken = broken
        self.chance = Random(scenario.seed ^ 0x5EED).random
        self.clock = Clock()
        self.judge = Judge(self.clock, scenario.limits, traced=traced)
        self.database = Database(self.clock, self.judge, self._announce, broken, scenario.look_seconds)
        self.judge.database = self.database
        self.heap: list[tuple[float, int, Worker | None, int, Any, Any]] = []
        self.pushed = 0
        self.processes = 0
        self.generation = 0  # of connections: a restart ends them all
        self.down_until = 0.0
        self.to_come = len(scenario.tasks)
        self.workers = [Worker(self, spec) for spec in scenario.workers]

    # -- the scheduler

    def push(
        self, delay: float, worker: Worker | None, act: Callable[[Any], None], subject: Any = None
    ) -> None:
        """Let something happen after `delay` seconds, unless the worker's process is gone by then."""
        self.pushed += 1
        epoch = worker.epoch if worker else 0
        heappush(self.heap, (self.clock.now + delay, self.pushed, worker, epoch, act, subject))

    def run(self) -> None:
        """Until every task has ended; raises where an invariant doesn't hold."""
        self._begin()
        steps = 0
        end = self.scenario.quiet_from + _PATIENCE
        heap, clock, judge = self.heap, self.clock, self.judge
        while self.to_come or self.database.tasks:
            now, _, worker, epoch, act, subject = heappop(heap)
            if worker is not None and self._is_held_up(now, worker, epoch, act, subject):
                continue
            clock.now = now
            try:
                act(subject)
            except ProcessGoneError:
                pass
            judge.conserved()
            steps += 1
            if now > end or steps > _STEPS_AT_MOST:
                raise InvariantError(f"tasks {sorted(self.database.tasks)} don't come to an end")
        judge.finish()
        self.steps = steps

    def tally(self) -> dict[str, int]:
        """What there was to judge."""
        stories = self.judge.stories.values()
        return {
            "steps": self.steps,
            "tasks": len(stories),
            "claims": len(self.judge.claims),
            "executions": sum(len(story.started) for story in stories),
            "losses": self.judge.losses,
            "stale_results": self.judge.stale_results,
            "hooks": sum(story.hooks for story in stories),
            "completed": sum(story.status is TaskStatus.COMPLETED for story in stories),
            "faults": len(self.scenario.faults),
        }

    def _begin(self) -> None:
        for worker in self.workers:
            self.push(worker.spec.starts_at, worker, worker.boot)
            if worker.spec.names != frozenset(NAMES):
                self.push(self.scenario.quiet_from, None, self._upgrade, worker)
        for spec in self.scenario.tasks:
            self.push(spec.at, None, self._enqueue, spec)
        for fault in self.scenario.faults:
            self.push(fault.at, None, self._strike, fault)

    def _is_held_up(self, now: float, worker: Worker, epoch: int, act: Any, subject: Any) -> bool:
        """Whether the process is gone, or does this only later."""
        if worker.epoch != epoch:
            return True
        until = worker.frozen_until
        if until <= now:
            if not epoch or worker.stalled_until <= now or act.__name__ in _IN_LEASE_THREAD:
                return False
            until = worker.stalled_until
        self.pushed += 1
        heappush(self.heap, (until, self.pushed, worker, epoch, act, subject))
        return True

    # -- the database, and the way to it

    @property
    def _is_up(self) -> bool:
        return self.down_until <= self.clock.now

    def reaches(self, worker: Worker) -> bool:
        return self._is_up and worker.cut_off_until <= self.clock.now and not worker.traps

    def call(
        self,
        worker: Worker,
        statement: Callable[..., Any],
        arguments: tuple[Any, ...],
        then: Callable[[Any, Any], None],
        context: Any = None,
    ) -> None:
        """Execute a statement, then call `then(result, context)`; its result may be OUTAGE."""
        if worker.traps:
            self._spring(worker, statement, arguments, then, context)
        elif not self._is_up:
            self._answer(worker, 0.05, then, OUTAGE, context)
        elif worker.cut_off_until > self.clock.now:
            self._answer(worker, CALL_TIMEOUT, then, OUTAGE, context)
        else:
            result = statement(*arguments)
            self._answer(worker, 0.002 + 0.2 * self.chance() ** 4, then, result, context)

    def _answer(self, worker: Worker, delay: float, then: Any, result: Any, context: Any) -> None:
        reply = _Reply(self, worker, then, result, context)
        self.push(delay, worker, reply.in_thread if then.__name__ in _IN_LEASE_THREAD else reply.in_loop)

    def _spring(self, worker: Worker, statement: Any, arguments: Any, then: Any, context: Any) -> None:
        kind, seconds = worker.traps.pop()
        worker.is_disturbed = True
        reachable = self._is_up and worker.cut_off_until <= self.clock.now
        if not reachable or kind == "refuse":
            self._answer(worker, 0.05, then, OUTAGE, context)
        elif kind == "crash before":
            worker.crash()
        elif kind == "die in flight":
            self.push(min(seconds, 0.9 * DOUBT), None, self._execute_late, (statement, arguments))
            worker.crash()
        elif kind == "late":
            delay = min(CALL_TIMEOUT + seconds, 0.9 * DOUBT)
            self.push(delay, None, self._execute_late, (statement, arguments))
            self._answer(worker, CALL_TIMEOUT, then, OUTAGE, context)
        else:
            self._lose_answer(worker, kind, seconds, statement(*arguments), then, context)

    def _lose_answer(
        self, worker: Worker, kind: str, seconds: float, result: Any, then: Any, context: Any
    ) -> None:
        if kind == "crash after":
            worker.crash()
        elif kind == "lose reply":
            self._answer(worker, CALL_TIMEOUT, then, OUTAGE, context)
        elif kind == "slow":
            self._answer(worker, min(seconds, 0.98 * CALL_TIMEOUT), then, result, context)
        elif kind == "freeze at reply":
            self._answer(worker, 0.01, then, result, context)
            worker.freeze(seconds)
        else:  # crash at reply
            self.push(0.01, worker, worker.crash)
            self._answer(worker, 0.01, then, result, context)

    def _execute_late(self, late: tuple[Any, Any]) -> None:
        """A statement that nobody waits for any more."""
        statement, arguments = late
        if self._is_up:
            statement(*arguments)

    def _announce(self, row: Row) -> None:
        """A notice for whoever listens; it may get lost, and it may come twice."""
        for worker in self.workers:
            if worker.is_alive and not worker.claiming:
                fate = self.chance()
                if fate > 0.15:
                    self.push(0.01 * fate, worker, worker.hear, row.label_set)
                if fate > 0.95:
                    self.push(0.5, worker, worker.hear, row.label_set)

    def anything_pending(self) -> bool:
        return any(row.status is PENDING for row in self.database.tasks.values())

    def spec_of(self, task_id: int) -> TaskSpec:
        return self.judge.stories[task_id].spec

    # -- who comes and goes

    def new_process(self) -> int:
        self.processes += 1
        return self.processes

    def process_died(self, worker: Worker) -> None:
        if worker.spec.has_parent:
            self.push(0.1, None, self._witness, worker.process)
        self.push(1.0 + 10.0 * self.chance(), worker, worker.boot)

    def _upgrade(self, worker: Worker) -> None:
        """The end of a rolling deployment."""
        worker.is_upgraded = True
        if worker.is_alive:
            worker.is_disturbed = True
            self.push(0.0, worker, worker.stop)

    def _witness(self, process: int) -> None:
        if self._is_up:
            self.database.declare_lost(process)
        else:
            self.push(1.0, None, self._witness, process)

    def _enqueue(self, spec: TaskSpec) -> None:
        if not self._is_up:
            self.push(1.0, None, self._enqueue, spec)
            return
        self.to_come -= 1
        self.database.enqueue(spec)
        if spec.unique_tag and self.chance() < 0.3:
            self.database.enqueue(spec)  # the answer got lost, so it is tried again

    # -- faults

    def _strike(self, fault: Fault) -> None:
        worker = self.workers[fault.worker]
        if self.judge.trace is not None:
            self.judge.note(f"--- {fault.kind}, worker {fault.worker + 1}, {fault.seconds:.3f} s")
        if fault.kind in ("restart", "outage"):
            self._take_down(min(fault.seconds, 3.0) if fault.kind == "restart" else fault.seconds)
        elif worker.is_alive:
            worker.is_disturbed |= fault.kind not in ("stop", "jump")
            self._hit(worker, fault)

    def _hit(self, worker: Worker, fault: Fault) -> None:
        if fault.kind in TRAPS:
            worker.traps = [(fault.kind, fault.seconds)] * fault.times
        elif fault.kind == "crash":
            worker.crash()
        elif fault.kind == "cut off":
            self._cut_off(worker, fault.seconds)
        elif fault.kind == "stop":
            self.push(0.0, worker, worker.stop)  # a signal: it is handled when the process runs
        else:
            {"freeze": worker.freeze, "stall": worker.stall, "jump": worker.jump}[fault.kind](fault.seconds)

    def _take_down(self, seconds: float) -> None:
        self.generation += 1
        self.down_until = self.database.up_since = max(self.down_until, self.clock.now + seconds)

    def _cut_off(self, worker: Worker, seconds: float) -> None:
        worker.cut_off_until = max(worker.cut_off_until, self.clock.now + seconds)


class _Reply:
    """An answer on its way; a connection that breaks meanwhile turns it into an outage."""

    __slots__ = ("context", "generation", "result", "then", "worker", "world")

    def __init__(self, world: World, worker: Worker, then: Any, result: Any, context: Any) -> None:
        self.world = world
        self.worker = worker
        self.then = then
        self.result = result
        self.context = context
        self.generation = world.generation

    def in_loop(self, _: Any) -> None:
        world = self.world
        broken = self.generation != world.generation or self.worker.cut_off_until > world.clock.now
        self.then(OUTAGE if broken else self.result, self.context)

    def in_thread(self, _: Any) -> None:
        self.in_loop(_)
