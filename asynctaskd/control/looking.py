"""Looking at what there is without what tasks carry: payloads, results, errors."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from asynctaskd.postgres.caller import Caller
from asynctaskd.postgres.driver import RightMissingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import asyncpg

LOOKS: Mapping[str, str] = {
    "get_tasks": "look_at_tasks",
    "list_tasks": "look_at_newest_tasks",
    "list_events": "look_at_events",
    "list_schedules": "look_at_schedules",
}
"""Statements, and what a viewer's login may send instead: the same columns, without values."""

# For how long a refusal holds, in seconds: each is an error in the server's log.
_ASK_AGAIN = 60.0


class Looking(Caller):
    """Whoever is content with what their login may read.

    A login that may read values is told them; any other sees None in their place. Not within a transaction
    of the caller's, which doesn't outlive a refusal.

    Attributes:
        sees_values: whether the last answer had all that tasks carry.
    """

    sees_values = True
    _refused_until: Mapping[str, float] = {}  # by statement

    @override
    async def _fetch(self, name: str, *arguments: Any, **options: Any) -> list[asyncpg.Record]:
        if monotonic() < self._refused_until.get(name, 0.0):
            return await self._look(name, *arguments, **options)
        try:
            rows = await super()._fetch(name, *arguments, **options)
        except RightMissingError:
            if name not in LOOKS:
                raise
            self._refused_until = {**self._refused_until, name: monotonic() + _ASK_AGAIN}
            return await self._look(name, *arguments, **options)
        if name in LOOKS:
            self.sees_values = True
        return rows

    async def _look(self, name: str, *arguments: Any, **options: Any) -> list[asyncpg.Record]:
        """The answer without values, whatever the login may read."""
        self.sees_values = False
        return await super()._fetch(LOOKS[name], *arguments, **options)
