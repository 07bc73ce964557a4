"""The examples run as they stand, each on a database of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:

    class Database:
        dsn: str


ROOT = Path(__file__).parents[2]


@pytest.fixture
def shell(database: Database) -> Callable[[str], str]:
    """Runs commands of a page, on the test's database, and returns what they print."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ASYNCTASKD_")}
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
    environ["ASYNCTASKD_DATABASE_URL"] = database.dsn

    def run(commands: str) -> str:
        done = subprocess.run(
            ["sh", "-e", "-c", commands], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def commands(request: pytest.FixtureRequest) -> str:
    """What the page of examples says of the example that the test's module is named for."""
    name = request.module.__name__.rpartition("test_")[2]
    page = (ROOT / "examples" / "README.md").read_text("utf8")
    [block] = re.findall(rf"## \[{name}\].*?```sh\n(.*?)```", page, re.DOTALL)
    return block
