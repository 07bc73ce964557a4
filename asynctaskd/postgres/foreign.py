"""The seam to all other drivers: our statements with their placeholders, their errors in our words."""

from __future__ import annotations

import re
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import asyncpg

from asynctaskd.errors import DatabaseUnavailableError
from asynctaskd.postgres.driver import query, translate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asynctaskd.errors import AsynctaskdError

PYFORMAT = r"%(p\1)s"
"""The placeholders of psycopg 2 and 3."""

NAMED = r"(:p\1)"
"""The placeholders of SQLAlchemy, in brackets: it would read `:p1::text` as something else."""

_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)
_PARAMETER = re.compile(r"\$(\d+)")


@cache
def query_with(placeholder: str, name: str, schema: str) -> str:
    """The statement of `queries/NAME.sql`, for that schema, with placeholders named `p1`, `p2` and so on."""
    return _PARAMETER.sub(placeholder, _COMMENT.sub("", query(name, schema)))


def named(arguments: Sequence[Any]) -> dict[str, Any]:
    """Arguments for those placeholders. A tuple becomes a list, since drivers take it for a row."""
    return {
        f"p{place}": list(value) if isinstance(value, tuple) else value
        for place, value in enumerate(arguments, 1)
    }


@contextmanager
def translated_from_any_driver(role: str) -> Iterator[None]:
    """Raise as ours what the server says of our statement, whichever driver tells it.

    `role` is the one whose rights the statement takes.

    What befalls the caller's connection or transaction stays as its driver says it: whoever owns them knows
    those errors, and how to go on from there.
    """
    try:
        yield
    except Exception as error:
        ours = _ours(error, role)
        if ours is None or isinstance(ours, DatabaseUnavailableError):
            raise
        raise ours from error


def _ours(error: BaseException, role: str) -> AsynctaskdError | None:
    """Our word for an error that a driver raised, or that wraps one: Django's and SQLAlchemy's do."""
    told = _told(error)
    if told is not None:
        return translate(told, role)
    return None if error.__cause__ is None else _ours(error.__cause__, role)


def _told(error: BaseException) -> asyncpg.PostgresError | None:
    """What the server said, as asyncpg would have raised it."""
    if isinstance(error, asyncpg.PostgresError):
        return error
    fields = _fields(error)
    return None if fields is None else asyncpg.PostgresError.new(fields)


def _fields(error: BaseException) -> dict[str, Any] | None:
    """The fields of the server's message, by the letters that the protocol has for them."""
    told = getattr(error, "diag", None)
    if told is not None and told.sqlstate is not None:  # psycopg 2 and 3
        return {"C": told.sqlstate, "M": told.message_primary, "D": told.message_detail}
    match error.args:
        case ({"C": code, "M": message, **others},):  # pg8000
            return {"C": code, "M": message, "D": others.get("D")}
    return None
