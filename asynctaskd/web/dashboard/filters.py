"""From the fields of a form or an address to a filter, and back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from asynctaskd.control.browsing import TaskFilter
from asynctaskd.definitions import rules
from asynctaskd.durations import parse_duration
from asynctaskd.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FIELDS = ("status", "name", "label", "tag", "unique_tag", "since", "until")
"""The fields of the form, as they stand in the address too."""

_MOMENT = "an instant such as 2026-01-31T12:00 (UTC), or how long ago, such as 2h"


@dataclass(frozen=True, slots=True)
class Given:
    """A filter as it was given.

    Attributes:
        fields: what stands in the form; empty where nothing is given.
        wanted: what it means.
    """

    fields: Mapping[str, str]
    wanted: TaskFilter

    @property
    def conditions(self) -> dict[str, str]:
        """Those that are given."""
        return {name: text for name, text in self.fields.items() if text}

    @property
    def is_only_a_status(self) -> bool:
        """Whether nothing but a status, or nothing at all, is asked for."""
        return self.conditions.keys() <= {"status"}


def read(get: Callable[[str], str]) -> Given:
    """The filter whose fields `get` returns; each may be empty.

    Raises:
        InvalidInputError: a field can't be read.
    """
    fields = {name: get(name) for name in FIELDS}
    return Given(
        fields,
        TaskFilter(
            statuses=tuple(rules.status("status", one) for one in _members(fields["status"])),
            name=fields["name"] or None,
            labels=tuple(_members(fields["label"])),
            tags=tuple(_members(fields["tag"])),
            unique_tag=fields["unique_tag"] or None,
            since=_moment("since", fields["since"]),
            until=_moment("until", fields["until"]),
        ),
    )


def _members(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _moment(name: str, text: str) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.now(UTC) - parse_duration(text)
    except (ValueError, OverflowError):
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(f"{name} must be {_MOMENT}, got {text!r}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
