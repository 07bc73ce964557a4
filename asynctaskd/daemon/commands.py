"""Obey: apply the newest runtime configuration, and say so."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from asynctaskd.config import RuntimeConfig
from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from asynctaskd.postgres.configs import ConfigStore

# How often to look without any sign of a new version, in seconds: renewals tell of each.
_SELDOM = 3600.0

_FIELDS = {field.name for field in fields(RuntimeConfig)}


class Steering:
    """The runtime configuration in force, replaced whole between two claims by the newest that there is.

    Which one that is, its identity says. Its number doesn't: where a standby that was behind takes over,
    numbers that were given are given again, and the newest may have a lower one than what is in force.

    Attributes:
        config: what is in force, and `identity` which one that is; None: no version.
        own_strict_percentage: what this worker's own configuration says.
        between_claims: held by whoever claims. What is applied under it is in force for each claim that
            begins from then on, and none that began before is still under way.
        wake: set where a new version has been announced.
    """

    def __init__(
        self, configs: ConfigStore, *, own_strict_percentage: int, applied: Callable[[], None]
    ) -> None:
        self._configs = configs
        self.own_strict_percentage = own_strict_percentage
        self._applied = applied
        self._turn = asyncio.Lock()
        self.config = RuntimeConfig()
        self.identity: UUID | None = None
        self.between_claims = asyncio.Lock()
        self.wake = asyncio.Event()

    @property
    def max_strict_percentage(self) -> int:
        """What the row sets, else what this worker's own configuration says."""
        return self.config.effective_strict_percentage(self.own_strict_percentage)

    def hear(self, _: dict[str, Any]) -> None:
        """A version was announced; which one, the rows say."""
        self.wake.set()

    async def follow(self, worker_id: UUID) -> float:
        """Apply the newest version that is for this worker, and answer; returns a long pause, in seconds."""
        async with self._turn:  # who was told by a notice and who was told by a renewal come one by one
            row = await self._configs.newest(worker_id)
            if row is not None:
                await self._obey(worker_id, row)
            elif self.identity is not None:
                await self._forget(worker_id)
        return _SELDOM

    async def load(self) -> None:
        """Apply what the database says before this worker is there, so that there is nobody to answer."""
        row = await self._configs.newest(None)
        if row is not None and row["identity"] != self.identity:
            await self._apply(row)

    async def _obey(self, worker_id: UUID, row: dict[str, Any]) -> None:
        """Apply a version unless it is the one in force, and answer unless its row has the answer."""
        identity, is_new = row["identity"], row["identity"] != self.identity
        if identity == (row["rejected_config"] if is_new else row["applied_config"]):
            return
        rejected = await self._apply(row) if is_new else None
        await self._configs.acknowledge(
            worker_id, row["version"], identity, row["request_id"], rejected=rejected
        )

    async def _forget(self, worker_id: UUID) -> None:
        """No version is left: the defaults hold, as for a worker that starts now."""
        await self._replace(RuntimeConfig(), None)
        await self._configs.acknowledge(worker_id, 0, None, None)

    async def _apply(self, row: dict[str, Any]) -> str | None:
        """Replace what is in force; a version that can't be read keeps the last good one, and is why."""
        try:
            config = RuntimeConfig(**{name: value for name, value in row.items() if name in _FIELDS})
        except ValueError as error:
            emit("config.rejected", version=row["version"], error=str(error))
            return str(error)
        await self._replace(config, row["identity"])
        return None

    async def _replace(self, config: RuntimeConfig, identity: UUID | None) -> None:
        before = self.config.version
        async with self.between_claims:
            self.config, self.identity = config, identity
        self._applied()
        if config.version <= before:  # the database lacks what was in force, or this worker tried it
            emit("config.stepped_back", before=before, version=config.version)
        emit("config.applied", version=config.version)
