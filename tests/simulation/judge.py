"""The invariants of a run, checked as it happens from what the rows, the handlers and the hooks did.

The judge keeps books of its own and believes none of the counters it judges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asynctaskd.task import EventKind, TaskStatus
from tests.simulation.rows import QUIET_RETRY
from tests.simulation.rules import LEASE, QUARANTINE, SUSPECT
from tests.simulation.scenario import brief

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.simulation.model import Database
    from tests.simulation.rows import Clock, Row, WorkerRow
    from tests.simulation.scenario import TaskSpec
    from tests.simulation.worker import Execution, Worker

_ROUNDING = 1e-6
_RETRY, _SNOOZE, _RELEASE = EventKind.RETRIED, EventKind.SNOOZED, EventKind.RELEASED


class InvariantError(AssertionError):
    """An invariant doesn't hold."""


def is_normal(row: Row) -> bool:
    return not row.priority and row.losses < SUSPECT


class Story:
    """What the judge knows of one task."""

    __slots__ = (
        "came_to",
        "due",
        "executing",
        "failures",
        "holder",
        "hook_failed",
        "hooks",
        "losses",
        "spec",
        "spent",
        "started",
        "status",
        "taken",
        "token",
        "writes",
    )

    def __init__(self, spec: TaskSpec, due: float) -> None:
        self.spec = spec
        self.due = due
        self.token = 0
        self.holder: int | None = None  # whose claim stands
        self.losses = 0
        self.failures = 0
        self.spent = 0  # attempts that weren't given back
        self.status: TaskStatus | None = None
        self.started: list[int] = []  # the claim tokens that handlers ran under
        self.executing: list[Execution] = []
        self.came_to: dict[int, str] = {}  # claim token → what its execution came to
        self.taken: list[int] = []  # the claim tokens that were lost with a lease
        self.hooks = 0
        self.hook_failed = 0
        self.writes: list[int] = []  # the claim tokens under which ctx.transaction() committed


