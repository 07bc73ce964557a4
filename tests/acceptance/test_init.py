"""What `asynctaskd init` writes works as it stands, and so does every command that it prints."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from asynctaskd.testing.plugin import wait_until_stopped

LONG_ENOUGH = 300


def run(directory: Path, command: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as somebody who has nothing yet: no variables of ours, no embedded server."""
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("ASYNCTASKD_", "PYTEST_"))
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
    return subprocess.run(
        command,
        cwd=directory,
        env=environ | {"PATH": path, "HOME": str(home), "XDG_DATA_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=LONG_ENOUGH,
    )


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Where the embedded server will be; a short path, since a socket is in it."""
    path = Path(tempfile.mkdtemp(prefix="init-"))
    yield path
    wait_until_stopped(path / "asynctaskd" / "postgres")
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def written(home: Path, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The end of `asynctaskd init`; its arguments are `cwd` and the directory."""
    where = tmp_path_factory.mktemp("work")
    done = run(where, ["asynctaskd", "init", "book shop", "--name", "book_shop"], home)
    assert done.returncode == 0, done.stderr
    done.args = where
    return done


@pytest.fixture(scope="module")
def skeleton(written: subprocess.CompletedProcess[str]) -> Path:
    return Path(written.args) / "book shop"


@pytest.mark.timeout(LONG_ENOUGH)
def test_every_command_that_it_prints_works(written: subprocess.CompletedProcess[str], home: Path) -> None:
    steps = re.findall(r"^  (.+)$", written.stdout, re.MULTILINE)
    assert [step.split()[0] for step in steps] == ["cd", "export", "pytest", *["asynctaskd"] * 4]

    done = run(Path(written.args), ["sh", "-e", "-c", "\n".join(steps)], home)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert "To: ada@example.org" in done.stdout
    assert re.search(r"^1 +completed +1 .* SendEmail$", done.stdout, re.MULTILINE)


def test_its_module_is_what_generate_makes_of_its_definitions(skeleton: Path, home: Path) -> None:
    done = run(skeleton, ["asynctaskd", "generate", "book_shop/tasks.yaml", "--check"], home)
    assert done.returncode == 0, done.stderr


def test_type_checkers_and_linters_find_nothing_in_it(skeleton: Path, home: Path) -> None:
    for tool in (["mypy"], ["ruff", "check"], ["ruff", "format", "--check"]):
        done = run(skeleton, [sys.executable, "-m", *tool], home)
        assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_knows_of_the_placeholder(skeleton: Path) -> None:
    paths = [path for path in skeleton.rglob("*.*") if path.is_file()]
    assert paths
    assert not any("PACKAGE" in str(path) or b"PACKAGE" in path.read_bytes() for path in paths)
