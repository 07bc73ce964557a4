"""The units: systemd's own opinion of them, and that they agree with what the worker does by default."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from asynctaskd.config import DaemonConfig
from asynctaskd.durations import parse_duration
from deploy.check.tools import complaints, find, run

HIGHEST_EXPOSURE = 1.1
"""What `systemd-analyze security` may say at most, from 0 to 10."""

# A drain may take so much longer than the grace period.
_LAST_WORDS = timedelta(seconds=15)

_MUST = {
    "Type": ["notify"],
    "NotifyAccess": ["main"],
    "ExecReload": ["/bin/kill -HUP $MAINPID"],
    "Restart": ["always"],
    "RestartPreventExitStatus": ["78"],
    "KillMode": ["mixed"],
    "DynamicUser": ["yes"],
    # The worker was shown to run with this one: systemd weighs it too little to notice that it is gone.
    "MemoryDenyWriteExecute": ["yes"],
}

Settings = Mapping[str, Sequence[str]]


def check(deploy: Path) -> Iterator[str]:
    """What is wrong with the unit and its template."""
    analyze = find("systemd-analyze", remedy="apt-get install systemd")
    unit, template = (deploy / "systemd" / name for name in ("asynctaskd.service", "asynctaskd@.service"))
    for path in (unit, template):
        yield from _opinion(analyze, path)
        yield from _agreement(path.name, settings(path))
    yield from _difference(settings(unit), settings(template))


def settings(unit: Path) -> dict[str, list[str]]:
    """What a unit says, by key: a key that stands there twice has two values."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text(encoding="utf8").splitlines():
        key, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def _opinion(analyze: str, unit: Path) -> Iterator[str]:
    """By systemd itself, which runs no service for it."""
    with tempfile.TemporaryDirectory() as folder:
        # A template is looked at as one of its instances.
        looked_at = Path(folder) / unit.name.replace("@.", "@mail.")
        shutil.copy(unit, looked_at)
        verified = run(analyze, "verify", "--man=no", looked_at)
        said = [line for line in verified.stderr.splitlines() if line]
        yield from (f"{unit.name}: {line}" for line in said)
        if not said:
            yield from complaints(verified, of=unit.name)
        yield from _exposure(analyze, unit.name, looked_at)


def _exposure(analyze: str, name: str, unit: Path) -> Iterator[str]:
    told = run(analyze, "security", "--offline=true", "--no-pager", unit).stdout
    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
    if level is None:
        yield f"{name}: systemd-analyze security says nothing of its exposure"
    elif float(level[1]) > HIGHEST_EXPOSURE:
        yield f"{name}: its exposure is {level[1]}, and must be {HIGHEST_EXPOSURE} at most"


def _agreement(name: str, told: Settings) -> Iterator[str]:
    for key, value in _MUST.items():
        if told.get(key) != value:
            yield f"{name}: {key} must be {' '.join(value)}, got {told.get(key)}"
    worker = DaemonConfig().worker
    least = worker.grace + _LAST_WORDS
    if _duration(told, "TimeoutStopSec") < least:
        yield f"{name}: TimeoutStopSec must be at least {least}, since worker.grace is {worker.grace}"
    if _duration(told, "WatchdogSec") <= worker.stall_limit:
        yield f"{name}: WatchdogSec must be more than worker.stall_limit, {worker.stall_limit}"
    if not _duration(told, "TimeoutStartSec"):
        yield f"{name}: TimeoutStartSec must be given"
    if not any(value.startswith("PGPASSFILE=%d/") for value in told.get("Environment", ())):
        yield f"{name}: the password must come as a credential: PGPASSFILE=%d/…"


def _duration(told: Settings, key: str) -> timedelta:
    written = told.get(key, ["0s"])[-1].replace("min", "m")
    with suppress(ValueError):  # systemd complains of it by itself
        return parse_duration(written)
    return timedelta()


def _difference(unit: Settings, template: Settings) -> Iterator[str]:
    """The template is the unit with names of its own; else one of them was forgotten."""
    for key in sorted({*unit, *template}):
        one, other = unit.get(key, []), template.get(key, [])
        same = (mine == its or "%i" in its for mine, its in zip(one, other, strict=False))
        if len(one) != len(other) or not all(same):
            yield f"asynctaskd@.service: {key} is {other}, and in asynctaskd.service {one}"
