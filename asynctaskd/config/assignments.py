"""Changes of the runtime configuration as people write them: assignments to its fields."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from asynctaskd.config.runtime import MAPPINGS, RuntimeConfig
from asynctaskd.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable

_NUMBERS = ("max_strict_percentage", "default_weight")
# Not all that Python reads: no digits of other scripts, no underscores.
_is_number = re.compile("-?[0-9]{1,20}").fullmatch

_LISTS = ("paused_labels", "paused_names")


def is_partial(assignment: str) -> bool:
    """Whether it changes one entry of a mapping or list, so that the others have to be known."""
    key = _key(assignment)
    return "." in key or key.endswith(("+", "-"))


def assigned(assignments: Iterable[str], now: RuntimeConfig) -> dict[str, Any]:
    """Field → value; entries that aren't named keep what they have `now`.

    Raises:
        InvalidInputError: one isn't an assignment to a field, or a list in it has an empty member.
    """
    changed: dict[str, Any] = {}
    for assignment in assignments:
        key, value = _key(assignment), assignment.partition("=")[2].strip()
        field, dot, entry = key.partition(".")
        operator = field[-1] if field.endswith(("+", "-")) and not entry else ""
        field = field.removesuffix(operator) if operator else field
        if field in _NUMBERS and not entry and not operator:
            changed[field] = _number(value) if value else getattr(RuntimeConfig(), field)
        elif field in MAPPINGS and not operator and bool(dot) == bool(entry):
            before = changed.get(field, getattr(now, field))
            changed[field] = _with_entry(before, entry, value) if entry else _mapping(_members(key, value))
        elif field in _LISTS and not dot:
            before = changed.get(field, getattr(now, field))
            changed[field] = _with_members(before, operator, _members(key, value))
        else:
            raise InvalidInputError(
                f"can't set {key}: write FIELD=VALUE, such as weights.LABEL=N or limits.LABEL=N, or "
                "FIELD+=NAME and FIELD-=NAME for the lists; fields are "
                f"{', '.join((*_NUMBERS, *MAPPINGS, *_LISTS))}"
            )
    return changed


def _key(assignment: str) -> str:
    key, equals, _ = assignment.partition("=")
    if not equals:
        raise InvalidInputError(f"{assignment!r} isn't an assignment: write FIELD=VALUE")
    return key.strip()


def _with_entry(before: dict[str, Any], label: str, value: str) -> dict[str, Any]:
    others = {name: number for name, number in before.items() if name != label}
    return others | {label: _number(value)} if value else others


def _mapping(members: list[str]) -> dict[str, Any]:
    pairs = (member.rpartition("=") for member in members)
    return {label: _number(number) for label, _, number in pairs}


def _with_members(before: list[str], operator: str, members: list[str]) -> list[str]:
    if operator == "+":
        return [*before, *(member for member in members if member not in before)]
    if operator == "-":
        return [member for member in before if member not in members]
    return members


def _members(key: str, value: str) -> list[str]:
    """Those of a list; an empty shell variable is no member, and only `FIELD=` means an empty list."""
    is_whole = not key.endswith(("+", "-"))
    if is_whole and not value:
        return []
    members = [member.strip() for member in value.split(",")]
    if not all(members):
        rule = "hold an empty member" if is_whole else "be empty, nor hold an empty member"
        raise InvalidInputError(f"{key}={value} must not {rule}")
    return members


def _number(text: str) -> int | str:
    """What the rules then say of a text that is no number is clearer than what could be said here."""
    return int(text) if _is_number(text) else text
