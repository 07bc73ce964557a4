"""What the pages ask the database, and what they have it do."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from asynctaskd.client import Client
from asynctaskd.control.auditing import Auditing
from asynctaskd.control.browsing import Browsing
from asynctaskd.control.looking import Looking
from asynctaskd.postgres.driver import limited_sessions

if TYPE_CHECKING:
    import asyncpg

    from asynctaskd.definitions.registry import Registry

# Those who look don't wait for each other, and take few connections from whoever works.
_CONNECTIONS = 4

# What isn't shown isn't read.
_SHOWN_WITH_PAYLOADS = ("get_tasks", "list_events")


class Desk(Looking, Client, Browsing, Auditing):
    """A client that can look around too.

    Args:
        database: a pool of the caller's, or a URL for connections of its own.
        limit: how long a statement may take, where the connections are its own; None: as long as a client's.
        is_discreet: whether payloads, results and errors stay where they are; a viewer's role will do then.
    """

    def __init__(
        self,
        database: asyncpg.Pool | str,
        app: Registry | None = None,
        *,
        schema: str = "asynctaskd",
        limit: timedelta | None = None,
        is_discreet: bool = False,
    ) -> None:
        super().__init__(database, app, schema=schema)
        self._is_discreet = is_discreet
        if isinstance(database, str) and limit is not None:
            self._own_pool = limited_sessions(database, size=_CONNECTIONS, limit=limit)

    @override
    async def _fetch(self, name: str, *arguments: Any, **options: Any) -> list[asyncpg.Record]:
        ask = self._look if self._is_discreet and name in _SHOWN_WITH_PAYLOADS else super()._fetch
        return await ask(name, *arguments, **options)
