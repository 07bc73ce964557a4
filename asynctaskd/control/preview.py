"""What a change of the runtime configuration would come to: who gets how much of the claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from asynctaskd.scheduling.lanes import DEFAULT_GROUP, strict_cap

if TYPE_CHECKING:
    from asynctaskd.config.runtime import RuntimeConfig

_OPEN = 100


@dataclass(frozen=True, slots=True)
class Caps:
    """How many slots of one live worker strict tasks may hold, before and after."""

    worker_id: UUID
    host: str
    concurrency: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Preview:
    """A change that wasn't made.

    Attributes:
        before: what holds for all workers.
        after: what would.
        shares: group → its shares of the normal lane's claims before and after, from 0 to 1, where every
            group has backlog; None where it isn't a group.
        caps: the strict caps of the live workers.
    """

    before: RuntimeConfig
    after: RuntimeConfig
    shares: Mapping[str, tuple[float | None, float | None]]
    caps: Sequence[Caps]


def preview_of(before: RuntimeConfig, after: RuntimeConfig, workers: Sequence[Mapping[str, Any]]) -> Preview:
    """Compare two versions; `workers` are rows of the live ones."""
    old, new = _shares(before), _shares(after)
    groups = sorted({*old, *new}, key=lambda group: (group == DEFAULT_GROUP, group))
    return Preview(
        before,
        after,
        {group: (old.get(group), new.get(group)) for group in groups},
        [_caps(before, after, worker) for worker in workers],
    )


def _shares(config: RuntimeConfig) -> dict[str, float]:
    weights = {**config.weights, DEFAULT_GROUP: config.default_weight}
    total = sum(weights.values())
    return {group: weight / total for group, weight in weights.items()}


def _caps(before: RuntimeConfig, after: RuntimeConfig, worker: Mapping[str, Any]) -> Caps:
    own = _OPEN if worker["max_strict_percentage"] is None else worker["max_strict_percentage"]
    caps = [
        strict_cap(worker["concurrency"], config.effective_strict_percentage(own))
        for config in (before, after)
    ]
    return Caps(worker["id"], f"{worker['hostname']}:{worker['pid']}", worker["concurrency"], *caps)
