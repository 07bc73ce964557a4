"""The fleet at one moment, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from asynctaskd.config.runtime import RuntimeConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupState:
    """A group of the normal lane.

    Attributes:
        name: its label, or `default`.
        weight: by the newest configuration that is for all.
        ready: how many tasks could run now, if there were slots; where `is_more`, at least so many.
        running: how many run.
        oldest: the id of the ready task that was created first, or None; `oldest_age` is since when, in
            seconds.
        is_paused: whether its label is paused.
        wanted: its share of the claims by weights, from 0 to 1, among the groups that have something ready
            which isn't paused, for some live worker; None where it isn't one of these.
        had: its share of what was claimed from the normal lane since the snapshot that this one is compared
            with; None where there is none, or nothing was claimed.
    """

    name: str
    weight: int
    ready: int
    is_more: bool
    running: int
    oldest: int | None
    oldest_age: float | None
    is_paused: bool
    wanted: float | None = None
    had: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StrictState:
    """The strict lane: what waits (where `is_more`, at least so many), what runs, and how much may."""

    ready: int
    is_more: bool
    running: int
    cap: int
    oldest: int | None
    oldest_age: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """A live worker.

    Attributes:
        id: its identity; `name` is its `worker.id`.
        running: tasks it holds, of `concurrency`; `strict` of them are of the strict lane, of `strict_cap`.
        silent: for how long it hasn't renewed its lease, in seconds.
        config_version: the version of the runtime configuration that it applies.
        rejected: the version that it couldn't read, if that is newer, and `rejected_because` why.
        stall: what blocks its event loop: `task`, `task_id`, `seconds`, `stack`; else None.
    """

    id: UUID
    name: UUID
    host: str
    labels: Sequence[str]
    running: int
    concurrency: int
    strict: int
    strict_cap: int
    silent: float
    config_version: int
    rejected: int | None
    rejected_because: str | None
    stall: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitState:
    """A limited label: how many of its tasks run in the whole fleet, and how many may."""

    label: str
    running: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerState:
    """The executions of one name. Durations are in seconds; None where there was none.

    Attributes:
        running: how many run; `longest` for how long the first of them does, and `longest_id` which that is.
        finished: how many records of the last minute were looked at; `failed` of them failed for good.
        mean: how long these took, and `p95`: all but a twentieth took at most so long.
    """

    name: str
    running: int
    longest: float | None
    longest_id: int | None
    finished: int
    failed: int
    mean: float | None
    p95: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCommand:
    """A command that some executions haven't obeyed yet; `workers` are those that run them."""

    request_id: UUID
    action: str
    requested_by: str
    requested_at: datetime
    open: int
    workers: Sequence[UUID]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The fleet at one moment, by the database's clock.

    Attributes:
        config: what holds for all workers, as far as it can be read; `config_problem` is what is wrong with
            a version that can't, and the cure, else None.
        groups: of the normal lane: those with a weight, `default` last.
        handlers: those that take longest first.
        claims: how many tasks each worker has claimed of each group, as far as it was watched.
        rate: claims a second since the snapshot that this one is compared with, the strict lane included.
    """

    at: datetime
    config: RuntimeConfig
    config_problem: str | None = None
    groups: Sequence[GroupState]
    strict: StrictState
    workers: Sequence[WorkerState]
    limits: Sequence[LimitState]
    handlers: Sequence[HandlerState]
    commands: Sequence[OpenCommand]
    rate: float | None = None
    claims: Mapping[UUID, Mapping[str, int]] = field(default_factory=dict[UUID, "Mapping[str, int]"])
