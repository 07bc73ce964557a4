"""The options of a task: declared in its definition, overridden at enqueue; None means left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any, Literal, TypedDict

from asynctaskd.codecs.codec import Codec
from asynctaskd.definitions import cron, rules
from asynctaskd.definitions.cron import Cron
from asynctaskd.errors import InvalidInputError
from asynctaskd.scheduling.retry import RetryPolicy


class DeclaredOptions(TypedDict, total=False):
    """What a definition may declare, as users write it. See `TaskOptions` for the meaning."""

    priority: int | None
    weight: int | None
    labels: Iterable[str] | None
    tags: Iterable[str] | None
    unique_until: Literal["finished", "forgotten"] | None
    serial_key: str | None
    delay: str | timedelta | None
    deadline: str | timedelta | None
    timeout: str | timedelta | None
    retry: RetryPolicy | str | None
    keep: str | timedelta | Literal[0] | None
    cron: Cron | str | None
    on_failed: str | None
    codec: Codec | None


class RequestOptions(TypedDict, total=False):
    """What an enqueue may ask for, as users write it. See `TaskOptions` for the meaning."""

    priority: int | None
    weight: int | None
    labels: Iterable[str] | None
    tags: Iterable[str] | None
    unique_tag: str | None
    unique_until: Literal["finished", "forgotten"] | None
    on_conflict: Literal["return", "raise"] | None
    serial_key: str | None
    serial_id: int | None
    parent_id: int | None
    depends_on: Iterable[int] | None
    delay: str | timedelta | None
    run_at: datetime | None
    deadline: str | timedelta | datetime | None
    timeout: str | timedelta | None
    retry: RetryPolicy | str | None
    keep: str | timedelta | Literal[0] | None
    metadata: Mapping[str, Any] | None
    cron: Cron | str | None
    target: str | None
    method: str | None
    idempotence_token: str | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TaskOptions:
    """Options that were checked and brought into one form; make them with `declared` or `requested`.

    Attributes:
        priority: 0 to 2147483647; above 0 is the strict lane.
        weight: 1 to 2147483647; the order inside a group.
        labels: at most 16, each once, sorted by bytes. An empty tuple is a value: no labels.
        tags: each once, in the order given.
        unique_tag: one task per tag.
        unique_until: `finished` or `forgotten`.
        on_conflict: `return` or `raise`, where the unique tag is taken.
        serial_key: tasks of one key run one at a time.
        serial_id: their order; needs a key, its own or the definition's.
        parent_id: the id of the parent.
        depends_on: ids of tasks that must complete first, each once, in the order given.
        delay: from the enqueue on, at least 0; excludes `run_at`.
        run_at: not before this instant (UTC).
        deadline: not started after this instant (UTC), or after this duration from the enqueue on.
        timeout: how long one execution may take, more than 0.
        retry: the retry policy.
        keep: how long the finished record is kept, at least 0.
        metadata: a JSON object, as text.
        cron: when it is due again and again; at enqueue it makes a schedule instead of a task.
        on_failed: the task that is enqueued when this one fails for good.
        codec: how payload, result, error text and progress are stored.
    """

    priority: int | None = None
    weight: int | None = None
    labels: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    unique_tag: str | None = None
    unique_until: str | None = None
    on_conflict: str | None = None
    serial_key: str | None = None
    serial_id: int | None = None
    parent_id: int | None = None
    depends_on: tuple[int, ...] | None = None
    delay: timedelta | None = None
    run_at: datetime | None = None
    deadline: datetime | timedelta | None = None
    timeout: timedelta | None = None
    retry: RetryPolicy | None = None
    keep: timedelta | None = None
    metadata: str | None = None
    cron: Cron | None = None
    on_failed: str | None = None
    codec: Codec | None = None

    @classmethod
    def declared(cls, given: Mapping[str, object]) -> TaskOptions:
        """The options of a definition.

        Raises:
            InvalidInputError: an option is unknown, breaks its rule or belongs to a single enqueue only.
        """
        return cls(**_checked(given, _DECLARED))

    @classmethod
    def requested(cls, given: Mapping[str, object]) -> TaskOptions:
        """The options of one enqueue.

        Raises:
            InvalidInputError: an option is unknown or breaks its rule.
        """
        if not given:
            return NO_OPTIONS
        values = _checked(given, _REQUESTED)
        if "delay" in values and "run_at" in values:
            raise InvalidInputError("delay and run_at exclude each other")
        return cls(**_fit_for_cron(values))

    def given(self) -> dict[str, Any]:
        """The options that were not left out, by name."""
        values = ((name, getattr(self, name)) for name in _NAMES)
        return {name: value for name, value in values if value is not None}

    @property
    def deadlines(self) -> tuple[datetime | None, timedelta | None]:
        """The deadline as an instant, or as a duration that the database adds to its own clock."""
        return (None, self.deadline) if isinstance(self.deadline, timedelta) else (self.deadline, None)

    def as_json(self, *, but: Collection[str] = ()) -> dict[str, Any]:
        """The options that were given, by their names in SQL's `enqueue`; those in `but` are left out."""
        instant, after = self.deadlines
        values = {
            "priority": self.priority,
            "weight": self.weight,
            "labels": self.labels,
            "tags": self.tags,
            "unique_tag": self.unique_tag,
            "unique_until": self.unique_until,
            "on_conflict": self.on_conflict,
            "serial_key": self.serial_key,
            "serial_id": self.serial_id,
            "parent_id": self.parent_id,
            "delay": _seconds(self.delay),
            "run_at": self.run_at and self.run_at.isoformat(),
            "deadline": instant and instant.isoformat(),
            "deadline_after": _seconds(after),
            "timeout": _seconds(self.timeout),
            "retry": self.retry and self.retry.spec,
            "max_attempts": self.retry and self.retry.max_attempts,
            "keep": _seconds(self.keep),
            "metadata": self.metadata and json.loads(self.metadata),
            "depends_on": self.depends_on,
        }
        return {name: value for name, value in values.items() if value is not None and name not in but}

    def __repr__(self) -> str:
        return f"TaskOptions({', '.join(f'{name}={value!r}' for name, value in self.given().items())})"

    def overridden_by(self, other: TaskOptions) -> TaskOptions:
        """These options, save where `other` gives one; of delay and run_at the other's is kept."""
        values = self.given() | other.given()
        if other.run_at is not None:
            values.pop("delay", None)
        if other.delay is not None:
            values.pop("run_at", None)
        return TaskOptions(**_fit_for_cron(values))


