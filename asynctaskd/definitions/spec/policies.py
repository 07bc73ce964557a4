"""What stands beside the parameters of a task: how it is retried, when it is due, and its other options.

The rules are those of `@app.task`, and so are their messages.
"""

from __future__ import annotations

from typing import Any

from asynctaskd.definitions import rules
from asynctaskd.definitions.cron import Cron
from asynctaskd.definitions.options import TaskOptions
from asynctaskd.definitions.spec.keys import read_keys
from asynctaskd.definitions.spec.problems import Problems, nearest
from asynctaskd.definitions.spec.source import Node
from asynctaskd.errors import InvalidInputError
from asynctaskd.scheduling.retry import UNLIMITED, RetryPolicy

OPTIONS = (
    "timeout", "delay", "deadline", "keep", "labels", "tags", "priority", "weight", "serial_key",
    "unique_until",
)  # fmt: skip
"""The options of `@app.task` that the file writes like Python."""

INFINITE = rules.MAX_INT32
"""What the priority INF stands for: the highest one."""

_RETRY_KEYS = ("interval", "max_attempts", "max_retries", "always_retry_on_failure")
_CRON_KEYS = ("cron_expression", "zone", "params", "missed", "limit", "overlap")


def read_options(given: dict[str, Node], problems: Problems) -> dict[str, Any]:
    """What is to be given to `@app.task`, by name."""
    options: dict[str, Any] = {}
    for name in OPTIONS:
        if name in given:
            with problems.at(given[name].place):
                options[name] = _option(name, given[name].plain)
    if "retry_policy" in given and (retry := read_retry(given["retry_policy"], problems)):
        options["retry"] = retry
    if "cronjob" in given and (cron := read_cron(given["cronjob"], problems)):
        options["cron"] = cron
    return options


def _option(name: str, value: object) -> object:
    if value is None:
        raise InvalidInputError(f"{name} must have a value; leave it out for its default")
    if name == "priority" and isinstance(value, str) and value.upper() == "INF":
        return INFINITE
    if name == "priority" and isinstance(value, str):
        raise InvalidInputError(f"priority must be an integer or INF, got {value!r}")
    TaskOptions.declared({name: value})
    return value


def read_retry(node: Node, problems: Problems) -> RetryPolicy | None:
    """A retry policy, in Anclax's words or in Anchor's."""
    given = read_keys(node, _RETRY_KEYS, "retryPolicy", problems)
    interval = given.get("interval")
    if interval is None:
        if isinstance(node.value, dict):
            problems.refuse(node.place, "retryPolicy needs an interval, such as 5m or 1m,2m,4m")
        return None
    attempts = _attempts(given, problems)
    with problems.at(interval.place):
        policy = RetryPolicy.parse(rules.storable("interval", interval.plain))
        with problems.at(given.get("max_attempts", interval).place):
            return policy if attempts is None else RetryPolicy.parse(interval.value, max_attempts=attempts)
    return None


def _attempts(given: dict[str, Node], problems: Problems) -> Any:
    """How many executions; None where nothing is said."""
    ours, retries, always = (given.get(key) for key in _RETRY_KEYS[1:])
    if ours is not None and (retries or always):
        problems.refuse(ours.key, "maxAttempts excludes max_retries and always_retry_on_failure")
    if always is not None and not isinstance(always.value, bool):
        problems.refuse(always.place, f"always_retry_on_failure must be true or false, got {always.got}")
    if ours is not None:
        return ours.plain
    if retries is not None:
        with problems.at(retries.place):
            return rules.integer("max_retries", retries.plain, 0, rules.MAX_INT32 - 1) + 1
    return None if always is None else UNLIMITED if always.value else 1


def read_cron(node: Node, problems: Problems) -> Cron | None:
    """When a task is due again and again."""
    given = read_keys(node, _CRON_KEYS, "cronjob", problems)
    if "cron_expression" not in given:
        if isinstance(node.value, dict):
            problems.refuse(node.place, "cronjob needs a cronExpression, such as '0 0 2 * * *'")
        return None
    settings: dict[str, Any] = {key: given[key].plain for key in _CRON_KEYS[1:] if key in given}
    if isinstance(settings.get("params", {}), dict):
        with problems.at(given["cron_expression"].place):
            return Cron(given["cron_expression"].plain, **settings)
    else:
        problems.refuse(given["params"].place, f"params must be a mapping, got {given['params'].got}")
    return None


def read_events(node: Node, problems: Problems) -> tuple[bool, Node | None]:
    """Whether a task has a hook for its failure (Anclax), and which task follows it (Anchor)."""
    if isinstance(node.value, list):
        names = [_known_event(one, problems) for one in node.value]
        return any(names), None
    if isinstance(node.value, dict):
        return False, read_keys(node, ("on_failed",), "events", problems).get("on_failed")
    problems.refuse(node.place, f"events must be [onFailed], or {{onFailed: task}}, got {node.got}")
    return False, None


def _known_event(one: Node, problems: Problems) -> bool:
    if one.value not in ("onFailed", "on_failed"):
        problems.warn(
            one.place,
            f"event {one.got} isn't known and is passed over{nearest(str(one.value), ['onFailed'])}",
        )
        return False
    return True
