"""A schedule as users write it: when a task is due, and what becomes of slots that are missed or too soon."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal

from asynctaskd.definitions import rules
from asynctaskd.definitions.payload import dump_payload
from asynctaskd.errors import InvalidInputError
from asynctaskd.scheduling.cron import Slot, Timetable
from asynctaskd.scheduling.missed import MAX_LIMIT, MISSED

OVERLAP = ("skip", "allow")


@dataclass(frozen=True, slots=True)
class Cron:
    """When a task is due, for `@app.task(…, cron=…)` and the option `cron` of an enqueue.

    Attributes:
        expression: six fields, seconds first (`0 0 2 * * *` is 02:00 daily); five mean second 0; or
            `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`, or `@every 10m`, counted from when the
            schedule began.
        zone: what the times of day are in, such as `Europe/Vienna`.
        params: the payload: a mapping or a model. A required date or date-time that is left out gets the
            slot's. An enqueue has its own payload, so none here.
        missed: what becomes of slots that nobody was there for: `skip`, `once` (one task for all of them) or
            `all`.
        limit: how many `all` makes up for at most, the latest.
        overlap: `skip` leaves a slot out while the task of the last one is pending or running; `allow`
            doesn't look.

    Raises:
        InvalidInputError: the rule and the value.
    """

    expression: str
    zone: str = "UTC"
    params: Any = None
    missed: Literal["skip", "once", "all"] = "once"
    limit: int = 100
    overlap: Literal["skip", "allow"] = "skip"

    def __post_init__(self) -> None:
        rules.text("cron", self.expression)
        rules.text("zone", self.zone)
        rules.one_of("missed", self.missed, MISSED)
        rules.integer("limit", self.limit, 1, MAX_LIMIT)
        rules.one_of("overlap", self.overlap, OVERLAP)
        self.timetable(datetime.now(UTC))
        self.written_params()

    def timetable(self, since: datetime) -> Timetable:
        """When it is due; `@every` counts from that moment."""
        try:
            return Timetable.read(self.expression, self.zone, since)
        except ValueError as error:
            raise InvalidInputError(str(error)) from None

    def written_params(self) -> str:
        """Its params as JSON text."""
        return dump_payload({} if self.params is None else self.params)

    def preview(self, after: datetime | None = None, *, count: int = 10) -> list[Slot]:
        """The next slots after an aware datetime (now, if left out): `at` (UTC) and `remark`.

        The remark says what a change of the clock did to that slot, in words.
        """
        start = datetime.now(UTC) if after is None else rules.instant("after", after)
        slots: Iterator[Slot] = self.timetable(start).preview(start)
        return list(islice(slots, count))


def declared(option: str, value: object) -> Cron:
    """The rule of the option: a Cron, or its expression."""
    if isinstance(value, Cron):
        return value
    return Cron(rules.text(option, value))


def requested(option: str, value: object) -> Cron:
    """The same at enqueue, where the payload stands beside it."""
    cron = declared(option, value)
    if cron.params is not None:
        raise InvalidInputError("cron must not have params at an enqueue, which has a payload of its own")
    return cron