NO_OPTIONS = TaskOptions()

_Rule = Callable[[str, object], Any]

_SHARED: dict[str, _Rule] = {
    "priority": rules.priority,
    "weight": rules.weight,
    "labels": rules.labels,
    "tags": rules.tags,
    "unique_until": rules.unique_until,
    "serial_key": rules.text,
    "delay": rules.duration,
    "deadline": rules.positive_duration,
    "timeout": rules.positive_duration,
    "retry": rules.retry,
    "keep": rules.keep,
}
_DECLARED: dict[str, _Rule] = _SHARED | {
    "cron": cron.declared,
    "on_failed": rules.name,
    "codec": rules.codec,
}
_REQUESTED: dict[str, _Rule] = _SHARED | {
    "unique_tag": rules.text,
    "on_conflict": rules.on_conflict,
    "serial_id": rules.int64,
    "parent_id": rules.task_id,
    "depends_on": rules.task_ids,
    "run_at": rules.instant,
    "deadline": rules.deadline,
    "retry": rules.written_retry,
    "metadata": rules.metadata,
    "cron": cron.requested,
}
# Options of a single task.
_ONCE = {"unique_tag", "unique_until", "on_conflict", "serial_id", "parent_id", "run_at"}
_NAMES = tuple(field.name for field in fields(TaskOptions))


def _seconds(duration: timedelta | None) -> str | None:
    return None if duration is None else f"{duration.total_seconds():f}s"


def _checked(given: Mapping[str, object], known: dict[str, _Rule]) -> dict[str, Any]:
    ruled = [(_rule(option, known), option, value) for option, value in given.items()]
    return {option: rule(option, value) for rule, option, value in ruled if value is not None}


def _fit_for_cron(values: dict[str, Any]) -> dict[str, Any]:
    if "cron" in values and (unfit := sorted(_ONCE & values.keys())):
        raise InvalidInputError(f"cron and {unfit[0]} exclude each other: each slot enqueues a task")
    return values


def _rule(option: str, known: dict[str, _Rule]) -> _Rule:
    try:
        return known[option]
    except KeyError:
        raise InvalidInputError(_unknown(option, known)) from None


def _unknown(option: str, known: dict[str, _Rule]) -> str:
    if option in _REQUESTED:
        return f"option {option!r} belongs to an enqueue, not to a definition"
    if option in _DECLARED:
        return f"option {option!r} belongs to a definition, not to an enqueue"
    nearest = get_close_matches(option, known, n=1, cutoff=0)
    return f"unknown option {option!r}; the nearest known one is {nearest[0]!r}"
