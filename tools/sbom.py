"""What is a release made of? A CycloneDX document in build/, of what is locked for running asynctaskd.

Wheel and dependencies are installed into an environment that holds nothing else, each file by its hash, and
that is described: names, versions, licences, and what needs what.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

from tools.lock import ROOT, RUNTIME


def main() -> int:
    """Write the document and say where it is."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]["version"]
    target = ROOT / "build" / f"asynctaskd-{version}.cdx.json"
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        venv.create(place / "venv", with_pip=False)
        python = str(place / "venv" / "bin" / "python")
        _run("build", "--no-isolation", "--wheel", "--outdir", folder, str(ROOT))
        _install(python, "--require-hashes", "--requirement", str(RUNTIME))
        _install(python, "--no-deps", *map(str, place.glob("*.whl")))
        project = ("--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "library")
        _run(
            "cyclonedx_py",
            "environment",
            *project,
            "--output-reproducible",
            "--output-file",
            str(target),
            python,
        )
    print(f"wrote {target.relative_to(ROOT)}")
    return 0


def _install(python: str, *arguments: str) -> None:
    _run("pip", "--python", python, "install", "--quiet", "--disable-pip-version-check", *arguments)


def _run(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
