"""What of the payloads of one file another file may no longer read.

A payload of the old file is what its models accept and write: every property of a model is there, as null
where it is optional and has no default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from asynctaskd.definitions.spec.spec import Spec
from asynctaskd.definitions.spec.values import misfits

Schema = Mapping[str, Any]

NO_PARAMETERS: Schema = {"type": "object", "properties": {}, "additionalProperties": False}
_RANKS = {"int32": 1, "int64": 2, None: 3}
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
_OTHERS = ("pattern", "multipleOf")


@dataclass(frozen=True, slots=True)
class Change:
    """One change that old payloads may not survive.

    Attributes:
        task: the task's name.
        field: the way to the property, or "" for all of it.
        problem: what is different.
    """

    task: str
    field: str
    problem: str


def breaking_changes(old: Spec, new: Spec) -> list[Change]:
    """What of `old` isn't accepted by `new`, in the order of `old`."""
    kept = {task.name: task for task in new.tasks}
    return [
        change
        for task in old.tasks
        for change in (
            _changes(task.name, task.parameters, kept[task.name].parameters)
            if task.name in kept
            else [Change(task.name, "", "was removed")]
        )
    ]


def _changes(task: str, old: Schema | None, new: Schema | None) -> Iterator[Change]:
    for path, problem in _narrowed(old or NO_PARAMETERS, new or NO_PARAMETERS, ""):
        yield Change(task, path, problem)


def _narrowed(old: Schema, new: Schema, path: str) -> Iterator[tuple[str, str]]:
    """What `new` refuses that `old` accepts: where, and why."""
    if old.get("nullable") and not new.get("nullable") and "type" in new:
        yield path, "may no longer be null"
    if not _same_type(old, new):
        yield path, f"was of type {old.get('type', 'any')}, is of type {new['type']}"
        return
    yield from ((path, problem) for problem in _narrowed_value(old, new))
    if new.get("type") == "array" and "items" in new:
        yield from _narrowed(old.get("items", {}), new["items"], f"{path}[]")
    if new.get("type") == "object":
        yield from _narrowed_object(old, new, path)


def _same_type(old: Schema, new: Schema) -> bool:
    widened = (old.get("type"), new.get("type")) == ("integer", "number")
    return "type" not in new or old.get("type") == new["type"] or widened


def _narrowed_value(old: Schema, new: Schema) -> Iterator[str]:
    if "enum" in old:
        lost = [value for value in old["enum"] if any(misfits(new, value))]
        if lost:
            yield f"may no longer be one of {lost}"
        return
    if "enum" in new:
        yield f"may only be one of {new['enum']}"
        return
    if new.get("format") != old.get("format") and not _is_wider_format(old, new):
        yield f"is of format {new['format']}, was of {old.get('format', 'none')}"
    for keyword in (*_LOWER, *_UPPER, *_OTHERS):
        if keyword in new and _is_tighter(keyword, old.get(keyword), new[keyword]):
            yield f"has {keyword} {new[keyword]}, had {old.get(keyword, 'none')}"


def _is_wider_format(old: Schema, new: Schema) -> bool:
    if new.get("type") == "integer":
        return _RANKS[new.get("format")] >= _RANKS[old.get("format")]
    return "format" not in new


def _is_tighter(keyword: str, old: Any, new: Any) -> bool:
    if old is None or keyword == "pattern":
        return bool(old != new)
    if keyword == "multipleOf":
        return bool(old % new)
    return bool(new > old if keyword in _LOWER else new < old)


def _narrowed_object(old: Schema, new: Schema, path: str) -> Iterator[tuple[str, str]]:
    before, after = old.get("properties", {}), new.get("properties", {})
    for name, schema in after.items():
        yield from _narrowed_property(name, old, new, schema, f"{path}.{name}" if path else name)
    extra = new.get("additionalProperties", True)
    if extra is False:
        for name in before:
            if name not in after:
                yield f"{path}.{name}" if path else name, "was removed, and what isn't defined is refused"
    if extra is False and old.get("additionalProperties", True) is not False:
        yield path, "other properties are refused"
    if isinstance(extra, dict):
        former = old.get("additionalProperties", True)
        yield from _narrowed(former if isinstance(former, dict) else {}, extra, f"{path}.*" if path else "*")


def _narrowed_property(
    name: str, old: Schema, new: Schema, schema: Schema, path: str
) -> Iterator[tuple[str, str]]:
    is_required, was_required = name in new.get("required", ()), name in old.get("required", ())
    former = old.get("properties", {}).get(name)
    if is_required and not was_required:
        yield path, "is required, and wasn't" if former is not None else "is required, and new"
    if former is not None:
        yield from _narrowed(_as_written(former, was_required), _as_written(schema, is_required), path)


def _as_written(schema: Schema, is_required: bool) -> Schema:
    """What is optional and has no default is null where it is left out."""
    return schema if is_required or "default" in schema else {**schema, "nullable": True}
