"""What the claim loop believes to be ready: a hint, like the notices that it is made of.

A look from the start finds everything, and where each label set's tasks begin; from there on claims go by
their cursors. What appears behind those (a transaction that committed late, a retry) is found by the next
look: at the latest after the poll interval, and sooner after a notice, as long as looking takes less than a
tenth of the time.
"""

from __future__ import annotations

import asyncio
from heapq import nsmallest
from typing import TYPE_CHECKING

from asynctaskd.daemon.cursors import Cursors, may_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asynctaskd.daemon.lease import Lease
    from asynctaskd.postgres.store import Store

# So many times as long as a look took, no other follows.
_SPACING = 9

# In seconds. So long after a look a notice leads to a claim alone: nearly always that finds what was
# announced, and the next notice would have to wait for the look.
_SETTLED = 0.05

# Of a group's label sets at least so many are asked: others may have claimed where this worker believes the
# first tasks to be.
_FEWEST_SETS = 8


class Ready:
    """The label sets of the normal lane that hold something, from where on, and whether other lanes do.

    Attributes:
        sets: those label sets.
        cursors: from where on claims look.
        strict: whether a strict task may wait, if only for another worker.
        strict_sets: the label sets in which one may wait, as far as they are known.
        suspect_sets: those in which a suspect may wait, likewise.
        suspects: whether a suspect may wait, likewise.
        is_blocked: whether one of these waits that isn't for this worker, as a claim has shown since the last
            look: the statement for the normal lane alone claims nothing beside it.
    """

    def __init__(self, store: Store, lease: Lease, poll_interval: float) -> None:
        self._store = store
        self._lease = lease
        self.poll_interval = poll_interval
        self.sets: set[str] = set()
        self.strict = self.suspects = True
        self.strict_sets: set[str] = set()
        self.suspect_sets: frozenset[str] = frozenset()
        self.is_blocked = False
        self.cursors = Cursors()
        self._announced: set[str] = set()
        self._went_ahead = False
        self._due = 0.0
        self._soonest = 0.0
        self._looked_at = 0.0

    def announce(self, label_set: str) -> None:
        """Something became ready under this label set: perhaps at its end, perhaps before."""
        if may_run(label_set, self._lease.labels):
            self._announced.add(label_set)
            self._due = min(self._due, max(self._looked_at + _SETTLED, self._soonest))

    def hasten(self) -> None:
        """Something became ready anywhere: look soon."""
        self._due = min(self._due, self._soonest)

    def forget(self) -> None:
        """This worker offers other labels: what was known is about the ones before."""
        self.sets.clear()
        self._announced.clear()
        self.look_next()

    def look_next(self) -> None:
        """Look before the next claim, whatever it costs."""
        self._due = 0.0

    @property
    def has_looked(self) -> bool:
        """Whether no look was asked for that hasn't been answered since."""
        return self._due > 0.0

    @property
    def seconds_to_look(self) -> float:
        """How long the next look may wait; 0 where it is due."""
        return max(self._due - self._now(), 0.0)

    async def refresh(self) -> None:
        """Take in what was announced; look from the start where that is due."""
        # What was announced is claimed first, but a look that is due waits for one claim only.
        self._went_ahead = bool(self._announced) and not self._went_ahead
        self.sets |= self._announced
        self._announced.clear()
        if not self._went_ahead and not self.seconds_to_look:
            await self._look()

    async def _look(self) -> None:
        began = self._now()
        # Before the question: a notice during it is about what came later.
        self._due = poll = began + self.poll_interval
        look = await self._store.ready_sets(self._lease.labels)
        self.sets = set(look.normal)
        self.strict, self.suspects, self.is_blocked = bool(look.strict), bool(look.suspects), False
        self.strict_sets, self.suspect_sets = set(look.strict), look.suspects
        self.cursors.put_back(look, self._lease.labels)
        self._looked_at = self._now()
        self._soonest = self._looked_at + _SPACING * (self._looked_at - began)
        # A notice during the look brought the next one near, but not as near as that.
        self._due = max(self._due, min(self._soonest, poll))

    def own_sets(self, *, strict: bool, suspects: bool) -> Iterator[str]:
        """The label sets in which something may wait for this worker: in the lanes that it asks now."""
        yield from self.sets
        for other in (self.strict_sets if strict else (), self.suspect_sets if suspects else ()):
            yield from (one for one in other if may_run(one, self._lease.labels))

    def first(self, label_sets: Iterable[str], count: int) -> list[str]:
        """Those of some label sets in which the first `count` tasks of all are."""
        return nsmallest(max(count, _FEWEST_SETS), label_sets, key=lambda one: (self.cursors.after(one), one))

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
