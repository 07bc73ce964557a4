"""The rules for single values: each checks what it is given and returns it in its one normal form.

Every function takes the option's name (for the message) and the raw value, and raises InvalidInputError
with the rule and the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from asynctaskd.codecs.codec import Codec
from asynctaskd.definitions.payload import dump_payload
from asynctaskd.definitions.text import is_storable, shown
from asynctaskd.durations import parse_duration
from asynctaskd.errors import InvalidInputError
from asynctaskd.scheduling.retry import RetryPolicy
from asynctaskd.task import TaskStatus

NAME_PATTERN = "[A-Za-z0-9_.:/-]{1,128}"
"""What names of tasks and labels look like, unanchored."""

MAX_LABELS = 16
MAX_TEXT = 512
"""The longest tag, unique tag or serial key, in characters: it has to fit an index."""

MAX_INT32 = 2**31 - 1
MAX_INT64 = 2**63 - 1

_is_name = re.compile(NAME_PATTERN).fullmatch


_INFINITY = datetime.max.replace(tzinfo=UTC)


def name(option: str, value: object) -> str:
    """A task's name."""
    if not isinstance(value, str) or not _is_name(value):
        raise InvalidInputError(f"{option} must match {NAME_PATTERN}, got {shown(value)}")
    return value


def integer(option: str, value: object, least: int, most: int) -> int:
    """An integer from `least` to `most`; a bool isn't one."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInputError(f"{option} must be an integer, got {shown(value)}")
    if value < least:
        raise InvalidInputError(f"{option} must be at least {least}, got {shown(value)}")
    if value > most:
        raise InvalidInputError(f"{option} must be at most {most}, got {shown(value)}")
    return int(value)


def priority(option: str, value: object) -> int:
    """From 0; above 0 is the strict lane."""
    return integer(option, value, 0, MAX_INT32)


def weight(option: str, value: object) -> int:
    """From 1."""
    return integer(option, value, 1, MAX_INT32)


def int64(option: str, value: object) -> int:
    """Any integer of 64 bits."""
    return integer(option, value, -MAX_INT64 - 1, MAX_INT64)


def task_id(option: str, value: object) -> int:
    """The id of a task, from 1."""
    return integer(option, value, 1, MAX_INT64)


def task_ids(option: str, value: object) -> tuple[int, ...]:
    """Ids of tasks, each once, in the order given."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise InvalidInputError(f"{option} must be a list of task ids, got {shown(value)}")
    return tuple(dict.fromkeys(task_id(option, one) for one in value))


def text(option: str, value: object) -> str:
    """A non-empty text of at most 512 characters that PostgreSQL takes."""
    given = storable(option, value)
    if not 1 <= len(given) <= MAX_TEXT:
        raise InvalidInputError(f"{option} must have 1 to {MAX_TEXT} characters, got {len(given)}")
    return given


def storable(option: str, value: object) -> str:
    """A text of any length that PostgreSQL takes."""
    given = string(option, value)
    if not is_storable(given):
        raise InvalidInputError(f"{option} must hold no NUL character or lone surrogate, got {shown(given)}")
    return given


def string(option: str, value: object) -> str:
    """Any text."""
    if not isinstance(value, str):
        raise InvalidInputError(f"{option} must be a string, got {shown(value)}")
    return str(value)


