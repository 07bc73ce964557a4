"""What may a key be set to? The types of the models, each with its rule in words."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, cast, get_args
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from asynctaskd.durations import format_duration, parse_duration

NAME_PATTERN = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
"""What the name of a task and each of its labels consist of; use `fullmatch`."""

EMBEDDED = "embedded"
"""The `database.url` that asks for a private server, started and stopped with the process."""

IN_FILE = "file:"
"""What a `database.url` begins with that is a path: the file holds the URL."""

_LONGEST = timedelta(days=30)
# 44 characters leave room for "_runtime_config_ack" within the 63 bytes of a channel's name.
SCHEMA_PATTERN = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,43}")
SCHEMA_RULE = '1 to 44 characters a-z 0-9 _, not beginning with a digit or with "pg_"'


@dataclass(frozen=True, slots=True)
class Kind:
    """What a key takes: in words, and how it is read from the text of a variable or a flag."""

    expects: str
    from_text: Callable[[str], object] = str
    secret: bool = False


def _integer_in(text: str) -> object:
    try:
        return int(text)
    except ValueError:
        return text


_BOOLEANS: Mapping[str, bool] = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def _boolean_in(text: str) -> object:
    return _BOOLEANS.get(text.strip().lower(), text)


def _list_in(text: str) -> object:
    return [part.strip() for part in text.split(",") if part.strip()]


def processors() -> int:
    """How many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux tells which processors a process may use
        return os.cpu_count() or 1


def _concurrency(value: object) -> object:
    return processors() if value == "cpu" else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _duration(value: object) -> timedelta:
    duration = parse_duration(cast("str | timedelta", value))
    if duration > _LONGEST:
        raise ValueError(f"a duration must be at most {format_duration(_LONGEST)}")
    return duration


def _not_zero(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("a duration must be more than 0s")
    return value


def _server_url(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith(("postgresql://", "postgres://", IN_FILE)):
        raise ValueError("not a database URL")
    return value


def _database_url(value: SecretStr) -> SecretStr:
    scheme, _, _ = value.get_secret_value().partition(":")
    return value if scheme == EMBEDDED else _server_url(value)


def _schema(value: str) -> str:
    if not SCHEMA_PATTERN.fullmatch(value):
        raise ValueError("not a schema name")
    return value


def _labels(values: tuple[str, ...]) -> tuple[str, ...]:
    if not all(NAME_PATTERN.fullmatch(label) and not label.startswith("worker:") for label in values):
        raise ValueError("not a label")
    return tuple(sorted(set(values)))


def without_brackets(host: str) -> str:
    """An address as sockets want it: brackets belong to URLs, where IPv6 stands beside a port."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _host_names(values: tuple[str, ...]) -> tuple[str, ...]:
    if not all(re.fullmatch(r"[A-Za-z0-9._:-]+", name) for name in values):
        raise ValueError("not a host name")
    return tuple(name.lower() for name in values)


def _choice(literal: object) -> Kind:
    *words, last = get_args(literal)
    return Kind(f"{', '.join(words)} or {last}")


_DURATION_TEXT = "written such as 500ms, 5s or 1h30m"
_Levels = Literal["debug", "info", "warning", "error", "critical"]
_Formats = Literal["auto", "console", "json"]
_Listening = Literal["auto", "on", "off"]
_Modes = Literal["off", "read", "write"]

Boolean = Annotated[bool, Field(strict=True), Kind("true or false", _boolean_in)]
Concurrency = Annotated[
    int,
    BeforeValidator(_concurrency),
    Field(strict=True, ge=1, le=100_000),
    Kind('an integer from 1 to 100000, or "cpu"', _integer_in),
]
DashboardMode = Annotated[_Modes, BeforeValidator(_lower), _choice(_Modes)]
DatabaseURL = Annotated[
    Annotated[SecretStr, AfterValidator(_database_url)] | None,
    Kind(
        'a URL such as postgresql://user@host:5432/name, "file:PATH" of a file that holds one, '
        'or "embedded" or "embedded:PATH"',
        secret=True,
    ),
]
ServerURL = Annotated[
    Annotated[SecretStr, AfterValidator(_server_url)] | None,
    Kind(
        'a URL such as postgresql://user@host:5432/name, or "file:PATH" of a file that holds one', secret=True
    ),
]
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    AfterValidator(_not_zero),
    Kind(f"a duration of more than 0s and at most 30d, {_DURATION_TEXT}"),
]
DurationOrZero = Annotated[
    timedelta, BeforeValidator(_duration), Kind(f"a duration of at most 30d, {_DURATION_TEXT}")
]
File = Annotated[Path | None, Kind("the path of a file")]
Host = Annotated[
    str, AfterValidator(without_brackets), Field(min_length=1), Kind("an address or a host name")
]
HostNames = Annotated[
    tuple[str, ...],
    AfterValidator(_host_names),
    Kind("a list of host names, without ports", _list_in),
]
Labels = Annotated[
    tuple[str, ...],
    AfterValidator(_labels),
    Kind(
        'a list of labels of 1 to 128 characters A-Z a-z 0-9 _ . : / -, none beginning with "worker:"',
        _list_in,
    ),
]
Listen = Annotated[_Listening, BeforeValidator(_lower), _choice(_Listening)]
LogFormat = Annotated[_Formats, BeforeValidator(_lower), _choice(_Formats)]
LogLevel = Annotated[_Levels, BeforeValidator(_lower), _choice(_Levels)]
Percentage = Annotated[int, Field(strict=True, ge=0, le=100), Kind("an integer from 0 to 100", _integer_in)]
PoolSize = Annotated[int, Field(strict=True, ge=1, le=1000), Kind("an integer from 1 to 1000", _integer_in)]
Port = Annotated[
    Annotated[int, Field(strict=True, ge=0, le=65535)] | None, Kind("an integer from 0 to 65535", _integer_in)
]
SecretText = Annotated[SecretStr | None, Kind("a text", secret=True)]
SchemaName = Annotated[
    str,
    AfterValidator(_schema),
    Kind(SCHEMA_RULE),
]
WorkerID = Annotated[UUID | None, Kind("a UUID")]
