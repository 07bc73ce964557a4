"""A copy of deploy/ to spoil, and what the checks say of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.check.__main__ import DEPLOY, KINDS
from deploy.check.tools import MissingToolError


@dataclass(frozen=True)
class Copy:
    """A copy of deploy/."""

    folder: Path

    def plant(self, file: str, old: str, new: str) -> None:
        """Put a fault in the place of what is there."""
        path = self.folder / file
        text = path.read_text(encoding="utf8")
        assert old in text, f"{file} has no {old!r} any more: plant the fault elsewhere"
        path.write_text(text.replace(old, new, 1), encoding="utf8")

    def findings(self, kind: str) -> Iterator[str]:
        """What the check of a kind says, as it finds it."""
        try:
            yield from KINDS[kind](self.folder)
        except MissingToolError as error:  # `make check-deploy` fails where this is so
            pytest.skip(str(error))


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    shutil.copytree(DEPLOY, tmp_path / "deploy", ignore=shutil.ignore_patterns("check", "__pycache__"))
    return Copy(tmp_path / "deploy")


@pytest.fixture
def assert_found(copy: Copy) -> Callable[..., None]:
    """Plants a fault and demands that the check says so."""

    def planted(kind: str, file: str, old: str, new: str, found: str) -> None:
        copy.plant(file, old, new)
        said: list[str] = []
        for finding in copy.findings(kind):
            if found in finding:
                return
            said.append(finding)
        pytest.fail(f"nothing of {found!r} among {said}")

    return planted
