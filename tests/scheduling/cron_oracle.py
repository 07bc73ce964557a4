"""Three other opinions on when a schedule is due, asked around every change of the clock in every zone.

`python -m tests.scheduling.cron_oracle` asks all of them over the years 2020 to 2035, with random expressions
too; the tests ask a part. The opinions:

- *scan*: walks minute by minute (or second by second) through a window, looks what the clock shows there, and
  knows nothing but the sentence on top of `scheduling/cron.py`. Its sets of minutes and days are cronsim's.
- *cronsim*: what healthchecks.io runs on, made to agree with Debian's cron.
- *croniter*: for the sets alone, where no clock changes.

Where one of them may differ, the difference is named here: see `from_cronsim`, `is_cronsims_own` and
`is_croniters_own`.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
import zoneinfo
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from croniter import croniter
from cronsim import CronSim

from asynctaskd.scheduling.cron import Timetable, zone_of

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
AROUND = timedelta(hours=15)

TABLE = (
    "30 2 * * *",
    "0 2 * * *",
    "0,30 2 * * *",
    "15 1-4 * * *",
    "0 0 * * *",
    "59 23 * * *",
    "30 */2 * * *",
    "*/15 * * * *",
    "*/20 2 * * *",
    "0 * * * *",
    "5 0,1,2,3 * * sun",
    "10 2,3 25-31 3,10 *",
    "0 3 */2 * 0",
    "30 0 1 * mon",
)


class Window(NamedTuple):
    """A change of the clock, and 15 hours before and after it (UTC)."""

    zone: str
    start: datetime
    end: datetime


def zones() -> list[str]:
    """Every zone there is."""
    return sorted(zoneinfo.available_timezones() - {"localtime", "posixrules"})


def windows(first: int, last: int, names: Sequence[str] | None = None) -> Iterator[Window]:
    """Every change in these years, of zones whose clocks show the same only one."""
    seen: set[tuple[datetime, timedelta, timedelta]] = set()
    for name in names or zones():
        zone = zone_of(name)
        moment = datetime(first, 1, 1, tzinfo=UTC)
        while moment.year <= last:
            following = moment + HOUR
            old, new = (m.astimezone(zone).utcoffset() or timedelta() for m in (moment, following))
            if old != new and (moment, old, new) not in seen:
                seen.add((moment, old, new))
                yield Window(name, moment - AROUND, following + AROUND)
            moment = following if old != new else moment + _far(zone, moment)


def _far(zone: zoneinfo.ZoneInfo, moment: datetime) -> timedelta:
    """An hour where the clock changes within ten days, else ten days less an hour."""
    steps = [moment + timedelta(days=day) for day in range(11)]
    return (
        HOUR if len({step.astimezone(zone).utcoffset() for step in steps}) > 1 else timedelta(days=10) - HOUR
    )


@lru_cache(maxsize=8)
def _shown(window: Window, step: timedelta) -> list[tuple[datetime, datetime]]:
    """What the clock shows, step by step: UTC, local."""
    zone = zone_of(window.zone)
    count = (window.end - window.start) // step
    moments = (window.start + n * step for n in range(count + 1))
    return [(moment, moment.astimezone(zone).replace(tzinfo=None, fold=0)) for moment in moments]


def from_scan(expression: str, window: Window, step: timedelta = MINUTE) -> list[datetime]:
    """The slots in the window by looking at every minute of it, or at every second."""
    parsed = CronSim(expression, datetime(2026, 1, 1))  # noqa: DTZ001
    shown = _shown(window, step)
    minute, hour = expression.split()[-5:-3]
    if minute.startswith("*") or hour.startswith("*"):
        return [moment for moment, local in shown if _matches(parsed, local)]
    found: set[datetime] = set()
    latest = datetime.min  # noqa: DTZ901  (local times of no zone)
    for moment, local in shown:
        if local > latest:  # what was shown before doesn't come again
            skipped = local - latest - step if latest > datetime.min else timedelta()  # noqa: DTZ901
            passed = (latest + n * step for n in range(1, skipped // step + 1))
            if _matches(parsed, local) or any(_matches(parsed, gone) for gone in passed):
                found.add(moment)
            latest = local
    return sorted(found)


def _matches(parsed: CronSim, local: datetime) -> bool:
    """Whether the fields name a local time: sets, and Debian's rule of the two kinds of days."""
    if (
        local.minute not in parsed.minutes
        or local.hour not in parsed.hours
        or local.second not in parsed.seconds
        or local.month not in parsed.months
    ):
        return False
    in_month = local.day in parsed.days
    weekday = local.isoweekday()
    in_week = weekday in parsed.weekdays or weekday % 7 in parsed.weekdays
    return (in_month and in_week) if parsed.day_and else (in_month or in_week)


def from_cronsim(expression: str, window: Window) -> list[datetime]:
    """The slots in the window by cronsim.

    Differs: of several times in one gap it gives each, all at the same moment, right after the gap; and so it
    does where one of them is the first minute after the gap. One slot is one task, so here they are one. And
    see `is_cronsims_own`.
    """
    start = (window.start - SECOND).astimezone(zone_of(window.zone))
    found = (slot.astimezone(UTC) for slot in CronSim(expression, start))
    return sorted(set(itertools.takewhile(lambda slot: slot <= window.end, found)))


