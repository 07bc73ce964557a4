"""`asynctaskd tasks watch`."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime
from uuid import UUID

import pytest

from asynctaskd.cli.watch import line_of
from asynctaskd.control.watching import TaskEvent

AT = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)


def test_a_line_tells_when_what_which_and_the_rest() -> None:
    event = TaskEvent(
        at=AT,
        kind="claimed",
        task_id=17,
        name="mail",
        labels=("a", "b"),
        attempt=2,
        worker_id=UUID(int=1 << 96),
    )
    assert line_of(event).plain == (
        "12:00:00.250Z  claimed      17  mail  labels=a,b  attempt=2  worker=00000001"
    )
    failed = TaskEvent(at=AT, kind="failed", task_id=17, detail={"error": "no\x1b[31m way", "delay": None})
    assert line_of(failed).plain == "12:00:00.250Z  failed       17  (forgotten)  error=no [31m way"
    progress = {"progress": {"percent": 12.5, "message": "packing"}}
    packing = TaskEvent(at=AT, kind="progress", task_id=17, name="pack", detail=progress)
    assert line_of(packing).plain == "12:00:00.250Z  progress     17  pack  progress=12.5 %, packing"
    left_out = TaskEvent(at=AT, kind="left_out", detail={"events": 12})
    assert line_of(left_out).plain == "12:00:00.250Z  12 events came too fast to be shown"


def watching(start, cli, *args):
    process = start("tasks", "watch", *args, ASYNCTASKD_DATABASE_URL=cli.dsn)
    while not cli.sql("SELECT FROM asynctaskd.watchers"):
        pass
    return process


def test_events_are_printed_until_interrupted_and_that_is_no_error(cli, start) -> None:
    process = watching(start, cli)
    task_id = cli.enqueue("add", "{}", "--labels", "a")
    assert f"enqueued     {task_id}  add  labels=a" in process.await_line("enqueued")
    cli.run("tasks", "cancel", str(task_id))
    assert "\x1b" not in process.await_line("cancelled")
    process.tell(signal.SIGINT)
    assert (process.exit_code(), process.stderr) == (0, [])
    assert not cli.sql("SELECT FROM asynctaskd.watchers WHERE expires_at > clock_timestamp()")


def test_json_is_an_object_a_line_and_filters_narrow_it(cli, start) -> None:
    process = watching(start, cli, "--json", "--name", "add", "--status", "cancelled,failed", "--label", "a")
    ids = [cli.enqueue(name, "{}", "--labels", "a,b") for name in ("add", "other", "add")]
    cli.run("tasks", "cancel", *map(str, ids))
    events = [json.loads(process.await_line("kind")) for _ in range(2)]
    assert [(event["kind"], event["task_id"]) for event in events] == [
        ("cancelled", ids[0]),
        ("cancelled", ids[2]),
    ]
    assert list(events[0]) == [
        "at", "kind", "task_id", "name", "labels", "status", "attempt", "worker_id", "detail",
    ]  # fmt: skip
    assert datetime.fromisoformat(events[0]["at"]).tzinfo is not None


@pytest.mark.parametrize("args", [["--status", "gone"], ["--status", "pending,gone"]])
def test_an_unknown_status_exits_2(cli, args) -> None:
    result = cli.run("tasks", "watch", *args)
    assert result.exit_code == 2
    assert "got 'gone'" in result.stderr
