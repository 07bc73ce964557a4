"""Whether a value in a file fits a schema of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date, time, timedelta
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any
from uuid import UUID

from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.validators import extend
from pydantic import AnyUrl, AwareDatetime, EmailStr, Field, TypeAdapter

FORMATS: Mapping[str, Mapping[str, Any]] = {
    "string": {
        "date": date,
        "date-time": AwareDatetime,
        "time": time,
        "duration": timedelta,
        "uuid": UUID,
        "email": EmailStr,
        "uri": AnyUrl,
        "ipv4": IPv4Address,
        "ipv6": IPv6Address,
    },
    "integer": {
        "int32": Annotated[int, Field(ge=-(2**31), le=2**31 - 1)],
        "int64": Annotated[int, Field(ge=-(2**63), le=2**63 - 1)],
    },
}
"""By type, the formats that have a type of their own in Python, and that."""

_KINDS = {"string": str, "integer": int}


def misfits(schema: Mapping[str, Any], value: object) -> Iterator[tuple[list[str | int], str]]:
    """What is wrong with a value, each with the way to it, by a schema of `schema.read_schema`."""
    validator = _Validator(_as_draft(schema), format_checker=_checker())
    for error in validator.iter_errors(value):
        yield list(error.absolute_path), error.message


def _as_draft(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The same without defaults, which check nothing, and without `nullable`, which JSON schema lacks."""
    draft = {keyword: _part_as_draft(part) for keyword, part in schema.items() if keyword != "default"}
    if "properties" in schema:
        draft["properties"] = {name: _as_draft(part) for name, part in schema["properties"].items()}
    if draft.pop("nullable", False):
        draft |= {"type": [draft["type"], "null"]} if "type" in draft else {}
        draft |= {"enum": [*draft["enum"], None]} if "enum" in draft else {}
    return draft


def _part_as_draft(part: Any) -> Any:
    return _as_draft(part) if isinstance(part, dict) else part


def _check_pattern(_: object, pattern: str, value: object, __: object) -> Iterator[ValidationError]:
    """A pattern means what pydantic's engine reads in it."""
    wanted: Any = Annotated[str, Field(pattern=pattern)]
    if isinstance(value, str) and not _fits(TypeAdapter(wanted), value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _fits(adapter: TypeAdapter[Any], value: object) -> bool:
    try:
        adapter.validate_python(value)
    except ValueError:
        return False
    return True


_Validator = extend(Draft202012Validator, {"pattern": _check_pattern})  # type: ignore[no-untyped-call]


@cache
def _checker() -> FormatChecker:
    """Formats mean here what the generated models make of them."""
    checker = FormatChecker(formats=())
    for kind, formats in FORMATS.items():
        for name, wanted in formats.items():
            checker.checks(name)(_check_of(_KINDS[kind], TypeAdapter(wanted)))
    return checker


def _check_of(kind: type, adapter: TypeAdapter[Any]) -> Callable[[object], bool]:
    return lambda value: not isinstance(value, kind) or _fits(adapter, value)
