"""The members of a mapping by their names, in either spelling; and values of a kind."""

from __future__ import annotations

from collections.abc import Iterable

from asynctaskd.definitions.spec.problems import Problems, nearest
from asynctaskd.definitions.spec.source import Node


def read_keys(node: Node, keys: Iterable[str], what: str, problems: Problems) -> dict[str, Node]:
    """The members of a mapping whose keys are known, by the key in snake_case.

    Every key may be written in camelCase too. An unknown one is passed over with a warning, save `x-…`, which
    are other tools'.
    """
    if not isinstance(node.value, dict):
        problems.refuse(node.place, f"{what} must be a mapping, got {node.got}")
        return {}
    spellings = {spelling: key for key in keys for spelling in (key, camel(key))}
    found: dict[str, Node] = {}
    given: dict[str, str] = {}
    for written, member in node.value.items():
        key = spellings.get(written)
        if key is None:
            warn_unknown(written, member, spellings, problems)
        elif key in found:
            problems.refuse(member.key, f"{given[key]!r} and {written!r} are one key, given twice")
        else:
            found[key], given[key] = member, written
    return found


def warn_unknown(written: str, member: Node, known: Iterable[str], problems: Problems) -> None:
    """Say that a key isn't known, and which one may be meant."""
    if not written.startswith("x-"):
        problems.warn(member.key, f"unknown key {written!r} is passed over{nearest(written, known)}")


def camel(key: str) -> str:
    """`max_attempts` as `maxAttempts`."""
    first, *rest = key.split("_")
    return first + "".join(word.capitalize() for word in rest)


def text_of(node: Node, what: str, problems: Problems) -> str:
    """A text; of anything else an empty one, which is a problem."""
    if isinstance(node.value, str):
        return node.value
    problems.refuse(node.place, f"{what} must be text, got {node.got}")
    return ""


def list_of(node: Node, what: str, problems: Problems) -> list[Node]:
    """The items of a list; of anything else none, which is a problem."""
    if isinstance(node.value, list):
        return node.value
    problems.refuse(node.place, f"{what} must be a list, got {node.got}")
    return []
