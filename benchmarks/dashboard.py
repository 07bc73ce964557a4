"""How long the dashboard's pages take with a million pending and five million finished tasks.

`python -m benchmarks.dashboard` makes a database of its own on the server (some 3 GB), asks for each page
again and again, prints the times, and drops the database. It ends with 1 where a page's p95 is over 200 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

import asyncpg
import httpx

from asynctaskd.postgres import embedded
from asynctaskd.postgres.migrate import migrate
from asynctaskd.postgres.scratch import drop_database, run_script, with_database
from asynctaskd.web.dashboard import dashboard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Connection = asyncpg.Connection[asyncpg.Record]

_LIMIT = 200.0  # milliseconds
_NAME = "asynctaskd_bench_dashboard"
_PARTS = 50
_DATA = Path(__file__).with_name("dashboard.sql")

# Rare and frequent, found and not found, near and far: {last} and {failed} are ids.
_PAGES = {
    "overview": "/",
    "overview, live part": "/ (htmx)",
    "tasks": "/tasks",
    "tasks, pending": "/tasks?status=pending",
    "tasks, running": "/tasks?status=running",
    "tasks, paused": "/tasks?status=paused",
    "tasks, completed": "/tasks?status=completed",
    "tasks, failed": "/tasks?status=failed",
    "tasks, expired of a name": "/tasks?status=expired&name=shop.task_12",
    "tasks, by label": "/tasks?label=mail,eu&status=pending",
    "tasks, by a rare tag": "/tasks?tag=customer:4711",
    "tasks, by a name that nobody has": "/tasks?name=nobody",
    "tasks, by a unique tag that nobody has": "/tasks?unique_tag=nobody",
    "tasks, of three days ago": "/tasks?since=3d&until=2d",
    "tasks, a page deep in the past": "/tasks?after=2500000",
    "task, pending": "/tasks/{last}",
    "task, failed": "/tasks/{failed}",
    "bulk cancel, preview": "/bulk/cancel?label=mail",
    "bulk retry, preview": "/bulk/retry?name=shop.task_7",
    "groups": "/groups",
    "change, preview": "/configuration/change?weights.mail=9",
    "configuration": "/configuration",
    "workers": "/workers",
    "schedules": "/schedules",
    "audit": "/audit",
}


@dataclass(frozen=True)
class Times:
    """Of one page, in milliseconds."""

    page: str
    path: str
    status: int
    median: float
    p95: float
    worst: float


def main(options: argparse.Namespace) -> int:
    times = asyncio.run(_times(embedded.resolve(options.database), options))
    for one in times:
        mark = "" if one.p95 <= _LIMIT and one.status == 200 else "  ← over the limit, or an error"
        print(f"{one.page:40} {one.median:7.1f} {one.p95:7.1f} {one.worst:7.1f}{mark}", flush=True)
    if options.report:
        facts = {"machine": platform.processor() or platform.machine(), "pending": options.pending}
        facts |= {"finished": options.finished, "rounds": options.rounds, "pages": list(map(asdict, times))}
        Path(options.report).write_text(json.dumps(facts, indent=2) + "\n")
    return int(any(one.p95 > _LIMIT or one.status != 200 for one in times))


async def _times(server: str, options: argparse.Namespace) -> list[Times]:
    async with _database(server, options) as dsn:
        return await _measure(dsn, options)


@asynccontextmanager
async def _database(server: str, options: argparse.Namespace) -> AsyncIterator[str]:
    await drop_database(server, _NAME)
    await run_script(server, f'CREATE DATABASE "{_NAME}"')
    dsn = with_database(server, _NAME)
    try:
        await migrate(dsn)
        await _fill(dsn, options.finished, options.pending)
        yield dsn
    finally:
        await drop_database(server, _NAME)


async def _fill(dsn: str, finished: int, pending: int) -> None:
    began = time.monotonic()
    statements = dict(_sections(_DATA.read_text("utf8")))
    connection: Connection = await asyncpg.connect(dsn, command_timeout=None)
    await connection.execute("SET synchronous_commit = off")
    await connection.execute(statements["fleet"])
    for nth in range(_PARTS):
        first, last = nth * finished // _PARTS + 1, (nth + 1) * finished // _PARTS
        await connection.execute(statements["finished"], first, last, finished)
        await connection.execute(statements["ends"], first, last)
    await connection.execute(statements["pending"], finished, pending)
    await connection.execute("SELECT setval('asynctaskd.task_ids', $1)", finished + pending)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()
    print(f"\rfilled in {time.monotonic() - began:.0f} s      ", file=sys.stderr)


def _sections(text: str) -> list[tuple[str, str]]:
    parts = text.split("-- section ")[1:]
    return [(name, sql) for name, _, sql in (part.partition("\n") for part in parts)]


async def _measure(dsn: str, options: argparse.Namespace) -> list[Times]:
    site = dashboard(dsn, may_write=True, shows_payloads=True)
    transport = httpx.ASGITransport(site)
    ids = {"last": options.finished + options.pending, "failed": options.finished // 2 // 50 * 50 + 7}
    async with (
        site.router.lifespan_context(site),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        return [
            await _time(client, page, path.format(**ids), options.rounds) for page, path in _PAGES.items()
        ]


async def _time(client: httpx.AsyncClient, page: str, path: str, rounds: int) -> Times:
    address, is_live = path.removesuffix(" (htmx)"), path.endswith(" (htmx)")
    headers = {"HX-Request": "true"} if is_live else {}
    took, status = list[float](), 200
    for _ in range(rounds + 1):
        began = time.perf_counter()
        answer = await client.get(address, headers=headers)
        took.append(1000 * (time.perf_counter() - began))
        status = max(status, answer.status_code)
    took = took[1:]  # the first one opened the connections
    return Times(page, path, status, median(took), quantiles(took, n=20)[-1], max(took))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboard", description=__doc__)
    parser.add_argument("--database", default="embedded", help="a PostgreSQL URL; its role needs CREATEDB")
    parser.add_argument("--finished", type=int, default=5_000_000)
    parser.add_argument("--pending", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=60, help="how often each page is asked for")
    parser.add_argument("--report", help="write the figures there, as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main(_options()))
