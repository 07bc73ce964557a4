"""Whether what is secret is kept so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctaskd.cli.probes.finding import OK, WARNING, Finding, listed
from asynctaskd.config.exposure import REMEDY, exposed_files

if TYPE_CHECKING:
    from asynctaskd.config import DaemonConfig


def secrets(config: DaemonConfig) -> Finding:
    """Whether everybody on this machine may read a file that holds a password or a token."""
    exposed = [str(one) for one in exposed_files(config)]
    if exposed:
        return Finding("secrets", WARNING, f"everybody may read {listed(exposed)}", REMEDY)
    return Finding("secrets", OK, "no file that holds a secret is open to everybody")
