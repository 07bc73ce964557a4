"""Looking around: tasks by filter, counts, what ended of late and who is related to whom.

Each question has a price that doesn't grow with how many tasks there are. What can't be answered at that
price is answered in part, and the answer says so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import UUID

from asynctaskd.postgres.caller import Caller
from asynctaskd.task import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# Counted no farther than this; beyond, the database's own estimate will do.
_COUNTED = 10_000

_RELATED = 50
_LOOKED_AT_FOR_CHILDREN = 5000

_INSTANTS = ("run_at", "claimed_at", "finished_at", "created_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks; what is left empty is no condition.

    Attributes:
        ids: one of these, and `statuses`: in one of these.
        name: of exactly this name.
        labels: with all of these labels, and all of these `tags`.
        unique_tag: with this one, whoever holds it now first.
        since: enqueued at this time or later, and `until`: before that one.
    """

    ids: tuple[int, ...] = ()
    statuses: tuple[TaskStatus, ...] = ()
    name: str | None = None
    labels: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    unique_tag: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """The conditions that are given."""
        instants = {"since": self.since, "until": self.until}
        given = {
            "ids": list(self.ids),
            "statuses": list(self.statuses),
            "name": self.name,
            "labels": list(self.labels),
            "tags": list(self.tags),
            "unique_tag": self.unique_tag,
            **{key: value and value.isoformat() for key, value in instants.items()},
        }
        return {key: value for key, value in given.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLine:
    """A task as a list shows it: nothing that its handler was given or has said."""

    id: int
    status: TaskStatus
    name: str
    labels: Sequence[str]
    tags: Sequence[str]
    unique_tag: str | None
    priority: int
    attempts: int
    max_attempts: int | None
    reason: str | None
    worker_id: UUID | None
    parent_id: int | None
    run_at: datetime | None
    claimed_at: datetime | None
    finished_at: datetime | None
    created_at: datetime


Hit = TypeVar("Hit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Generic[Hit]):
    """A part of the tasks that fit a filter, or of their ids, the newest first.

    Attributes:
        looked: how many records were looked at to find them.
        newest: the place of the first one; None where none was found.
        next: the place after which to look for more; None where there are no more.
        is_full: whether as many were found as were asked for. If it isn't, and there is a `next`, the time
            was over.
    """

    tasks: Sequence[Hit]
    looked: int
    newest: int | None
    next: int | None
    is_full: bool


@dataclass(frozen=True, slots=True)
class Count:
    """How many tasks; where `is_estimate`, about so many."""

    number: int
    is_estimate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPulse:
    """What has ended in a group of late. Times are in seconds, None where nothing is known.

    Attributes:
        steps: how many ended in each of the steps of the pulse, and `failures` how many of these failed.
        waited: how long half of them had waited at most, and `waited_p95` all but a twentieth.
        took_p95: how long all but a twentieth of the executions took at most.
    """

    name: str
    ended: int = 0
    failed: int = 0
    waited: float | None = None
    waited_p95: float | None = None
    took_p95: float | None = None
    steps: Sequence[int] = ()
    failures: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """What has ended of late, from `since` to `at`, by group."""

    at: datetime
    since: datetime
    groups: Mapping[str, GroupPulse] = field(default_factory=dict[str, GroupPulse])

    @property
    def seconds(self) -> float:
        """How long that is."""
        return max((self.at - self.since).total_seconds(), 0.001)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relative:
    """A task that another one is related to; without name and status where its record is forgotten.

    Attributes:
        relation: `ancestor`, `child`, `needs` (it depends on this one) or `needed by`.
    """

    relation: str
    id: int
    name: str | None
    status: TaskStatus | None


class Browsing(Caller):
    """What somebody asks who looks around, and not for a certain task."""

    async def search_tasks(
        self, wanted: TaskFilter, *, after: int | None = None, limit: int = 50, budget: timedelta
    ) -> Found[TaskLine]:
        """The newest tasks that fit a filter, or as many as are found in that time.

        Args:
            after: the `next` of a former answer to the same filter.
            limit: tasks at most.
            budget: how long to look.
        """
        arguments = json.dumps(wanted.as_json()), after, limit + 1, budget, True
        return _found(json.loads(await self._value("search_tasks", *arguments)), limit, _line)

    async def select_tasks(
        self, wanted: TaskFilter, *, after: int | None = None, limit: int, budget: timedelta
    ) -> Found[int]:
        """The same, but their ids alone: of many."""
        arguments = json.dumps(wanted.as_json()), after, limit + 1, budget, False
        return _found(json.loads(await self._value("search_tasks", *arguments)), limit, itemgetter("id"))

    async def count_tasks(self) -> dict[TaskStatus, Count]:
        """How many tasks there are, by status: exactly up to ten thousand, estimated above."""
        counts = json.loads(await self._value("count_tasks", _COUNTED))
        return {status: Count(*counts[status]) for status in TaskStatus}

    async def pulse(self, span: timedelta, *, steps: int, weighted: Sequence[str]) -> Pulse:
        """What has ended within `span`, or since as long ago as is still cheap to read.

        Args:
            steps: into how many parts of one length that time is cut.
            weighted: the labels that make groups.
        """
        answer = json.loads(await self._value("pulse", span, steps, list(weighted)))
        return Pulse(
            at=datetime.fromisoformat(answer["at"]),
            since=datetime.fromisoformat(answer["since"]),
            groups={one["name"]: _group(one, answer["steps"], steps) for one in answer["groups"]},
        )

    async def relatives(self, task_id: int) -> list[Relative]:
        """Whom a task is related to, at most 50 of each relation.

        Of its children that have ended, those are found whose ids are among the next 5,000.
        """
        rows = await self._fetch("relatives", task_id, _RELATED, _LOOKED_AT_FOR_CHILDREN)
        return [
            Relative(
                relation=row["relation"],
                id=row["id"],
                name=row["name"],
                status=row["status"] and TaskStatus(row["status"]),
            )
            for row in rows
        ]


def _found(answer: Mapping[str, Any], limit: int, hit_of: Callable[[Mapping[str, Any]], Hit]) -> Found[Hit]:
    rows = answer["tasks"]
    is_full = len(rows) > limit
    return Found(
        tasks=[hit_of(row) for row in rows[:limit]],
        looked=answer["looked"],
        newest=rows[0]["place"] if rows else None,
        next=rows[limit - 1]["place"] if is_full else answer["next"],
        is_full=is_full,
    )


def _line(row: Mapping[str, Any]) -> TaskLine:
    facts = {name: row[name] for name in TaskLine.__slots__ if name in row}
    facts |= {name: row[name] and datetime.fromisoformat(row[name]) for name in _INSTANTS}
    facts["status"] = TaskStatus(row["status"])
    facts["labels"] = [label for label in row["label_set"].split(",") if label]
    facts["worker_id"] = row["worker_id"] and UUID(row["worker_id"])
    return TaskLine(**facts)


def _group(facts: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], number: int) -> GroupPulse:
    ended, failed = [0] * number, [0] * number
    for one in steps:
        if one["name"] == facts["name"]:
            ended[one["step"]], failed[one["step"]] = one["ended"], one["failed"]
    return GroupPulse(**facts, steps=ended, failures=failed)
