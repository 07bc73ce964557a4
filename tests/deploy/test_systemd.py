"""The check of the units finds each fault that is planted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.deploy.conftest import Copy

UNITS = ("asynctaskd.service", "asynctaskd@.service")


def test_what_is_shipped_is_well(copy: Copy) -> None:
    assert list(copy.findings("systemd")) == []


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(
    "old, new, found",
    [
        ("PrivateUsers=yes\n", "", "its exposure is 1."),
        ("SystemCallFilter=@system-service\n", "", "its exposure is"),
        ("MemoryDenyWriteExecute=yes", "MemoryDenyWriteExecute=no", "MemoryDenyWriteExecute must be yes"),
        ("CapabilityBoundingSet=\n", "CapabilityBoundingSet=CAP_SYS_ADMIN\n", "its exposure is"),
        ("NoNewPrivileges=yes", "NoNewPrivilege=yes", "NoNewPrivilege'"),
        ("ExecStart=/usr/bin/env", "ExecStart=/usr/bin/no-such-program", "no-such-program"),
        ("WatchdogSec=90s", "WatchdogSec=soon", "WatchdogSec"),
        ("Type=notify", "Type=simple", "Type must be notify"),
        ("NotifyAccess=main", "NotifyAccess=all", "NotifyAccess must be main"),
        ("ExecReload=/bin/kill -HUP $MAINPID\n", "", "ExecReload must be /bin/kill"),
        ("Restart=always", "Restart=no", "Restart must be always"),
        ("RestartPreventExitStatus=78\n", "", "RestartPreventExitStatus must be 78"),
        ("KillMode=mixed", "KillMode=process", "KillMode must be mixed"),
        ("TimeoutStopSec=60s", "TimeoutStopSec=30s", "TimeoutStopSec must be at least"),
        ("TimeoutStopSec=60s\n", "", "TimeoutStopSec must be at least"),
        ("WatchdogSec=90s", "WatchdogSec=60s", "WatchdogSec must be more than worker.stall_limit"),
        ("TimeoutStartSec=90s\n", "", "TimeoutStartSec must be given"),
        ("PGPASSFILE=%d/pgpass", "PGPASSFILE=/etc/pgpass", "the password must come as a credential"),
        ("LimitNOFILE=8192", "LimitNOFILE=1024", "LimitNOFILE is"),
    ],
)
def test_a_fault_is_found(
    assert_found: Callable[..., None], unit: str, old: str, new: str, found: str
) -> None:
    assert_found("systemd", f"systemd/{unit}", old, new, found)
