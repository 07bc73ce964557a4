"""JSON texts that PostgreSQL's jsonb takes and every worker can read back.

The rules are those of `asynctaskd.enqueue` in SQL, checked here before a round trip: at most 1 MiB and
64 levels, no integral number beyond 64 bits, no NaN or Infinity, no NUL character, no lone surrogate.
Messages never hold values of the payload: they end up in logs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any, TypeVar

from pydantic import Secret, SecretBytes, SecretStr, TypeAdapter
from pydantic_core import PydanticSerializationError, from_json, to_json

from asynctaskd.definitions.text import describe_error
from asynctaskd.errors import InvalidPayloadError

T = TypeVar("T")

MAX_BYTES = 1_048_576
"""The largest payload, in bytes (1 MiB). PostgreSQL counts its own spacing too and has the last word."""

MAX_LEVELS = 64
"""The deepest payload; `1` has no level, `[]` has one, `{"a": [1]}` two."""

_SHORTEST_TOO_DEEP = 2 * (MAX_LEVELS + 1)
_SMALLEST_INTEGER, _LARGEST_INTEGER = -(2**63), 2**63 - 1
_NUL_OR_SURROGATE = "NUL characters and lone surrogates can't be stored"

# Digits become 0, exponents e, the rest spaces: whether a number may be too large is then a search for a
# substring, a tenth of what a regular expression costs.
_SHAPES = bytes.maketrans(
    bytes(range(256)),
    bytes(48 if byte in b"0123456789" else 101 if byte in b"eE" else 32 for byte in range(256)),
)
_LONG_NUMBER, _EXPONENT = b"0" * 19, b"0e0"
_SECRET = b"**********"
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

# The closing quote is optional, so that a malformed text is still read in one pass.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
# From its first character on: digits behind a point or an exponent's sign are no number of their own.
_LARGE_NUMBER = re.compile(
    rb"(?<![0-9.eE+-])-?(?:[0-9]{19,}(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|[0-9]+(?:\.[0-9]+)?[eE]\+?[0-9]+)"
)
_ESCAPE = re.compile(rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u(?P<bad>0000|[dD][89a-fA-F]..)|\\.", re.DOTALL)


def dump_payload(value: object, what: str = "payload") -> str:
    """Write a value as JSON text that keeps the rules.

    Takes what pydantic can write: JSON's own types, models (by alias), dataclasses, datetimes, UUIDs,
    Decimals, enums and so on. `what` is what messages call it.

    Raises:
        InvalidPayloadError: it can't be written, or breaks a rule.
    """
    return checked(write_payload(value, what), value, what)


def write_payload(value: object, what: str = "payload") -> bytes:
    """Write a value as JSON, by whatever rules. Raises InvalidPayloadError where it can't be written."""
    return _attempt(_json, value, what)


def checked(data: bytes, value: object, what: str = "payload") -> str:
    """The text of a value that was written, where it keeps the rules; raises InvalidPayloadError."""
    _check_limits(data, what)
    if b"null" in data and _lost_infinity(value, what):
        raise InvalidPayloadError(f"{what} holds NaN or Infinity, which JSON doesn't have")
    if _SECRET in data and _lost_secret(value, what):
        raise InvalidPayloadError(
            f"{what} holds a secret, which needs a serializer to be more than asterisks"
        )
    return data.decode()


def are_unsuspicious(written: Sequence[bytes]) -> bool:
    """Whether many payloads keep the rules beyond doubt.

    All are looked at together, which costs a fraction of a look at each.
    """
    together = b"\n".join(written)
    longest = max(map(len, written), default=0)
    return not (
        longest > MAX_BYTES
        or _has_suspicious_content(together)
        or b"null" in together
        or _SECRET in together
        or (longest >= _SHORTEST_TOO_DEEP and any(map(_may_be_too_deep, written)))
    )


def check_payload(text: str, what: str = "payload") -> None:
    """Check a JSON text that came from outside.

    Raises:
        InvalidPayloadError: it is no JSON, or breaks a rule.
    """
    data = _encoded(text, what)
    _check_limits(data, what)
    try:
        from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidPayloadError(f"{what} is not valid JSON: {error}") from None


_ANY: TypeAdapter[Any] = TypeAdapter(Any)
_python = partial(_ANY.dump_python, by_alias=True, round_trip=True, warnings=False)
_json = partial(to_json, round_trip=True)  # by alias, which is its default


