"""One task of a file by itself."""

from __future__ import annotations

from dataclasses import dataclass

from asynctaskd.definitions import rules
from asynctaskd.definitions.spec.keys import read_keys, text_of
from asynctaskd.definitions.spec.names import snake
from asynctaskd.definitions.spec.policies import OPTIONS, read_events, read_options
from asynctaskd.definitions.spec.problems import Problems
from asynctaskd.definitions.spec.schema import read_parameters
from asynctaskd.definitions.spec.source import Node
from asynctaskd.definitions.spec.spec import TaskSpec

_KEYS = ("name", "description", "parameters", "retry_policy", "cronjob", "events", *OPTIONS)


@dataclass(frozen=True, slots=True)
class Draft:
    """A task that was read, beside what the file says, since more has to be said about that."""

    spec: TaskSpec
    name: Node
    parameters: Node | None = None
    cronjob: Node | None = None
    target: Node | None = None


def read_draft(node: Node, problems: Problems) -> Draft | None:
    """Read one task, or None where it has no name to speak of."""
    given = read_keys(node, _KEYS, "a task", problems)
    name = _name(node, given.get("name"), problems)
    description = given.get("description")
    parameters = given.get("parameters")
    has_hook, target = read_events(given["events"], problems) if "events" in given else (False, None)
    spec = TaskSpec(
        name=name or "",
        description="" if description is None else text_of(description, "description", problems),
        parameters=None if parameters is None else read_parameters(parameters, problems),
        options=read_options(given, problems),
        has_hook=has_hook,
    )
    if name is None:
        return None
    return Draft(spec, given["name"], parameters, given.get("cronjob"), target)


def _name(node: Node, given: Node | None, problems: Problems) -> str | None:
    if given is None:
        if isinstance(node.value, dict):
            problems.refuse(node.place, "this task needs a name")
        return None
    with problems.at(given.place):
        name = rules.name("name", given.plain)
        if snake(name):
            return name
        problems.refuse(given.place, f"no name in Python can be made of {name!r}")
    return None
