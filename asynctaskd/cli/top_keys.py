"""What keys do in `asynctaskd top`: functions of what is shown, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from asynctaskd.scheduling.lanes import DEFAULT_GROUP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asynctaskd.control.fleet import GroupState, Overview
    from asynctaskd.control.runtime_config import ConfigFields

_MOST = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What the operator has done so far.

    Attributes:
        group: the name of the chosen group; where there is no such group, the first one is.
        weights: new weights by group, shown and not asked for yet.
        pauses: the same of labels, and whether they are to be paused.
        is_helping: whether the keys are explained.
        said: what became of the last change, in a sentence.
    """

    group: str | None = None
    weights: Mapping[str, int] = field(default_factory=dict[str, int])
    pauses: Mapping[str, bool] = field(default_factory=dict[str, bool])
    is_helping: bool = False
    said: str = ""

    @property
    def is_pending(self) -> bool:
        """Whether something is to be changed that hasn't been asked for."""
        return bool(self.weights or self.pauses)


def by_backlog(overview: Overview) -> Overview:
    """The snapshot with its groups in the order of what waits: a low screen shows where it piles up."""
    return replace(overview, groups=sorted(overview.groups, key=lambda group: -group.ready))


def chosen(state: State, overview: Overview) -> GroupState:
    """The group that the keys are about."""
    named = [group for group in overview.groups if group.name == state.group]
    return (named or list(overview.groups))[0]


def react(state: State, key: str, overview: Overview) -> State:
    """What a key makes of the state; `enter` and `q` are for whoever asks for changes, and draws."""
    match key:
        case "?":
            return replace(state, is_helping=not state.is_helping)
        case "up" | "k":
            return _moved(state, overview, -1)
        case "down" | "j":
            return _moved(state, overview, +1)
        case "+" | "=":
            return _weighted(state, overview, +1)
        case "-":
            return _weighted(state, overview, -1)
        case "p":
            return _paused(state, overview)
        case "escape":
            return replace(state, weights={}, pauses={}, is_helping=False, said="")
    return state


def change_of(state: State, overview: Overview) -> ConfigFields:
    """What the pending changes come to: mappings and lists as a whole, on top of what is shown."""
    config = overview.config
    fields: ConfigFields = {}
    weights = {label: weight for label, weight in state.weights.items() if label != DEFAULT_GROUP}
    if weights:
        fields["weights"] = {**config.weights, **weights}
    if DEFAULT_GROUP in state.weights:
        fields["default_weight"] = state.weights[DEFAULT_GROUP]
    if state.pauses:
        kept = [label for label in config.paused_labels if state.pauses.get(label, True)]
        added = [label for label, is_paused in state.pauses.items() if is_paused and label not in kept]
        fields["paused_labels"] = [*kept, *added]
    return fields


def _moved(state: State, overview: Overview, by: int) -> State:
    names = [group.name for group in overview.groups]
    place = names.index(chosen(state, overview).name) + by
    return replace(state, group=names[min(max(place, 0), len(names) - 1)])


def _weighted(state: State, overview: Overview, by: int) -> State:
    group = chosen(state, overview)
    weight = min(max(state.weights.get(group.name, group.weight) + by, 1), _MOST)
    others = {name: number for name, number in state.weights.items() if name != group.name}
    return replace(
        state,
        group=group.name,
        weights=others if weight == group.weight else {**others, group.name: weight},
        said="",
    )


def _paused(state: State, overview: Overview) -> State:
    group = chosen(state, overview)
    if group.name == DEFAULT_GROUP:
        return replace(state, said="the group default has no label that could be paused")
    others = {name: is_paused for name, is_paused in state.pauses.items() if name != group.name}
    if group.name in state.pauses:
        return replace(state, pauses=others, said="")
    return replace(state, group=group.name, pauses={**others, group.name: not group.is_paused}, said="")
