"""Cron slots: whoever looks first makes a slot's row and its task, in one transaction; the others see it."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from asynctaskd.daemon.process import this_process
from asynctaskd.errors import InvalidInputError, InvalidPayloadError
from asynctaskd.postgres.driver import StatementRefusedError
from asynctaskd.postgres.schedules import DeclaredSchedule
from asynctaskd.scheduling.cron import Timetable
from asynctaskd.scheduling.missed import decide
from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from datetime import datetime

    from asynctaskd.definitions.cron import Cron as Declared
    from asynctaskd.definitions.registry import Registry
    from asynctaskd.postgres.schedules import Decided, DueSchedule, ScheduleStore
    from asynctaskd.scheduling.missed import Due

GRACE = timedelta(seconds=10)
"""A slot that is decided so much later, and a poll interval more, was missed."""

_FORGET_INTERVAL = 3600.0
_BATCH = 1000


class Cron:
    """Run by every worker. Rows that another one has in hand are skipped, so that nobody waits.

    A declared schedule is seen to by workers whose App declares it, any other by all.
    """

    def __init__(self, store: ScheduleStore, app: Registry, *, poll_interval: float) -> None:
        self._store = store
        self._app = app
        self.poll_interval = poll_interval
        self._next_forgetting = 0.0
        # `--once` catches up beside the loop: what one has in hand is locked, and looks settled to the other.
        self._turn = asyncio.Lock()
        self.wake = asyncio.Event()

    async def declare(self) -> None:
        """Write down what the App declares."""
        await self._store.register(schedule_rows(self._app), this_process().id)

    async def step(self) -> float:
        """Decide what is due; returns the seconds to the next look."""
        async with self._turn:
            return await self._step()

    async def _step(self) -> float:
        look = await self._store.look(list(_declared(self._app)), list(self._app.definitions))
        emit("cron.looked", lag=look.lag)
        moved = False
        # Each worker in an order of its own, so that they share the work where much is due.
        for schedule in random.sample(look.due, len(look.due)):
            moved |= await self._decide(schedule, look.now)
        if moved:
            return 0.0
        await self._forget()
        return self.poll_interval if look.next_in is None else min(look.next_in, self.poll_interval)

    async def catch_up(self) -> None:
        """Look until nothing is due that this worker can move on."""
        while not await self.step():
            continue

    async def _decide(self, schedule: DueSchedule, now: datetime) -> bool:
        """Whether this worker moved the schedule on. One that can't be read is paused: the others go on."""
        try:
            return await self._move_on(schedule, now)
        except InvalidPayloadError as error:  # without a private key, say: others may encode it
            emit("schedule.refused", schedule=schedule.name, error=str(error))
            return False
        except (ValueError, InvalidInputError, StatementRefusedError) as error:
            if await self._store.refuse(schedule, str(error)):
                emit("schedule.refused", schedule=schedule.name, error=str(error))
            return False

    async def _move_on(self, schedule: DueSchedule, now: datetime) -> bool:
        timetable = Timetable.read(schedule.expression, schedule.zone, schedule.since)
        if schedule.next_at is None:
            return await self._store.set_first(schedule, timetable.after(schedule.since))
        due = decide(
            timetable,
            schedule.next_at,
            now,
            missed=schedule.missed,
            limit=schedule.missed_limit,
            grace=GRACE + timedelta(seconds=self.poll_interval),
        )
        slots = [self._written(schedule, slot, timetable) for slot in due]
        decided = await self._store.decide(schedule, timetable.after(now), slots)
        _tell(schedule, decided, now)
        return bool(decided)

    def _written(self, schedule: DueSchedule, slot: Due, timetable: Timetable) -> dict[str, Any]:
        definition = self._app.get(schedule.task)
        params: object = None if slot.outcome == "skipped" else schedule.params
        encoding = None if definition is None else definition.encoding
        if definition is not None and slot.outcome != "skipped":
            params = definition.at_slot(params, slot.at.astimezone(timetable.zone))
            params = params if encoding is None else encoding.encoded_value(params, "payload")
        return {
            "slot": slot.at.isoformat(),
            "outcome": slot.outcome,
            "reason": slot.reason,
            "params": params,
            "encoded": encoding is not None,
        }

    async def _forget(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._next_forgetting:
            self._next_forgetting = now + _FORGET_INTERVAL
            while await self._store.forget_slots(_BATCH) == _BATCH:
                continue


def schedule_rows(app: Registry) -> list[DeclaredSchedule]:
    """What an App declares: a schedule has its task's name."""
    return [_schedule_row(name, cron) for name, cron in _declared(app).items()]


def _declared(app: Registry) -> dict[str, Declared]:
    given = ((one.name, one.options.cron) for one in app.definitions.values())
    return {name: cron for name, cron in given if cron is not None}


def _schedule_row(name: str, cron: Declared) -> DeclaredSchedule:
    said = (cron.expression, cron.zone, cron.written_params(), cron.missed, cron.limit, cron.overlap)
    return DeclaredSchedule(name, name, *said, sha256(repr(said).encode()).hexdigest())


def _tell(schedule: DueSchedule, decided: list[Decided], now: datetime) -> None:
    skipped = [one for one in decided if one.outcome == "skipped"]
    for one in decided:
        if one.outcome != "skipped":
            emit(
                f"schedule.{one.outcome}",
                schedule=schedule.name,
                slot=one.slot,
                task_id=one.task_id,
                lag=(now - one.slot).total_seconds(),
            )
    if skipped:
        last = skipped[-1]
        emit(
            "schedule.skipped", schedule=schedule.name, slots=len(skipped), slot=last.slot, reason=last.reason
        )
