"""Whether the configuration's durations suit each other, and whoever stops workers."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

from asynctaskd.cli.probes.finding import FAILURE, OK, WARNING, Finding
from asynctaskd.durations import format_duration
from asynctaskd.errors import InvalidInputError

if TYPE_CHECKING:
    from asynctaskd.config import DaemonConfig

# What a worker needs after its grace: to cancel what runs, put it back, and say goodbye.
_AFTER_GRACE = timedelta(seconds=10)

# As systemd writes them; Kubernetes has seconds alone.
_SECONDS = {"": 1, "ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hr": 3600, "d": 86_400}
_SPAN = re.compile(r"(\d+)\s*(ms|sec|s|min|m|hr|h|d|)\s*")


def lease(config: DaemonConfig) -> Finding:
    """How many renewals may fail before tasks go to others; the configuration refuses fewer than three."""
    worker = config.worker
    times = worker.lease / worker.renew_interval
    spelled = f"{format_duration(worker.lease)}, {times:.3g} × worker.renew_interval"
    return Finding("lease", OK, f"worker.lease is {spelled} ({format_duration(worker.renew_interval)})")


def grace(config: DaemonConfig, stop_timeout: timedelta | None) -> Finding:
    """Whether a worker that is told to stop can put its tasks back before it is killed."""
    given, needed = config.worker.grace, config.worker.grace + _AFTER_GRACE
    message = f"worker.grace is {format_duration(given)}"
    if stop_timeout is None:
        wanted = f"{message}: whoever stops a worker must wait for at least {format_duration(needed)}"
        return Finding("grace", OK, f"{wanted} (--stop-timeout says whether it does)")
    message = f"{message}, and a worker is killed {format_duration(stop_timeout)} after it was told to stop"
    if stop_timeout >= needed:
        return Finding("grace", OK, message)
    remedy = (
        f"give it {format_duration(needed)} (TimeoutStopSec of a unit, terminationGracePeriodSeconds of a "
        "pod), or lower worker.grace"
    )
    return Finding("grace", FAILURE if stop_timeout <= given else WARNING, message, remedy)


def read_stop_timeout(text: str) -> timedelta:
    """What `systemctl show` or a pod's spec says: `600`, `90s`, `1min 30s`, `infinity`.

    Raises:
        InvalidInputError: it is none of these.
    """
    if text == "infinity":
        return timedelta(days=36_525)
    parts = _SPAN.findall(text)
    if not parts or "".join(_SPAN.sub("", text)):
        raise InvalidInputError(
            f"--stop-timeout must be a length of time such as 600, 90s, '1min 30s' or infinity, got {text!r}"
        )
    return timedelta(seconds=sum(int(number) * _SECONDS[unit] for number, unit in parts))
