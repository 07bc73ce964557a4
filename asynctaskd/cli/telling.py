"""Who hears how a worker is, while it runs: the service manager, its parent, and whoever asks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asynctaskd.daemon.process import this_process
from asynctaskd.daemon.systemd import Service
from asynctaskd.telemetry.events import attach
from asynctaskd.telemetry.health import Health

if TYPE_CHECKING:
    from asynctaskd.cli.reloading import Reloading
    from asynctaskd.daemon.supervisor import Daemon
    from asynctaskd.daemon.systemd import ServiceManager

# In seconds. That the loop turns is part of what is told.
_PAUSE = 0.5


class Told:
    """A worker's health, and those who are told of it. Its loops run beside the daemon, in the main loop."""

    def __init__(self, manager: ServiceManager, reloading: Reloading) -> None:
        config = reloading.config
        self._manager = manager
        self._reloading = reloading
        self._is_asked = asyncio.Event()
        self.health = Health(
            stall_limit=config.worker.stall_limit.total_seconds(),
            requires_notices=config.database.listen == "on",
            counts=manager.listens or this_process().has_parent,
        )
        self._service = Service(
            manager,
            self.health,
            fed_by="keeper.turned",
            grace=self._grace,
        )
        # At once: a drain may be over before the next round.
        self._detach = attach(lambda *_: self._service.tick(), "worker.stopping")

    def close(self) -> None:
        """Hear and tell no more."""
        self._detach()
        self._service.close()
        self.health.close()

    def _grace(self) -> float:
        return self._reloading.config.worker.grace.total_seconds()

    async def keep_telling(self) -> None:
        """Tell how it is, until cancelled."""
        while True:
            self.health.turn()
            self._service.tick()
            this_process().report({**self.health.report(), "reloads": self._reloading.count})
            await asyncio.sleep(_PAUSE)

    def ask_to_reload(self) -> None:
        """Have the configuration read again, soon."""
        self._is_asked.set()

    async def keep_reloading(self, daemon: Daemon) -> None:
        """Read the configuration again whenever that is asked for, until cancelled."""
        while True:
            await self._is_asked.wait()
            self._is_asked.clear()
            self._manager.tell_reloading()
            config = self._reloading.reload()
            self.health.stall_limit = config.worker.stall_limit.total_seconds()
            await daemon.reconfigure(config)
            self._service.reloaded()
