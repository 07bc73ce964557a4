"""A worker process: the daemon's protocol around its real pure parts.

Each loop of the daemon (lease, claim, finalize, housekeeping) and each execution has at most one statement
under way. What a loop does between two statements is one method here, so a crash can come between any two.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from asynctaskd.daemon.cursors import Cursors
from asynctaskd.scheduling.lanes import LaneState
from asynctaskd.scheduling.leases import may_judge
from asynctaskd.scheduling.transitions import decide
from asynctaskd.task import ClaimedTask, Failed, Outcome, Overdue, TaskStatus, Transition, Unroutable
from tests.simulation.claimer import Claimer
from tests.simulation.execution import (
    COMPLETED,
    FAILED,
    GIVEN_BACK,
    LEFT_BEHIND,
    OUTCOMES,
    RELEASED,
    SHUTDOWN,
    TIMEOUT,
    Execution,
    interrupted,
)
from tests.simulation.permits import Permits
from tests.simulation.process import OUTAGE
from tests.simulation.rows import RAISED, STALE, WRITTEN, kind_of
from tests.simulation.rules import GRACE, LAST_WORDS, LEASE, POLL
from tests.simulation.rules import LEFT_BEHIND as LEFT_BEHIND_FOR
from tests.simulation.scenario import POLICIES


class Worker(Claimer):
    """What a process does beside keeping its lease and claiming: execute, finalize, keep house, stop."""

    def _begin(self) -> None:
        self.slots: list[Execution] = []
        self.running = self.strict = self.suspects = 0
        self.claiming = self.stopping = self.leaving = False
        self.look_everywhere = True
        self.went_ahead = self.was_full = False
        self.ready: set[str] = set()
        self.strict_wait = self.suspects_wait = True
        self.strict_sets: set[str] = set()
        self.suspect_sets: frozenset[str] = frozenset()
        self.cursors = Cursors()
        self.announced: set[str] = set()
        self.lanes = LaneState()
        # Identity → until when a claim of its may come to light, by the database's clock; None: not known
        self.doubted: dict[int, float | None] = {}
        self.permits = Permits(self, self.world.scenario.limits)
        self.may_give_back = False
        self.gathered: list[Execution] = []
        self.finalizing: list[Execution] = []
        self.cut_off_at: float | None = None

    def _start_loops(self) -> None:
        self.world.call(self, self.database.wake_unknown, (self.names,), _ignore)
        self._push(POLL * self.world.chance(), self._tidy)
        self._push(POLL, self._poll)
        self.step()

    # -- execute

    def _start(self, task: ClaimedTask, worker_id: int) -> None:
        execution = Execution(task, self.world.spec_of(task.id), self, worker_id)
        self.slots.append(execution)
        self.running += 1
        self.strict += task.strict
        self.suspects += task.is_suspect
        obstacle = self._obstacle(execution)
        if obstacle is not None:
            self._hand_on(execution, obstacle)
            return
        self._run(execution)
        if self.leaving:
            self._interrupt(execution, SHUTDOWN)

    def _obstacle(self, execution: Execution) -> Outcome | None:
        task = execution.task
        if task.name not in self.names:
            return Unroutable()
        if task.reason == "quarantined":
            return Failed("lost its worker three times", reason="quarantined", fatal=True)
        overdue = task.deadline is not None and task.claimed_at > task.deadline
        return Overdue() if overdue and "deadline ignored" not in self.broken else None

    def _run(self, execution: Execution) -> None:
        spec = execution.spec
        acts = spec.acts
        n = len(self.judge.stories[execution.task.id].started)
        execution.act, seconds = acts[n] if n < len(acts) else ("complete", 1.0)
        self.judge.started(execution)
        if execution.act == "block":
            self.stall(seconds)
        if execution.act.endswith("overrun"):
            seconds += spec.timeout
        if seconds > spec.timeout:
            self._push(spec.timeout, self._time_out, execution)
        self._push(seconds, self._act, execution)

    def _time_out(self, execution: Execution) -> None:
        if not execution.ended:
            self._interrupt(execution, TIMEOUT)

    def _act(self, execution: Execution) -> None:
        if execution.ended:
            return
        if execution.act == "kill":
            self.crash()
        elif execution.act == "transaction":
            execution.committing = True
            self.world.call(
                self,
                self.database.complete_in_transaction,
                (execution.task.id, execution.task.claim_token),
                self._committed,
                execution,
            )
        else:
            self._end(execution, OUTCOMES.get(execution.act, COMPLETED))

    def _give_in(self, execution: Execution) -> None:
        # A commit under way is waited for: what became of it has to be known.
        if not execution.ended and not execution.committing:
            self._end(execution, RELEASED)

    def _committed(self, written: Any, execution: Execution) -> None:
        if written is OUTAGE:
            arguments = (execution.task.id, execution.task.claim_token)
            self.world.call(self, self.database.was_committed, arguments, self._asked, execution)
        else:
            execution.stored = written is WRITTEN
            self._end(execution, COMPLETED if execution.stored else Failed("the lease was lost"))

    def _asked(self, committed: Any, execution: Execution) -> None:
        execution.stored = committed is True
        execution.was_cut_off = not execution.stored
        self._end(execution, COMPLETED if execution.stored else Failed("cut off"))

    def _end(self, execution: Execution, outcome: Outcome) -> None:
        execution.ended = True
        self.judge.stopped(execution)
        self._hand_on(execution, interrupted(execution, outcome))

    def _hand_on(self, execution: Execution, outcome: Outcome) -> None:
        execution.ended = True
        task = execution.task
        self.running -= 1
        self.strict -= task.strict
        self.suspects -= task.is_suspect
        self._put(execution, outcome)
        self._push(0.0, self.step)

    # -- finalize

    def _put(self, execution: Execution, outcome: Outcome) -> None:
        if not execution.stored:
            elapsed = self.mono() - execution.began_at
            now = execution.task.claimed_at + timedelta(seconds=elapsed)
            policy = POLICIES[execution.spec.policy]
            execution.transition = decide(outcome, execution.task, policy, now, self.world.chance)
            self.judge.concluded(execution, kind_of(execution.transition))
            if execution.transition.status is TaskStatus.FAILED and execution.spec.has_hook:
                self._write_with_hook(execution)
                return
        self.gathered.append(execution)
        if not self.finalizing:
            self._push(0.0, self._write)

    def _write(self, _: Any = None) -> None:
        if self.gathered and not self.finalizing:
            self.finalizing, self.gathered = self.gathered, []
            self._finalize([one for one in self.finalizing if not one.stored])

    def _finalize(self, unwritten: list[Execution]) -> None:
        if unwritten:
            self.world.call(
                self, self.database.finalize, (self._items(unwritten),), self._finalized, unwritten
            )
        else:
            self._let_go(self.finalizing)

    def _items(self, executions: list[Execution]) -> list[tuple[int, int, Transition, float]]:
        return [
            (one.task.id, one.task.claim_token, one.transition, self.spec.wall_error) for one in executions
        ]

    def _finalized(self, written: Any, unwritten: list[Execution]) -> None:
        if written is not OUTAGE:
            gone = [one for one in unwritten if one.task.id not in written]
            self._note_stale(gone) if gone else self._let_go(self.finalizing)
            return
        if "unknown is success" in self.broken:
            self._let_go(self.finalizing)
            return
        if "unknown is failure" in self.broken:
            for one in unwritten:
                one.transition = FAILED
        # Saying it again changes nothing where it was written: the claim is spent.
        self._push(self._pause(), self._finalize, unwritten)

    def _note_stale(self, gone: list[Execution]) -> None:
        claims = [(one.task.id, one.task.claim_token) for one in gone]
        self.world.call(self, self.database.note_stale, (claims,), self._noted, gone)

    def _noted(self, noted: Any, gone: list[Execution]) -> None:
        if noted is OUTAGE:
            self._push(self._pause(), self._finalize, gone)
        else:
            self._let_go(self.finalizing)

    def _write_with_hook(self, execution: Execution) -> None:
        task = execution.task
        if "hook apart" in self.broken and not execution.spec.hook_fails:
            arguments = (task.id, task.claim_token)
            self.world.call(self, self.database.run_hook, arguments, self._hook_ran, execution)
        else:
            self._end_with_hook(execution)

    def _hook_ran(self, ran: Any, execution: Execution) -> None:
        if ran is OUTAGE:
            self._push(self._pause(), self._write_with_hook, execution)
        else:
            self._end_with_hook(execution)

    def _end_with_hook(self, execution: Execution) -> None:
        task = execution.task
        arguments = (task.id, task.claim_token, execution.transition, execution.tries)
        self.world.call(self, self.database.end_with_hook, arguments, self._hook_written, execution)

    def _hook_written(self, written: Any, execution: Execution) -> None:
        if written is OUTAGE:
            self._push(self._pause(), self._end_with_hook, execution)
        elif written is RAISED:
            execution.tries += 1
            self._push(0.2 * 2**execution.tries, self._end_with_hook, execution)
        elif written is STALE:
            claims = [(execution.task.id, execution.task.claim_token)]
            self.world.call(self, self.database.note_stale, (claims,), self._found_out, execution)
        else:
            self._let_go([execution])

    def _found_out(self, noted: Any, execution: Execution) -> None:
        if noted is OUTAGE:
            self._push(self._pause(), self._end_with_hook, execution)
        else:
            self._let_go([execution])

    def _let_go(self, executions: list[Execution]) -> None:
        if executions is self.finalizing:
            self.finalizing = []
        for execution in executions:
            self.slots.remove(execution)
            delay = execution.transition.delay
            if delay is not None and delay.total_seconds() < POLL:
                self._push(delay.total_seconds() + 0.01, self._promote_due)
        if self.world.reaches(self) and any(one.spec.serial_key for one in executions):
            self.database.promote_serial()
        self._write()
        self._look()
        self._leave_if_idle()

    # -- housekeeping

    def _promote_due(self, _: Any) -> None:
        self.world.call(self, self.database.promote_due, (), self._promoted)

    def _promoted(self, promoted: Any, _: Any) -> None:
        if promoted is True:
            self._look()

    def _tidy(self, _: Any = None) -> None:
        judging = may_judge(self.mono(), self.cut_off_at, LEASE) or "cut off judges" in self.broken
        self.world.call(self, self.database.tidy, (judging,), self._tidied)

    def _tidied(self, promoted: Any, _: Any) -> None:
        if promoted is OUTAGE:
            self.cut_off_at = self.mono()
            self._push(self._pause(), self._tidy)
            return
        self._push(POLL, self._tidy)
        if promoted:
            self._look()

    # -- stop

    def stop(self, _: Any = None) -> None:
        """The first signal: stop claiming, let executions finish for the grace period."""
        if not self.worker_id:
            self.crash()
        elif not self.stopping:
            self.stopping = True
            self._push(GRACE, self._grace_is_over)
            self._leave_if_idle()

    def _grace_is_over(self, _: Any) -> None:
        for execution in self.slots:
            self._interrupt(execution, SHUTDOWN)
        self._push(LAST_WORDS, self._last_words)

    def _leave_if_idle(self) -> None:
        if self.stopping and not self.slots and not self.leaving:
            self._last_words()

    def _last_words(self, _: Any = None) -> None:
        self.leaving = True
        if not self.claiming:
            self._leave()

    def _leave(self) -> None:
        """Give back what couldn't be stopped or written, and be gone before others may claim it."""
        left = [one for one in self.slots if not one.stored]
        for one in left:
            held_back = not one.ended and "given back at once" not in self.broken
            one.transition = LEFT_BEHIND if held_back else GIVEN_BACK
        if "release skipped" in self.broken:
            left = []
        self.claiming = True
        self._push(0.8 * LEFT_BEHIND_FOR, self.crash)
        self.world.call(self, self.database.finalize, (self._items(left),), self._said_goodbye)

    def _said_goodbye(self, written: Any, _: Any) -> None:
        if written is OUTAGE:
            self.crash()
        if not self.is_disturbed and not self.doubted:
            self.judge.left_nothing.add(self.worker_id)
        self.world.call(self, self.database.stop, (self.worker_id,), self._left)

    def _left(self, _: Any, __: Any) -> None:
        self.crash()


def _ignore(_: Any, __: Any) -> None:
    pass
