"""Worker processes race for the slots of a schedule that is due every second, while some of them are killed.

`python -m tests.acceptance.cron_race` does what the test does at full size: ten processes, 60 slots, two
processes killed every 5 s and started again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import asyncpg

from asynctaskd import Client, Cron
from asynctaskd.postgres import embedded
from asynctaskd.postgres.migrate import migrate

if TYPE_CHECKING:
    from datetime import datetime

APP = """
    from asynctaskd import App

    app = App()

    @app.task("tick")
    async def tick() -> None: ...
"""

CONFIG = """
    [worker]
    lease = "3s"
    renew_interval = "1s"
    poll_interval = "500ms"
    grace = "1s"

    [log]
    level = "warning"
"""

PATIENCE = 60.0


@dataclass(frozen=True)
class Result:
    """What the database says afterwards."""

    slots: list[datetime]
    outcomes: list[str]
    tasks: list[int]  # of the ledger
    all_tasks: list[int]
    completed: int
    kills: int
    lag: float  # the longest, in seconds, from a slot to its decision
    median_lag: float

    def problems(self) -> list[str]:
        """What there shouldn't be, in words."""
        steps = {(later - sooner).total_seconds() for sooner, later in pairwise(self.slots)}
        checks = {
            f"slots aren't a second apart: {steps}": steps == {1.0},
            f"outcomes: {set(self.outcomes)}": set(self.outcomes) == {"ran"},
            f"{len(self.slots)} slots, {len(self.all_tasks)} tasks": self.tasks == self.all_tasks,
            f"{self.completed} completed of {len(self.slots)}": self.completed == len(self.slots),
        }
        return [problem for problem, holds in checks.items() if not holds]


async def race(dsn: str, folder: Path, *, processes: int, slots: int, victims: int, every: float) -> Result:
    """Let them race until so many slots were decided; `victims` of them die every so many seconds."""
    (folder / "ticker.py").write_text(dedent(APP))
    (folder / "config.toml").write_text(dedent(CONFIG))
    running = [await _start(dsn, folder) for _ in range(processes)]
    kills = 0
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(asyncpg.create_pool(dsn, min_size=1, max_size=2))
        try:
            await _until(pool, "SELECT count(*) >= $1 FROM asynctaskd.workers", processes)
            client = Client(pool)
            await client.add_schedule("tick", Cron("* * * * * *", overlap="allow"))
            next_kill = time.monotonic() + every
            while await pool.fetchval("SELECT count(*) FROM asynctaskd.schedule_slots") < slots:
                await asyncio.sleep(0.02)
                if time.monotonic() >= next_kill:
                    next_kill += every
                    for place in random.sample(range(processes), victims):
                        running[place].kill()
                        await running[place].wait()
                        running[place] = await _start(dsn, folder)
                        kills += 1
            await client.pause_schedule("tick")
            await _until(pool, "SELECT count(*) = 0 FROM asynctaskd.tasks")
            return await _result(pool, kills)
        finally:
            for process in running:
                process.kill()
                await process.wait()


async def _start(dsn: str, folder: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "asynctaskd", "run", "--app", "ticker:app", "--config", "config.toml"),
        *("--database", dsn),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def _until(pool: Any, question: str, *arguments: object) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await pool.fetchval(question, *arguments):  # noqa: ASYNC110  (rows tell nobody)
            await asyncio.sleep(0.05)


async def _result(pool: Any, kills: int) -> Result:
    rows = await pool.fetch(
        "SELECT slot, outcome, task_id, decided_at - slot AS lag FROM asynctaskd.schedule_slots ORDER BY slot"
    )
    tasks = await pool.fetch("SELECT id, status FROM asynctaskd.all_tasks")
    lags = sorted(row["lag"].total_seconds() for row in rows)
    return Result(
        slots=[row["slot"] for row in rows],
        outcomes=[row["outcome"] for row in rows],
        tasks=sorted(row["task_id"] for row in rows if row["task_id"] is not None),
        all_tasks=sorted(row["id"] for row in tasks),
        completed=sum(row["status"] == "completed" for row in tasks),
        kills=kills,
        lag=lags[-1],
        median_lag=lags[len(lags) // 2],
    )


async def main() -> int:
    """Run the race, and say what came of it; returns 1 if it isn't as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--slots", type=int, default=60)
    parser.add_argument("--victims", type=int, default=2)
    parser.add_argument("--every", type=float, default=5.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = f"embedded:{folder}/server"
        dsn = await asyncio.to_thread(embedded.start, url)
        try:
            await migrate(dsn)
            result = await race(dsn, Path(folder), **vars(given))
        finally:
            embedded.release(url)
    sys.stdout.write(
        f"{given.processes} processes, {result.kills} kills: {len(result.slots)} slots, "
        f"{len(result.all_tasks)} tasks, {result.completed} completed; from a slot to its task "
        f"{result.median_lag * 1000:.0f} ms at the median, {result.lag * 1000:.0f} ms at most\n"
    )
    sys.stdout.writelines(f"{problem}\n" for problem in result.problems())
    return 1 if result.problems() else 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