def percent(option: str, value: object) -> float:
    """A number from 0 to 100; a bool isn't one."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 100:
        raise InvalidInputError(f"{option} must be a number from 0 to 100, got {shown(value)}")
    return value


def labels(option: str, value: object) -> tuple[str, ...]:
    """At most 16 labels, each once, sorted by bytes."""
    # Labels are ASCII, where the order of bytes is that of code points.
    names = tuple(sorted({name("a label", label) for label in _strings(option, value)}))
    if len(names) > MAX_LABELS:
        raise InvalidInputError(f"at most {MAX_LABELS} labels are allowed, got {len(names)}")
    return names


def tags(option: str, value: object) -> tuple[str, ...]:
    """Any number of tags, each once, in the order given."""
    return tuple(dict.fromkeys(text("a tag", tag) for tag in _strings(option, value)))


def unique_until(option: str, value: object) -> str:
    """`finished` or `forgotten`."""
    return one_of(option, value, ("finished", "forgotten"))


def on_conflict(option: str, value: object) -> str:
    """`return` (the id of the first task) or `raise`."""
    return one_of(option, value, ("return", "raise"))


def duration(option: str, value: object) -> timedelta:
    """A duration of at least 0, given as text such as `1h30m` or as a timedelta."""
    if not isinstance(value, str | timedelta):
        raise InvalidInputError(f"{option} must be text such as '5s' or a timedelta, got {shown(value)}")
    try:
        return parse_duration(value)
    except ValueError as error:
        raise InvalidInputError(f"{option}: {error}") from None


def positive_duration(option: str, value: object) -> timedelta:
    """A duration of more than 0."""
    length = duration(option, value)
    if not length:
        raise InvalidInputError(f"{option} must be more than 0, got {shown(value)}")
    return length


def keep(option: str, value: object) -> timedelta:
    """A duration of at least 0; a bare 0 (number or text) will do."""
    return timedelta(0) if value in ("0", 0) and value is not False else duration(option, value)


def instant(option: str, value: object) -> datetime:
    """An aware datetime, in UTC."""
    if not isinstance(value, datetime):
        raise InvalidInputError(f"{option} must be a datetime with a time zone, got {shown(value)}")
    if value.utcoffset() is None:
        raise InvalidInputError(f"{option} must have a time zone, got the naive {value.isoformat()}")
    try:
        moment = value.astimezone(UTC)
    except OverflowError:
        raise InvalidInputError(f"{option} is beyond the calendar in UTC, got {value.isoformat()}") from None
    if moment == _INFINITY:
        raise InvalidInputError(f"{option} must be finite: the database takes the last instant for infinity")
    return moment


def deadline(option: str, value: object) -> datetime | timedelta:
    """An aware datetime, or a duration of more than 0 from the enqueue on."""
    return instant(option, value) if isinstance(value, datetime) else positive_duration(option, value)


def retry(option: str, value: object) -> RetryPolicy:
    """A policy, or its text."""
    if isinstance(value, RetryPolicy):
        return value
    if not isinstance(value, str):
        raise InvalidInputError(f"{option} must be a RetryPolicy or its text, got {shown(value)}")
    try:
        return RetryPolicy.parse(value)
    except ValueError as error:
        raise InvalidInputError(f"{option}: {error}") from None


def written_retry(option: str, value: object) -> RetryPolicy:
    """A policy that can be written down, as one that travels with a task must."""
    policy = retry(option, value)
    if policy.spec is None:
        raise InvalidInputError(f"{option} must not hold a callable: only a definition's can")
    return policy


def codec(option: str, value: object) -> Codec:
    """What can encode and decode, under a name of its own."""
    if isinstance(value, type):  # it has all that its instances have
        raise InvalidInputError(f"{option} must be an instance, got the class {value.__name__} itself")
    if not isinstance(value, Codec):
        raise InvalidInputError(
            f"{option} must have name, takes_plain, encode and decode, as asynctaskd.codecs.Codec has, "
            f"got {shown(value)}"
        )
    if not re.fullmatch("[a-z0-9-]{1,32}", value.name):
        raise InvalidInputError(f"{option}: its name must match [a-z0-9-]{{1,32}}, got {shown(value.name)}")
    return value


def metadata(option: str, value: object) -> str:
    """A mapping, as JSON text under the rules of payloads."""
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{option} must be a mapping, got {shown(value)}")
    return dump_payload(dict(value), option)


def _strings(option: str, value: object) -> Iterable[object]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise InvalidInputError(f"{option} must be a list of strings, got {shown(value)}")
    return value


def status(option: str, value: object) -> TaskStatus:
    """The status of a task."""
    if value not in set(TaskStatus):
        raise InvalidInputError(f"{option} must be one of {', '.join(TaskStatus)}, got {value!r}")
    return TaskStatus(str(value))


def one_of(option: str, value: object, allowed: tuple[str, ...]) -> str:
    """One of some words."""
    if value not in allowed:
        raise InvalidInputError(f"{option} must be {' or '.join(allowed)}, got {shown(value)}")
    return str(value)
