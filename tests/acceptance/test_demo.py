"""The main job on real input: the demo, run as its users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Database

DEMO = [sys.executable, "-m", "asynctaskd", "demo"]


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ASYNCTASKD_")}
    return subprocess.run(
        [*DEMO, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=110
    )


def test_the_demo_indexes_the_standard_library(database: Database) -> None:
    done = run_demo("--json", "--database", database.dsn)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["ok"]
    assert [check["what"] for check in found["checks"] if not check["ok"]] == []
    assert found["files"] > 300
    assert found["tasks"] == found["completed"] + 1 == found["files"] + 1
    assert found["failed"] == 1
    assert found["rolled_back"] == 50
    assert found["retries"] >= found["files"] // 50
    assert found["urgent"]["median_wait"] < found["ordinary"]["median_wait"]
    assert sum(group["share_had"] for group in found["groups"]) == pytest.approx(1)
    assert len(found["largest"]) == 10


def test_the_demo_cannot_begin_without_its_database(tmp_path: object) -> None:
    done = run_demo("--database", f"postgresql://nobody@/nothing?host={tmp_path}")
    assert done.returncode == 69
    assert "unavailable" in done.stderr
