"""Fields of a payload that nobody is to read in logs and listings, as their JSON schema marks them.

A mark is `secret: true`, or what pydantic says of a SecretStr: a password that is only written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

ALL = "*"
"""In a path: every element of a list, or every value of a mapping."""

HIDDEN = "***"
"""What is shown instead."""

Schema = Mapping[str, Any]


def secret_paths(schema: Schema) -> list[list[str]]:
    """The paths of the fields that are marked, from the root of a JSON schema."""
    return [list(path) for path in sorted(set(_paths(schema, schema, ())))]


def hidden(value: Any, paths: Sequence[Sequence[str]]) -> Any:
    """The value with `***` in the place of what these paths lead to."""
    for path in paths:
        value = _hidden(value, path)
    return value


def without(text: str, payload: Any, paths: Sequence[Sequence[str]]) -> str:
    """A text with `***` in the place of every value of the payload that these paths lead to."""
    values = {leaf for path in paths for found in _found(payload, path) for leaf in _leaves(found)}
    for value in sorted(values, key=len, reverse=True):  # the longest first: it may hold a shorter one
        text = text.replace(value, HIDDEN)
    return text


def _found(value: Any, path: Sequence[str]) -> Iterator[Any]:
    if not path:
        yield value
    elif isinstance(value, list) and path[0] == ALL:
        for one in value:
            yield from _found(one, path[1:])
    elif isinstance(value, dict):
        for key, one in cast("dict[str, Any]", value).items():
            if path[0] in (key, ALL):
                yield from _found(one, path[1:])


def _leaves(value: Any) -> Iterator[str]:
    """What somebody might write of a value, in the forms that a message may quote it in."""
    if isinstance(value, Mapping | list):
        members = cast("Mapping[str, Any]", value).values() if isinstance(value, Mapping) else value
        for one in cast("Iterable[Any]", members):
            yield from _leaves(one)
    elif isinstance(value, str):
        yield from filter(None, (value, repr(value)[1:-1], json.dumps(value)[1:-1]))
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _paths(
    schema: Any, root: Schema, path: tuple[str, ...], seen: frozenset[str] = frozenset()
) -> Iterator[tuple[str, ...]]:
    if not isinstance(schema, Mapping):
        return
    given = cast("Schema", schema)
    if _is_marked(given):
        yield path
        return
    reference = given.get("$ref")
    if isinstance(reference, str) and reference not in seen:
        yield from _paths(_referred(reference, root), root, path, seen | {reference})
    elif reference is not None and _holds_marked(_referred(reference, root)):
        yield path  # it holds itself, as deep as one likes: all of it is hidden
    for name, member in given.get("properties", {}).items():
        yield from _paths(member, root, (*path, name), seen)
    for key in ("items", "additionalProperties"):
        yield from _paths(given.get(key), root, (*path, ALL), seen)
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for member in given.get(key, ()):
            yield from _paths(member, root, (*path, ALL) if key == "prefixItems" else path, seen)


def _is_marked(schema: Schema) -> bool:
    return schema.get("secret") is True or (
        schema.get("writeOnly") is True and schema.get("format") == "password"
    )


def _holds_marked(schema: Any) -> bool:
    if isinstance(schema, Mapping):
        given = cast("Schema", schema)
        return _is_marked(given) or any(map(_holds_marked, given.values()))
    return isinstance(schema, list) and any(map(_holds_marked, schema))


def _referred(reference: str, root: Schema) -> Any:
    found: Any = root
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part, {})
    return found


def _hidden(value: Any, path: Sequence[str]) -> Any:
    if not path:
        return HIDDEN
    name, rest = path[0], path[1:]
    if isinstance(value, list) and name == ALL:
        return [_hidden(one, rest) for one in value]
    if not isinstance(value, dict):
        return value
    members = cast("dict[str, Any]", value)
    return {key: _hidden(one, rest) if name in (key, ALL) else one for key, one in members.items()}
