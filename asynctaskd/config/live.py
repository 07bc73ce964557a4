"""What may change while a worker runs? The keys that it takes on without a restart."""

from __future__ import annotations

from asynctaskd.config.daemon import DaemonConfig
from asynctaskd.config.settings import SETTINGS

LIVE = frozenset(
    {
        "log.level",
        "worker.concurrency",
        "worker.grace",
        "worker.labels",
        "worker.lease",
        "worker.max_strict_percentage",
        "worker.poll_interval",
        "worker.renew_interval",
        "worker.stall_limit",
    }
)
"""The keys that take effect as soon as they are read again."""


def differing_keys(one: DaemonConfig, other: DaemonConfig) -> list[str]:
    """The keys whose values differ, in the order of the example file."""
    mine, others = one.model_dump(by_alias=True), other.model_dump(by_alias=True)
    return [
        key
        for key, setting in SETTINGS.items()
        if mine[setting.section][setting.name] != others[setting.section][setting.name]
    ]


def with_live(config: DaemonConfig, found: DaemonConfig) -> DaemonConfig:
    """A configuration with the live keys of another one."""
    told = found.model_dump(by_alias=True)
    sections: dict[str, dict[str, object]] = {}
    for key in LIVE:
        setting = SETTINGS[key]
        sections.setdefault(setting.section, {})[setting.name] = told[setting.section][setting.name]
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    )
