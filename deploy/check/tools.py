"""The programs that check: found where they are, or taken out of a Debian package, which needs no rights."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

# Beside the interpreter, so that they come once for each virtual environment and go with it.
_KEPT = Path(sys.prefix) / "deploy-tools"


class MissingToolError(Exception):
    """A program that checks isn't there and can't be had; the message says how to install it."""


def find(*names: str, package: str | None = None, remedy: str) -> str:
    """Where the first of these programs is; `package` is Debian's, taken where none is installed."""
    for name in names:
        if where := shutil.which(name) or shutil.which(name, path=Path(sys.executable).parent):
            return where
    unpacked = None if package is None else kept(package, lambda folder: _unpack(package, folder))
    if unpacked is not None and (where := shutil.which(names[0], path=unpacked / "usr" / "bin")):
        return where
    raise MissingToolError(f"{' or '.join(names)} isn't there: {remedy}")


def kept(name: str, make: Callable[[Path], bool]) -> Path | None:
    """The folder of that name, made if it isn't there; None where that fails."""
    target = _KEPT / name
    if not target.exists():
        _KEPT.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_KEPT) as folder:
            content = Path(folder) / name
            content.mkdir()
            if make(content):
                with suppress(OSError):  # somebody else was faster
                    content.rename(target)
    return target if target.exists() else None


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever that is."""
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def complaints(done: subprocess.CompletedProcess[str], *, of: str) -> list[str]:
    """The lines of a program that found something wrong; none of one that didn't."""
    if done.returncode == 0:
        return []
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return [f"{of}: {line}" for line in lines] or [f"{of}: exit code {done.returncode}"]


def _unpack(package: str, folder: Path) -> bool:
    """Unpack a package without installing it: its services don't start."""
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        return False
    return _download(package, folder) and run("dpkg", "-x", *folder.glob("*.deb"), folder).returncode == 0


def _download(package: str, folder: Path) -> bool:
    command = ("apt-get", "download", package)
    if run(*command, cwd=folder).returncode == 0:
        return True
    # A new machine has no lists of packages yet; to fetch them takes root.
    return run("apt-get", "update").returncode == 0 and run(*command, cwd=folder).returncode == 0
