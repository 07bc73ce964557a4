"""What is measured of the fleet, the queue and the database, at a cost that doesn't grow with the queue."""

from __future__ import annotations

from typing import NamedTuple

from asynctaskd.postgres.statements import Statements

# Looked at are about so many tasks, in so many ranges of ids.
_TASKS, _RANGES = 20_000, 1000


class Waiting(NamedTuple):
    """How many tasks of a label set are ready (None: of the strict lane), the oldest for so many seconds."""

    label_set: str | None
    tasks: int
    oldest: float


class Fleet(NamedTuple):
    """How many workers live; for how many seconds the oldest transaction has been open; and how many
    transactions ago the oldest snapshot was taken for which dead rows are kept.
    """

    live_workers: int
    oldest_transaction: float
    horizon_age: int


class MeasureStore(Statements):
    """What a worker asks where somebody counts."""

    async def waiting(self) -> list[Waiting]:
        """What is ready: counted where it is little, estimated to some hundredths where it is much."""
        return [Waiting(*row) for row in await self._fetch("measure_waiting", _TASKS, _RANGES)]

    async def fleet(self) -> Fleet:
        """The fleet and its database, as far as this role may see others' sessions."""
        [row] = await self._fetch("measure_fleet")
        return Fleet(*row)

    async def count_notices(self) -> tuple[int, int]:
        """How many notices were sent in the whole database, and how many saved since nobody waited."""
        [(sent, saved)] = await self._fetch("count_notices")
        return sent, saved

    async def count_lagging(self) -> tuple[int, int]:
        """How many live workers haven't applied the newest version that is for all, and which that is."""
        [(lagging, newest)] = await self._fetch("count_lagging")
        return lagging, newest
