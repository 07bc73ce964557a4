"""What a worker is (`DaemonConfig`, read at boot) and how the fleet is steered (`RuntimeConfig`, a row).

Precedence: defaults < TOML file < environment `ASYNCTASKD_<SECTION>_<KEY>` < flags < runtime row.
"""

from asynctaskd.config.daemon import DaemonConfig, DatabaseConfig, LogConfig, WorkerConfig
from asynctaskd.config.example import render_example
from asynctaskd.config.runtime import RuntimeConfig
from asynctaskd.config.settings import SETTINGS, Setting
from asynctaskd.config.sources import load_config, variables_of
from asynctaskd.config.values import EMBEDDED, NAME_PATTERN

__all__ = [
    "EMBEDDED",
    "NAME_PATTERN",
    "SETTINGS",
    "DaemonConfig",
    "DatabaseConfig",
    "LogConfig",
    "RuntimeConfig",
    "Setting",
    "WorkerConfig",
    "load_config",
    "render_example",
    "variables_of",
]
