"""Faults of the server that need one of the test's own: what they change concerns everybody on it."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import asyncpg
import pytest

from asynctaskd import Client
from asynctaskd.errors import DatabaseUnavailableError
from asynctaskd.postgres import embedded
from asynctaskd.postgres.migrate import migrate


@pytest.fixture(scope="module")
def own_server() -> Iterator[str]:
    """A server whose queue of notices is as small as can be."""
    home = Path(tempfile.mkdtemp(prefix="asynctaskd-", dir="/tmp"))  # short enough for a socket
    url = f"embedded:{home}"
    asyncio.run(execute(embedded.start(url), "ALTER SYSTEM SET max_notify_queue_pages = 64"))
    pid_file = home / "data" / "postmaster.pid"
    os.kill(int(pid_file.read_text().split()[0]), signal.SIGINT)
    wait_until_gone(pid_file)
    yield embedded.start(url)
    embedded.release(url)
    wait_until_gone(pid_file)
    shutil.rmtree(home)


@pytest.fixture
async def own(own_server: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to it, where the schema is new."""
    await migrate(own_server)
    connection = await asyncpg.connect(own_server)
    yield connection
    await connection.execute("DROP SCHEMA asynctaskd CASCADE")
    await connection.close()


def wait_until_gone(path: Path) -> None:
    until = time.monotonic() + 30
    while path.exists():
        assert time.monotonic() < until, f"{path} is still there"
        time.sleep(0.01)


async def execute(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


@pytest.fixture
def disk() -> Iterator[Path]:
    """A file system so small that a test can fill it."""
    directory = Path(tempfile.mkdtemp(prefix="asynctaskd-", dir="/tmp"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m,mode=0777", "asynctaskd", str(directory)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        directory.rmdir()
        pytest.skip("only root can make a disk that is full")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)
    directory.rmdir()


@pytest.fixture
def small(own_server: str, disk: Path) -> Iterator[str]:
    """A migrated database whose tables lie on that disk."""
    tables, home = disk / "tables", Path(own_server.partition("host=")[2].partition("&")[0])
    tables.mkdir()
    os.chown(tables, home.stat().st_uid, home.stat().st_gid)
    tablespace = f"CREATE TABLESPACE small LOCATION '{tables}'"
    asyncio.run(execute(own_server, tablespace, "CREATE DATABASE small TABLESPACE small"))
    dsn = own_server.replace("/postgres?", "/small?")
    asyncio.run(migrate(dsn))
    yield dsn
    asyncio.run(execute(own_server, "DROP DATABASE small WITH (FORCE)", "DROP TABLESPACE small"))


def fill(disk: Path) -> Path:
    """Take all that is left; returns the file that has it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)) == 4096:
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC
    return filler


async def notify_for_ever(connection: asyncpg.Connection) -> None:
    for n in count():
        await connection.execute("SELECT pg_notify('x', $1)", f"{n}".ljust(7000, "y"))


@asynccontextmanager
async def full_queue(dsn: str) -> AsyncIterator[None]:
    """A session that listens keeps a transaction open, so that no notice is forgotten, and many are sent."""
    deaf, loud = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    try:
        await deaf.execute("LISTEN x")
        await deaf.execute("BEGIN; SELECT 1")
        with pytest.raises(asyncpg.ProgramLimitExceededError):
            await notify_for_ever(loud)
        yield
    finally:
        await deaf.close()
        await loud.close()


async def pretend_idle(connection: asyncpg.Connection) -> None:
    """A worker that has said that it is idle, so that others speak."""
    await connection.execute(
        "INSERT INTO asynctaskd.workers"
        " (id, name, process, hostname, pid, version, labels, names, concurrency, idle, expires_at)"
        " SELECT id, id, id, 'here', 1, '0', '{}', '{}', 1, true, clock_timestamp() + interval '1 day'"
        " FROM gen_random_uuid() AS id"
    )


async def test_a_full_queue_of_notices_refuses_the_enqueue_that_would_speak(own_server, own):
    client = Client(own)
    await pretend_idle(own)
    async with full_queue(own_server):
        assert await own.fetchval("SELECT pg_notification_queue_usage()") > 0.9
        with pytest.raises(DatabaseUnavailableError, match="queue of notices is full"):
            await client.enqueue("quick")
        await own.execute("UPDATE asynctaskd.workers SET idle = false")
        silent = await client.enqueue("quick")  # where nobody waits, there is no notice to refuse
    assert [row["id"] for row in await own.fetch("SELECT id FROM asynctaskd.tasks")] == [silent]


async def test_a_worker_lives_through_a_full_queue_of_notices_and_has_the_server_empty_it(
    own_server, own, worker, witness, go_on
):
    client = Client(own)
    async with worker(own_server) as process:
        task_id = await client.enqueue("again")
        await witness.until("start", task_id)
        await pretend_idle(own)
        async with full_queue(own_server):
            go_on.touch()  # its first attempt fails, and the retry would be announced
            await process.until_logged("database.lost")
            await process.until_logged("listener.lost")
        done = await client.wait(task_id, timeout="30s")
        await process.until_logged("database.restored")
    assert (done.attempts, done.losses) == (2, 0)


async def test_a_commit_that_waits_for_a_standby_ends_by_the_clients_limit_and_is_there_all_the_same(
    own_server, own
):
    await own.execute("CREATE TABLE IF NOT EXISTS rows (n integer)")
    await own.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    await own.execute("SELECT pg_reload_conf()")
    waiting = await asyncpg.connect(own_server)
    try:
        await waiting.execute("SET statement_timeout = '50ms'")
        async with asyncio.timeout(20):  # a reload reaches each of the server's processes by itself
            sent = 1
            while await commits_in_time(waiting):
                sent += 1
        async with asyncio.timeout(20):  # until the server has obeyed
            while await own.fetchval("SELECT count(*) FROM rows") < sent:  # noqa: ASYNC110  (rows tell nobody)
                await asyncio.sleep(0.005)
        assert await own.fetchval("SELECT count(*) FROM rows") == sent
    finally:
        waiting.terminate()
        await own.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await own.execute("SELECT pg_reload_conf()")


async def commits_in_time(connection: asyncpg.Connection) -> bool:
    await connection.execute("BEGIN; INSERT INTO rows VALUES (1)")
    try:
        await connection.execute("COMMIT", timeout=1.0)
    except TimeoutError:
        return False
    return True


async def enqueue_for_ever(client: Client) -> None:
    while True:
        await client.enqueue("quick", {"note": "x" * 1000})


async def test_what_ended_while_the_disk_was_full_is_kept_and_written_when_it_is_not(
    small, disk, worker, witness, go_on
):
    connection = await asyncpg.connect(small)
    client = Client(connection)
    async with worker(small) as process:
        held = [await client.enqueue("work") for _ in range(4)]
        for task_id in held:
            await witness.until("start", task_id)
        filler = fill(disk)
        with pytest.raises(DatabaseUnavailableError, match="No space left on device"):
            await enqueue_for_ever(client)  # until the pages that are there are full too
        go_on.touch()
        lost = await process.until_logged("database.lost")
        assert "No space left on device" in lost["error"]
        filler.unlink()
        done = [await client.wait(task_id, timeout="30s") for task_id in held]
        await process.until_logged("database.restored")
    await connection.close()
    assert {(task.attempts, task.losses, task.result) for task in done} == {(1, 0, f"by {process.pid}")}
