"""What may be told of an error or a text: no values that drivers and validators quote, and no passwords."""

from __future__ import annotations

import re
from typing import Any, cast

from pydantic import ValidationError

HIDDEN = "***"
"""What is shown instead."""

_MOST_FIELDS = 10
_CREDENTIALS = re.compile(r"://\S*@")
_PASSWORD = re.compile(r"(password\s*=\s*)('[^']*'|[^\s&]+)", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """A text without what addresses of databases have in them."""
    if "://" in text:
        text = _CREDENTIALS.sub(f"://{HIDDEN}@", text)
    return _PASSWORD.sub(rf"\1{HIDDEN}", text) if "assword" in text.lower() else text


def describe(error: BaseException) -> str:
    """`ValueError: message`, without values that the message quotes; may raise what its `__str__` raises.

    Of a database's error that is its SQLSTATE and message, or where that quotes (classes 22 and 23) the name
    of the constraint; of a validation the fields, and the rules that they break.
    """
    name = type(error).__name__
    if isinstance(error, ValidationError):
        return f"{name}: {_rules_broken(error)}"
    if (cause := _database_error(error)) is not None:
        return f"{name} {_database_message(cause)}"
    # Joined, so that a subclass of str can't bring methods of its own.
    message = "".join(["", str(error)])
    return f"{name}: {message}" if message else name


def _rules_broken(error: ValidationError) -> str:
    details = error.errors(include_url=False, include_input=False, include_context=False)
    lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}".removeprefix(": ") for one in details]
    more = f" (and {len(lines) - _MOST_FIELDS} more)" if len(lines) > _MOST_FIELDS else ""
    return f"{error.title}: {'; '.join(lines[:_MOST_FIELDS])}{more}"


def _database_error(error: BaseException) -> BaseException | None:
    """The driver's own error: this one, or what SQLAlchemy and Django have around it."""
    if isinstance(getattr(error, "sqlstate", None) or getattr(error, "pgcode", None), str):
        return error
    if isinstance(inner := getattr(error, "orig", None), BaseException):
        return inner
    cause = error.__cause__
    return cause if cause is not None and type(error).__module__.startswith("django.db") else None


def _database_message(error: BaseException) -> str:
    given = cast("Any", error)
    state = getattr(given, "sqlstate", None) or getattr(given, "pgcode", None)
    diagnosis = getattr(given, "diag", None)
    constraint = getattr(given, "constraint_name", None) or getattr(diagnosis, "constraint_name", None)
    if constraint:
        return f"({state}): constraint {constraint}"
    if not state or state[:2] in ("22", "23"):
        return f"({state or 'no SQLSTATE'})"
    # Below it there may be a DETAIL, which quotes keys.
    message = getattr(diagnosis, "message_primary", None) or (str(error.args[0]) if error.args else "")
    return f"({state}): {message}" if message else f"({state})"
