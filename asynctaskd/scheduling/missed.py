"""What becomes of the slots that have come due: on time, late or skipped, and why."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import islice, takewhile
from typing import Literal, NamedTuple

from asynctaskd.scheduling.cron import Timetable

MISSED = ("skip", "once", "all")
"""What may become of slots that nobody was there for."""

MAX_LIMIT = 1000
"""The most missed slots that one schedule may make up for."""

# So many skipped slots get a row of their own in the ledger; the first one stands for what was before them.
_TOLD = 100
_FIRST_STRETCH = timedelta(minutes=1)

Outcome = Literal["ran", "late", "skipped"]


class Due(NamedTuple):
    """One slot (UTC) and what is to become of it; `reason` says why it is skipped or late."""

    at: datetime
    outcome: Outcome
    reason: str | None = None


def decide(
    timetable: Timetable,
    first: datetime,
    now: datetime,
    *,
    missed: str,
    limit: int,
    grace: timedelta,
) -> list[Due]:
    """What becomes of every slot from `first`, which is due, until `now`, in order.

    A slot older than `grace` was missed. Then `skip` leaves the missed ones out; `once` runs the latest of
    all that are due for them; `all` runs the latest `limit` of them, and then what is due and wasn't missed.
    """
    on_time = now - grace
    most = max(limit, _TOLD) + _count(timetable, on_time, now) if missed == "all" else _TOLD
    slots = _latest(timetable, first, now, most)
    if first >= on_time:
        return [Due(slot, "ran") for slot in slots]
    decided = _decided(slots, on_time, missed, limit)
    if slots[0] > first:
        reason = f"missed, as were all until {slots[0]:%Y-%m-%d %H:%M:%S}Z: nothing ran"
        decided.insert(0, Due(first, "skipped", reason))
    return decided


def _decided(slots: Sequence[datetime], on_time: datetime, missed: str, limit: int) -> list[Due]:
    match missed:
        case "skip":
            return [
                Due(slot, "ran") if slot >= on_time else Due(slot, "skipped", "missed: nothing ran")
                for slot in slots
            ]
        case "once":
            *others, last = slots
            reason = f"missed: the slot {last:%Y-%m-%d %H:%M:%S}Z stands for it"
            return [*(Due(slot, "skipped", reason) for slot in others), _run(last, on_time)]
        case _:
            reason = f"missed: only the latest {limit} are made up for"
            left_out = max(sum(slot < on_time for slot in slots) - limit, 0)
            return [Due(slot, "skipped", reason) for slot in slots[:left_out]] + [
                _run(slot, on_time) for slot in slots[left_out:]
            ]


def _run(slot: datetime, on_time: datetime) -> Due:
    return Due(slot, "ran") if slot >= on_time else Due(slot, "late", "missed: nothing ran")


def _count(timetable: Timetable, start: datetime, now: datetime) -> int:
    """How many slots there are from `start` to `now`, as far as one schedule may decide at once."""
    due = takewhile(lambda slot: slot <= now, timetable.slots(start - timedelta.resolution))
    return sum(1 for _ in islice(due, MAX_LIMIT))


def _latest(timetable: Timetable, first: datetime, now: datetime, count: int) -> list[datetime]:
    """The last `count` slots from `first` to `now`, found from the end: an outage may have been long."""
    stretch = _FIRST_STRETCH
    while True:
        start = max(first, now - stretch)
        slots: deque[datetime] = deque([first] if start == first else [], maxlen=count)
        for slot in timetable.slots(start):
            if slot > now:
                break
            slots.append(slot)
        if len(slots) == count or start == first:
            return list(slots)
        stretch *= 4
