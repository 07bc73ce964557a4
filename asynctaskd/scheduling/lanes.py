"""How many slots the strict lane may take, and how the normal lane is shared out over its groups.

The normal lane is weighted-fair by *lag*: what a group should have been given by now, less what it was
given. Of all picks that are not yet ahead of a group's ideal share, the one whose turn ends first is
made first (earliest eligible virtual deadline first). With this rule a group is always less than one
pick away from its ideal share, however the picks are cut into claims and however unequal the weights
are; choosing by the finish time alone would let one heavy group run far ahead of many light ones.

A group that returns joins at the present: what it missed while it was empty is gone.

Lags are integers: a lag of one pick is `_GRAIN` times the sum of the weights. So nothing drifts, and
every number stays within a few picks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import lcm

DEFAULT_GROUP = "default"
"""The group of all tasks that have no weighted label."""

# How finely a lag is kept when weights or groups change and it has to be expressed in new units; as
# long as they stay the same the arithmetic is exact without it.
_GRAIN = 1 << 20

# In picks. Groups and weights that come and go can push a lag a little beyond one pick; farther than
# this only a group gets that was asked for tasks, gave none, and is said to have backlog.
_FARTHEST = 2


def strict_cap(concurrency: int, max_strict_percentage: int) -> int:
    """How many slots strict tasks may hold: the percentage of `concurrency`, rounded up.

    Percentages of 0 and less give 0, those of 100 and more give `concurrency`.
    """
    percentage = min(max(max_strict_percentage, 0), 100)
    return -(-concurrency * percentage // 100)


def group_of(labels: Sequence[str], weights: Mapping[str, int]) -> str:
    """The group of a task: the smallest of its labels that carries a weight, else `DEFAULT_GROUP`.

    `weights` may contain `DEFAULT_GROUP` itself; a label of that name has no weight.
    """
    # Python compares code points, which is the order of UTF-8 bytes and so PostgreSQL's COLLATE "C".
    return min(
        (label for label in labels if label in weights and label != DEFAULT_GROUP), default=DEFAULT_GROUP
    )


@dataclass(frozen=True, slots=True)
class LaneState:
    """What the normal lane remembers between claims; `LaneState()` to begin with.

    Attributes:
        lags: group → how far it is behind (positive) or ahead of its ideal share; 0 is left out. Of
            groups without backlog only those that are ahead are kept, and only until the others have
            drawn level: otherwise a group that is refilled between any two claims would always come
            first.
        pick: the size of one pick in the unit of `lags`.
    """

    lags: Mapping[str, int] = field(default_factory=dict)
    pick: int = 1


def share(
    state: LaneState, weights: Mapping[str, int], backlog: Collection[str], slots: int
) -> dict[str, int]:
    """Share out `slots` over the groups in `backlog`: group → how many to claim, all at least 1.

    All slots are given out if any group has backlog. Weights are at least 1; a group without one
    counts 1. A group that had no backlog before joins with neither credit nor debt.
    """
    if len(backlog) <= 1 or slots <= 0:
        return {group: slots for group in backlog if slots > 0}
    pool = _Pool.of(weights, backlog)
    quotas = pool.dealt(pool.after(slots, pool.carried(state)), slots)
    return {group: quota for group, quota in quotas.items() if quota}


def standings(state: LaneState, weights: Mapping[str, int], backlog: Collection[str]) -> dict[str, float]:
    """How far each group is behind its ideal share, in picks; negative where it is ahead.

    Where fewer slots turn out to be left than `share` was told, a group's nth pick is the earlier the smaller
    `(n - standing) / weight` is.
    """
    if len(backlog) <= 1:
        return dict.fromkeys(backlog, 0.0)
    pool = _Pool.of(weights, backlog)
    return {group: lag / pool.pick for group, lag in pool.carried(state).items()}


def settle(
    state: LaneState, weights: Mapping[str, int], claimed: Mapping[str, int], backlog: Collection[str]
) -> LaneState:
    """Record what was really claimed after a `share`.

    `backlog` are the groups that took part and still have backlog: a group that gave fewer tasks than
    it was asked for is empty and should be left out; it keeps no credit. One that is left in all the
    same keeps a credit of two picks at most.
    """
    members = {*backlog, *claimed}
    if not backlog or (len(members) == 1 and not state.lags):
        return LaneState()
    pool = _Pool.of(weights, members)
    due = pool.after(sum(claimed.values()), pool.carried(state))
    lags = {group: lag - claimed.get(group, 0) * pool.pick for group, lag in due.items()}
    return pool.remembered(lags, backlog)


@dataclass(frozen=True, slots=True)
class _Pool:
    """The groups among which picks are shared at this moment, and the unit of their lags.

    `members` is in the order of names, so that nothing depends on the order of a set.
    """

    weights: Mapping[str, int]
    members: list[str]
    pick: int

    @classmethod
    def of(cls, weights: Mapping[str, int], groups: Collection[str]) -> _Pool:
        total = sum(weights.get(group, 1) for group in groups)
        return cls(weights, sorted(groups), total * _GRAIN)

    def weight(self, group: str) -> int:
        return self.weights.get(group, 1)

    def carried(self, state: LaneState) -> dict[str, int]:
        """The lags of the members, summing to zero, and of the absent that are remembered.

        A lag keeps its size in picks when weights change, so there is nothing to catch up with.
        """
        known = {group: lag * self.pick // state.pick for group, lag in state.lags.items()}
        return self._level(dict.fromkeys(self.members, 0) | known, self.members)

    def after(self, picks: int, lags: Mapping[str, int]) -> dict[str, int]:
        """What each group is due once `picks` more have been made: its lag and its share of them."""
        return {group: lag + picks * self.weight(group) * _GRAIN for group, lag in lags.items()}

    def dealt(self, due: Mapping[str, int], slots: int) -> dict[str, int]:
        """Turn what is due into whole picks of the members, `slots` of them.

        Turns that end within these picks are given first; what is left goes to turns that have begun,
        those that end soonest first. At most one such turn a group exists, and always enough of them.
        """
        quotas = {group: max(0, due[group] // self.pick) for group in self.members}
        left = slots - sum(quotas.values())
        if left < 0:
            return self._recalled(quotas, due, -left)
        ends = self._turn_ends(due, {group: quota + 1 for group, quota in quotas.items()})
        begun = [group for group, quota in quotas.items() if due[group] > quota * self.pick]
        for group in sorted(begun, key=ends.__getitem__)[:left]:
            quotas[group] += 1
        return quotas

    def remembered(self, lags: Mapping[str, int], backlog: Collection[str]) -> LaneState:
        """The state that these lags leave behind, seen from the groups that still have backlog."""
        farthest = _FARTHEST * self.pick
        limited = {group: min(max(lags[group], -farthest), farthest) for group in self.members}
        level = self._level(dict(lags) | limited, sorted(backlog))
        kept = {group: lag for group, lag in level.items() if self._matters(group, lag, backlog)}
        return LaneState(kept, self.pick) if kept else LaneState()

    def _matters(self, group: str, lag: int, backlog: Collection[str]) -> bool:
        return lag != 0 if group in backlog else lag < 0 and group in self.weights

    def _level(self, lags: dict[str, int], groups: Sequence[str]) -> dict[str, int]:
        """Move the present so that the lags of `groups` sum to zero; distances between groups remain."""
        surplus = sum(lags[group] for group in groups)
        if not surplus:
            return lags
        total = sum(self.weight(group) for group in groups)
        moved = {group: lag - surplus * self.weight(group) // total for group, lag in lags.items()}
        moved[groups[0]] -= sum(moved[group] for group in groups)  # the crumbs of the division
        return moved

    def _recalled(self, quotas: dict[str, int], due: Mapping[str, int], excess: int) -> dict[str, int]:
        """Take `excess` picks back, those whose turns end last.

        More than there are slots can be due only just after groups left while others were ahead.
        """
        for _ in range(excess):
            ends = self._turn_ends(due, quotas)
            quotas[max((group for group, quota in quotas.items() if quota), key=ends.__getitem__)] -= 1
        return quotas

    def _turn_ends(self, due: Mapping[str, int], turns: Mapping[str, int]) -> dict[str, tuple[int, int, str]]:
        """When each group's nth turn ends, as a key to sort by; ties go to the heavier, then by name."""
        common = lcm(*map(self.weight, turns))
        return {
            group: (
                (turn * self.pick - due[group]) * (common // self.weight(group)),
                -self.weight(group),
                group,
            )
            for group, turn in turns.items()
        }