def is_cronsims_own(expression: str, window: Window) -> bool:
    """Whether cronsim loses its way.

    With a star it puts hours and minutes together to times that may not exist: where a gap begins at
    midnight it is due at 01:00 for `* 0 * * *` (Havana, Beirut), and where the clock changes within an hour
    (Chatham, Casey), or by half an hour (Lord Howe), it leaves out slots after it. The scan is asked there
    all the same.
    """
    minute, hour, *_ = expression.split()
    if not (minute.startswith("*") or hour.startswith("*")):
        return False
    before, after = (moment.astimezone(zone_of(window.zone)) for moment in (window.start, window.end))
    change = (after.utcoffset() or timedelta()) - (before.utcoffset() or timedelta())
    begins = before.replace(tzinfo=None) + AROUND + HOUR
    last = (window.start + AROUND + HOUR - SECOND).astimezone(zone_of(window.zone))
    on_the_hour = begins.minute == 0 and last.utcoffset() == before.utcoffset()
    within_an_hour = not on_the_hour or change % HOUR != timedelta()
    return within_an_hour or (change > timedelta() and begins.hour == 0)


def ours(expression: str, window: Window) -> list[datetime]:
    """The slots in the window by the module under test."""
    slots = Timetable.read(expression, window.zone).slots(window.start - SECOND)
    return list(itertools.takewhile(lambda slot: slot <= window.end, slots))


def differences(expression: str, window: Window) -> list[str]:
    """Where the opinions differ, in words."""
    mine = ours(expression, window)
    others = {"scan": from_scan(expression, window)}
    if not is_cronsims_own(expression, window):
        others["cronsim"] = from_cronsim(expression, window)
    return [
        f"{expression!r} in {window.zone}, {window.start:%Y-%m-%d}: {name} {_odd(mine, theirs)}"
        for name, theirs in others.items()
        if mine != theirs
    ]


def second_differences(expression: str, window: Window) -> list[str]:
    """The same for six fields, by the scan of seconds of the three hours around the change."""
    middle = window.start + (window.end - window.start) / 2
    near = Window(window.zone, middle - 2 * HOUR, middle + HOUR)
    mine, theirs = ours(expression, near), from_scan(expression, near, SECOND)
    if mine == theirs:
        return []
    return [f"{expression!r} in {near.zone}, {near.start:%Y-%m-%d}: scan {_odd(mine, theirs)}"]


def _odd(mine: list[datetime], theirs: list[datetime]) -> str:
    return f"only here {sorted({*mine} - {*theirs})[:3]}, only there {sorted({*theirs} - {*mine})[:3]}"


def is_croniters_own(expression: str) -> bool:
    """Whether croniter means something of its own.

    It takes days of the month and of the week as alternatives also where one of them is `*/2` (Debian's cron
    wants both then), and a day from a range of one, such as 5-5, for any day.
    """
    *_, day, _, weekday = expression.split()
    odd_star = any(field.startswith("*") and field != "*" for field in (day, weekday))
    one = any(
        first == last
        for field in expression.split()
        for part in field.split(",")
        for first, _, last in [part.partition("/")[0].partition("-")]
    )
    return odd_star or one


def from_croniter(expression: str, start: datetime, count: int) -> list[datetime]:
    """The next slots in UTC by croniter, which wants the seconds last."""
    second, *rest = expression.split()
    others = croniter(" ".join([*rest, second]), start, datetime)
    return [others.get_next(datetime) for _ in range(count)]


def random_expression(rng: random.Random) -> str:
    """Six fields, seconds first, that are due at least once in a while."""
    second = rng.choice(["0", "30", "*/20", "5,50", "0-10/5"])
    minute = rng.choice(["0", "30", "*", "*/7", "15,45", "0-59/10", f"{rng.randrange(60)}"])
    hour = rng.choice(["*", "0", "1", "2", "3", "*/3", "1-3", "23", "0,2", f"{rng.randrange(24)}"])
    day = rng.choice(["*", "*", "*", "1", "*/2", "15-31", "28-31", "5-5", "1,29"])
    month = rng.choice(["*", "*", "*", "3,10", "*/2", "mar-oct", "2"])
    weekday = rng.choice(["*", "*", "*", "0", "7", "mon-fri", "sun", "*/2", "5-7"])
    return " ".join((second, minute, hour, day, month, weekday))


def main() -> int:
    """Ask everybody about everything; returns 1 where somebody differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=2020)
    parser.add_argument("--last", type=int, default=2035)
    parser.add_argument("--random", type=int, default=20, help="random expressions for each change")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rng, began, asked, found = random.Random(given.seed), time.monotonic(), 0, list[str]()
    every = list(windows(given.first, given.last))
    for window in every:
        drawn = [random_expression(rng) for _ in range(given.random)]
        minutes = [*TABLE, *(expression.partition(" ")[2] for expression in drawn)]
        found += [line for expression in minutes for line in differences(expression, window)]
        found += [line for expression in drawn[:3] for line in second_differences(expression, window)]
        asked += len(minutes) + len(drawn[:3])
    for expression in (random_expression(rng) for _ in range(1000)):
        if not is_croniters_own(expression):
            asked += 1
            start = datetime(2026, rng.randrange(1, 13), 1, rng.randrange(24), tzinfo=UTC)
            mine = list(itertools.islice(Timetable.read(expression).slots(start), 20))
            if mine != (theirs := from_croniter(expression, start, 20)):
                found.append(f"{expression!r} from {start}: croniter {_odd(mine, theirs)}")
    took = time.monotonic() - began
    zone_count = len(zones())
    sys.stdout.write(
        f"{zone_count} zones, {len(every)} different changes of the clock from {given.first} to {given.last},"
        f" {asked} comparisons in {took:.0f} s: {len(found)} differences\n"
    )
    sys.stdout.writelines(f"{line}\n" for line in found[:50])
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