def _json_of_python(value: object) -> bytes:
    return to_json(_python(value), bytes_mode="base64", serialize_unknown=True)


def _attempt(write: Callable[[object], T], value: object, what: str) -> T:
    try:
        return write(value)
    except Exception as error:  # noqa: BLE001  (a user's serializer may raise anything)
        raise InvalidPayloadError(f"{what} {_why_unwritable(error)}") from None


def _why_unwritable(error: Exception) -> str:
    message = str(error) if isinstance(error, PydanticSerializationError) else describe_error(error)
    if "depth exceeded" in message:
        return f"is nested far too deep; at most {MAX_LEVELS} levels are allowed"
    if "Circular reference" in message:
        return "refers to itself"
    if "surrogates not allowed" in message:
        return f"holds a lone surrogate; {_NUL_OR_SURROGATE}"
    return f"can't be written as JSON: {message.removeprefix('Error serializing to JSON: ')}"


def _encoded(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidPayloadError(f"{what} holds a lone surrogate; {_NUL_OR_SURROGATE}") from None


def _check_limits(data: bytes, what: str) -> None:
    if len(data) > MAX_BYTES:
        raise InvalidPayloadError(f"{what} is {len(data)} bytes; at most {MAX_BYTES} are allowed")
    if _is_suspicious(data):
        _check_closely(data, what)


def _is_suspicious(data: bytes) -> bool:
    return _has_suspicious_content(data) or _may_be_too_deep(data)


def _has_suspicious_content(data: bytes) -> bool:
    shapes = data.translate(_SHAPES, b"+")
    return _LONG_NUMBER in shapes or _EXPONENT in shapes or b"\\u" in data or _holds_infinity(data)


def _may_be_too_deep(data: bytes) -> bool:
    return len(data) >= _SHORTEST_TOO_DEEP and data.count(b"[") + data.count(b"{") > MAX_LEVELS


def _check_closely(data: bytes, what: str) -> None:
    for problem in _problems(data):
        raise InvalidPayloadError(f"{what} {problem}")


def _problems(data: bytes) -> Iterator[str]:
    if any(escape["bad"] for escape in _ESCAPE.finditer(data)):
        yield f"holds a NUL character or a lone surrogate; {_NUL_OR_SURROGATE}"
    structure = _STRING.sub(b"", data)
    if (levels := _levels(structure)) > MAX_LEVELS:
        yield f"is nested {levels} levels deep; at most {MAX_LEVELS} are allowed"
    if _holds_infinity(structure):
        yield "holds NaN or Infinity, which JSON doesn't have"
    if any(_is_beyond_64_bits(number.decode()) for number in _LARGE_NUMBER.findall(structure)):
        yield f"holds an integral number beyond 64 bits ({_SMALLEST_INTEGER} to {_LARGEST_INTEGER})"


def _levels(structure: bytes) -> int:
    level = deepest = 0
    for bracket in structure.translate(None, _NOT_BRACKETS):
        level += 1 if bracket in b"[{" else -1
        deepest = max(deepest, level)
    return deepest


def _is_beyond_64_bits(written: str) -> bool:
    try:
        number = Decimal(written)
    except InvalidOperation:  # an exponent beyond Decimal's own
        return True
    if not number or number.adjusted() < 18 or not _is_integral(number):
        return False
    return number.adjusted() > 18 or not _SMALLEST_INTEGER <= number <= _LARGEST_INTEGER


def _is_integral(number: Decimal) -> bool:
    _, digits, exponent = number.as_tuple()
    return not isinstance(exponent, int) or exponent >= 0 or not any(digits[exponent:])


def _lost_infinity(value: object, what: str) -> bool:
    """Whether there is a NaN or Infinity that was written as null, as it is inside models."""
    data = _attempt(_json_of_python, value, what)
    return _holds_infinity(data) and _holds_infinity(_STRING.sub(b"", data))


def _holds_infinity(data: bytes) -> bool:
    return b"NaN" in data or b"Infinity" in data


def _lost_secret(value: object, what: str) -> bool:
    """Whether there is a secret that was written as asterisks; a model's own serializer may write it out."""
    rest = [_attempt(_python, value, what)]
    while rest:
        match rest.pop():
            case Secret() | SecretStr() | SecretBytes():
                return True
            case dict() as members:
                rest.extend(members.values())
            case list() | tuple() | set() | frozenset() as items:
                rest.extend(items)
    return False
