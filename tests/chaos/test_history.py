"""The audit, the witness and the files, read back after a real worker has run."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from asynctaskd import Client
from asynctaskd.config import DaemonConfig
from asynctaskd.daemon.supervisor import Daemon
from tests.chaos import audit, witness
from tests.chaos.app import app
from tests.chaos.history import History, executions, merged, read_lines, without
from tests.chaos.judge import judge
from tests.chaos.mutants import MUTANTS
from tests.chaos.worker import signed

LONG_ENOUGH = 60.0

ROOT = Path(__file__).parents[2]

KINDS: dict[str, dict[str, Any]] = {
    "quick": {},
    "flaky": {"times": 1},
    "quiet": {},
    "snoozing": {},
    "doomed": {"fatal": True},
    "overtime": {},
    "threaded": {"seconds": 0.01},
    "effect": {},
    "family": {"children": 2},
}


@pytest.fixture
def witness_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHAOS_WITNESS", str(tmp_path / "witness.jsonl"))
    witness._file.cache_clear()
    return tmp_path / "witness.jsonl"


async def work_off(dsn: str, connection: Any) -> None:
    """Run a worker until no live task is left."""
    config = {"database": {"url": dsn}, "worker": {"lease": "6s", "renew_interval": "1s"}}
    daemon = Daemon(app, dsn, DaemonConfig.model_validate(config))
    life = asyncio.create_task(daemon.run())
    async with asyncio.timeout(LONG_ENOUGH):
        while await connection.fetchval("SELECT count(*) FROM asynctaskd.tasks"):
            await asyncio.sleep(0.02)
    daemon.stop()
    await life


async def test_a_real_run_is_recorded_and_acquitted(
    database: Any, connection: Any, tmp_path: Path, witness_file: Path
):
    await audit.install(database.dsn)
    client = Client(connection)
    ids = [await client.enqueue(name, payload) for name, payload in KINDS.items()]
    ledger = [{"at": 0.0, "task": task, "outcome": "committed"} for task in ids]
    (tmp_path / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in ledger))
    (tmp_path / "faults.jsonl").write_text('{"at": 0.0, "event": "run_began", "lease": 6.0, "grace": 5.0}\n')
    await work_off(signed(database.dsn), connection)

    history = await History.load(
        database.dsn,
        witness=witness_file,
        faults=tmp_path / "faults.jsonl",
        ledger=tmp_path / "ledger.jsonl",
    )
    verdicts = {verdict.invariant: verdict for verdict in judge(history)}
    assert [str(one) for verdict in verdicts.values() for one in verdict.violations] == []
    assert len(history.births) == len(KINDS) + 2
    assert {claim.change.process for claim in history.claims} == {os.getpid()}
    assert all(claim.executions for claim in history.claims)
    for invariant in ("conservation", "hook_with_status", "effect_once", "stale_never_accepted"):
        assert verdicts[invariant].judged


async def test_what_is_steered_is_recorded_and_acquitted(
    database: Any, connection: Any, tmp_path: Path, witness_file: Path
):
    await audit.install(database.dsn)
    (tmp_path / "faults.jsonl").write_text('{"at": 0.0, "event": "run_began", "lease": 6.0, "grace": 5.0}\n')
    client = Client(connection)
    slow, paused = [await client.enqueue("slow", {"seconds": 60}) for _ in range(2)]
    child = await client.enqueue("quick", parent_id=slow)
    worker = {"lease": "6s", "renew_interval": "1s", "labels": ["red"]}
    daemon = Daemon(app, signed(database.dsn), DaemonConfig.model_validate({"worker": worker}))
    life = asyncio.create_task(daemon.run())
    await client.wait(child, timeout="30s")
    await client.update_runtime_config(limits={"red": 1})
    red = await client.enqueue("quick", labels=["red"])
    receipts = [await client.pause(paused), await client.cancel(slow), await client.cancel(paused)]
    late = await client.enqueue("quick", parent_id=slow)
    await client.retry(late)
    await client.wait(late, timeout="30s")
    await client.wait(red, timeout="30s")
    daemon.stop()
    await life

    history = await History.load(
        database.dsn, witness=witness_file, faults=tmp_path / "faults.jsonl", ledger=tmp_path / "ledger.jsonl"
    )
    verdicts = {verdict.invariant: verdict for verdict in judge(history)}
    assert [str(one) for verdict in verdicts.values() for one in verdict.violations] == []
    assert [task.outcome for receipt in receipts for task in receipt.tasks] == [
        "stopped",
        "stopped",
        "changed",
    ]
    for invariant in ("stopped_after_end", "receipts_agree", "commands_hold", "limits_kept"):
        assert verdicts[invariant].judged
    assert [one.version for one in history.acks] == [0, 1]
    assert history.stories[late].revived_between(0, history.changes[-1].seq)


def test_a_start_without_an_end_stays_open():
    lines = [
        {"task": 1, "token": 1, "name": "quick", "pid": 7, "what": "start", "at": 1.0},
        {"task": 2, "token": 1, "name": "quick", "pid": 7, "what": "start", "at": 2.0},
        {"task": 2, "token": 1, "name": "quick", "pid": 7, "what": "cancelled", "at": 3.0},
    ]
    assert [(one.task, one.end, one.how) for one in executions(lines)] == [
        (1, None, None),
        (2, 3.0, "cancelled"),
    ]


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path):
    path = tmp_path / "lines"
    path.write_text('{"at": 1}\n{"at": 2}\n{"at"')
    assert list(read_lines(path)) == [{"at": 1}, {"at": 2}]


def test_a_journal_pairs_faults_with_their_ends():
    history = History()
    history.take_journal(
        [
            {"at": 1.0, "event": "run_began", "lease": 6.0, "grace": 2.0},
            {"at": 2.0, "n": 1, "fault": "sigstop", "pid": 7},
            {"at": 3.0, "n": 2, "fault": "half_open", "pid": 8, "conn": "2.1"},
            {"at": 3.0, "n": 2, "fault": "half_open", "pid": 8, "conn": "2.2"},
            {"at": 4.0, "n": 2, "event": "found", "conn": "2.2"},
            {"at": 5.0, "n": 1, "event": "over"},
            {"at": 6.0, "event": "exited", "pid": 7, "code": 0},
            {"at": 7.0, "event": "drained"},
            {"at": 9.0, "event": "run_ended"},
        ]
    )
    stopped, unseen, seen = history.faults
    assert (stopped.span, unseen.found, seen.found) == ((2.0, 5.0), None, 4.0)
    assert (history.exits, history.ended_at, history.settings.lease) == ({7: 6.0}, 7.0, 6.0)
    assert history.frozen[7] == [(2.0, 5.0)]


def test_spans_that_touch_are_one_and_gaps_are_cut_out():
    gaps = merged([(5.0, 6.0), (1.0, 2.0), (2.0, 3.0)])
    assert gaps == [(1.0, 3.0), (5.0, 6.0)]
    assert without((0.0, 10.0), gaps) == [(0.0, 1.0), (3.0, 5.0), (6.0, 10.0)]
    assert without((2.5, 5.5), gaps) == [(3.0, 5.0)]
    assert without((1.5, 2.5), gaps) == []


@pytest.mark.parametrize("name", [name for name, mutant in MUTANTS.items() if mutant.patch])
async def test_a_mutant_fits_what_it_patches(name: str):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"from tests.chaos.mutants import MUTANTS; MUTANTS[{name!r}].apply()",
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()


@pytest.mark.parametrize("name", [name for name, mutant in MUTANTS.items() if mutant.statement])
async def test_a_mutant_of_the_database_fits_it(name: str, database: Any):
    await audit.install(database.dsn)
    await MUTANTS[name].prepare(database.dsn)


@pytest.mark.parametrize("name", ["tag_ignored", "serial_ignored"])
async def test_a_mutant_of_the_queue_makes_its_mistake(name: str, database: Any, connection: Any):
    await MUTANTS[name].prepare(database.dsn)
    client = Client(connection)
    options = {"unique_tag": "t"} if name == "tag_ignored" else {"serial_key": "k"}
    first, second = [await client.enqueue("quick", **options) for _ in range(2)]
    statuses = [(await client.get_task(one)).status for one in (first, second)]
    assert first != second
    assert statuses == ["pending", "pending"]


def test_only_database_urls_are_signed():
    assert signed("postgresql://h/d").endswith(f"?chaos.process={os.getpid()}")
    assert signed("postgresql://h/d?a=b").endswith(f"&chaos.process={os.getpid()}")
    assert signed("--once") == "--once"
