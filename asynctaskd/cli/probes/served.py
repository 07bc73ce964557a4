"""Whether a worker could serve the dashboard that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctaskd.cli.admission import require_admission
from asynctaskd.cli.probes.finding import FAILURE, OK, Finding
from asynctaskd.errors import ConfigError

if TYPE_CHECKING:
    from asynctaskd.config import DaemonConfig


def dashboard(config: DaemonConfig) -> Finding:
    """Whether anybody could reach it, and its tokens can be read; a worker wouldn't start, in these words."""
    try:
        require_admission(config)
    except ConfigError as error:
        return Finding("dashboard", FAILURE, str(error))
    if config.dashboard.mode == "off":
        return Finding("dashboard", OK, "no worker serves it (dashboard.mode = off)")
    return Finding("dashboard", OK, "a worker can serve it to those who are to be let in")
