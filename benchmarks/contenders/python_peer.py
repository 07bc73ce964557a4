"""What the peers written in Python share: they are installed beside the harness, at pinned versions."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import metadata

from benchmarks.contenders.contender import REQUIREMENTS, UnavailableError


def install(peer: str) -> None:
    """Install what `requirements/PEER.txt` pins, where it isn't there yet. Raises UnavailableError."""
    file = REQUIREMENTS / f"{peer}.txt"
    if all(_is_installed(line) for line in file.read_text().split()):
        return
    done = subprocess.run(
        [*_installer(), "-r", str(file)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise UnavailableError(f"{file.name} can't be installed: {_last_line(done.stderr)}")


def _is_installed(requirement: str) -> bool:
    name, _, version = requirement.partition("==")
    try:
        return metadata.version(name.partition("[")[0]) == version
    except metadata.PackageNotFoundError:
        return False


def _installer() -> list[str]:
    # An environment made by uv has no pip.
    uv = shutil.which("uv")
    if uv is not None:
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it gave no reason"])[-1]
