"""How the demo ended: what was checked in the database, the largest modules, and how to go on."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from asynctaskd.cli.demo_files import LATER_WEIGHTS, MISSING, Work
from asynctaskd.cli.demo_view import duration, waits
from asynctaskd.cli.demo_workers import WORKERS
from asynctaskd.postgres.driver import translated

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg
    from rich.console import Console

    from asynctaskd.cli.demo_progress import Snapshot
    from asynctaskd.cli.demo_steered import Steered

_FINDINGS = """
SELECT count(*) AS tasks,
       count(*) FILTER (WHERE status = 'completed') AS completed,
       count(*) FILTER (WHERE status = 'completed' AND attempts = 2) AS second_try,
       count(*) FILTER (WHERE id = ANY ($1)) AS ghosts,
       (SELECT count(*) FROM asynctaskd_demo.modules) AS files,
       (SELECT count(*) FROM asynctaskd_demo.modules WHERE times_indexed <> 1) AS repeated,
       (SELECT count(*) FROM asynctaskd_demo.modules WHERE task_id = ANY ($1)) AS ghosts_files
FROM asynctaskd_demo.all_tasks WHERE name = 'index_file'
"""
_TREE = """
SELECT count(*) FILTER (WHERE finished_at IS NULL) AS alive,
       count(*) FILTER (WHERE id = ANY ($1) AND status = 'cancelled') AS cancelled
FROM asynctaskd_demo.all_tasks WHERE name = 'find_copies'
"""
_FAILURES = """
SELECT task.id, payload ->> 'path' AS path, task.attempts, hook.task_id IS NOT NULL AS is_noted
FROM asynctaskd_demo.all_tasks AS task
     LEFT JOIN asynctaskd_demo.unreadable_files AS hook ON hook.task_id = task.id
