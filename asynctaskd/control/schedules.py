"""Schedules that are made, changed and looked at while workers run."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Unpack

from asynctaskd.definitions import rules
from asynctaskd.definitions.cron import OVERLAP, Cron
from asynctaskd.definitions.options import TaskOptions
from asynctaskd.definitions.schedule import checked_params, written_options
from asynctaskd.errors import InvalidInputError, InvalidStateError
from asynctaskd.postgres.caller import Caller
from asynctaskd.scheduling.cron import Timetable
from asynctaskd.scheduling.missed import MAX_LIMIT, MISSED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    import asyncpg

    from asynctaskd.definitions.definition import Definition
    from asynctaskd.definitions.options import RequestOptions
    from asynctaskd.definitions.registry import Registry
    from asynctaskd.postgres.caller import AnyConnection

Missed = Literal["skip", "once", "all"]
Overlap = Literal["skip", "allow"]

_SHOWN_NEXT = 5
_JSON = ("params", "options")


class Schedules(Caller):
    """What operators may do with schedules. A change is in force once its transaction has committed."""

    _app: Registry | None = None

    async def add_schedule(
        self,
        name: str,
        when: Cron | str,
        *,
        task: str | None = None,
        connection: AnyConnection | None = None,
        **options: Unpack[RequestOptions],
    ) -> None:
        """Create a schedule.

        Args:
            name: the schedule's; also the task's, unless `task` says otherwise.
            when: its expression, zone, params and how to go about it; or the expression alone.
            task: the name of the task that each slot enqueues.
            connection: do it in this connection's transaction.
            options: what each task is enqueued with; see TaskOptions. Those of a single task are refused.

        Raises:
            InvalidInputError: something breaks a rule, or the params don't fit the definition.
            InvalidStateError: there is a schedule of that name.
        """
        wanted = when if isinstance(when, Cron) else Cron(when)
        enqueued = rules.name("task", task or name)
        params = checked_params(self._known(enqueued), wanted.params, wanted)
        await self._put(
            rules.name("schedule", name),
            True,
            enqueued,
            wanted.expression,
            wanted.zone,
            params,
            _settings(options),
            wanted.missed,
            wanted.limit,
            wanted.overlap,
            connection=connection,
        )

    async def change_schedule(
        self,
        name: str,
        *,
        expression: str | None = None,
        zone: str | None = None,
        params: object = None,
        missed: Missed | None = None,
        limit: int | None = None,
        overlap: Overlap | None = None,
        connection: AnyConnection | None = None,
        **options: Unpack[RequestOptions],
    ) -> None:
        """Change a schedule; what is left out stays as it is.

        With another expression or zone its slots count from now on. Workers that start with the same
        declaration as before leave it as it is.

        Raises:
            InvalidInputError: something breaks a rule, or nothing is to be changed.
            InvalidStateError: there is no such schedule.
        """
        before = await self._schedule(name, connection)
        if not options and all(one is None for one in (expression, zone, params, missed, limit, overlap)):
            raise InvalidInputError("a change of a schedule must name at least one setting or option")
        if limit is not None and (missed or before["missed"]) != "all":
            raise InvalidInputError(f"limit needs missed='all', got {missed or before['missed']!r}")
        wanted = Cron(expression or before["expression"], zone or before["zone"])
        written = None if params is None else checked_params(self._known(before["task"]), params, wanted)
        if missed is not None:
            rules.one_of("missed", missed, MISSED)
        if limit is not None:
            rules.integer("limit", limit, 1, MAX_LIMIT)
        if overlap is not None:
            rules.one_of("overlap", overlap, OVERLAP)
        await self._put(
            name,
            False,
            None,
            expression,
            zone,
            written,
            _settings(options),
            missed,
            limit,
            overlap,
            connection=connection,
        )

    async def pause_schedule(self, name: str, *, connection: AnyConnection | None = None) -> None:
        """Let a schedule rest: no slots until it is resumed. Raises InvalidStateError: there is none."""
        await self._act("pause_schedule", name, connection)

    async def resume_schedule(self, name: str, *, connection: AnyConnection | None = None) -> None:
        """Let it go on, with slots from now on. Raises InvalidStateError: there is none."""
        await self._act("resume_schedule", name, connection)

    async def remove_schedule(self, name: str, *, connection: AnyConnection | None = None) -> None:
        """Remove a schedule; its ledger stays, and so do its tasks. Raises InvalidStateError: there is none.

        A declared one is there again when a worker starts that declares it: pause it instead.
        """
        await self._act("remove_schedule", name, connection)

    async def run_schedule(self, name: str, *, connection: AnyConnection | None = None) -> int:
        """Enqueue a task of a schedule at once, beside its slots, and return its id.

        Raises:
            InvalidStateError: there is no such schedule.
            InvalidInputError: its task's payloads are encoded, which takes the App: enqueue it there.
        """
        task_id: int | None = await self._value("run_schedule", name, connection=connection)
        if task_id is None:
            raise _no_schedule(name)
        return task_id

    async def list_schedules(
        self, name: str | None = None, *, count: int = _SHOWN_NEXT
    ) -> list[dict[str, Any]]:
        """The schedules by name: a dict of columns each, and `next`, the next slots (UTC).

        `tended` is False where it is declared, but by no live worker: then nobody sees to it. `last_outcome`
        and `last_reason` say what became of its last slot.
        """
        return [_shown(dict(row), count) for row in await self._fetch("list_schedules", name)]

    async def list_slots(self, name: str, *, limit: int = 100) -> list[dict[str, Any]]:
        """What became of a schedule's slots in the last 30 days, the newest first: a dict of columns each.

        `outcome` is `ran`, `late` or `skipped`; `reason` says why; `task_id` is the slot's task.
        """
        return [dict(row) for row in await self._fetch("list_slots", name, limit)]

    def _known(self, task: str) -> Definition[..., Any] | None:
        return None if self._app is None else self._app[task]

    async def _put(self, *arguments: object, connection: AnyConnection | None) -> None:
        await self._value("put_schedule", *arguments, connection=connection)

    async def _act(self, statement: str, name: str, connection: AnyConnection | None) -> None:
        if not await self._value(statement, name, connection=connection):
            raise _no_schedule(name)

    async def _schedule(self, name: str, connection: AnyConnection | None) -> asyncpg.Record:
        rows = await self._fetch("list_schedules", name, connection=connection)
        if not rows:
            raise _no_schedule(name)
        return rows[0]


def _no_schedule(name: str) -> InvalidStateError:
    return InvalidStateError(f"there is no schedule {name!r}; see `asynctaskd cron list`")


def _settings(options: Mapping[str, object]) -> str | None:
    if not options:
        return None
    if options.get("cron") is not None:
        raise InvalidInputError("a schedule's tasks must not have the option cron themselves")
    # What a schedule can't have is refused as at an enqueue with cron.
    given = TaskOptions.requested({**options, "cron": "@hourly"})
    return json.dumps(written_options(replace(given, cron=None)))


def _shown(row: dict[str, Any], count: int) -> dict[str, Any]:
    now = row.pop("now")
    row |= {name: row[name] and json.loads(row[name]) for name in _JSON}
    return row | {"next": [] if row["paused_at"] else _next_slots(row, now, count)}


def _next_slots(row: dict[str, Any], now: datetime, count: int) -> list[datetime]:
    """From the slot that is decided next, which may be overdue."""
    try:
        timetable = Timetable.read(row["expression"], row["zone"], row["since"])
    except ValueError:
        return []
    due: datetime | None = row["next_at"]
    start = row["since"] if due is None else max(due, now)
    first = [due] if due is not None and due < now else []
    if due is not None and due >= now:
        first, start = [due], due
    return [*first, *islice(timetable.slots(start), count)][:count]
