"""Statements of `queries/`, run on the daemon's own sessions: what every store is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from asynctaskd.postgres.driver import query, translated
from asynctaskd.postgres.sessions import HOT, LONG

if TYPE_CHECKING:
    import asyncpg

    from asynctaskd.postgres.sessions import Sessions


class Statements:
    """Some statements, on sessions that several such objects may share.

    Attributes:
        sessions: the connections.
        schema: where the tables are.
        long: the names of those that may touch many rows.
    """

    long: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, sessions: Sessions, schema: str) -> None:
        self.sessions = sessions
        self.schema = schema

    async def _fetch(self, name: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of `queries/NAME.sql`; raises the errors of `driver.translate`."""
        with translated(role=f"{self.schema}_worker"):
            return await self._ask(name, *arguments)

    async def _ask(self, name: str, *arguments: Any) -> list[asyncpg.Record]:
        """The same; raises the driver's errors."""
        limit = LONG if name in self.long else HOT
        return await self.sessions.fetch(query(name, self.schema), *arguments, timeout=limit)

    async def _value(self, name: str, *arguments: Any) -> Any:
        """The first column of the first row, or None."""
        rows = await self._fetch(name, *arguments)
        return rows[0][0] if rows else None
