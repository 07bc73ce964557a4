"""From a file to its tasks: each by itself, and then how they go together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from asynctaskd.definitions.spec.drafts import Draft, read_draft
from asynctaskd.definitions.spec.failures import complete_failure_tasks
from asynctaskd.definitions.spec.keys import list_of, read_keys
from asynctaskd.definitions.spec.names import params_class, snake
from asynctaskd.definitions.spec.problems import Problems
from asynctaskd.definitions.spec.source import Node, inside, read_source
from asynctaskd.definitions.spec.spec import Spec
from asynctaskd.definitions.spec.values import misfits

_NO_PARAMETERS = {"type": "object", "additionalProperties": False}
_FILLED_BY_SLOTS = ("date", "date-time")


def load_spec(path: Path) -> Spec:
    """Read and check a file of definitions.

    Raises:
        ConfigError: something is wrong; each line of the message is one problem, with its place.
    """
    problems = Problems(str(path))
    drafts = _drafts(read_source(path, problems), problems)
    _refuse_namesakes(drafts, problems)
    tasks = complete_failure_tasks(drafts, problems)
    for task in tasks:
        _check_schedule(task, problems)
    problems.raise_if_any()
    return Spec(path.name, [task.spec for task in tasks], problems.warnings)


def _drafts(document: Node, problems: Problems) -> list[Draft]:
    tasks = read_keys(document, ("tasks",), "the file", problems).get("tasks")
    if tasks is None:
        problems.stop(document.place, "the file needs the key tasks, a list of tasks")
    nodes = list_of(tasks, "tasks", problems)
    if tasks.value == []:
        problems.refuse(tasks.place, "tasks must hold at least one task")
    return [draft for node in nodes if (draft := read_draft(node, problems)) is not None]


def _refuse_namesakes(drafts: Sequence[Draft], problems: Problems) -> None:
    makers: list[Callable[[str], str]] = [str, snake, params_class]
    for make in makers:
        first: dict[str, Node] = {}
        for draft in drafts:
            made = make(draft.spec.name)
            before = first.setdefault(made, draft.name)
            if before.value != draft.name.value:
                both = f"{before.value!r} and {draft.name.value!r}"
                problems.refuse(
                    draft.name.place, f"{both} would both be {made} in Python: rename one of them"
                )
            elif before is not draft.name and make is str:
                problems.refuse(
                    draft.name.place, f"task {made!r} is defined in line {before.place.line} already"
                )


def _check_schedule(task: Draft, problems: Problems) -> None:
    cron, node = task.spec.options.get("cron"), task.cronjob
    if cron is None or node is None:
        return
    params = node.value.get("params", node)
    for path, message in misfits(_without_slots(task.spec.parameters or _NO_PARAMETERS), cron.params or {}):
        problems.refuse(inside(params, path).place, f"the schedule's params don't fit: {message}")


def _without_slots(schema: Any) -> dict[str, Any]:
    """The schema of what a schedule has to give: its slot fills in required dates."""
    properties = schema.get("properties", {})
    required = schema.get("required", ())
    left = [name for name in required if properties[name].get("format") not in _FILLED_BY_SLOTS]
    return {**schema, "required": left}
