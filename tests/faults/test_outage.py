"""The database is stopped under load: nobody is started anew for it, and the work goes on when it is back.

`ASYNCTASKD_TEST_OUTAGE=30 pytest tests/faults/test_outage.py -s` prints the figures of half a minute.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import asyncpg
import pytest

from asynctaskd import Client, TaskRequest
from asynctaskd.postgres import embedded
from asynctaskd.postgres.migrate import migrate
from tests.support.asking import ask, until_ready

OUTAGE = float(os.environ.get("ASYNCTASKD_TEST_OUTAGE", "4"))
LOAD = {"concurrency": 20, "lease": "30s", "renew_interval": "5s", "poll_interval": "1s"}
SOON = 5.0
LONG_ENOUGH = 60.0

NAP = """
    @app.task("nap")
    async def nap() -> None:
        await asyncio.sleep(0.02)
"""


class Server:
    """A server that can be stopped for a while."""

    def __init__(self, home: Path) -> None:
        self._url = f"embedded:{home}"
        self._pid_file = home / "data" / "postmaster.pid"
        self.dsn = ""

    def start(self) -> None:
        self.dsn = embedded.start(self._url)

    def stop(self) -> None:
        """At once, as for a restart; returns when it is gone."""
        os.kill(int(self._pid_file.read_text().split()[0]), signal.SIGINT)
        until = time.monotonic() + LONG_ENOUGH
        while self._pid_file.exists():
            assert time.monotonic() < until, "the server doesn't stop"
            time.sleep(0.01)

    def leave(self) -> None:
        self.stop()
        embedded.release(self._url)


@pytest.fixture
def server() -> Iterator[Server]:
    home = Path(tempfile.mkdtemp(prefix="asynctaskd-", dir="/tmp"))  # short enough for a socket
    opened = Server(home)
    opened.start()
    asyncio.run(migrate(opened.dsn))
    yield opened
    opened.leave()
    shutil.rmtree(home)


@dataclass
class Seen:
    """What a worker answered, again and again, while something went on."""

    live: set[int] = field(default_factory=set)
    failing: list[str] = field(default_factory=list)
    slowest: float = 0.0
    named_after: float | None = None

    async def keep_asking(self, process: Any) -> None:
        began = time.monotonic()
        while True:
            asked = time.monotonic()
            status, _ = await ask(process, "/livez")
            self.slowest = max(self.slowest, time.monotonic() - asked)
            self.live.add(status)
            _, told = await ask(process, "/readyz")
            self.failing += told["failing"]
            if self.named_after is None and "database" in told["failing"]:
                self.named_after = time.monotonic() - began
            await asyncio.sleep(0.1)


@asynccontextmanager
async def asked(*processes: Any) -> AsyncIterator[list[Seen]]:
    """Ask all the time within the block."""
    seen = [Seen() for _ in processes]
    asking = [
        asyncio.create_task(one.keep_asking(process)) for one, process in zip(seen, processes, strict=True)
    ]
    try:
        yield seen
    finally:
        for task in asking:
            task.cancel()
        ended = await asyncio.gather(*asking, return_exceptions=True)
        assert not [error for error in ended if isinstance(error, Exception)]


async def finished(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("SELECT count(*) FROM asynctaskd.finished_tasks"))


async def until_more(connection: asyncpg.Connection, than: int) -> None:
    async with asyncio.timeout(LONG_ENOUGH):
        while await finished(connection) <= than:  # noqa: ASYNC110  (rows tell nobody)
            await asyncio.sleep(0.02)


@pytest.mark.timeout(OUTAGE + 120)
async def test_a_database_that_is_stopped_under_load_restarts_nobody_and_work_goes_on_within_five_seconds(
    server: Server, worker: Any, tmp_path: Path
) -> None:
    shop = tmp_path / "shop.py"
    shop.write_text(shop.read_text() + dedent(NAP))
    connection = await asyncpg.connect(server.dsn)
    client = Client(connection)
    port = {"ASYNCTASKD_HTTP_PORT": "0"}
    async with (
        worker(server.dsn, environ=port, **LOAD) as one,
        worker(server.dsn, environ=port, **LOAD) as two,
    ):
        for process in (one, two):
            await until_ready(process)
        for _ in range(20):
            await client.enqueue_many([TaskRequest("nap") for _ in range(1000)])
        await until_more(connection, 0)
        async with asked(one, two) as seen:
            await asyncio.to_thread(server.stop)
            await asyncio.sleep(OUTAGE)
            began = time.monotonic()
            await asyncio.to_thread(server.start)
            back = time.monotonic()
            connection = await asyncpg.connect(server.dsn)
            await until_more(connection, await finished(connection))
            went_on = time.monotonic() - back
            for process in (one, two):
                await until_ready(process)
            ready = time.monotonic() - back
        tasks = await connection.fetch("SELECT sum(losses) AS losses FROM asynctaskd.tasks")
        restarts = [process.events("worker.started") for process in (one, two)]
        await connection.close()
    figures = (
        f"{OUTAGE:g} s without a server, {back - began:.1f} s until it was back: work went on after "
        f"{went_on:.2f} s, all were ready after {ready:.2f} s; the outage was named after "
        f"{max(one.named_after or 0 for one in seen):.2f} s; "
        f"slowest /livez {max(one.slowest for one in seen):.3f} s"
    )
    print(figures)  # noqa: T201  (seen with -s)
    assert [one.live for one in seen] == [{200}, {200}], figures
    assert all("database" in one.failing for one in seen), figures
    assert went_on <= SOON, figures
    assert [len(started) for started in restarts] == [1, 1]
    assert not tasks[0]["losses"]
