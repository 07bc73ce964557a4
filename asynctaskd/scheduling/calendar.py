"""Cron expressions: what may stand in one, and the sets of seconds, minutes, hours and days it means.

What differs from one cron to the next is refused rather than guessed: names for nothing (`R`, `H`, `L`, `W`,
`#`, `?`), ranges that go down, `5/10`, a year.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import NamedTuple

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

MACROS = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
"""Words for common expressions."""

_PART = re.compile(
    r"(?P<first>\*|[0-9]+|[a-z]+)(?:-(?P<last>[0-9]+|[a-z]+))?(?:/(?P<step>[0-9]+))?", re.ASCII
)
_DAY = timedelta(days=1)


class _Field(NamedTuple):
    name: str
    least: int
    most: int
    words: tuple[str, ...] = ()


_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _WEEKDAYS),
)


@dataclass(frozen=True, slots=True)
class Calendar:
    """The days and times of day that an expression names, in no zone.

    Attributes:
        seconds, minutes, hours: in ascending order.
        days: of the month.
        months: 1 to 12.
        weekdays: 0 is Sunday.
        both: whether a day has to be among `days` and `weekdays`; otherwise one of them will do.
        is_fixed: whether neither the minute nor the hour begins with a star.
    """

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    both: bool
    is_fixed: bool

    @classmethod
    def parse(cls, text: str) -> Calendar:
        """Read an expression of six fields (seconds first), of five (second 0), or a word such as `@daily`.

        Raises:
            ValueError: the rule and the value.
        """
        fields = _fields(text)
        sets = [_set(field, given, text) for field, given in zip(_FIELDS, fields, strict=True)]
        seconds, minutes, hours, days, months, weekdays = sets
        calendar = cls(
            tuple(sorted(seconds)),
            tuple(sorted(minutes)),
            tuple(sorted(hours)),
            frozenset(days),
            frozenset(months),
            frozenset(day % 7 for day in weekdays),
            both=fields[3].startswith("*") or fields[5].startswith("*"),
            is_fixed=not fields[1].startswith("*") and not fields[2].startswith("*"),
        )
        if calendar.both and min(days) > max(_LONGEST_MONTHS[month - 1] for month in months):
            raise ValueError(f"no such month has a day {min(days)}, in the cron expression {text!r}")
        return calendar

    def next(self, moment: datetime) -> datetime | None:
        """The first time at or after a naive moment of whole seconds, or None before the calendar ends."""
        time = self._next_time(moment)
        if time is not None and self._has(moment.date()):
            return moment.replace(hour=time[0], minute=time[1], second=time[2])
        day = self._next_day(moment.date())
        if day is None:
            return None
        return datetime(day.year, day.month, day.day, self.hours[0], self.minutes[0], self.seconds[0])  # noqa: DTZ001  (no zone is the point)

    def _has(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (in_month and in_week) if self.both else (in_month or in_week)

    def _next_day(self, day: date) -> date | None:
        try:
            while True:
                day += _DAY
                while day.month not in self.months:
                    day = (day.replace(day=28) + 4 * _DAY).replace(day=1)
                if self._has(day):
                    return day
        except OverflowError:
            return None

    def _next_time(self, moment: datetime) -> tuple[int, int, int] | None:
        """The first time of day at or after a moment's; None where that is over."""
        hour = _from(self.hours, moment.hour)
        if hour is None:
            return None
        if hour > moment.hour:
            return hour, self.minutes[0], self.seconds[0]
        second = _from(self.seconds, moment.second)
        if second is not None and moment.minute in self.minutes:
            return hour, moment.minute, second
        minute = _from(self.minutes, moment.minute + (second is None))
        if minute is not None:
            return hour, minute, self.seconds[0]
        later = _from(self.hours, hour + 1)
        return None if later is None else (later, self.minutes[0], self.seconds[0])


def _from(numbers: tuple[int, ...], least: int) -> int | None:
    place = bisect_left(numbers, least)
    return numbers[place] if place < len(numbers) else None


def _fields(text: str) -> list[str]:
    if text.strip().startswith("@"):
        word = text.strip().lower()
        if word not in MACROS:
            raise ValueError(
                f"a cron word must be one of {', '.join(MACROS)} or '@every 10m', got {text.strip()!r}"
            )
        return MACROS[word].split()
    fields = re.split(r"[ \t]+", text.strip(" \t").lower())
    if len(fields) == len(_FIELDS) - 1:
        return ["0", *fields]
    if len(fields) != len(_FIELDS):
        raise ValueError(
            "a cron expression has six fields (second, minute, hour, day of month, month, day of week), or "
            f"five without the seconds; {text!r} has {len(fields) if text.strip() else 0}"
        )
    return fields


def _set(field: _Field, given: str, text: str) -> set[int]:
    try:
        return {number for part in given.split(",") for number in _numbers(field, part)}
    except ValueError as error:
        raise ValueError(f"{field.name} {error}, in the cron expression {text!r}") from None


def _numbers(field: _Field, part: str) -> range:
    found = _PART.fullmatch(part)
    if found is None:
        raise ValueError(f"must be made of *, numbers, ranges a-b and steps /n, got {part!r}")
    first, last, step = found["first"], found["last"], found["step"]
    if first == "*":
        if last is not None:
            raise ValueError(f"must not have a range that begins with a star, got {part!r}")
        # A week has seven days, though two numbers stand for Sunday.
        return _stepped(field, field.least, 6 if field.words is _WEEKDAYS else field.most, step)
    begin = _number(field, first)
    if last is None and step is not None:
        raise ValueError(f"has a step without a range: write {first}-{field.most}/{step}, got {part!r}")
    end = begin if last is None else _number(field, last)
    if end < begin:
        raise ValueError(f"must not have a range that goes down, got {part!r}")
    return _stepped(field, begin, end, step)


def _stepped(field: _Field, begin: int, end: int, step: str | None) -> range:
    size = 1 if step is None else int(step)
    most = field.most - field.least
    if not 1 <= size <= max(most, 1):
        raise ValueError(f"must have steps of 1 to {most}, got {step}")
    return range(begin, end + 1, size)


def _number(field: _Field, given: str) -> int:
    if given in field.words:
        return field.words.index(given) + field.least
    if not given.isdigit():
        words = f", {field.words[0]} to {field.words[-1]}" if field.words else ""
        raise ValueError(f"must be {field.least} to {field.most}{words}, got {given!r}")
    if not field.least <= int(given) <= field.most:
        raise ValueError(f"must be from {field.least} to {field.most}, got {given}")
    return int(given)
