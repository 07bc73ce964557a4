"""What the store is given and what it gives back: values for rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from asynctaskd.task import Task, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta
    from uuid import UUID

    import asyncpg

    from asynctaskd.task import Transition


Position = tuple[int, int]
"""A place in a label set's range of a ready index: (-weight, id), or (-priority, id) in the strict lane."""

START: Position = (-(2**31), 0)
"""Before every task: no weight or priority has that place."""


class News(NamedTuple):
    """What a renewal tells a worker: whether there is a configuration to apply or to answer, whether
    operators ask for it, and whether somebody watches.
    """

    is_steered: bool
    is_asked: bool
    is_watched: bool = False


class Look(NamedTuple):
    """What a look from the start found: label sets, each with the position after which its tasks begin.

    Those of the `normal` lane are the worker's own, those of the `strict` lane anybody's, and so are those of
    the first `suspects` that wait. `newest` is the last id that was given to a task. The server looked at so
    many `sets`, anybody's, in so many `seconds`.
    """

    normal: dict[str, Position]
    strict: dict[str, Position]
    suspects: frozenset[str]
    newest: int
    sets: int
    seconds: float


class Share(NamedTuple):
    """What a claim may take from one label set of the normal lane.

    `quota` is what the whole `group` may have, `row_limit` how many rows of this set are looked at. `weight`
    and `standing` of the group decide whose picks are left out where strict tasks take some of the slots.
    Only tasks after `after` are looked at, save those of more weight.
    """

    label_set: str
    group: str
    quota: int
    row_limit: int
    weight: int
    standing: float
    after: Position = START


class StrictLane(NamedTuple):
    """How many tasks a claim may take of the strict lane, and where it looks for them.

    With `new_above`, since walking through what is dead would take long: in some label sets only, `after` a
    position of each, and in all above that id; and nowhere for tasks of the normal lane that have more weight
    than their share's position. A claim from the normal lane alone holds back for no strict task in
    `blocked_sets`, nor for those up to the id `unblocked_above`.
    """

    most: int
    after: Mapping[str, Position] = MappingProxyType({})
    new_above: int = 0
    unblocked_above: int = 0
    blocked_sets: Sequence[str] = ()


class Barred(NamedTuple):
    """What a claim mustn't take: tasks of these `ids`, or that carry one of these `labels`, or more of a
    label in `spare` than stands there. Tasks of these `names` are to be put aside.
    """

    ids: Sequence[int] = ()
    labels: Sequence[str] = ()
    spare: Mapping[str, int] = MappingProxyType({})
    names: Sequence[str] = ()


NOTHING_BARRED = Barred()


class Ended(NamedTuple):
    """One transition on its way to the database: the claim it belongs to and what is to be written.

    `keep` is the definition's. `has_tag` says that the task has a unique tag, which has to be seen to.
    """

    task_id: int
    claim_token: int
    transition: Transition
    keep: timedelta | None
    has_tag: bool = True


@dataclass(frozen=True, slots=True)
class DefinitionRow:
    """One row of `definitions`; None where the definition says nothing. Tags and secrets are JSON arrays."""

    name: str
    schema_hash: str
    priority: int | None
    weight: int | None
    label_set: str | None
    tags: str | None
    serial_key: str | None
    unique_until: str | None
    delay: timedelta | None
    deadline: timedelta | None
    timeout: timedelta | None
    retry: str | None
    max_attempts: int | None
    keep: timedelta | None
    has_hook: bool
    codec: str | None = None
    secrets: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """What a worker says of itself when it registers.

    `process` names the process behind the identity; `place` is where it runs, None where no death can be
    proven.
    """

    id: UUID
    name: UUID
    process: UUID
    place: str | None
    hostname: str
    pid: int
    version: str
    labels: list[str]
    names: list[str]
    concurrency: int
    lease: timedelta
    max_strict_percentage: int | None = None


@dataclass(frozen=True, slots=True)
class Namesake:
    """A worker's row, as far as it matters whether that worker is still there."""

    id: UUID
    name: UUID
    process: UUID | None
    place: str | None
    hostname: str
    pid: int
    renewed_at: datetime
    is_live: bool


@dataclass(frozen=True, slots=True)
class DuePartition:
    """A table of finished tasks whose day has come, and what detaches it, unless it is detached already."""

    name: str
    detach: str | None


_JSON_COLUMNS = ("payload", "result", "progress", "metadata")


def task_of(row: asyncpg.Record | Mapping[str, Any]) -> Task:
    """A row of `all_tasks` as a Task."""
    values: dict[str, Any] = dict(row)
    for name in _JSON_COLUMNS:
        values[name] = None if values[name] is None else json.loads(values[name])
    values["status"] = TaskStatus(values["status"])
    return Task(**values)
