"""Obey: apply the newest runtime configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctaskd.config import RuntimeConfig
from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from asynctaskd.postgres.store import Store


class Steering:
    """The runtime configuration in force, replaced whole between two claims and never by an older one."""

    def __init__(self, store: Store, *, own_strict_percentage: int) -> None:
        self._store = store
        self._own_strict_percentage = own_strict_percentage
        self.config = RuntimeConfig()

    @property
    def max_strict_percentage(self) -> int:
        """What the row sets, else what this worker's own configuration says."""
        return self.config.effective_strict_percentage(self._own_strict_percentage)

    async def follow(self, newest: int) -> None:
        """Apply the newest version if it is newer than the one in force."""
        if newest > self.config.version:
            await self.load()

    async def load(self) -> None:
        """Apply what the database says now; a version that can't be read keeps the last good one."""
        row = await self._store.newest_config()
        if row is None or row["version"] <= self.config.version:
            return
        try:
            self.config = RuntimeConfig(**row)
        except ValueError as error:
            emit("config.rejected", version=row["version"], error=str(error))
        else:
            emit("config.applied", version=self.config.version)
