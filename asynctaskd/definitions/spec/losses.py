"""What of old payloads a file passes over: the rest is read without a word, and these values are gone.

Only null is no value: it is what models write of a property that is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from pydantic_core import from_json

from asynctaskd.definitions.spec.changes import NO_PARAMETERS, Change
from asynctaskd.definitions.spec.names import field_name
from asynctaskd.definitions.spec.spec import Spec

Schema = Mapping[str, Any]

_ANYTHING: Schema = {}


def properties_lost(old: Spec, new: Spec) -> list[Change]:
    """The properties of `old` that `new` neither reads nor refuses, in the order of `old`."""
    kept = _schemas(new)
    return [
        Change(task.name, path, "isn't read any more, and its values are dropped")
        for task in old.tasks
        if task.name in kept
        for path in _passed_over(task.parameters or NO_PARAMETERS, kept[task.name], "")
    ]


class Losses:
    """What payloads hold that is read by the old file, and passed over by the new one.

    Args:
        old: None: nobody knows, so all that payloads hold may have been read.
        new: the file as it is to be.
    """

    def __init__(self, old: Spec | None, new: Spec) -> None:
        self._old = None if old is None else _schemas(old)
        self._new = _schemas(new)

    def of(self, name: str, payload: str) -> set[str]:
        """The ways to what of a task's payload would be gone; the new file can read it."""
        old = _ANYTHING if self._old is None else self._old.get(name, NO_PARAMETERS)
        # By the parser that models have: what they can read it can.
        return set(_lost(old, self._new[name], from_json(payload), ""))


def _schemas(spec: Spec) -> dict[str, Schema]:
    return {task.name: task.parameters or NO_PARAMETERS for task in spec.tasks}


def _passed_over(old: Schema, new: Schema, path: str) -> Iterator[str]:
    for name, before in old.get("properties", {}).items():
        after, place = _read_as(new, name), _inside(path, name)
        if after is not None:
            yield from _passed_over(before, after, place)
        elif new.get("additionalProperties") is not False:
            yield place
    if "items" in old:
        yield from _passed_over(old["items"], new.get("items", _ANYTHING), f"{path}[]")
    if isinstance(values := old.get("additionalProperties"), dict):
        yield from _passed_over(values, _read_as(new, "") or _ANYTHING, _inside(path, "*"))


def _lost(old: Schema, new: Schema, value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for one in value:
            yield from _lost(old.get("items", _ANYTHING), new.get("items", _ANYTHING), one, f"{path}[]")
    elif isinstance(value, dict):
        for key, one in cast("dict[str, Any]", value).items():
            before, after = _read_as(old, key), _read_as(new, key)
            if before is None or one is None:
                continue
            place = _inside(path, key if "properties" in new else "*")  # a map's keys are values, too
            if after is None:
                yield place
            else:
                yield from _lost(before, after, one, place)


def _read_as(schema: Schema, key: str) -> Schema | None:
    """What a value of that key is read by; None where it is passed over, or refused."""
    properties = schema.get("properties", {})
    name = key if key in properties else next((name for name in properties if field_name(name) == key), None)
    if name is not None:
        return cast("Schema", properties[name])
    extra = schema.get("additionalProperties", "properties" not in schema)
    return extra if isinstance(extra, dict) else _ANYTHING if extra else None


def _inside(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
