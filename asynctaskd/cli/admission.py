"""Whether a worker may serve the dashboard that is asked for: `run`, its reload and `check` want to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctaskd.definitions.extras import DASHBOARD, require_extra

if TYPE_CHECKING:
    from asynctaskd.config import DaemonConfig


def require_admission(config: DaemonConfig) -> None:
    """See that somebody is let in, and nobody else.

    Raises:
        ConfigError: no worker starts with that, since anybody could reach the dashboard, a token can't be
            read, or the extra isn't installed.
    """
    if config.dashboard.mode == "off":
        return
    require_extra("dashboard", DASHBOARD)
    from asynctaskd.web.dashboard.configured import admitted  # noqa: PLC0415  (it is an extra)

    admitted(config, config.http.host)
