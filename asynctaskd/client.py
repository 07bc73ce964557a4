"""Enqueue from any application, in the caller's transaction; ask what became of it."""

from __future__ import annotations

import asyncio
import contextvars
import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from asynctaskd.control.commands import Commands
from asynctaskd.control.explanations import Explanations
from asynctaskd.control.runtime_config import RuntimeConfigs
from asynctaskd.control.schedules import Schedules
from asynctaskd.control.watching import Watching
from asynctaskd.definitions import rules
from asynctaskd.definitions.enqueuing import Enqueue, Enqueued
from asynctaskd.definitions.secrets import hidden, without
from asynctaskd.errors import TaskCancelledError, TaskExpiredError, TaskFailedError
from asynctaskd.postgres.caller import growing_pauses, not_found
from asynctaskd.postgres.records import task_of
from asynctaskd.postgres.sessions import LONG
from asynctaskd.task import Task, TaskStatus
from asynctaskd.telemetry.publishing import publishing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import asyncpg

    from asynctaskd.definitions.options import RequestOptions
    from asynctaskd.definitions.registry import Registry
    from asynctaskd.definitions.request import TaskRequest
    from asynctaskd.postgres.caller import AnyConnection, AnyDatabase

Record = TypeVar("Record", Task, dict[str, Any])

# For so many characters of payloads a call may take another second: a tenth of what was seen.
_SLOWEST = 1_000_000


class Client(Commands, Explanations, RuntimeConfigs, Schedules, Watching):
    """The thin side of asynctaskd: it enqueues and asks, and runs nothing.

    Args:
        database: an asyncpg pool or connection of the caller's, or a URL for a pool of the client's own,
            opened when first needed.
        app: with an App, unknown names and payloads that don't fit are refused before anything is sent;
            without one, an unknown name is accepted and waits until a worker knows it.
        schema: where asynctaskd's tables are.
    """

    def __init__(
        self,
        database: AnyDatabase,
        app: Registry | None = None,
        *,
        schema: str = "asynctaskd",
    ) -> None:
        super().__init__(database, schema=schema)
        self._app = app
        self._watch = _Watch(self)

    async def enqueue(
        self,
        task: Enqueued = None,
        payload: object = None,
        *,
        connection: AnyConnection | None = None,
        **options: Unpack[RequestOptions],
    ) -> int:
        """Enqueue one task and return its id.

        Args:
            task: a name, a definition, a function that the App has registered, or a request
                (`add.request(2, b=3)`), whose options are overridden by those given here. Left out where
                `target` and `method` are given.
            payload: what the handler gets: a mapping or a model. Not with a request, which has its own.
            connection: enqueue on this connection, so in its transaction: both or neither.
            options: see TaskOptions. With `cron`, the schedule of that task's name is created or changed, and
                the id is the one that its next task will have.

        Raises:
            InvalidInputError: name, payload or an option breaks a rule; nothing was written.
            TaskAlreadyExistsError: the unique tag is taken, and `on_conflict="raise"`.
            DatabaseUnavailableError: the database can't be reached; without a transaction of the caller's
                the task may have been enqueued all the same.
        """
        with publishing(task) as publication:
            sent = publication.of(Enqueue.one(self._app, task, payload, options))
            task_id: int = await self._value(sent.statement, *sent.arguments, connection=connection)
            return publication.made(task_id)

    async def enqueue_many(
        self, requests: Iterable[TaskRequest], *, connection: AnyConnection | None = None
    ) -> list[int]:
        """Enqueue tasks in one round trip, all or none; returns their ids in the order given.

        Raises: like `enqueue`.
        """
        with publishing() as publication:
            sent = publication.of(Enqueue.many(self._app, requests))
            limit = LONG + sum(map(len, sent.arguments[1])) / _SLOWEST
            ids: list[int] = await self._value(
                sent.statement, *sent.arguments, connection=connection, limit=limit
            )
            return ids

    async def get_task(self, task_id: int, *, connection: AnyConnection | None = None) -> Task:
        """The task's record.

        Raises:
            TaskNotFoundError: there is none, or it was already forgotten.
        """
        found = await self.get_tasks([rules.task_id("task_id", task_id)], connection=connection)
        if not found:
            raise not_found(task_id)
        return found[0]

    async def get_tasks(
        self, task_ids: Iterable[int], *, connection: AnyConnection | None = None
    ) -> list[Task]:
        """The records of some tasks, in any order; those without one are left out."""
        rows = await self._fetch("get_tasks", rules.task_ids("task_ids", task_ids), connection=connection)
        return list(map(self._task, rows))

    async def list_tasks(
        self,
        *,
        name: str | None = None,
        status: str | None = None,
        labels: Iterable[str] | None = None,
        limit: int = 100,
    ) -> list[Task]:
        """The newest tasks with that name, status and all of those labels; None leaves a condition out."""
        rows = await self._fetch(
            "list_tasks",
            name,
            status and rules.status("status", status),
            None if labels is None else rules.labels("labels", labels),
            rules.integer("limit", limit, 0, rules.MAX_INT64),
        )
        return list(map(self._task, rows))

    async def hide_secrets(self, records: Sequence[Record]) -> list[Record]:
        """The records with `***` in the place of secret fields, as they may be shown.

        Which those are, workers have written to the table `definitions`, and the client's App knows. Their
        values are taken out of error texts too, as far as a worker has left them there.

        Args:
            records: tasks, or schedules of `list_schedules`, whose params become the payloads of tasks.
        """
        names = set(map(_task_of, records))
        rows = await self._fetch("secrets", sorted(names))
        known = {name: json.loads(found) for name, found in rows}
        paths = {name: known.get(name, []) + self._secrets(name) for name in names}
        return [_discreet(record, paths[_task_of(record)]) for record in records]

    def _secrets(self, task: str) -> list[list[str]]:
        definition = None if self._app is None else self._app.get(task)
        return [] if definition is None else definition.secrets

    def _task(self, row: asyncpg.Record) -> Task:
        task = task_of(row)
        definition = None if self._app is None else self._app.get(task.name)
        return task if definition is None or definition.encoding is None else definition.encoding.read(task)

    async def list_workers(self) -> list[dict[str, Any]]:
        """The workers the database knows, newest first: a dict of columns each.

        `stall` is None, or what blocks its event loop: `task_id`, `task`, `seconds`, `stack`.
        """
        rows = [dict(row) for row in await self._fetch("list_workers")]
        return [row | {"stall": row["stall"] and json.loads(row["stall"])} for row in rows]

    async def wait(self, task_id: int, timeout: str | timedelta | None = None) -> Task:
        """Wait until a task has completed, and return its record. However many wait, one query asks for all.

        Args:
            timeout: how long to wait at most; None is for ever. A paused task isn't at its end.

        Raises:
            TaskFailedError: it failed; TaskExpiredError: it wasn't started before its deadline.
            TaskCancelledError: it was cancelled.
            TaskNotFoundError: there is no such task, or its record was forgotten.
            TimeoutError: the time is up.
        """
        limit = None if timeout is None else rules.duration("timeout", timeout).total_seconds()
        async with asyncio.timeout(limit):
            await self._watch.wait(rules.task_id("task_id", task_id))
        return completed(await self.get_task(task_id))

    async def events(self, task_id: int) -> list[dict[str, Any]]:
        """What happened to a task beside its ordinary claims and its completion, in order.

        Each is a dict of `kind`, `claim_token`, `claimed_at`, `at` and `detail` (decoded JSON).
        """
        rows = [dict(row) for row in await self._fetch("list_events", task_id)]
        return [row | {"detail": row["detail"] and json.loads(row["detail"])} for row in rows]

    async def statuses(self, ids: Iterable[int]) -> dict[int, TaskStatus]:
        """Where some tasks stand, by id; those without a record are left out."""
        return {row[0]: TaskStatus(row[1]) for row in await self._fetch("statuses", list(ids))}


