"""The locks: which release of each dependency, and the hashes of its files, for every Python and platform.

    python -m tools.lock             make them anew where pyproject.toml has changed; keep what still suits
    python -m tools.lock --upgrade   take the newest of everything
    python -m tools.lock --check     say whether pyproject.toml has changed since

It needs uv, save for the check. No address of an index is written down: each machine asks its own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DEV = ROOT / "constraints" / "dev.txt"
RUNTIME = ROOT / "constraints" / "runtime.txt"
IMAGE = ROOT / "deploy" / "docker" / "requirements.txt"
BACKEND = ROOT / "deploy" / "docker" / "build-requirements.txt"
LOCKS = (DEV, RUNTIME, IMAGE, BACKEND)

# Extras for whoever develops with asynctaskd: no part of what runs.
_TOOLS = {"dev", "generate", "testing"}
# What the image comes with; who needs more installs it on top.
_IN_THE_IMAGE = ("crypto", "dashboard", "http", "msgpack", "tracing")


def main(arguments: list[str]) -> int:
    """Make the locks, or check them; the exit code."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))
    if arguments == ["--check"]:
        return _check(project)
    # All others have what the first has.
    like_dev = [*arguments, "--constraint", str(DEV.relative_to(ROOT))]
    _compile(DEV, project, [*_extras("dev"), "pyproject.toml", *arguments])
    extras = sorted(project["project"]["optional-dependencies"].keys() - _TOOLS)
    _compile(RUNTIME, project, [*_extras(*extras), "pyproject.toml", *like_dev])
    _compile(IMAGE, project, [*_extras(*_IN_THE_IMAGE), "pyproject.toml", *like_dev])
    _compile(BACKEND, project, ["-", *like_dev], given="\n".join(project["build-system"]["requires"]))
    return 0


def stamp(project: dict[str, Any]) -> str:
    """The line that says for which dependencies a lock was made."""
    facts = project["project"]
    asked = [
        facts["requires-python"],
        facts["dependencies"],
        facts["optional-dependencies"],
        project["build-system"]["requires"],
    ]
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    return f"# for the dependencies in pyproject.toml with the digest {digest[:16]}"


def _check(project: dict[str, Any]) -> int:
    stale = [path for path in LOCKS if stamp(project) not in path.read_text("utf8").splitlines()[:3]]
    for path in stale:
        print(
            f"{path.relative_to(ROOT)} was made for other dependencies than pyproject.toml has: `make lock`"
        )
    return 1 if stale else 0


def _extras(*names: str) -> list[str]:
    return [part for name in names for part in ("--extra", name)]


def _compile(target: Path, project: dict[str, Any], sources: list[str], given: str | None = None) -> None:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        sys.exit("tools.lock needs uv, and there is none: pip install uv")
    how = ["--quiet", "--universal", "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url"]
    where = ["--custom-compile-command", "make lock", "--output-file", str(target.relative_to(ROOT))]
    subprocess.run(
        [uv, "pip", "compile", *how, *where, *sources], cwd=ROOT, check=True, input=given, text=True
    )
    target.write_text(f"{stamp(project)}\n{target.read_text('utf8')}", "utf8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
