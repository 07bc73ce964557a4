"""Is a process gone? The kernel knows, and frees the name that a process holds exactly when it ends.

While it lives, a process keeps an abstract Unix socket bound that is named after it. Such names belong to a
network namespace, so whoever is at the same place (this boot of the kernel, this namespace) and can bind the
name has proven that its owner is gone. Elsewhere nothing can be proven. A restarted container of a pod is at
the same place, since the pod keeps its namespace.
"""

from __future__ import annotations

import atexit
import os
import socket
from enum import Enum
from pathlib import Path
from uuid import UUID

BOOT_VARIABLE = "_ASYNCTASKD_BOOT"
"""Which boot this is, told by a service manager that hides it from its services (`ProcSubset=pid`)."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/net")


class Fate(Enum):
    """What is known here of a process."""

    ALIVE = "alive"
    GONE = "gone"
    UNKNOWN = "unknown"


def place() -> str | None:
    """Where this process runs, as far as names of sockets go; None where the system doesn't tell."""
    try:
        boot = UUID(os.environ.get(BOOT_VARIABLE) or _BOOT_ID.read_text().strip())
        return f"{boot}:{_NAMESPACE.stat().st_ino}"
    except (OSError, ValueError):
        return None


def hold_name(process: UUID) -> socket.socket | None:
    """Bind the name of a process for as long as the socket is kept; None where that isn't possible.

    Programs that the process starts don't inherit it. A fork without `exec` does: that delays the proof
    until the fork has ended too, which is safe.
    """
    if place() is None:
        return None
    try:
        name = _bind(process)
    except OSError:  # a sandbox without Unix sockets: the lease alone decides
        return None
    # Left open until the process is really gone, and nothing to warn of.
    atexit.register(name.detach)
    return name


def fate_of(process: UUID | None, where: str | None) -> Fate:
    """Whether a process that ran at a place lives or has ended, where that can be proven from here."""
    if process is None or where is None or where != place():
        return Fate.UNKNOWN
    try:
        _bind(process).close()
    except PermissionError:  # we are in a sandbox
        return Fate.UNKNOWN
    except OSError:
        return Fate.ALIVE
    return Fate.GONE


def _bind(process: UUID) -> socket.socket:
    name = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        name.bind(f"\0asynctaskd/{process}")
    except OSError:
        name.close()
        raise
    return name
