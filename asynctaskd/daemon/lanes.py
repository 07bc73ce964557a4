"""The lanes of one worker: what its next claim may take, and where that leaves them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from asynctaskd.postgres.records import Barred, Share, StrictLane
from asynctaskd.scheduling.lanes import (
    DEFAULT_GROUP,
    LaneState,
    group_of,
    settle,
    share,
    standings,
    strict_cap,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from asynctaskd.daemon.commands import Steering
    from asynctaskd.daemon.permits import Permits
    from asynctaskd.daemon.ready import Ready
    from asynctaskd.daemon.slots import Slots
    from asynctaskd.task import ClaimedTask


class Plan(NamedTuple):
    """What a claim is to take of the normal lane: at most so many tasks, of these groups' label sets."""

    slots: int
    groups: Mapping[str, Collection[str]]
    shares: list[Share]


class Lanes:
    """Plans claims by what is believed to be ready, and keeps account of whose turn it is."""

    def __init__(
        self, ready: Ready, permits: Permits, slots: Slots, steering: Steering, *, takes_suspects: bool
    ) -> None:
        self._ready = ready
        self._permits = permits
        self._slots = slots
        self._steering = steering
        self._takes_suspects = takes_suspects
        self._state = LaneState()

    # -- the normal lane

    def plan(self) -> Plan:
        """Share the free slots out among the groups that hold something that may run."""
        groups, weights, slots = self._groups(), self._weights(), self._slots.free
        quotas = share(self._state, weights, groups.keys(), slots)
        behind = standings(self._state, weights, groups.keys())
        after = self._ready.cursors.after
        shares: list[Share] = []
        for group, quota in quotas.items():
            label_sets = self._ready.first(groups[group], quota)
            row_limit = _row_limit(quota, len(label_sets))
            shares += [
                Share(one, group, quota, row_limit, weights[group], behind[group], after(one))
                for one in label_sets
            ]
        return Plan(slots, groups, self._permits.fit(shares))

    def settle(self, plan: Plan, claimed: list[ClaimedTask], parked: Counter[str]) -> bool:
        """Take in what a claim brought, and of which label sets it put tasks aside.

        Returns whether there may be more where that came from.
        """
        group_by_set = {s.label_set: s.group for s in plan.shares}
        self._ready.cursors.pass_by(claimed)
        found = Counter(task.label_set for task in claimed if task.is_normal)
        taken: Counter[str] = Counter()
        for label_set, count in found.items():
            taken[group_by_set[label_set]] += count
        found += parked
        if plan.shares and not claimed and not parked:
            self._ready.hasten()  # what was announced isn't where the last claim stopped
        if len(claimed) < plan.slots:
            self._ready.sets -= {
                s.label_set
                for s in plan.shares
                if taken[s.group] < s.quota
                and found[s.label_set] < s.row_limit
                and not self._permits.is_exhausted(s.label_set)
            }
        claimable = set(self._claimable())
        backlog = [group for group, sets in plan.groups.items() if not claimable.isdisjoint(sets)]
        self._state = settle(self._state, self._weights(), taken, backlog)
        ran_out = any(self._permits.is_exhausted(s.label_set) for s in plan.shares)
        return bool(claimable or parked or ran_out) or len(claimed) == plan.slots

    def _groups(self) -> dict[str, list[str]]:
        """Group → its label sets, of those believed to hold something that may run."""
        weights = self._steering.config.weights
        groups: dict[str, list[str]] = {}
        for label_set in self._claimable():
            group = group_of(label_set.split(","), weights) if weights else DEFAULT_GROUP
            groups.setdefault(group, []).append(label_set)
        return groups

    def _claimable(self) -> Collection[str]:
        if not self._permits.restricts:
            return self._ready.sets
        return [one for one in self._ready.sets if not self._permits.block(one)]

    def _weights(self) -> dict[str, int]:
        config = self._steering.config
        return {**config.weights, DEFAULT_GROUP: config.default_weight}

    def is_alone(self, shares: list[Share]) -> bool:
        """Whether nothing but the normal lane is likely to hold something, and no group has to be ranked."""
        groups = {share.group for share in shares}
        others = self.others_wait or self._ready.is_blocked or self._steering.config.paused_names
        return 0 < len(groups) == len(shares) and not others and not self._slots.lost

    # -- all of them

    @property
    def own_sets(self) -> Iterable[str]:
        """The label sets of what this worker would claim, if it had permits for it.

        Nobody else could use those that it had for what it can't claim itself.
        """
        return self._ready.own_sets(strict=self._strict_room > 0, suspects=self.suspects > 0)

    # -- the others

    @property
    def others_wait(self) -> bool:
        """Whether a lane that this worker asks beside the normal one may hold something."""
        strict = self._ready.strict and self.strict_cap > 0 and not self._strict_is_blocked
        return strict or (self._ready.suspects and self._takes_suspects)

    @property
    def strict_cap(self) -> int:
        """How many strict tasks may run at once."""
        return strict_cap(self._slots.concurrency, self._steering.max_strict_percentage)

    @property
    def _strict_room(self) -> int:
        return max(self.strict_cap - self._slots.strict, 0)

    @property
    def _strict_is_blocked(self) -> bool:
        """Whether strict tasks wait only where none may run now, as far as is known."""
        return self._permits.block_all(self._ready.strict_sets)

    def strict_lane(self, slots: int) -> StrictLane:
        """What a claim of so many slots may take of it."""
        cursors, is_blocked = self._ready.cursors, self._strict_is_blocked
        return StrictLane(
            most=min(slots, self._strict_room),
            after=cursors.strict,
            new_above=cursors.new_above,
            unblocked_above=cursors.newest if is_blocked else 0,
            blocked_sets=[*self._ready.strict_sets] if is_blocked else (),
        )

    @property
    def suspects(self) -> int:
        """How many suspects a claim may take."""
        return int(self._takes_suspects and not self._slots.suspects)

    @property
    def barred(self) -> Barred:
        """What no claim may take, of any lane."""
        return Barred(
            ids=[execution.task.id for execution in self._slots.lost],
            labels=self._permits.blocked,
            spare=self._permits.spare,
            names=self._steering.config.paused_names,
        )


def _row_limit(quota: int, sets: int) -> int:
    # A group's first tasks may all be in one of its label sets. Looking at the whole quota in each of many
    # sets would lock far more rows than are taken; four times its even part is enough unless one set has
    # most of the group's first tasks, and then the next claim takes them.
    return quota if sets == 1 else min(quota, max(2, -(-4 * quota // sets)))