class Judge:
    """Is told everything, and raises at the first thing that must not be."""

    def __init__(self, clock: Clock, limits: dict[str, int], *, traced: bool) -> None:
        self.clock = clock
        self.limits = limits
        self.stories: dict[int, Story] = {}
        self.leases: dict[int, float] = {}  # worker id → when its lease ends
        self.over: set[int] = set()  # workers that said goodbye or were declared lost
        self.owners: dict[int, Worker] = {}
        self.left_nothing: set[int] = set()  # identities that said goodbye in good order
        self.claims: list[int] = []
        self.losses = self.stale_results = 0
        self.tags: dict[str, int] = {}
        self.trace: list[str] | None = [] if traced else None
        self.database: Database

    def note(self, *words: Any) -> None:
        """A line of the trace; callers ask first whether there is one."""
        if self.trace is not None:
            self.trace.append(f"{self.clock.now:9.3f}  " + " ".join(map(str, words)))

    def require(self, holds: bool, *words: Any) -> None:
        if not holds:
            raise InvariantError(" ".join(map(str, words)))

    # -- workers

    def registered(self, worker: WorkerRow) -> None:
        self.leases[worker.id] = worker.expires_at
        if self.trace is not None:
            self.note(f"identity {worker.id} registered by process {worker.process}")

    def renewed(self, worker: WorkerRow) -> None:
        if worker.id in self.over or self.leases[worker.id] <= self.clock.now:
            raise InvariantError(f"lost is final: identity {worker.id} renewed a lease that was over")
        self.leases[worker.id] = self.clock.now + LEASE
        if self.trace is not None:
            self.note(f"identity {worker.id} renewed")

    def gone(self, worker: WorkerRow) -> None:
        """It said goodbye, or its death was seen."""
        self.over.add(worker.id)
        if self.trace is not None:
            self.note(f"identity {worker.id} is gone")

    def declared(self, worker: WorkerRow) -> None:
        """Declared lost because its lease is over."""
        if self.leases[worker.id] > self.clock.now:
            raise InvariantError(f"identity {worker.id} was declared lost while its lease stood")
        self.over.add(worker.id)
        if self.trace is not None:
            self.note(f"identity {worker.id} declared lost")

    # -- rows

    def enqueued(self, row: Row) -> None:
        spec = row.spec
        self.stories[row.id] = Story(spec, row.run_at)
        if spec.unique_tag:
            holder = self.tags.get(spec.unique_tag)
            if holder is not None:
                held = self.stories[holder]
                free = held.status is not None and held.spec.until_finished
                self.require(free, f"tasks {holder} and {row.id} both hold the tag {spec.unique_tag}")
            self.tags[spec.unique_tag] = row.id
        if self.trace is not None:
            self.note(f"task {row.id} enqueued: {row.status}, {brief(spec)}")

    def refused(self, spec: TaskSpec, held_by: int) -> None:
        """A second enqueue was answered with the id of the first."""
        self.require(self.tags.get(spec.unique_tag or "") == held_by, "a unique tag was answered wrongly")

    def claimed(self, row: Row, worker_id: int) -> None:
        story = self.stories[row.id]
        now = self.clock.now
        if story.status is not None:
            raise InvariantError(f"task {row.id} was claimed after its end")
        if row.token <= story.token:
            raise InvariantError(f"task {row.id}: claim token {row.token} follows {story.token}")
        if story.holder is not None:
            raise InvariantError(f"task {row.id} was claimed while identity {story.holder} holds it")
        if worker_id in self.over or self.leases[worker_id] <= now:
            raise InvariantError(f"identity {worker_id} claimed task {row.id} without a lease")
        if now < story.due - _ROUNDING:
            raise InvariantError(f"task {row.id} was claimed before its time, {story.due:.3f}")
        if row.serial_key:
            self._check_line(row)
        for label in row.labels:
            self._check_limit(label)
        story.token = row.token
        story.holder = worker_id
        self.claims.append(row.id)
        if self.trace is not None:
            self.note(f"task {row.id} claimed by identity {worker_id}, token {row.token}")

    def _check_limit(self, label: str) -> None:
        """Never more than the limit, those of lost workers included."""
        most = self.limits.get(label)
        if most is None:
            return
        rows = self.database.tasks.values()
        running = sum(row.status is TaskStatus.RUNNING and label in row.labels for row in rows)
        self.require(running <= most, f"{running} tasks of the label {label} run, its limit is {most}")

    def chosen(
        self,
        taken: list[Row],
        labels: frozenset[str],
        strict: int,
        but: Collection[int],
        new_above: int,
        blocked: Collection[str],
    ) -> None:
        """What one claim chose: no normal task while an urgent one had a slot.

        Above the id `new_above`, that is: before it, one may have become ready behind the cursors.
        """
        if strict <= sum(row.priority > 0 for row in taken) or not any(is_normal(row) for row in taken):
            return
        for row in self.database.tasks.values():
            waits = row.priority and row.status is TaskStatus.PENDING and row.losses < SUSPECT
            may_run = row.labels <= labels and row.labels.isdisjoint(blocked) and row.id not in but
            if waits and may_run and row.id > new_above:
                raise InvariantError(f"strict task {row.id} waits, and normal ones were claimed")

    def _check_line(self, row: Row) -> None:
        for mate in self.database.tasks.values():
            if mate.serial_key == row.serial_key and mate is not row:
                running = self.stories[mate.id].holder is not None
                self.require(not running, f"tasks {mate.id} and {row.id} of one serial key run together")
                # Who was claimed once stays at the head until it ends, or a newcomer takes its place.
                self.require(
                    row.token > 1 or row.place_in_line < mate.place_in_line,
                    f"task {row.id} was claimed before {mate.id}, which is ahead in the line",
                )

    def _close(self, row: Row, token: int, what: str) -> Story:
        story = self.stories[row.id]
        if story.status is not None:
            raise InvariantError(f"task {row.id}: {what} after its end")
        if token != story.token:
            raise InvariantError(f"task {row.id}: {what} under token {token}, the latest is {story.token}")
        if story.holder is None:
            raise InvariantError(f"task {row.id}: {what} without a claim")
        story.holder = None
        return story

    def put_back(self, row: Row, token: int, what: str, delay: float) -> None:
        story = self._close(row, token, what)
        story.due = self.clock.now + delay
        if what == _RELEASE:
            self._check_release(row.id, story, token, delay)
        else:
            self._check_result(row.id, story, token, what)
        if what in (_RETRY, QUIET_RETRY):
            story.failures += 1
            story.spent += 1
        if what in (_RETRY, QUIET_RETRY, _SNOOZE):
            story.losses = 0
        if self.trace is not None:
            self.note(f"task {row.id} put back under token {token}: {what}, for {delay:.3f} s")

    def _check_release(self, task_id: int, story: Story, token: int, delay: float) -> None:
        running = any(one.task.claim_token == token for one in story.executing)
        self.require(not running or delay > 0, f"task {task_id} was released while its handler could go on")

    def _check_result(self, task_id: int, story: Story, token: int, what: str) -> None:
        came_to = story.came_to.get(token)
        if came_to != what:
            raise InvariantError(f"task {task_id}: {what} was written, its execution came to {came_to}")

    def ended(self, row: Row, token: int | None, status: TaskStatus, reason: str | None) -> None:
        story = self.stories[row.id]
        if token is None:
            self.require(story.status is None, f"task {row.id} ended twice")
            self.require(story.holder is None, f"task {row.id} expired while it was running")
        else:
            self._close(row, token, status)
            self._check_result(row.id, story, token, status)
            story.spent += status is not TaskStatus.EXPIRED
        self.require(
            row.attempts == story.spent, f"task {row.id}: {row.attempts} attempts, {story.spent} were spent"
        )
        story.status = status
        if status is TaskStatus.FAILED:
            self._check_failure(row, story, reason)
        if self.trace is not None:
            self.note(f"task {row.id} ended under token {token}: {status}, {reason}")

    def _check_failure(self, row: Row, story: Story, reason: str | None) -> None:
        told = story.hooks + story.hook_failed
        self.require(
            told == story.spec.has_hook, f"task {row.id} failed, and its hook ran {story.hooks} times"
        )
        if reason == "quarantined":
            enough = story.losses >= QUARANTINE
            self.require(enough, f"task {row.id} quarantined after {story.losses} losses")
            return
        story.failures += 1
        limit = story.spec.limit
        self.require(story.failures <= limit, f"task {row.id} failed {story.failures} times of {limit}")
        if reason in ("error", "timeout") and row.deadline is None:
            self.require(story.failures == limit, f"task {row.id} failed after {story.failures} of {limit}")

    def lost(self, row: Row, holder: int) -> None:
        story = self.stories[row.id]
        if holder not in self.over or story.holder != holder:
            raise InvariantError(f"task {row.id} was taken from identity {holder}, which is live")
        story.holder = None
        story.losses += 1
        story.spent += 1
        story.taken.append(story.token)
        self.losses += 1
        story.due = 0.0
        for execution in story.executing:
            awake = execution.worker.frozen_until <= self.clock.now
            self.require(not awake, f"task {row.id} was taken while its handler goes on")
        self.require(row.losses == story.losses, f"task {row.id}: {row.losses} losses, {story.losses} seen")
        owner = self.owners.get(holder)
        if holder in self.left_nothing:
            raise InvariantError(f"task {row.id} was left behind by a worker that said goodbye")
        if owner is not None and owner.is_blameless(holder):
            raise InvariantError(f"task {row.id}: a loss was counted, and only the database was away")
        if self.trace is not None:
            self.note(f"task {row.id} lost by identity {holder}, {story.losses} in a row")

    def woken(self, row: Row) -> None:
        """A worker came that knows its name."""
        self.stories[row.id].due = row.run_at

    def was_taken(self, task_id: int, token: int) -> bool:
        """Whether a claim ended with its worker's lease; noted once."""
        taken = token in self.stories[task_id].taken
        if taken:
            self.stories[task_id].taken.remove(token)
            self.stale_results += 1
        if self.trace is not None:
            self.note(f"task {task_id}: {'stale' if taken else 'repeated'} result under token {token}")
        return taken

    # -- the witness: handlers and hooks

    def started(self, execution: Execution) -> None:
        """A handler begins."""
        task, worker = execution.task, execution.worker
        story = self.stories[task.id]
        if execution.worker_id in self.over or self.leases[execution.worker_id] <= self.clock.now:
            raise InvariantError(f"a handler of task {task.id} was started without a lease")
        if task.claim_token in story.started:
            raise InvariantError(f"task {task.id} was started twice under token {task.claim_token}")
        if story.losses >= QUARANTINE:
            raise InvariantError(f"task {task.id} was executed after three losses in a row")
        if story.spec.deadline is not None and task.deadline and task.claimed_at > task.deadline:
            raise InvariantError(f"task {task.id} was started after its deadline")
        # A suspect is claimed beside the lanes.
        if worker.running > worker.spec.concurrency or worker.strict - worker.suspects > worker.cap:
            raise InvariantError(
                f"process {worker.process} runs {worker.running} tasks, {worker.strict} of them strict"
            )
        if task.losses >= SUSPECT:
            self.require(worker.suspects == 1, f"suspect {task.id} isn't the only one of its worker")
        story.started.append(task.claim_token)
        story.executing.append(execution)
        self._check_alone(story)
        if self.trace is not None:
            self.note(f"process {worker.process} starts task {task.id}, token {task.claim_token}")

    def _check_alone(self, story: Story) -> None:
        """Nobody else is acting on this task; who is frozen acts only when it wakes."""
        if len(story.executing) > 1:
            now = self.clock.now
            acting = [one for one in story.executing if one.worker.frozen_until <= now]
            if len(acting) > 1:
                raise InvariantError(f"task {acting[0].task.id} is executed twice at once")

    def stopped(self, execution: Execution) -> None:
        """A handler has ended, or its process has."""
        self.stories[execution.task.id].executing.remove(execution)
        if self.trace is not None:
            self.note(f"process {execution.worker.process} is through with task {execution.task.id}")

    def awake(self, worker: Worker) -> None:
        """A frozen process goes on, after its first act."""
        for execution in worker.executing():
            self._check_alone(self.stories[execution.task.id])

    def concluded(self, execution: Execution, what: str) -> None:
        """What an execution came to, by its worker's decision."""
        self.stories[execution.task.id].came_to[execution.task.claim_token] = what

    def hook_ran(self, task_id: int, token: int) -> None:
        story = self.stories[task_id]
        story.hooks += 1
        if token != story.token or story.status is not None:
            raise InvariantError(f"the hook of task {task_id} ran for a stale result")
        if self.trace is not None:
            self.note(f"task {task_id}: hook ran")

    def hook_failed(self, task_id: int) -> None:
        self.stories[task_id].hook_failed += 1

    def wrote(self, task_id: int, token: int) -> None:
        """A handler's writes were committed by `ctx.transaction()`."""
        story = self.stories[task_id]
        self.require(not story.writes, f"the writes of task {task_id} were committed twice")
        story.writes.append(token)
        story.came_to[token] = "completed"

    def has_written(self, task_id: int, token: int) -> bool:
        return token in self.stories[task_id].writes

    # -- the whole

    def conserved(self) -> None:
        database = self.database
        if len(database.tasks) + database.finished != len(self.stories):
            raise InvariantError("tasks were lost or doubled")

    def finish(self) -> None:
        """After the end: everything is over, and hooks and statuses agree."""
        for task_id, story in self.stories.items():
            self.require(story.status is not None, f"task {task_id} never ended")
            wanted = story.spec.has_hook and story.status is TaskStatus.FAILED
            told = story.hooks + story.hook_failed
            self.require(
                told == wanted, f"task {task_id} is {story.status}, and its hook ran {story.hooks} times"
            )
            done = story.status is TaskStatus.COMPLETED
            self.require(
                done or not story.writes, f"task {task_id} is {story.status}, and its writes are there"
            )
