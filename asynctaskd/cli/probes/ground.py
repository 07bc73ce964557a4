"""What a look may ask: the configuration, and a connection that is opened anew where one was given up."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from asynctaskd.cli.probes.finding import WARNING, Finding, Status
from asynctaskd.client import Client
from asynctaskd.postgres.driver import open_connection, query, translated

if TYPE_CHECKING:
    import asyncpg

    from asynctaskd.cli.probes.rights import Part
    from asynctaskd.config import DaemonConfig
    from asynctaskd.postgres.connection import Connection

LIMIT = 3.0
"""How long one look may take, in seconds; `_SETTINGS` has the server give up before."""

_SETTINGS = {"lock_timeout": "1s", "statement_timeout": "2500ms"}


@dataclass(frozen=True, slots=True)
class Server:
    """What the server says of itself.

    `seconds` is how long it took to say so, `skew` by how many seconds its clock is ahead of ours;
    `sees_all` is whether this role may read what others' sessions do.
    """

    version: str
    number: int
    encoding: str
    is_standby: bool
    is_read_only: bool
    role: str
    sees_all: bool
    seconds: float
    skew: float


class Ground:
    """The database, and the configuration it is held against."""

    connection: Connection  # the examination's, which opens it
    server: Server

    def __init__(self, dsn: str, config: DaemonConfig) -> None:
        self.dsn = dsn
        self.config = config
        self.schema = config.database.schema_name
        self._is_open = False

    async def connect(self) -> None:
        """Have a connection that works; raises like `postgres.driver.connect`."""
        if not self._is_open or self.connection.is_closed():
            self.connection = await open_connection(self.dsn, **_SETTINGS)
            self._is_open = True

    async def close(self) -> None:
        """Close what is open."""
        if self._is_open:
            await self.connection.close()

    async def ask(self, name: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of `queries/NAME.sql`."""
        rows: list[asyncpg.Record] = await self.connection.fetch(query(name, self.schema), *arguments)
        return rows

    async def ask_server(self) -> None:
        """Have it say what it is."""
        with translated():
            asked, began = datetime.now(UTC), time.monotonic()
            [row] = await self.ask("check_server")
        seconds = time.monotonic() - began
        skew = (row["now"] - asked).total_seconds() - seconds / 2
        facts = {name: value for name, value in row.items() if name != "now"}
        self.server = Server(**facts, seconds=seconds, skew=skew)

    async def live_workers(self) -> list[dict[str, Any]]:
        """The workers whose leases hold, as `asynctaskd workers --json` shows them."""
        known = await Client(self.connection, schema=self.schema).list_workers()
        return [worker for worker in known if worker["status"] == "live"]


@dataclass(frozen=True, slots=True)
class Look:
    """A question and its name.

    Attributes:
        check: what the finding is called.
        ask: what answers it.
        grants: the rights to look where no roles were made, beside USAGE of the schema, as GRANT takes them;
            `{schema}` is ours.
        if_refused: how it stands where this role may not look.
        least: the first of our roles that may look; None: it is a question about the server.
    """

    check: str
    ask: Callable[[Ground], Awaitable[Finding]]
    grants: tuple[str, ...] = ()
    if_refused: Status = WARNING
    least: Part | None = "viewer"