WHERE status = 'failed'
"""
_LARGEST = """
SELECT path, lines, functions, classes, comments FROM asynctaskd_demo.modules
ORDER BY lines DESC, path LIMIT 10
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must be so, and whether it is."""

    what: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Run:
    """What the demo itself saw: how long the queue took, its end, what was steered and what rolled back."""

    work: Work
    seconds: float
    snapshot: Snapshot
    steered: Steered
    rolled_back: Sequence[int]


@dataclass(frozen=True, slots=True)
class Summary:
    """What is reported at the end; its JSON form is `as_json`."""

    run: Run
    server: str
    checks: Sequence[Check]
    largest: Sequence[dict[str, Any]]
    failed_task: int | None

    @property
    def is_well(self) -> bool:
        """Whether every task ended as it should."""
        return all(check.ok for check in self.checks)

    @property
    def rate(self) -> float:
        """Tasks a second over the whole run."""
        return self.run.snapshot.all.ended / self.run.seconds

    def as_json(self) -> dict[str, Any]:
        """The summary for programs; times are in seconds, shares from 0 to 1."""
        snapshot = self.run.snapshot
        return {
            "ok": self.is_well,
            "checks": [asdict(check) for check in self.checks],
            "tasks": snapshot.all.tasks,
            "completed": snapshot.all.ended - snapshot.failed,
            "failed": snapshot.failed,
            "failed_task": self.failed_task,
            "retries": snapshot.retries,
            "rolled_back": len(self.run.rolled_back),
            "files": self.run.work.files,
            "seconds": round(self.run.seconds, 3),
            "tasks_per_second": round(self.rate, 1),
            "groups": self.run.steered.groups_as_json(
                {name: count.tasks for name, count in snapshot.groups.items()}
            ),
            "config_change": self.run.steered.change.as_json(),
            "cancel": self.run.steered.tree.as_json(),
            "urgent": {"tasks": snapshot.urgent.tasks, "median_wait": snapshot.urgent_wait},
            "ordinary": {"median_wait": snapshot.ordinary_wait},
            "largest": list(self.largest),
            "server": self.server,
        }


async def summarize(connection: asyncpg.Connection, run: Run) -> Summary:
    """Ask the database whether everything ended as it should."""
    with translated():
        findings = await connection.fetchrow(_FINDINGS, run.rolled_back)
        tree = await connection.fetchrow(_TREE, run.steered.tree.cancelled)
        failures = await connection.fetch(_FAILURES)
        largest = await connection.fetch(_LARGEST)
        server = await connection.fetchval("SHOW server_version")
    assert findings is not None  # noqa: S101  (a query of counts has one row)
    assert tree is not None  # noqa: S101
    return Summary(
        run=run,
        server=f"PostgreSQL {server}",
        checks=[*_checks(run, findings), _failure_check(failures), *_steering_checks(run.steered, tree)],
        largest=[dict(row) for row in largest],
        failed_task=failures[0]["id"] if failures else None,
    )


def _checks(run: Run, found: asyncpg.Record) -> list[Check]:
    work, ghosts = run.work, len(run.rolled_back)
    return [
        Check(
            f"every one of {work.files:,} files was indexed, and exactly once",
            found["files"] == work.files and not found["repeated"],
        ),
        Check(
            f"{work.tasks - 1:,} of {work.tasks:,} tasks completed, all but the one that can't",
            found["tasks"] == work.tasks and found["completed"] == work.tasks - 1,
        ),
        Check(
            f"{work.stumbling} tasks failed once and completed at the second try",
            found["second_try"] == work.stumbling,
        ),
        Check(
            f"{ghosts} tasks of a transaction that was rolled back never were, and never ran",
            ghosts > 0 and not found["ghosts"] and not found["ghosts_files"],
        ),
    ]


def _failure_check(failures: Sequence[asyncpg.Record]) -> Check:
    expected = [(MISSING, 3, True)]
    found = [(row["path"], row["attempts"], row["is_noted"]) for row in failures]
    return Check(f"{MISSING} failed for good after 3 attempts, noted by its hook", found == expected)


def _steering_checks(steered: Steered, tree: asyncpg.Record) -> list[Check]:
    obeyed = len(steered.tree.cancelled)
    return [
        *(Check(what, ok=ok) for what, ok in steered.checks(WORKERS)),
        Check(
            f"{obeyed} tasks of that tree were cancelled, and none of it is left to run",
            obeyed > 0 and tree["cancelled"] == obeyed and not tree["alive"],
        ),
    ]


def show(console: Console, summary: Summary, database: str) -> None:
    """Print the summary for people."""
    console.print()
    for check in summary.checks:
        mark = ("✓", "bold green") if check.ok else ("✗ NOT SO:", "bold red")
        console.print(Text.assemble(" ", mark, " ", check.what), soft_wrap=True)
    for line in _figures(summary):
        console.print(Text(f" · {line}"), soft_wrap=True)
    for table in (summary.run.steered.table(), _largest(summary)):
        console.print()
        console.print(table)
    console.print()
    _show_next(console, summary, database)


def _figures(summary: Summary) -> list[str]:
    run = summary.run
    speed = f"{summary.rate:.0f} a second"
    return [
        f"{run.snapshot.all.ended:,} tasks in {duration(run.seconds)}, {speed}, on {summary.server}",
        waits(run.snapshot),
    ]


def _largest(summary: Summary) -> Table:
    table = Table(
        title="The ten largest modules", title_justify="left", title_style="bold", box=None, padding=(0, 1)
    )
    table.add_column("module", header_style="dim", overflow="fold")
    for title in ("lines", "functions", "classes", "comments"):
        table.add_column(title, justify="right", header_style="dim")
    for row in summary.largest:
        counts = [f"{row[title]:,}" for title in ("lines", "functions", "classes", "comments")]
        table.add_row(Text(row["path"]), *counts)
    return table


_STEERED = (
    "While it ran, the demo changed the weights, had each worker acknowledge that, and counted the shares",
    "anew; then it cancelled a tree of tasks, and each gave a receipt. `asynctaskd config set …` and",
    "`asynctaskd tasks cancel …` do the same; `asynctaskd tasks why …` says why a task isn't running.",
)


def _show_next(console: Console, summary: Summary, database: str) -> None:
    for line in _STEERED:
        console.print(Text(line), soft_wrap=True)
    console.print()
    console.print("How to go on", style="bold")
    for command in next_commands(summary, database):
        console.print(Text(f"  {command}", "cyan"), soft_wrap=True)


def next_commands(summary: Summary, database: str) -> list[str]:
    """Commands that work as they stand. A URL may hold a password, so that one's line is left to the user."""
    given = database if database.startswith("embedded") else "'the URL you gave'"
    program = _program()
    failed = [f"{program} tasks show {summary.failed_task}"] if summary.failed_task else []
    return [
        f"export ASYNCTASKD_DATABASE_URL={given}",
        "export ASYNCTASKD_DATABASE_SCHEMA=asynctaskd_demo",
        f"{program} tasks list",
        *failed,
        f"{program} config set weights.extras={LATER_WEIGHTS['extras'] + 1}",
        *(f"{program} tasks {word} {summary.run.steered.tree.root}" for word in ("retry", "why", "cancel")),
        f"""{program} enqueue index_file '{{"path": "this.py"}}'""",
        f"{program} run --app asynctaskd.cli.demo_app:app --once",
    ]


def _program() -> str:
    """How this program is called from here: by its name where that is on the path."""
    called = Path(sys.argv[0])
    if called.name != "asynctaskd":
        return f"{shlex.quote(sys.executable)} -m asynctaskd"
    on_path = shutil.which("asynctaskd")
    if on_path is not None and Path(on_path).resolve() == called.resolve():
        return "asynctaskd"
    return shlex.quote(sys.argv[0])
