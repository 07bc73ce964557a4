"""Clients without a database, for unit tests: one runs tasks in the test itself, one drops them.

They refuse what a client with an App refuses. What becomes of an execution is decided by the same function as
in a worker; what only a database can show (locks, leases, lanes, labels, SQL) isn't imitated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, Unpack

from asynctaskd.client import completed
from asynctaskd.definitions import rules
from asynctaskd.definitions.batch import dump_many
from asynctaskd.definitions.definition import Definition
from asynctaskd.definitions.enqueuing import Enqueued, checked_requests, request_for
from asynctaskd.definitions.request import TaskRequest
from asynctaskd.errors import InvalidInputError, TaskAlreadyExistsError, TaskNotFoundError
from asynctaskd.scheduling.retry import NO_RETRY
from asynctaskd.scheduling.transitions import decide
from asynctaskd.task import Failed, Task, TaskFailure, TaskStatus
from asynctaskd.testing.attempt import Attempt
from asynctaskd.testing.record import Record

if TYPE_CHECKING:
    from asynctaskd.definitions.options import RequestOptions
    from asynctaskd.definitions.registry import Registry

_WAITING = (TaskStatus.PENDING, TaskStatus.SCHEDULED, TaskStatus.WAITING)


class NullClient:
    """Checks what is enqueued, as a client with an App does, and drops it. Ids count from 1."""

    def __init__(self, app: Registry) -> None:
        self._app = app
        self._ids = count(1)

    async def enqueue(
        self,
        task: Enqueued = None,
        payload: object = None,
        *,
        connection: object = None,
        **options: Unpack[RequestOptions],
    ) -> int:
        """Check a task; nothing will run it. Raises what `Client.enqueue` raises for it."""
        _checked(self._app, task, payload, options)
        return next(self._ids)

    async def enqueue_many(self, requests: Iterable[TaskRequest], *, connection: object = None) -> list[int]:
        """Check tasks; nothing will run them. Raises what `Client.enqueue_many` raises for them."""
        chosen = checked_requests(requests)
        dump_many(chosen, self._app)
        return [next(self._ids) for _ in chosen]


class InMemoryClient:
    """Runs an App's tasks in the test itself: all that are due on `drain()`, or each when it is enqueued.

    Args:
        app: the tasks it knows.
        inline: run a task that is due within `enqueue`, which then raises what its handler raises.
        connection: what failure hooks get as their connection: a mock of yours.
    """

    def __init__(self, app: Registry, *, inline: bool = False, connection: Any = None) -> None:
        self._app = app
        self._inline = inline
        self._connection = connection
        self._records: dict[int, Record] = {}
        self._tags: dict[str, Record] = {}
        self._travelled = timedelta(0)

    @property
    def now(self) -> datetime:
        """The present by this client's clock, in UTC."""
        return datetime.now(UTC) + self._travelled

    def advance(self, duration: str | timedelta) -> None:
        """Move the clock on; `drain()` then runs what has become due."""
        self._travelled += rules.duration("duration", duration)

    async def enqueue(
        self,
        task: Enqueued = None,
        payload: object = None,
        *,
        connection: object = None,
        **options: Unpack[RequestOptions],
    ) -> int:
        """Enqueue one task and return its id; `connection` makes no difference.

        Raises:
            InvalidInputError: what `Client.enqueue` refuses; and `cron`, since there are no schedules here.
            TaskAlreadyExistsError: the unique tag is taken, and `on_conflict="raise"`.
        """
        definition, request, written = _checked(self._app, task, payload, options)
        if request.options.cron is not None:
            raise InvalidInputError("an InMemoryClient has no schedules: test cron with asynctaskd_worker")
        before = len(self._records)
        task_id = self._put(definition, request, written)
        await self._run_inline([task_id], before)
        return task_id

    async def enqueue_many(self, requests: Iterable[TaskRequest], *, connection: object = None) -> list[int]:
        """Enqueue tasks, all or none; returns their ids in the order given. Raises: like `enqueue`."""
        chosen = checked_requests(requests)
        dump_many(chosen, self._app)
        before, records, tags = len(self._records), dict(self._records), dict(self._tags)
        try:
            ids = [self._put(*_checked(self._app, request, None, {})) for request in chosen]
        except BaseException:
            self._records, self._tags = records, tags
            raise
        await self._run_inline(ids, before)
        return ids

    async def get_task(self, task_id: int, *, connection: object = None) -> Task:
        """The task's record; none is ever forgotten, whatever its `keep`.

        Raises:
            TaskNotFoundError: there is none.
        """
        return self._read(self._record(task_id))

    async def list_tasks(
        self,
        *,
        name: str | None = None,
        status: str | None = None,
        labels: Iterable[str] | None = None,
        limit: int = 100,
    ) -> list[Task]:
        """The newest tasks with that name, status and all of those labels; None leaves a condition out."""
        wanted = set(labels or ())
        found = [
            self._read(record)
            for record in reversed(self._records.values())
            if name in (None, record.name)
            and status in (None, record.status)
            and wanted <= set(record.options.labels or ())
        ]
        return found[:limit]

    async def wait(self, task_id: int, timeout: object = None) -> Task:
        """Run what is due until the task has completed, and return its record; the timeout isn't needed.

        Raises:
            TaskFailedError, TaskExpiredError, TaskCancelledError, TaskNotFoundError: as `Client.wait`.
            TimeoutError: it isn't due before some later time; `advance` the clock.
        """
        record = self._record(task_id)
        while not record.status.is_terminal and (due := self._next()) is not None:
            await self._attempt(due)
        if not record.status.is_terminal:
            raise TimeoutError(f"task {record.name!r} ({task_id}) is {record.status}, due at {record.run_at}")
        return completed(self._read(record))

    async def drain(self, *, raise_errors: bool = True) -> int:
        """Run all that is due, and what that enqueues; returns how many executions there were.

        Raises:
            ExceptionGroup: what the handlers of tasks raised that failed for good, once all have run. What
                is retried isn't among it. With `raise_errors=False` the records alone tell.
        """
        executions, errors = 0, list[BaseException]()
        while (record := self._next()) is not None:
            executions += 1
            error = await self._attempt(record)
            if error is not None and record.status is TaskStatus.FAILED:
                errors.append(error)
        if errors and raise_errors:
            raise BaseExceptionGroup("tasks failed for good", errors)
        return executions

    def _put(self, definition: Definition[..., Any], request: TaskRequest, written: str) -> int:
        """Write a task down, unless its unique tag is taken; returns whose id it is."""
        holder = self._tags.get(request.options.unique_tag or "")
        return self._recorded(definition, request, written).id if holder is None else _found(holder, request)

    async def _run_inline(self, ids: Iterable[int], before: int) -> None:
        """Run those that are due, if that is wanted; ids up to `before` were there already."""
        for task_id in ids:
            record = self._records[task_id]
            if self._inline and task_id > before and self._is_due(record):
                error = await self._attempt(record)
                if error is not None:
                    raise error

    def _recorded(self, definition: Definition[..., Any], request: TaskRequest, written: str) -> Record:
        options = replace(definition.options, cron=None).overridden_by(request.options)
        self._check_known("depends_on", options.depends_on or ())
        self._check_known("parent_id", (options.parent_id,) if options.parent_id else ())
        now = self.now
        instant, after = options.deadlines
        run_at = options.run_at if options.delay is None else now + options.delay
        record = Record(
            id=len(self._records) + 1,
            name=request.name,
            payload=written,
            options=options,
            policy=request.options.retry or definition.retry or NO_RETRY,
            created_at=now,
            run_at=run_at,
            deadline=instant if after is None else now + after,
            status=TaskStatus.WAITING,
        )
        self._records[record.id] = record
        if options.unique_tag is not None:
            self._tags[options.unique_tag] = record
        self._settle(record)  # which frees the tag where this is its end already
        return record

    def _next(self) -> Record | None:
        """What is to run next: by priority, then by age."""
        for record in self._records.values():  # in order: who depends on another is younger
            self._settle(record)
        due = filter(self._is_due, self._records.values())
        return min(due, key=lambda record: (-(record.options.priority or 0), record.id), default=None)

    def _is_due(self, record: Record) -> bool:
        self._settle(record)
        return record.status is TaskStatus.PENDING

    def _settle(self, record: Record) -> None:
        """Have the time and its dependencies decide where a task stands that doesn't run."""
        if record.status not in _WAITING:
            return
        hopeless = next((one for one in self._dependencies(record) if _is_lost(one)), None)
        if hopeless is not None:
            record.end_unrun(TaskStatus.CANCELLED, f"dependency {hopeless.id} {hopeless.status}", self.now)
        elif record.deadline is not None and self.now > record.deadline:
            record.end_unrun(TaskStatus.EXPIRED, "deadline passed", self.now)
        elif any(not one.status.is_terminal for one in self._dependencies(record)):
            record.status = TaskStatus.WAITING
        else:
            is_later = record.run_at is not None and record.run_at > self.now
            record.status = TaskStatus.SCHEDULED if is_later else TaskStatus.PENDING
        self._free_tag(record)

    def _dependencies(self, record: Record) -> list[Record]:
        return [self._records[task_id] for task_id in record.options.depends_on or ()]

    async def _attempt(self, record: Record) -> BaseException | None:
        """Run a task once; returns what its handler raised, where that is a failure."""
        claimed = record.claim(self.now)
        attempt = Attempt(self, record, self._app)
        outcome = await attempt.run()
        if isinstance(outcome, Failed) and attempt.error is not None:
            for hook in self._app.error_hooks:
                await hook(self._failure(record, outcome.error, outcome.reason), attempt.error)
        record.end(decide(outcome, claimed, record.policy, self.now, _without_jitter), self.now)
        if record.status is TaskStatus.FAILED:
            await self._tell(record)
        self._free_tag(record)
        await asyncio.sleep(0)  # so that a timeout of the test's gets through to handlers that never wait
        return attempt.error if isinstance(outcome, Failed) else None

    def _free_tag(self, record: Record) -> None:
        if record.status.is_terminal and record.options.unique_until == "finished":
            self._tags.pop(record.options.unique_tag or "", None)

    async def _tell(self, record: Record) -> None:
        """Call the failure hooks; what they raise is for the test to see."""
        definition, failure = self._app[record.name], self._failure(record, record.error, record.reason)
        if definition.failure_hook is not None:
            await definition.failure_hook(definition.bind(record.payload), failure, self._connection)
        if definition.options.on_failed is not None and not record.is_failure_task:
            await self._enqueue_failure_task(record, definition.options.on_failed)
        for hook in self._app.failure_hooks:
            await hook(failure, self._connection)

    async def _enqueue_failure_task(self, failed: Record, name: str) -> None:
        definition = self._app[name]
        written = definition.failure_payload(failed.id)
        request = TaskRequest(name, metadata={"failure_of": failed.id})
        self._recorded(definition, request, written).is_failure_task = True

    def _read(self, record: Record) -> Task:
        """The record as a client with this App reads it: through the definition's codec, if it has one."""
        encoding = self._app[record.name].encoding
        return record.task() if encoding is None else encoding.read(record.task())

    def _failure(self, record: Record, error: str | None, reason: str | None) -> TaskFailure:
        return TaskFailure(
            task_id=record.id,
            name=record.name,
            attempts=record.attempts,
            max_attempts=record.policy.max_attempts,
            error=error or "",
            reason=reason or "",
            payload=self._read(record).payload,
        )

    def _check_known(self, option: str, task_ids: Iterable[int]) -> None:
        for task_id in task_ids:
            if task_id not in self._records:
                raise InvalidInputError(f"{option} {task_id} is not a task")

    def _record(self, task_id: int) -> Record:
        try:
            return self._records[task_id]
        except KeyError:
            raise TaskNotFoundError(f"there is no task {task_id}", task_id=task_id) from None


def _checked(
    app: Registry, task: Enqueued, payload: object, options: RequestOptions
) -> tuple[Definition[..., Any], TaskRequest, str]:
    """The definition, the request, and its payload as it is stored."""
    given, request = request_for(app, task, payload, options)
    definition = app[request.name] if given is None else given
    if request.options.serial_id is not None and not (
        request.options.serial_key or definition.options.serial_key
    ):
        raise InvalidInputError("serial_id needs a serial_key")
    return definition, request, definition.dump(request.payload)


def _found(holder: Record, request: TaskRequest) -> int:
    if request.options.on_conflict == "raise":
        raise TaskAlreadyExistsError(
            f"unique_tag {request.options.unique_tag!r} is taken by task {holder.id}", task_id=holder.id
        )
    return holder.id


def _is_lost(dependency: Record) -> bool:
    return dependency.status.is_terminal and dependency.status is not TaskStatus.COMPLETED


def _without_jitter() -> float:
    """The middle of what a policy allows: tests say when they move the clock on."""
    return 0.5
