"""The image, without Docker: its build is gone through here, with the same files, locks and commands."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from deploy.check.dockerfile import Stage, last, stages, words
from deploy.check.tools import ROOT

_ENVIRONMENT = "/opt/asynctaskd"


def check(deploy: Path) -> Iterator[str]:
    """What fails in the build, or with what was built."""
    build, final = stages(deploy / "docker" / "Dockerfile")
    with tempfile.TemporaryDirectory() as folder:
        world = _World(Path(folder), deploy)
        failed = world.build(build)
        yield from failed
        if not failed:
            yield from world.start(final)


class _World:
    """A folder that stands for the image's root, with an interpreter that stands for the base image's."""

    def __init__(self, root: Path, deploy: Path) -> None:
        self._root = root
        self._deploy = deploy
        self._environ = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        self._environ |= {
            name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))
        }

    def build(self, stage: Stage) -> list[str]:
        """Go through the steps of the first stage, until one fails."""
        subprocess.run([sys.executable, "-m", "venv", self._root / "base"], check=True)
        where = self._root
        for instruction, value in stage:
            if instruction == "WORKDIR":
                where = Path(self._here(value))
                where.mkdir(parents=True)
            elif instruction == "ENV":
                self._environ |= dict(pair.split("=", 1) for pair in shlex.split(value))
            elif instruction == "COPY":
                self._copy(value.split(), where)
            elif instruction == "RUN" and (failed := self._run(words(value) or [], where)):
                return [failed]
        return []

    def start(self, stage: Stage) -> list[str]:
        """Start what the image starts, with its help instead of a database."""
        program = [*(words(last(stage, "ENTRYPOINT")) or []), *(words(last(stage, "CMD")) or [])]
        failed = self._run([*program, "--help"], self._root, self._here(f"{_ENVIRONMENT}/bin"))
        return [failed] if failed else []

    def _here(self, text: str) -> str:
        """Paths of the image as those of this folder."""
        for path in (_ENVIRONMENT, "/build"):
            text = text.replace(path, f"{self._root}{path}")
        return text

    def _copy(self, paths: list[str], where: Path) -> None:
        *sources, target = paths
        for source in sources:
            origin = self._origin(source)
            if origin.is_dir():
                shutil.copytree(origin, where / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(origin, where / target)

    def _origin(self, source: str) -> Path:
        within = Path(source)
        return self._deploy / within.relative_to("deploy") if within.parts[0] == "deploy" else ROOT / within

    def _run(self, command: list[str], where: Path, path: str | None = None) -> str | None:
        environ: Mapping[str, str] = self._environ | {
            "PATH": f"{path or self._root / 'base' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        }
        program = shutil.which(command[0], path=environ["PATH"])
        if program is None:
            return f"{command[0]} isn't there"
        done = subprocess.run(
            [program, *map(self._here, command[1:])],
            cwd=where, env=environ, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            return None
        [*_, why] = (done.stderr or done.stdout or "it says nothing").strip().splitlines()
        return f"{' '.join(command)} fails: {why}"
