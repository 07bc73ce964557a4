"""Tasks that follow the failure of others: each is enqueued with `{"taskID": id}` and with its defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from asynctaskd.definitions.spec.drafts import Draft
from asynctaskd.definitions.spec.problems import Problems, nearest
from asynctaskd.definitions.spec.source import Node

_TASK_ID = "taskID"
_SPELLINGS = ("task_id", _TASK_ID)

_PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "required": [_TASK_ID],
    "properties": {
        _TASK_ID: {"type": "integer", "format": "int64", "description": "The id of the task that failed."}
    },
}


def complete_failure_tasks(drafts: Sequence[Draft], problems: Problems) -> list[Draft]:
    """The same tasks, with what being a failure task, and having one, means for them."""
    names = {draft.spec.name for draft in drafts}
    targets = {draft.spec.name: _target(draft, names, problems) for draft in drafts}
    followers = set(targets.values())
    return [
        replace(draft, spec=replace(draft.spec, on_failed=targets[draft.spec.name], parameters=parameters))
        for draft in drafts
        for parameters in [
            _parameters(draft, problems) if draft.spec.name in followers else draft.spec.parameters
        ]
    ]


def _target(draft: Draft, names: set[str], problems: Problems) -> str | None:
    target = draft.target
    if target is None:
        return None
    if not isinstance(target.value, str):
        problems.refuse(target.place, f"onFailed must name a task, got {target.got}")
    elif target.value == draft.spec.name:
        problems.refuse(target.place, f"task {target.value!r} can't follow its own failure")
    elif target.value not in names:
        hint = nearest(target.value, names)
        problems.refuse(target.place, f"no task of this file is named {target.value!r}{hint}")
    else:
        return target.value
    return None


def _parameters(draft: Draft, problems: Problems) -> Mapping[str, Any]:
    schema, node = draft.spec.parameters, draft.parameters
    if schema is None or node is None:
        return _PARAMETERS
    for name in schema.get("required", ()):
        if name != _id_of(schema):
            problems.refuse(
                node.place, f"{name!r} needs a default: a failure task is given no more than an id"
            )
    return {**schema, "properties": _with_task_id(schema, node, problems)}


def _with_task_id(schema: Mapping[str, Any], node: Node, problems: Problems) -> Mapping[str, Any]:
    name = _id_of(schema)
    properties: Mapping[str, Any] = schema.get("properties", {})
    if name not in properties:
        if schema.get("additionalProperties") is False:
            problems.refuse(node.place, f"a failure task is given {name}, which these parameters refuse")
        return properties
    place = node.value["properties"].value[name].place
    if properties[name].get("type") != "integer":
        problems.refuse(place, f"{name} must be of type integer: it is the id of the task that failed")
    if properties[name].get("format") == "int32":
        problems.warn(place, f"{name} is int64 here: ids have 64 bits")
    return {**properties, name: {**properties[name], "format": "int64"}}


def _id_of(schema: Mapping[str, Any]) -> str:
    """The property that takes the id."""
    properties = schema.get("properties", {})
    return next((name for name in _SPELLINGS if name in properties), _TASK_ID)
