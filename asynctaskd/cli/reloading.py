"""From a configuration that is read again to what a running worker takes on of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from asynctaskd.config.exposure import REMEDY, exposed_files
from asynctaskd.config.live import LIVE, differing_keys, with_live
from asynctaskd.daemon.process import this_process
from asynctaskd.errors import ConfigError
from asynctaskd.postgres.urls import require_readable
from asynctaskd.telemetry.events import emit
from asynctaskd.telemetry.logs import set_log_level

if TYPE_CHECKING:
    from asynctaskd.config import DaemonConfig
    from asynctaskd.config.exposure import Exposed


class Reloading:
    """Reads the configuration again, from where it came from at the start.

    Args:
        read: reads it; raises ConfigError, also where no worker would start with it.
        config: what is in force.

    Attributes:
        count: how often that was done, whatever came of it.
    """

    def __init__(self, read: Callable[[], DaemonConfig], config: DaemonConfig) -> None:
        self._read = read
        self.config = config
        self.count = 0
        self._exposed: frozenset[Exposed] = frozenset()

    def warn_of_exposed(self) -> None:
        """Warn of each secret file that everybody may read, once. For several processes their parent does."""
        if this_process().has_parent:
            return
        exposed = frozenset(exposed_files(self.config))
        for one in sorted(exposed - self._exposed, key=str):
            emit("file.exposed", key=one.key, path=str(one.path), mode=f"{one.mode:04o}", note=REMEDY)
        self._exposed = exposed

    def reload(self) -> DaemonConfig:
        """What is in force from now on: where it can't be read, what was before."""
        self.count += 1
        try:
            found = self._read()
            require_readable(found.database.require_url())  # a file that was emptied is no configuration
        except ConfigError as error:
            emit("config_file.refused", error=str(error))
            return self.config
        keys = differing_keys(self.config, found)
        changed = [key for key in keys if key in LIVE]
        emit("config_file.read", changed=changed, takes_restart=[key for key in keys if key not in LIVE])
        self.config = with_live(self.config, found)
        set_log_level(self.config.log.level)
        self.warn_of_exposed()
        return self.config
