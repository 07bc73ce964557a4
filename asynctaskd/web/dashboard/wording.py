"""How values look on a page."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from asynctaskd.control.plain import plain

if TYPE_CHECKING:
    from asynctaskd.control.browsing import Count

_UNITS = (("d", 86400.0), ("h", 3600.0), ("min", 60.0))
_LARGE = ((1e6, "M"), (1e3, "k"))


def number(value: float | None) -> str:
    """A number with thousands apart: `12,345`, `0.4`."""
    if value is None:
        return "–"
    if isinstance(value, int) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:,.1f}".removesuffix(".0") if value >= 10 else f"{value:,.2g}"


def count(given: Count) -> str:
    """How many, or about how many."""
    if not given.is_estimate:
        return f"{given.number:,}"
    digits = max(len(str(given.number)) - 2, 0)
    return f"about {round(given.number, -digits):,}"


def short(given: Count) -> str:
    """The same in few characters: `1.2M`."""
    for size, letter in _LARGE:
        if given.number >= 10 * size or (given.number >= size and given.is_estimate):
            return f"{given.number / size:.3g}{letter}"
    return f"{given.number:,}"


def seconds(value: float | None) -> str:
    """A length of time in the unit that suits it: `40 ms`, `3.2 s`, `2 h 5 min`."""
    if value is None:
        return "–"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    for nth, (unit, size) in enumerate(_UNITS):
        if value >= size:
            rest = int(value % size // _UNITS[nth + 1][1]) if nth + 1 < len(_UNITS) else 0
            return f"{int(value // size)} {unit}" + (f" {rest} {_UNITS[nth + 1][0]}" if rest else "")
    raise AssertionError  # a minute is the least


def duration(value: timedelta | None) -> str:
    """The same of a timedelta."""
    return seconds(None if value is None else value.total_seconds())


def percent(share: float | None) -> str:
    """A share of 1: `12 %`."""
    if share is None:
        return "–"
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def when(moment: datetime | None) -> Markup | str:
    """How long ago, or in how long, with the instant itself (UTC) to be read or pointed at."""
    if moment is None:
        return "–"
    past = (datetime.now(UTC) - moment).total_seconds()
    told = "now" if abs(past) < 1 else f"{seconds(past)} ago" if past > 0 else f"in {seconds(-past)}"
    marked = Markup('<time datetime="{}" title="{}">{}</time>')
    return marked.format(moment.isoformat(), instant(moment), told)


def instant(moment: datetime | None) -> str:
    """A point in time, UTC."""
    return "–" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def clock(moment: datetime) -> str:
    """The time of day with milliseconds, UTC."""
    local = moment.astimezone(UTC)
    return f"{local:%H:%M:%S}.{local.microsecond // 1000:03}"


def pretty(value: Any) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=plain)


def line(value: Any) -> str:
    """JSON on one line; a text, and a list of texts, as it is read."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value) or "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=plain)


FILTERS = {
    "number": number,
    "count": count,
    "short": short,
    "seconds": seconds,
    "duration": duration,
    "percent": percent,
    "when": when,
    "instant": instant,
    "clock": clock,
    "pretty": pretty,
    "line": line,
}
"""By the names that the templates use."""
