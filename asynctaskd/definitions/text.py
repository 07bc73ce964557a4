"""Texts that PostgreSQL takes and people can read, whatever they were made from."""

from __future__ import annotations

import re
import reprlib

from asynctaskd.telemetry.discretion import describe, without_passwords

MAX_TEXT_BYTES = 65_536
"""The longest error text that is stored, in bytes of UTF-8 (64 KiB)."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_GROUP_MEMBERS = 5
_GROUP_LEVELS = 3

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 80


def is_storable(text: str) -> bool:
    """Whether PostgreSQL takes the text: no NUL character and no lone surrogate."""
    return not _UNSTORABLE.search(text)


def truncate_text(text: str, limit: int = MAX_TEXT_BYTES) -> str:
    """Cut a text to at most `limit` bytes of UTF-8; a mark at its end says how long it was.

    NUL characters and lone surrogates become U+FFFD, since PostgreSQL takes neither. A limit too small
    for the mark gives a part of the mark.
    """
    kept = _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text[:limit])
    if len(text) <= limit and len(kept) * 4 <= limit:
        return kept
    encoded = kept.encode()
    if len(text) <= limit and len(encoded) <= limit:
        return kept
    mark = f" … [truncated, {len(text)} characters]".encode()[:limit]
    return (encoded[: limit - len(mark)] + mark).decode(errors="ignore")


def describe_error(error: BaseException, limit: int = MAX_TEXT_BYTES) -> str:
    """`ValueError: message`, at most `limit` bytes, storable in PostgreSQL. Never raises.

    Values that the database's or pydantic's own errors quote are left out, and so are passwords in URLs.

    An exception whose `__str__` raises is described by its type. An exception group names its first
    members too: its own message says nothing.
    """
    return truncate_text(_described(error, _GROUP_LEVELS), limit)


def shown(value: object) -> str:
    """A short `repr` for an error message; never raises."""
    try:
        return _brief.repr(value)
    except Exception:  # noqa: BLE001  (an integer of thousands of digits, for one)
        return f"an unprintable {type(value).__name__}"


def _described(error: BaseException, levels: int) -> str:
    return _alone(error) + _members(error, levels)


def _alone(error: BaseException) -> str:
    try:
        return without_passwords(describe(error))
    except BaseException:  # noqa: BLE001  (not even SystemExit in a user's __str__ may end the daemon)
        return f"{type(error).__name__}: (its message can't be read)"


def _members(error: BaseException, levels: int) -> str:
    if not isinstance(error, BaseExceptionGroup) or not levels:
        return ""
    members = [_described(member, levels - 1) for member in error.exceptions[:_GROUP_MEMBERS]]
    more = len(error.exceptions) - len(members)
    return f" [{'; '.join(members)}{f'; and {more} more' if more else ''}]"
