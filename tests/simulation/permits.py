"""A simulated worker's permits: the daemon's rules, with one statement under way at a time."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from asynctaskd.scheduling.limits import Part, cut

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asynctaskd.postgres.records import Share
    from tests.simulation.worker import Worker


class Permits:
    """What one process may run of each limited label, under the identity it has now."""

    def __init__(self, worker: Worker, limits: dict[str, int]) -> None:
        self.worker = worker
        self.limits = {label: most for label, most in limits.items() if label in worker.spec.labels}
        self.granted: Counter[str] = Counter()
        self.target: Counter[str] = Counter()
        self.doubted: Counter[str] = Counter()
        self.identity = 0
        self.requests = 0
        self.is_unsure = False
        self.next_ask = 0.0

    def follow(self) -> None:
        """Another identity begins with nothing."""
        if self.identity != self.worker.worker_id:
            self.identity = self.worker.worker_id
            self.granted.clear()
            self.target.clear()
            self.is_unsure = False

    def held(self, label: str) -> int:
        slots = self.worker.slots
        if "ended is free" in self.worker.broken:
            slots = [one for one in slots if not one.ended]
        return self.doubted[label] + sum(label in one.task.label_set.split(",") for one in slots)

    def spare(self, label: str) -> int:
        return min(self.granted[label], self.target[label]) - self.held(label)

    def of(self, label_set: str) -> list[str]:
        return [label for label in label_set.split(",") if label in self.limits]

    def block(self, label_set: str) -> bool:
        return any(self.spare(label) <= 0 for label in self.of(label_set))

    @property
    def blocked(self) -> list[str]:
        return [label for label in self.limits if self.spare(label) <= 0]

    @property
    def to_spare(self) -> dict[str, int]:
        return {label: self.spare(label) for label in self.limits if self.spare(label) > 0}

    def fit(self, shares: list[Share]) -> list[Share]:
        parts = [
            Part(one.group, self.of(one.label_set), min(one.quota, one.row_limit), one.weight, one.standing)
            for one in shares
        ]
        counts = cut(parts, self.to_spare)
        return [one._replace(row_limit=count) for one, count in zip(shares, counts, strict=True) if count]

    def note_doubt(self) -> None:
        """A claim may have taken all there was to spare."""
        self.doubted.update(self.to_spare)

    # -- exchange

    def ask(self, label_sets: Iterable[str], more: int) -> dict[str, int]:
        """What to ask for: label → how many it would use; nothing where none is short, or it just asked."""
        now = self.worker.mono()
        short = {label for one in label_sets for label in self.of(one) if self.spare(label) <= 0}
        if not short or now < self.next_ask:
            return {}
        self.next_ask = now + 1.0
        return {label: self.held(label) + more for label in short}

    def surplus(self) -> dict[str, int]:
        """What to give back, likewise; after an answer that got lost, whatever it may have granted."""
        return {
            label: self.held(label)
            for label in self.limits
            if self.is_unsure or self.granted[label] > self.held(label)
        }

    def of_no_use(self, label_sets: Iterable[str]) -> dict[str, int]:
        """What is to spare for nothing but label sets that wait for another label, to give back likewise."""
        of_use: set[str] = set()
        waiting: set[str] = set()
        for one in label_sets:
            (waiting if self.block(one) else of_use).update(self.of(one))
        return {label: self.held(label) for label in waiting - of_use if self.spare(label) > 0}

    def exchange(self, wants: dict[str, int], then: Any) -> None:
        self.requests += 1
        self.is_unsure = True
        wishes = [
            (label, most, self.held(label), max(wants.get(label, self.granted[label]), self.held(label)))
            for label, most in self.limits.items()
        ]
        for label, _, _, want in wishes:
            self.granted[label] = min(self.granted[label], want)
        arguments = (self.identity, self.requests, wishes)
        self.worker.world.call(
            self.worker, self.worker.database.exchange, arguments, then, (self.identity, self.requests)
        )

    def take(self, answer: dict[str, tuple[int, int]], asked: tuple[int, int]) -> None:
        if asked[0] == self.identity:
            self.is_unsure = False
            self.granted = Counter({label: granted for label, (granted, _) in answer.items()})
            self.target = Counter({label: target for label, (_, target) in answer.items()})
