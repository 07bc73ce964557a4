"""Where schedules and their ledger are kept, as a worker sees them: one method per statement, thin."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from asynctaskd.postgres.statements import Statements

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class DueSchedule:
    """A schedule whose next slot has come; `next_at` is None where it has to be computed, from `since` on."""

    name: str
    task: str
    expression: str
    zone: str
    params: dict[str, Any]
    missed: str
    missed_limit: int
    since: datetime
    next_at: datetime | None
    revision: int


class Look(NamedTuple):
    """What is due by the database's clock.

    Of the schedules that the worker sees to: `next_in` is in how many seconds the next slot comes, or None;
    `lag` how late the latest is, in seconds.
    """

    now: datetime
    next_in: float | None
    lag: float
    due: list[DueSchedule]


class Decided(NamedTuple):
    """A row of the ledger."""

    slot: datetime
    task_id: int | None
    outcome: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class DeclaredSchedule:
    """A schedule that an App declares; `params` is JSON."""

    name: str
    task: str
    expression: str
    zone: str
    params: str
    missed: str
    missed_limit: int
    overlap: str
    declared_hash: str


class ScheduleStore(Statements):
    """The statements on schedules."""

    long = frozenset({"register_schedules", "forget_slots", "decide_slots"})

    async def look(self, declared: Sequence[str], names: Sequence[str] = ()) -> Look:
        """What is due, for a worker that declares these schedules and knows tasks of these names."""
        rows = await self._fetch("due_schedules", declared, _AT_ONCE, names)
        now, next_in, lag = rows[0][:3]
        return Look(now, next_in, lag or 0.0, [_due(row[3:]) for row in rows if row[3] is not None])

    async def set_first(self, schedule: DueSchedule, slot: datetime | None) -> bool:
        """Say when it is due for the first time; False where it isn't as it was seen, or somebody has it."""
        return bool(await self._value("set_first_slot", schedule.name, schedule.revision, slot))

    async def decide(
        self, schedule: DueSchedule, following: datetime | None, slots: Sequence[dict[str, Any]]
    ) -> list[Decided]:
        """Decide slots and move on; nothing where the schedule isn't as it was seen."""
        rows = await self._fetch(
            "decide_slots",
            schedule.name,
            schedule.revision,
            schedule.next_at,
            following,
            json.dumps(slots, default=str),
        )
        return [Decided(*row) for row in rows]

    async def refuse(self, schedule: DueSchedule, reason: str) -> bool:
        """Pause a schedule that can't be read; False where it isn't as it was seen."""
        return bool(await self._value("refuse_schedule", schedule.name, reason, schedule.revision))

    async def register(self, rows: Sequence[DeclaredSchedule], process: UUID) -> None:
        """Write down what an App declares, and that this process does."""
        ordered = sorted(rows, key=lambda row: row.name)
        if ordered:
            columns = list(map(list, zip(*map(astuple, ordered), strict=True)))
            await self._fetch("register_schedules", *columns)
            await self._fetch("note_declarers", process, columns[0])

    async def forget_slots(self, limit: int = 1000) -> int:
        """Forget what was decided long ago; returns how many slots."""
        return int(await self._value("forget_slots", limit))


def _due(row: Any) -> DueSchedule:
    name, task, expression, zone, params, *rest = row
    return DueSchedule(name, task, expression, zone, json.loads(params), *rest)
