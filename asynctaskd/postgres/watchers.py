"""Who watches, as a worker sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctaskd.postgres.statements import Statements

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID


class WatchStore(Statements):
    """What a worker tells those who watch."""

    async def tell_claims(self, worker_id: UUID, claims: str) -> frozenset[str]:
        """Tell how many tasks of each group were claimed (JSON), where somebody wants to know.

        Returns what is wanted: `events`, `shares`, or nothing while nobody watches.
        """
        return frozenset(row[0] for row in await self._fetch("tell_claims", worker_id, claims))

    async def tell_events(self, messages: Sequence[str]) -> None:
        """Send notices of what was claimed and completed."""
        await self._fetch("tell_events", messages)
