"""What may run in the whole fleet: permits for limited labels, and tasks whose name is paused."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from asynctaskd.postgres.statements import Statements

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID


class Wish(NamedTuple):
    """What a worker says of a limited label: the limit it knows, how many tasks it holds and wants to."""

    label: str
    limit: int
    held: int
    wants: int


class Given(NamedTuple):
    """How many tasks of a limited label a worker may run, and up to how many it may begin new ones.

    Where there are strangers, workers that don't know of the limit yet, that is so at this moment only.
    """

    granted: int
    target: int
    has_strangers: bool = False


class PermitStore(Statements):
    """The statements behind limits and pauses."""

    long = frozenset({"park", "unpark"})

    async def exchange(self, worker_id: UUID, request: int, wishes: Sequence[Wish]) -> dict[str, Given]:
        """Label → what a worker may run of it.

        Empty where its lease is over. Of two requests the one with the higher number holds.
        """
        columns = [list(column) for column in zip(*wishes, strict=True)]
        rows = await self._fetch("exchange_permits", worker_id, request, *columns)
        return {label: Given(*given) for label, *given in rows}

    async def drop(self, worker_id: UUID, *, but: Sequence[str] = ()) -> None:
        """Give a worker's permits back, those of some labels excepted."""
        await self._fetch("drop_permits", worker_id, but)

    async def park(self, label_sets: Iterable[str], names: Sequence[str], limit: int = 1000) -> int:
        """Put tasks of these names aside as paused, of the first `limit` of each set; returns how many."""
        return int(await self._value("park", list(label_sets), names, limit))

    async def unpark(self, limit: int = 1000) -> int:
        """Let tasks go on whose name isn't paused any more; returns how many."""
        return int(await self._value("unpark", limit))
