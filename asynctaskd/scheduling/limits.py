"""How a claim is cut so that of each limited label no more is taken than may run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from heapq import heapify, heappop, heapreplace
from typing import NamedTuple


class Part(NamedTuple):
    """What a claim would take from one label set.

    `limited` are the limited labels of the set, `most` how many tasks it would take there. `weight` and
    `standing` are the group's, as `lanes.standings` has them.
    """

    group: str
    limited: Sequence[str]
    most: int
    weight: int
    standing: float


def cut(parts: Sequence[Part], spare: Mapping[str, int]) -> list[int]:
    """How many to take of each part, at most its `most` and of no limited label more than `spare`.

    Where that isn't enough for all, groups take turns as in the lanes, and inside a group the part that is
    first goes first. What one part can't use is left to the others.
    """
    if _fit(parts, spare):
        return [part.most for part in parts]
    left = dict(spare)
    counts = [0 if part.limited else part.most for part in parts]
    turns = _turns(parts)
    heapify(turns)
    while turns:
        _, group, nth, members = turns[0]
        chosen = next((n for n in members if _has_room(parts[n], counts[n], left)), None)
        if chosen is None:
            heappop(turns)
            continue
        counts[chosen] += 1
        for label in parts[chosen].limited:
            left[label] -= 1
        heapreplace(turns, (_key(parts[chosen], nth + 1), group, nth + 1, members))
    return counts


_Turn = tuple[float, str, int, list[int]]


def _turns(parts: Sequence[Part]) -> list[_Turn]:
    """The first turn of each group that has limited parts, which it lists."""
    members: dict[str, list[int]] = {}
    for n, part in enumerate(parts):
        if part.limited:
            members.setdefault(part.group, []).append(n)
    return [(_key(parts[ns[0]], 1), group, 1, ns) for group, ns in members.items()]


def _key(part: Part, nth: int) -> float:
    return (nth - part.standing) / part.weight


def _has_room(part: Part, count: int, left: Mapping[str, int]) -> bool:
    return count < part.most and all(left[label] > 0 for label in part.limited)


def _fit(parts: Sequence[Part], spare: Mapping[str, int]) -> bool:
    wanted: dict[str, int] = {}
    for label, most in _demands(parts):
        wanted[label] = wanted.get(label, 0) + most
    return all(count <= spare[label] for label, count in wanted.items())


def _demands(parts: Sequence[Part]) -> Iterator[tuple[str, int]]:
    for part in parts:
        for label in part.limited:
            yield label, part.most
