"""What happens to tasks, as it happens.

Three sources make one stream. Claims and completions are told by the workers that make them, in notices which
they send only while somebody watches. Everything else that happens to a task is a row of `task_events`, and
what is enqueued is a row of `tasks`: these are found by their ids, whatever the size of the tables.
"""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from asynctaskd.control.overview import Overviews
from asynctaskd.definitions import rules
from asynctaskd.postgres.messages import hearing
from asynctaskd.task import EventKind, TaskStatus

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Mapping, Sequence

    import asyncpg

# In seconds. A look takes longer to come than workers take to tell, see InOrder.
_LOOK_INTERVAL = 0.25
_RENEW_INTERVAL = 5.0

# Of one source and one look; who reads can't follow more.
_MOST_ROWS = 2000

# An id that wasn't there may belong to a transaction that is still open: so many are asked for again, for so
# many seconds.
_MOST_PASSED_OVER = 1000
_PATIENCE = 60.0

_ENQUEUED = "enqueued"
_CLAIMED = "claimed"
_PROGRESS = "progress"
_LEFT_OUT = "left_out"

_STATUS_AFTER: Mapping[str, TaskStatus | None] = {
    _CLAIMED: TaskStatus.RUNNING,
    _PROGRESS: TaskStatus.RUNNING,
    TaskStatus.COMPLETED: TaskStatus.COMPLETED,
    EventKind.RETRIED: TaskStatus.SCHEDULED,
    EventKind.SNOOZED: TaskStatus.SCHEDULED,
    EventKind.FAILED: TaskStatus.FAILED,
    EventKind.QUARANTINED: TaskStatus.FAILED,
    EventKind.LEASE_LOST: TaskStatus.PENDING,
    EventKind.RELEASED: TaskStatus.PENDING,
    EventKind.RESUMED: TaskStatus.PENDING,
    EventKind.RETRIED_BY_OPERATOR: TaskStatus.PENDING,
    EventKind.CANCELLED: TaskStatus.CANCELLED,
    EventKind.PAUSED: TaskStatus.PAUSED,
    EventKind.EXPIRED: TaskStatus.EXPIRED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEvent:
    """Something that happened to a task.

    Attributes:
        at: when, by the database's clock.
        kind: `enqueued`, `claimed`, `progress`, `completed`, one of the kinds of `task_events`, or
            `left_out`: so many events (`detail["events"]`) came too fast to be told one by one.
        task_id: the task; None where events were left out, as everything about a task is then.
        name: its name; None where its record is gone already.
        status: where it stood after that; None where the event changes none.
        attempt: the attempt that was claimed or has completed.
        worker_id: the worker that told of it.
        detail: what is known beside that, such as `error`, `reason` and `delay`; `progress` as it is stored,
            unless that is too long for a notice.
    """

    at: datetime
    kind: str
    task_id: int | None = None
    name: str | None = None
    labels: Sequence[str] = ()
    status: TaskStatus | None = None
    attempt: int | None = None
    worker_id: UUID | None = None
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Watching(Overviews):
    """A stream of what happens to tasks."""

    async def watch(
        self,
        *,
        name: str | None = None,
        labels: Collection[str] = (),
        status: Collection[str] = (),
    ) -> AsyncGenerator[TaskEvent, None]:
        """What happens to tasks from now on, until the iterator is closed.

        Args:
            name: only tasks of this name.
            labels: only tasks with all of these labels.
            status: only events after which a task has one of these statuses.

        Raises:
            InvalidInputError: there is no such status.
            ConfigError: a pooler stands between, so that no worker can be heard.
            DatabaseUnavailableError: the database can't be reached any more.
        """
        wanted = _Filter(name, frozenset(labels), frozenset(rules.status("status", one) for one in status))
        heard, told = _Heard(), InOrder()
        async with (
            self._listening(f"{self._schema}_task_events", hearing({"task_events": heard.put})),
            self._watching("events") as renew,
        ):
            [(newest_task, newest_event)] = await self._fetch("newest_ids")
            tasks, events = Cursor(newest_task), Cursor(newest_event)
            renewed = -_RENEW_INTERVAL
            loop = asyncio.get_running_loop()
            while True:
                if loop.time() >= renewed + _RENEW_INTERVAL:
                    await renew()
                    renewed = loop.time()
                found = heard.take()
                found += tasks.take(await self._rows("new_tasks", tasks), _enqueued)
                found += events.take(await self._rows("new_events", events), _happened)
                for event in filter(wanted.admits, told.take(found)):
                    yield event
                await asyncio.sleep(_LOOK_INTERVAL)

    async def _rows(self, statement: str, cursor: Cursor) -> list[asyncpg.Record]:
        return await self._fetch(statement, cursor.last, _MOST_ROWS, cursor.passed_over())


@dataclass(frozen=True, slots=True)
class _Filter:
    name: str | None
    labels: frozenset[str]
    statuses: frozenset[TaskStatus]

    def admits(self, event: TaskEvent) -> bool:
        if event.task_id is None:
            return True
        return (
            (self.name is None or event.name == self.name)
            and self.labels <= set(event.labels)
            and (not self.statuses or event.status in self.statuses)
        )


class _Heard:
    """What workers have told."""

    def __init__(self) -> None:
        self._events: list[TaskEvent] = []

    def put(self, params: dict[str, Any]) -> None:
        with suppress(KeyError, TypeError, ValueError):  # a message only tells; what it means stands in rows
            worker_id = UUID(params["worker_id"])
            self._events += [_told(worker_id, facts) for facts in params["events"]]
            if params["left_out"]:
                self._events.append(_left_out(params["left_out"], self._events[-1].at, worker_id))

    def take(self) -> list[TaskEvent]:
        events, self._events = self._events, []
        return events


class InOrder:
    """Holds events back until the next look: a row may be found before a worker tells what came before it."""

    def __init__(self) -> None:
        self._held: list[TaskEvent] = []

    def take(self, found: Sequence[TaskEvent]) -> Sequence[TaskEvent]:
        """What was found at the look before, and what is found now and belongs before that."""
        last = max(map(_in_order, self._held), default=None)
        events = sorted([*self._held, *found], key=_in_order)
        due = bisect_right(events, last, key=_in_order) if last else 0
        self._held = events[due:]
        return events[:due]


class Cursor:
    """How far the ids of a table have been read, and which of them may still appear."""

    def __init__(self, last: int) -> None:
        self.last = last
        self._passed_over: dict[int, float] = {}

    def passed_over(self) -> list[int]:
        """Ids that weren't there, though later ones were."""
        now = asyncio.get_running_loop().time()
        while self._passed_over:
            first = next(iter(self._passed_over))
            if now - self._passed_over[first] < _PATIENCE and len(self._passed_over) <= _MOST_PASSED_OVER:
                break
            del self._passed_over[first]
        return list(self._passed_over)

    def take(self, rows: Sequence[asyncpg.Record], event_of: Any) -> list[TaskEvent]:
        """The events of rows that weren't seen before; what is older than a full look is left out."""
        ids = [row["id"] for row in rows]
        newer = [one for one in ids if one > self.last]
        events: list[TaskEvent] = [event_of(row) for row in rows]
        for one in ids:
            self._passed_over.pop(one, None)
        if not newer:
            return events
        first = self.last + 1
        if len(newer) == _MOST_ROWS and min(newer) > first:
            events.append(_left_out(min(newer) - first, min(event.at for event in events)))
            first = min(newer)
        now = asyncio.get_running_loop().time()
        missing = set(range(max(first, max(newer) - _MOST_PASSED_OVER), max(newer))).difference(newer)
        self._passed_over |= dict.fromkeys(sorted(missing), now)
        self.last = max(newer)
        return events


def _in_order(event: TaskEvent) -> tuple[datetime, int]:
    return event.at, event.task_id or 0


def _told(worker_id: UUID, facts: Sequence[Any]) -> TaskEvent:
    kind, task_id, name, label_set, attempt, at, *detail = facts
    return TaskEvent(
        at=datetime.fromtimestamp(at, UTC),
        kind=kind,
        task_id=task_id,
        name=name,
        labels=tuple(filter(None, label_set.split(","))),
        status=_STATUS_AFTER.get(kind),
        attempt=attempt,
        worker_id=worker_id,
        detail=detail[0] if detail else {},
    )


def _enqueued(row: asyncpg.Record) -> TaskEvent:
    status = TaskStatus(row["status"])
    waits = status in (TaskStatus.SCHEDULED, TaskStatus.WAITING, TaskStatus.PAUSED)
    return TaskEvent(
        at=row["created_at"],
        kind=_ENQUEUED,
        task_id=row["id"],
        name=row["name"],
        labels=tuple(row["labels"]),
        status=status if waits else TaskStatus.PENDING,  # what it has come to since then is told by itself
    )


def _happened(row: asyncpg.Record) -> TaskEvent:
    return TaskEvent(
        at=row["at"],
        kind=row["kind"],
        task_id=row["task_id"],
        name=row["name"],
        labels=tuple(row["labels"] or ()),
        status=_STATUS_AFTER.get(row["kind"]),
        detail=json.loads(row["detail"] or "{}"),
    )


def _left_out(number: int, at: datetime, worker_id: UUID | None = None) -> TaskEvent:
    return TaskEvent(at=at, kind=_LEFT_OUT, worker_id=worker_id, detail={"events": number})
