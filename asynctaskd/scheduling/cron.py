"""The next slot after a moment, in a zone: what a schedule means, and what its clock changes do to it.

Where the clock goes forward or back, it is as in Debian's cron. A time of day (neither the minute nor the
hour begins with a star) that doesn't exist comes once, right after the gap, and one that exists twice comes
the first time only. With a star it goes on by real time: what doesn't exist doesn't come, and what exists
twice comes twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple
from zoneinfo import ZoneInfo

from asynctaskd.durations import parse_duration
from asynctaskd.scheduling.calendar import Calendar

_EVERY = "@every"
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
_NO_ANCHOR = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime.max.replace(tzinfo=UTC) - 3 * _DAY


class Slot(NamedTuple):
    """One time a schedule is due (UTC), with what a change of the clock did to it, in words, or None."""

    at: datetime
    remark: str | None


class _Gap(NamedTuple):
    """A change of the clock: when it is (UTC), the local time before it and after it."""

    at: datetime
    before: datetime
    after: datetime


@lru_cache(maxsize=1024)
def zone_of(name: str) -> ZoneInfo:
    """The zone of that name, from the package tzdata: every worker has the same, whatever its system has.

    Raises:
        ValueError: there is none.
    """
    source = files("tzdata").joinpath("zoneinfo")
    parts = name.split("/")
    if all(part.replace("_", "").replace("-", "").replace("+", "").isalnum() for part in parts):
        source = source.joinpath(*parts)
        if source.is_file():
            with source.open("rb") as file:
                try:
                    return ZoneInfo.from_file(file, key=name)
                except ValueError:  # a table of zones, no zone
                    pass
    raise ValueError(f"zone must be a name such as 'Europe/Vienna' or 'UTC', got {name!r}")


@dataclass(frozen=True, slots=True)
class Timetable:
    """When a schedule is due.

    Attributes:
        zone: what the expression's times of day are in.
        rule: the days and times, or the time between two slots (`@every`).
        anchor: where `@every` counts from.
    """

    zone: ZoneInfo
    rule: Calendar | timedelta
    anchor: datetime

    @classmethod
    def read(cls, expression: str, zone: str = "UTC", anchor: datetime = _NO_ANCHOR) -> Timetable:
        """Read an expression and the name of a zone. `anchor` is an aware datetime.

        Raises:
            ValueError: the rule and the value.
        """
        known = zone_of(zone)
        if expression.split(maxsplit=1)[:1] == [_EVERY]:
            return cls(known, _period(expression), anchor)
        return cls(known, Calendar.parse(expression), anchor)

    def after(self, moment: datetime) -> datetime | None:
        """The first slot after a moment, in UTC; None where there is none before the calendar ends."""
        moment = moment.astimezone(UTC)
        if moment >= _LATEST:
            return None
        if isinstance(self.rule, timedelta):
            steps = (moment - self.anchor) // self.rule + 1
            return (self.anchor + max(steps, 1) * self.rule).astimezone(UTC)
        start = moment.replace(microsecond=0) + _SECOND
        return self._fixed(self.rule, start) if self.rule.is_fixed else self._real(self.rule, start)

    def slots(self, after: datetime) -> Iterator[datetime]:
        """All slots after a moment, in order."""
        slot = self.after(after)
        while slot is not None:
            yield slot
            slot = self.after(slot)

    def preview(self, after: datetime) -> Iterator[Slot]:
        """All slots after a moment, with what changes of the clock did to each."""
        before = after
        for slot in self.slots(after):
            yield Slot(slot, self._remark(before, slot))
            before = slot

    def _fixed(self, calendar: Calendar, start: datetime) -> datetime | None:
        """Every time of day once: in UTC their order is the same, so the first that isn't over is next."""
        local = calendar.next(self._local(start))
        while local is not None:
            slot = self._first(local)
            if slot >= start:
                return slot
            local = calendar.next(local + _SECOND)
        return None

    def _real(self, calendar: Calendar, start: datetime) -> datetime | None:
        """What the clock shows, stretch by stretch between its changes."""
        while start < _LATEST:
            shown = self._local(start)
            local = calendar.next(shown)
            if local is None:
                return None
            slot = start + (local - shown)
            # A repeated hour concerns only what is within a day of `start`; what is far ahead, its own day.
            until = min(slot, start + 2 * _DAY)
            change = self._change(start, until)
            if change is not None:
                start = change.at
            elif until == slot:
                return slot
            else:
                start = max(until, slot - 2 * _DAY)
        return None

    def _first(self, local: datetime) -> datetime:
        """The first moment that shows a local time, or the end of the gap that it falls into."""
        early, late = (local.replace(tzinfo=self.zone, fold=fold) for fold in (0, 1))
        slot = early.astimezone(UTC)
        if late.utcoffset() == early.utcoffset() or self._local(slot) == local:
            return slot
        change = self._change(late.astimezone(UTC), slot)
        return slot if change is None else change.at

    def _local(self, moment: datetime) -> datetime:
        return moment.astimezone(self.zone).replace(tzinfo=None, fold=0)

    def _change(self, start: datetime, end: datetime) -> _Gap | None:
        """The first change of the clock after `start`, until `end`."""
        offset = self._offset(start)
        while start < end:
            stop = min(start + _DAY, end)
            if self._offset(stop) != offset:
                return self._locate(start, stop)
            start = stop
        return None

    def _locate(self, start: datetime, stop: datetime) -> _Gap:
        """Where between two moments less than a day apart the clock changes, to the second."""
        offset = self._offset(start)
        while stop - start > _SECOND:
            middle = start + (stop - start) // _SECOND // 2 * _SECOND
            start, stop = (middle, stop) if self._offset(middle) == offset else (start, middle)
        after = self._local(stop)
        return _Gap(stop, after - (self._offset(stop) - offset), after)

    def _offset(self, moment: datetime) -> timedelta:
        return moment.astimezone(self.zone).utcoffset() or timedelta()

    def _remark(self, before: datetime, slot: datetime) -> str | None:
        if isinstance(self.rule, timedelta):
            return None
        return self._skipped(self.rule, before, slot) or self._doubled(self.rule, slot)

    def _skipped(self, calendar: Calendar, before: datetime, slot: datetime) -> str | None:
        change = self._change(max(before.astimezone(UTC), slot - 400 * _DAY).replace(microsecond=0), slot)
        while change is not None:
            lost = calendar.next(change.before)
            if lost is not None and change.before <= lost < change.after:
                if not calendar.is_fixed:
                    gone = f"{change.before:%H:%M} to {change.after:%H:%M}"
                    return f"the clock goes from {gone}: what is between is left out"
                if change.at == slot:
                    return f"{lost:%H:%M:%S} doesn't exist that day: once, right after the gap"
            change = self._change(change.at, slot)
        return None

    def _doubled(self, calendar: Calendar, slot: datetime) -> str | None:
        shown = slot.astimezone(self.zone)
        other = shown.replace(fold=1 - shown.fold)
        if other.utcoffset() == shown.utcoffset():
            return None
        if calendar.is_fixed:
            return f"{shown:%H:%M:%S} exists twice that day: only the first time"
        return f"{shown:%H:%M:%S} exists twice that day: the {'second' if shown.fold else 'first'} time"


def _period(expression: str) -> timedelta:
    words = expression.split()
    if len(words) != 2:
        raise ValueError(f"{_EVERY} takes one duration, such as '@every 10m', got {expression!r}")
    period = parse_duration(words[1])
    if period < _SECOND:
        raise ValueError(f"{_EVERY} must be at least 1s, got {expression!r}")
    return period
