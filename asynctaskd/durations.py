"""Lengths of time as people write them: `500ms`, `5s`, `30m`, `1h30m`, `2h`, `1d`.

A written duration is one or more whole numbers, each with its unit, units descending and each at most
once. There are no fractions, signs or spaces: `1.5h` is written `1h30m`. A day is 24 hours.
"""

from __future__ import annotations

import re
from datetime import timedelta

_MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_UNITS = tuple(_MILLISECONDS)
_MILLISECOND = timedelta(milliseconds=1)

MAX_DURATION = timedelta(days=36_525)
"""The longest duration that is accepted, a century: sums with it fit a datetime and an interval."""


def _beginning_with(position: int) -> str:
    head, *rest = _UNITS[position:]
    return f"[0-9]+{head}" + "".join(f"(?:[0-9]+{unit})?" for unit in rest)


# One alternative per first unit: the dialect shared with PostgreSQL has no other way to say "not empty".
DURATION_PATTERN = f"(?:{'|'.join(_beginning_with(position) for position in range(len(_UNITS)))})"
"""The grammar of a written duration, not anchored, for Python's `re` and PostgreSQL's `~` alike."""

_WRITTEN = re.compile(DURATION_PATTERN)
_PART = re.compile("([0-9]+)(ms|[dhms])")


def parse_duration(value: str | timedelta) -> timedelta:
    """Read a duration; the result is a whole number of milliseconds, from 0 to `MAX_DURATION`.

    A timedelta is checked and rounded up to the next millisecond.

    Raises:
        ValueError: the text is malformed, the duration is negative or too long, or the value is
            neither text nor a timedelta (a bare number has no unit).
    """
    if isinstance(value, str):
        return _bounded(_milliseconds_written(value), value)
    if isinstance(value, timedelta):
        return _bounded(_milliseconds_in(value), value)
    raise ValueError(
        f"a duration is text such as '5s' or a timedelta, got {value!r} ({type(value).__name__})"
    )


def format_duration(value: timedelta) -> str:
    """Write a duration in its shortest form: `90 minutes` is `1h30m`, nothing is `0s`.

    `parse_duration` reads it back exactly, to the millisecond; what is finer is rounded up, so that a
    wait is never shortened and never becomes none.

    Raises:
        ValueError: the duration is negative or longer than `MAX_DURATION`.
    """
    rest = parse_duration(value) // _MILLISECOND
    written = ""
    for unit, size in _MILLISECONDS.items():
        count, rest = divmod(rest, size)
        written += f"{count}{unit}" if count else ""
    return written or "0s"


def _milliseconds_written(text: str) -> int:
    if not _WRITTEN.fullmatch(text):
        raise ValueError(f"malformed duration {text!r}: write it as 500ms, 5s, 30m, 1h30m or 1d")
    return sum(int(count) * _MILLISECONDS[unit] for count, unit in _PART.findall(text))


def _milliseconds_in(value: timedelta) -> int:
    if value < timedelta(0):
        raise ValueError(f"a duration must not be negative, got {value!r}")
    count, rest = divmod(value, _MILLISECOND)
    return count + bool(rest)


def _bounded(milliseconds: int, given: str | timedelta) -> timedelta:
    if milliseconds > MAX_DURATION // _MILLISECOND:
        raise ValueError(f"a duration must be at most {MAX_DURATION.days}d, got {given!r}")
    return milliseconds * _MILLISECOND