class _Watch:
    """Everyone who waits for a task to end, asked for in one query that a single loop repeats."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: dict[int, list[asyncio.Future[None]]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def wait(self, task_id: int) -> None:
        """Until the task is at its end, or has no record."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(task_id, []).append(ended)
        if self._looking is None or self._looking.done():
            # A context of its own: it serves everyone, and doesn't end with the handler that was the first.
            self._looking = asyncio.create_task(self._look(), context=contextvars.Context())
        try:
            await ended
        finally:
            self._leave(task_id, ended)

    async def _look(self) -> None:
        try:
            async for _ in growing_pauses():
                await self._settle()
                if not self._waiting:
                    return
        except Exception as error:  # noqa: BLE001  (it belongs to those who wait)
            for ended in self._everyone():
                ended.set_exception(error)

    async def _settle(self) -> None:
        asked = set(self._waiting)
        statuses = await self._client.statuses(asked)
        for task_id in asked:
            status = statuses.get(task_id)
            if status is None or status.is_terminal:
                for ended in self._waiting.pop(task_id, ()):
                    if not ended.done():
                        ended.set_result(None)

    def _everyone(self) -> list[asyncio.Future[None]]:
        everyone = [ended for waiting in self._waiting.values() for ended in waiting if not ended.done()]
        self._waiting.clear()
        return everyone

    def _leave(self, task_id: int, ended: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(task_id, [])
        if ended in waiting:
            waiting.remove(ended)
        if not waiting:
            self._waiting.pop(task_id, None)
        if not self._waiting and self._looking is not None:
            self._looking.cancel()
            self._looking = None  # it takes a moment to end: who comes meanwhile needs another


def _task_of(record: Task | dict[str, Any]) -> str:
    """Under which name the fields of its payload are declared."""
    name: str = record.name if isinstance(record, Task) else record["task"]
    return name


def _discreet(record: Record, paths: Sequence[Sequence[str]]) -> Record:
    if isinstance(record, Task):
        error = record.last_error and without(record.last_error, record.payload, paths)
        return replace(record, payload=hidden(record.payload, paths), last_error=error)
    return record | {"params": hidden(record["params"], paths)}


def completed(task: Task) -> Task:
    """A task that is at its end, where it has completed; else the error that says how it ended."""
    match task.status:
        case TaskStatus.CANCELLED:
            raise TaskCancelledError(
                f"task {task.name!r} ({task.id}) was cancelled: {task.reason}", task_id=task.id
            )
        case TaskStatus.FAILED | TaskStatus.EXPIRED:
            kind = TaskFailedError if task.status is TaskStatus.FAILED else TaskExpiredError
            raise kind(
                task_id=task.id,
                name=task.name,
                attempts=task.attempts,
                max_attempts=task.max_attempts,
                last_error=task.last_error,
            )
    return task
