"""What does a line say? The facts of an event, as JSON can hold them: whole, readable and harmless."""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from typing import Any, cast

from structlog.typing import EventDict

from asynctaskd.durations import format_duration
from asynctaskd.telemetry.discretion import describe, without_passwords
from asynctaskd.telemetry.levels import SEVERITY

_LONGEST_TEXT = 8_000
_MOST_ITEMS = 100
_DEEPEST = 6
_PRIVATE_FACTS = frozenset({"payload", "params", "result", "progress", "metadata"})
# Not every token is a secret: claim_token is a number that operators look for.
_SECRET_KEY = re.compile(
    r"password|passwd|secret|dsn|(^|_)(url|(auth|access|api)_(token|key)|credentials?|authorization)$",
    re.IGNORECASE,
)
_BREAKS = dict.fromkeys(map(ord, "\n\r\t\v\f\x1c\x1d\x1e\x85\u2028\u2029"), " ")
_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F)])
_ISOLATES = dict.fromkeys([*range(0x2066, 0x206A), 0xFEFF])
_CLEAN: dict[int, str | None] = {**_CONTROLS, **_ISOLATES, **_BREAKS}
_CLEAN_LINES: dict[int, str | None] = {**_CLEAN, ord("\n"): "\n"}


def line_of(level: str, event: str, facts: Mapping[str, Any]) -> EventDict:
    """A line: when, how loud, what, and then the facts."""
    line: EventDict = {"ts": _now(), "level": level, "event": _text(event)}
    for key, value in facts.items():
        name = _text(key)
        line[f"{name}_" if name in ("ts", "level", "event") else name] = _fact(name, value)
    return line


def public_facts(level: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of an event without payloads, and with the stack where the daemon itself failed."""
    public = {key: value for key, value in facts.items() if key not in _PRIVATE_FACTS}
    error = facts.get("error")
    if isinstance(error, BaseException) and error.__traceback__ and SEVERITY[level] >= SEVERITY["error"]:
        public |= exception_facts(error)
    return public


def exception_facts(error: BaseException) -> dict[str, Any]:
    """An error with the stack that led to it."""
    return {"error": error, "traceback": "".join(traceback.format_tb(error.__traceback__))}


def describe_error(error: BaseException) -> str:
    """What went wrong in one line: type and message, of a database error without the values it quotes."""
    name = type(error).__name__
    if isinstance(error, BaseExceptionGroup):
        inner = cast("tuple[BaseException, ...]", error.exceptions)
        return f"{name}: {'; '.join(map(describe_error, inner[:5]))}"
    try:
        return _text(describe(error))
    except Exception:  # noqa: BLE001  (a __str__ may raise anything)
        return f"<unprintable {name}>"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fact(name: str, value: object) -> object:
    if _SECRET_KEY.search(name):
        return "***"
    if name == "traceback":
        return _shortened(without_passwords(str(value)).translate(_CLEAN_LINES))
    return _plain(value, _DEEPEST)


def _plain(value: object, depth: int) -> object:
    """The value as JSON can hold it: whole, readable and harmless."""
    match value:
        case Enum():
            return _plain(value.value, depth)
        case None | bool():
            return value
        case int():
            return value if abs(value) < 2**64 else _text(f"{value:#x}")
        case float():
            return value if math.isfinite(value) else str(value)
        case timedelta():
            return _duration(value)
        case datetime() | date():
            return value.isoformat()
        case BaseException():
            return _text(describe_error(value))
        case bytes() | bytearray() | memoryview():
            return f"<{len(cast('bytes', value))} bytes>"
        case Mapping() | list() | tuple() | set() | frozenset() if depth:
            return _plain_items(cast("Iterable[object]", value), depth - 1)
        case _:
            return _text(value)


def _plain_items(items: Iterable[object], depth: int) -> object:
    if isinstance(items, Mapping):
        pairs = list(cast("Mapping[object, object]", items).items())[:_MOST_ITEMS]
        return {_text(k): "***" if _SECRET_KEY.search(_text(k)) else _plain(v, depth) for k, v in pairs}
    return [_plain(item, depth) for item in list(items)[:_MOST_ITEMS]]


def _duration(value: timedelta) -> str:
    try:
        return format_duration(value)
    except ValueError:  # negative, or longer than a century
        return str(value)


def _text(value: object) -> str:
    try:
        text = str(value)
    except Exception:  # noqa: BLE001  (a __str__ may raise anything)
        return f"<unprintable {type(value).__name__}>"
    text = text if text.isprintable() else text.translate(_CLEAN)
    return _shortened(without_passwords(text))


def _shortened(text: str) -> str:
    """Cut the middle out of what is long: errors begin with what, and end with where."""
    if len(text) <= _LONGEST_TEXT:
        return text
    half = _LONGEST_TEXT // 2
    return f"{text[:half]} …[{len(text) - 2 * half} characters]… {text[-half:]}"
