"""Values as JSON has them: durations as `30s`, instants in ISO 8601, ids of workers as text."""

from __future__ import annotations

from datetime import datetime, timedelta

from asynctaskd.durations import format_duration


def plain(value: object) -> object:
    """What `json.dumps(default=…)` asks for."""
    match value:
        case timedelta():
            return format_duration(value)
        case datetime():
            return value.isoformat()
    return value if isinstance(value, int | float) else str(value)
