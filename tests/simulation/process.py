"""A process with a lease: it starts, renews, freezes, and stops in time or is stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asynctaskd.scheduling.leases import LeaseTerm
from tests.simulation.execution import LEASE_LOST, Execution
from tests.simulation.rules import LEASE, RENEW, STALL_LIMIT
from tests.simulation.scenario import NAMES, WorkerSpec

if TYPE_CHECKING:
    from tests.simulation.world import World

OUTAGE = object()
"""What a call returns that failed: its statement may have been committed all the same."""


class ProcessGoneError(Exception):
    """Unwinds what a process was doing when it died."""


class Process:
    """One place for a process: when that dies, another one starts there. `Worker` adds its work."""

    def __init__(self, world: World, spec: WorkerSpec) -> None:
        self.world = world
        self.database = world.database
        self.judge = world.judge
        self.broken = world.broken
        self.spec = spec
        self.clock_offset = spec.clock_offset
        self.epoch = 0
        self.frozen_until = self.cut_off_until = 0.0
        self.traps: list[tuple[str, float]] = []
        self.is_alive = self.is_upgraded = False

    def mono(self) -> float:
        """This machine's monotonic clock."""
        return self.world.clock.now * self.spec.clock_rate + self.clock_offset

    def executing(self) -> list[Execution]:
        return [one for one in self.slots if not one.ended and one.act]

    def is_blameless(self, worker_id: int) -> bool:
        """Whether nothing but the database ever failed this process, which had that identity."""
        return self.is_alive and not self.is_disturbed and worker_id in self.identities

    def _push(self, delay: float, act: Any, subject: Any = None) -> None:
        self.world.push(delay, self, act, subject)

    def _pause(self) -> float:
        return 2.0 + 2.0 * self.world.chance()

    # -- the process

    def boot(self, _: Any = None) -> None:
        self.epoch += 1
        self.process = self.world.new_process()
        self.names = frozenset(NAMES) if self.is_upgraded else self.spec.names
        self.is_alive = True
        self.is_disturbed = False
        self.identities: set[int] = set()
        self.stalled_until = 0.0
        self.worker_id = 0
        self.term: LeaseTerm | None = None
        self.fenced: LeaseTerm | None = None
        self.is_watched = False
        self._begin()
        self._enter()

    def crash(self, _: Any = None) -> None:
        """The process is gone, and its handlers with it; another one starts in its place."""
        for execution in self.executing():
            self.judge.stopped(execution)
        self.is_alive = False
        self.is_upgraded = True  # a rolling deployment: the next process knows every name
        self.epoch += 1
        self.slots = []
        self.frozen_until = 0.0
        self.traps = []
        if self.judge.trace is not None:
            self.judge.note(f"process {self.process} is gone")
        self.world.process_died(self)
        raise ProcessGoneError

    def freeze(self, seconds: float) -> None:
        self.frozen_until = max(self.frozen_until, self.world.clock.now + seconds)
        self._push(seconds, self._wake_up)

    def _wake_up(self, _: Any) -> None:
        if self.leaving:
            self.crash()
        if "slept through" not in self.broken:
            self.look_at_clock()
        self.judge.awake(self)

    def stall(self, seconds: float) -> None:
        """A handler blocks the loop; the lease's thread goes on."""
        self.stalled_until = max(self.stalled_until, self.world.clock.now + seconds)
        if seconds > STALL_LIMIT:
            self._push(STALL_LIMIT, self.crash)

    def jump(self, seconds: float) -> None:
        self.clock_offset += seconds
        self._push(0.0, self._look_again)

    # -- the lease, in a thread of its own

    @property
    def held(self) -> bool:
        """Whether claims may be made, and stand."""
        term = self.term
        return term is not None and term is not self.fenced and term.stands(self.mono())

    def _enter(self, _: Any = None) -> None:
        self.asked_at = self.mono()
        self.world.call(self, self.database.register, (self.process,), self._entered)

    def _entered(self, worker_id: Any, _: Any) -> None:
        if worker_id is OUTAGE:
            self.cut_off_at = self.mono()
            self._push(self._pause(), self._enter)
            return
        self._take_identity(worker_id)
        self._start_loops()

    def _take_identity(self, worker_id: int) -> None:
        self.worker_id = worker_id
        self.identities.add(worker_id)
        self.judge.owners[worker_id] = self
        self._hold()
        self._push(RENEW, self._renew)

    def _renew(self, _: Any = None) -> None:
        self.asked_at = self.mono()
        self.world.call(self, self.database.renew, (self.worker_id,), self._renewed)

    def _renewed(self, renewed: Any, _: Any) -> None:
        if renewed is OUTAGE:
            self._push(self._pause(), self._renew)
        elif renewed:
            self._hold()
            self._push(RENEW, self._renew)
        else:
            self._fence()
            self._register_again()

    def _register_again(self, _: Any = None) -> None:
        self.asked_at = self.mono()
        self.world.call(self, self.database.register, (self.process,), self._registered_again)

    def _registered_again(self, worker_id: Any, _: Any) -> None:
        if worker_id is OUTAGE:
            self._push(self._pause(), self._register_again)
        else:
            self._take_identity(worker_id)

    def _hold(self) -> None:
        was_held = self.held
        asked_at = self.mono() if "lease from the answer" in self.broken else self.asked_at
        self.term = LeaseTerm(asked_at, LEASE * 1.7 if "fence too late" in self.broken else LEASE)
        if not self.is_watched:
            self.is_watched = True
            self._watch(self.term.fence_at)
        if not was_held:
            self._push(0.0, self.step)

    def _watch(self, until: float) -> None:
        self._push((until - self.mono()) / self.spec.clock_rate + 1e-6, self._look_again)

    def _look_again(self, _: Any) -> None:
        self.is_watched = False
        self.look_at_clock()
        now, term = self.mono(), self.term
        if term is not None and now < term.last_at:
            self.is_watched = True
            self._watch(term.fence_at if term.stands(now) else term.last_at)

    def look_at_clock(self) -> None:
        """Stop in time, or be stopped."""
        now, term = self.mono(), self.term
        if term is None or term.stands(now):
            return
        self._fence()
        if now >= term.last_at and self.executing() and "deaf go on" not in self.broken:
            self.crash()

    def _fence(self) -> None:
        """Tell what runs to stop; once for each term."""
        if self.fenced is not self.term:
            self.fenced = self.term
            for execution in self.slots:
                self._interrupt(execution, LEASE_LOST)

    def _interrupt(self, execution: Execution, why: str) -> None:
        execution.has_lost_its_lease |= why is LEASE_LOST
        if execution.interruption is None and not execution.ended and execution.act:
            execution.interruption = why
            if not execution.is_deaf:
                self._push(0.01 + 0.1 * self.world.chance(), self._give_in, execution)
