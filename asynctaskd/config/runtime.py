"""How is the fleet steered? The configuration that operators publish while workers run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any, NamedTuple, cast

from asynctaskd.config.values import NAME_PATTERN
from asynctaskd.config.wording import nearest, shown
from asynctaskd.durations import parse_duration
from asynctaskd.errors import InvalidInputError

_MAX_INTEGER = 2**31 - 1

MAPPINGS = ("weights", "limits", "max_run_times", "max_attempts")
"""The fields that say something of each label."""


class Caps(NamedTuple):
    """What the labels of a task allow at most; None is no limit."""

    run_time: timedelta | None
    attempts: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeConfig:
    """How the fleet is steered: one version of the row that operators publish and workers acknowledge.

    Attributes:
        version: counts the published versions; 0 where none was written yet.
        max_strict_percentage: 0 to 100, or None: each worker's own value applies.
        default_weight: the weight of the group `default`.
        weights: label to weight (at least 1); these labels are the groups of the normal lane.
        limits: label to the number of tasks that may run at once in the whole fleet.
        max_run_times: label to how long one execution of its tasks may take, as text such as `1h`.
        max_attempts: label to how often its tasks are run, retries included.
        paused_labels: tasks that carry one of them aren't claimed.
        paused_names: tasks of these names aren't claimed.

    Raises:
        InvalidInputError: a value breaks a rule; the message names the field.
    """

    version: int = 0
    max_strict_percentage: int | None = None
    default_weight: int = 1
    weights: dict[str, int] = field(default_factory=dict[str, int])
    limits: dict[str, int] = field(default_factory=dict[str, int])
    max_run_times: dict[str, str] = field(default_factory=dict[str, str])
    max_attempts: dict[str, int] = field(default_factory=dict[str, int])
    paused_labels: list[str] = field(default_factory=list[str])
    paused_names: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        """Check every field."""
        _check_integer("version", self.version, 0)
        if self.max_strict_percentage is not None:
            _check_integer("max_strict_percentage", self.max_strict_percentage, 0, 100)
        _check_integer("default_weight", self.default_weight, 1)
        _check_numbers("weights", self.weights, 1)
        _check_numbers("limits", self.limits, 0)
        _check_durations("max_run_times", self.max_run_times)
        _check_numbers("max_attempts", self.max_attempts, 1)
        _check_names("paused_labels", self.paused_labels)
        _check_names("paused_names", self.paused_names)

    def effective_strict_percentage(self, worker_value: int) -> int:
        """The share of slots for strict tasks, in percent: what this row sets wins over the worker's own."""
        return worker_value if self.max_strict_percentage is None else self.max_strict_percentage

    def caps_of(self, labels: Iterable[str]) -> Caps:
        """How long and how often a task of these labels may run at most; the strictest label counts."""
        times = [parse_duration(self.max_run_times[label]) for label in labels if label in self.max_run_times]
        attempts = [self.max_attempts[label] for label in labels if label in self.max_attempts]
        return Caps(min(times, default=None), min(attempts, default=None))

    def updated(self, changes: Mapping[str, Any]) -> RuntimeConfig:
        """The next version: fields left out keep their value, a mapping or list replaces the whole one.

        Raises:
            InvalidInputError: nothing is changed, a field is unknown, or a value breaks a rule.
        """
        if not changes:
            raise InvalidInputError("a change of the runtime configuration must name at least one field")
        known = [item.name for item in fields(self) if item.name != "version"]
        for name in changes:
            if name not in known:
                raise InvalidInputError(f"unknown runtime configuration field {name}{nearest(name, known)}")
        return replace(self, version=self.version + 1, **changes)


def read_leniently(row: Mapping[str, Any]) -> tuple[RuntimeConfig, str | None]:
    """A version as far as it can be read, each field that can't with its default, and what is wrong with it.

    Nobody can write such a version any more, but a database may have one from before.
    """
    config, problem = RuntimeConfig(), None
    for name, value in row.items():
        try:
            config = replace(config, **{name: value})
        except InvalidInputError as error:
            problem = problem or (
                f"version {row['version']} of the runtime configuration can't be read: {error}; set that "
                "field as a whole, or roll back to an earlier version"
            )
    return config, problem


def fields_of(changes: Mapping[str, Any]) -> dict[str, Any]:
    """A change by its fields: where `labels` and `weights` are two lists, they become a mapping.

    Of a label that is given twice the last weight counts.

    Raises:
        InvalidInputError: the lists aren't of one length, or there is only one of them.
    """
    given = dict(changes)
    if "labels" not in given:
        return given
    labels, weights = given.pop("labels"), given.get("weights")
    _check_names("labels", labels)
    if not isinstance(weights, list | tuple):
        raise InvalidInputError("labels need weights, a list of the same length")
    if len(labels) != len(cast("list[object]", weights)):
        raise InvalidInputError(
            f"labels and weights must have the same length, got {len(labels)} and "
            f"{len(cast('list[object]', weights))}"
        )
    return given | {"weights": dict(zip(labels, cast("list[object]", weights), strict=True))}


def _check_integer(name: str, value: object, least: int, most: int = _MAX_INTEGER) -> None:
    if type(value) is not int:
        raise InvalidInputError(f"{name} must be an integer, got {shown(value)}")
    if value < least:
        raise InvalidInputError(f"{name} must be at least {least}, got {value}")
    if value > most:
        raise InvalidInputError(f"{name} must be at most {most}, got {shown(value)}")


def _check_numbers(name: str, numbers: object, least: int) -> None:
    for label, number in _checked_labels(name, numbers, "integers"):
        _check_integer(f"{name}[{label}]", number, least)


def _check_durations(name: str, durations: object) -> None:
    for label, duration in _checked_labels(name, durations, "durations"):
        field = f"{name}[{label}]"
        try:
            length = parse_duration(duration) if isinstance(duration, str) else None
        except ValueError as error:
            raise InvalidInputError(f"{field}: {error}") from None
        if not length:
            raise InvalidInputError(f"{field} must be text such as '5s', more than 0, got {shown(duration)}")


def _checked_labels(name: str, given: object, to_what: str) -> list[tuple[object, object]]:
    if not isinstance(given, dict):
        raise InvalidInputError(f"{name} must map labels to {to_what}, got {shown(given)}")
    entries = cast("dict[object, object]", given)
    for label in entries:
        _check_name(name, label)
        if label in ("default", "__default__") or str(label).startswith("worker:"):
            raise InvalidInputError(f"{name} can't name the label {label}: it is reserved")
    return list(entries.items())


def _check_names(name: str, names: object) -> None:
    if not isinstance(names, list | tuple):
        raise InvalidInputError(f"{name} must be a list, got {shown(names)}")
    for item in cast("Iterable[object]", names):
        _check_name(name, item)


def _check_name(name: str, value: object) -> None:
    if not isinstance(value, str) or not NAME_PATTERN.fullmatch(value):
        raise InvalidInputError(
            f"{name} must name 1 to 128 characters A-Z a-z 0-9 _ . : / -, got {shown(value)}"
        )
