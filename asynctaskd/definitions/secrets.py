"""Fields of a payload that nobody is to read in logs and listings: `secret: true` in their JSON schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
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


def _paths(
    schema: Any, root: Schema, path: tuple[str, ...], seen: frozenset[str] = frozenset()
) -> Iterator[tuple[str, ...]]:
    if not isinstance(schema, Mapping):
        return
    given = cast("Schema", schema)
    if given.get("secret") is True:
        yield path
        return
    reference = given.get("$ref")
    if isinstance(reference, str) and reference not in seen:
        yield from _paths(_referred(reference, root), root, path, seen | {reference})
    elif reference is not None and '"secret": true' in json.dumps(_referred(reference, root)):
        yield path  # it holds itself, as deep as one likes: all of it is hidden
    for name, member in given.get("properties", {}).items():
        yield from _paths(member, root, (*path, name), seen)
    for key in ("items", "additionalProperties"):
        yield from _paths(given.get(key), root, (*path, ALL), seen)
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for member in given.get(key, ()):
            yield from _paths(member, root, (*path, ALL) if key == "prefixItems" else path, seen)


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
