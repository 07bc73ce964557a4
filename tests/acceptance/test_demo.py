"""The main job on real input: the demo, run as its users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Database

DEMO = [sys.executable, "-m", "asynctaskd", "demo"]


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ASYNCTASKD_")}
    return subprocess.run(
        [*DEMO, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=240
    )


@pytest.mark.timeout(300)  # half a minute of processor time, on however busy a machine
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
    assert len(found["largest"]) == 10
    assert_shares_follow(found["groups"])
    assert_acknowledged(found["config_change"])
    assert_cancelled(found["cancel"])
    assert_commands_go_on(found["cancel"]["root"], database)


def assert_shares_follow(groups: list[dict[str, Any]]) -> None:
    assert {group["name"]: group["after"]["weight"] for group in groups} != {
        group["name"]: group["before"]["weight"] for group in groups
    }
    for when in ("before", "after"):
        shares = [group[when] for group in groups]
        claims = sum(share["claims_while_all_waited"] for share in shares)
        assert claims > 100
        for share in shares:
            assert share["share_had"] == share["claims_while_all_waited"] / claims
            assert share["share_had"] == pytest.approx(share["share_wanted"], abs=0.05)


def assert_acknowledged(change: dict[str, Any]) -> None:
    assert (change["status"], change["version"]) == ("converged", 2)
    assert len({ack["worker"] for ack in change["acks"]}) == len(change["acks"]) == 2
    assert [ack["version"] for ack in change["acks"]] == [2, 2]
    assert all(0 < ack["milliseconds"] < 30_000 for ack in change["acks"])


def assert_cancelled(cancel: dict[str, Any]) -> None:
    assert cancel["open"] == 0
    assert len(cancel["workers"]) == 2
    ran = sum(worker["executions"] for worker in cancel["workers"])
    assert cancel["receipts"] == ran + cancel["at_rest"]
    assert ran == 8
    assert cancel["at_rest"] > 0
    for worker in cancel["workers"]:
        assert 0 <= worker["delivered_milliseconds"] <= worker["stopped_milliseconds"]


def assert_commands_go_on(root: int, database: Database) -> None:
    """Those that the demo names at its end; no worker is left by then."""
    run_there(database, "config", "set", "weights.extras=7")
    run_there(database, "tasks", "retry", str(root))
    assert "no worker is live" in run_there(database, "tasks", "why", str(root))
    assert "cancelled" in run_there(database, "tasks", "cancel", str(root))


def run_there(database: Database, *arguments: str) -> str:
    where = ["--database", database.dsn, "--schema", "asynctaskd_demo"]
    done = subprocess.run(
        [*DEMO[:-1], *arguments, *where], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done
    return done.stdout


def test_the_demo_cannot_begin_without_its_database(tmp_path: object) -> None:
    done = run_demo("--database", f"postgresql://nobody@/nothing?host={tmp_path}")
    assert done.returncode == 69
    assert "unavailable" in done.stderr
