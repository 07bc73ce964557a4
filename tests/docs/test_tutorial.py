"""The tutorial on tasks from a file: its files are written and its commands run, in the order of the page."""

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

from asynctaskd.cli import init
from asynctaskd.testing.plugin import wait_until_stopped
from tests.test_docs import DOCS

PAGE = (DOCS / "tutorial" / "tasks-from-a-file.md").read_text("utf8")
BLOCKS = re.findall(r"```(console|yaml|python)\n(.*?)```", PAGE, re.DOTALL)
LONG_ENOUGH = 300


@pytest.fixture
def home() -> Iterator[Path]:
    """Where the embedded server will be; a short path, since a socket is in it."""
    path = Path(tempfile.mkdtemp(prefix="tutorial-"))
    yield path
    wait_until_stopped(path / "asynctaskd" / "postgres")
    shutil.rmtree(path)


def script() -> str:
    """The page as a script for a shell; each command is echoed."""
    return "\n".join(step for kind, block in BLOCKS for step in steps(kind, block))


def steps(kind: str, block: str) -> Iterator[str]:
    if kind == "console":
        yield from (f"echo '$$$'\n{command}" for command in re.findall(r"^\$ (.*)$", block, re.MULTILINE))
        return
    title, _, text = block.removeprefix("# ").partition("\n")
    path, _, where = title.partition(", ")
    if where != "as it is":
        yield f"cat {'>>' if where else '>'} {path} <<'END OF FILE'\n{text}END OF FILE"


def test_every_block_of_a_file_says_which() -> None:
    titles = [block.partition("\n")[0] for kind, block in BLOCKS if kind != "console"]
    assert titles == [
        "# shop/tasks.yaml, as it is",
        "# shop/tasks.yaml, below SendEmail",
        "# shop/handlers.py",
        "# shop/orders.py",
        "# tests/test_orders.py",
    ]


def test_the_file_that_it_shows_is_that_of_the_skeleton() -> None:
    [shown] = [block for _, block in BLOCKS if block.startswith("# shop/tasks.yaml, as it is\n")]
    skeleton = (init._SKELETON / "PACKAGE" / "tasks.yaml").read_text("utf8")
    assert shown.partition("\n")[2] == skeleton.partition("\n")[2]


@pytest.mark.timeout(LONG_ENOUGH)
def test_what_it_says_is_what_happens(home: Path, tmp_path: Path) -> None:
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("ASYNCTASKD_", "PYTEST_"))
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
    environ |= {"PATH": path, "HOME": str(home), "XDG_DATA_HOME": str(home), "COLUMNS": "200"}
    with (tmp_path / "output").open("w+") as output:
        done = subprocess.run(
            ["bash", "-e", "-c", script()],
            cwd=tmp_path,
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=LONG_ENOUGH,
        )
        output.seek(0)
        said = output.read()
    assert done.returncode == 0, said
    missing = [line for line in promised() if line not in said]
    assert missing == [], said


def promised() -> list[str]:
    """What the page shows of the output, but for what differs from one time to the next."""
    lines = [line for kind, block in BLOCKS if kind == "console" for line in block.splitlines()]
    differs = r"\$ |=+ \d+ passed|creating|…|the schema version|\d+ +completed|error: app"
    return [line for line in lines if not re.match(differs, line)]
