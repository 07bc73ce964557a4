"""The database of the tests: one server for the whole run, a freshly migrated database for each test.

A test that takes `database` has one to itself, so it shares neither rows nor notices with another one,
whatever runs beside it. It is a copy of a template that was migrated once.

The server is an embedded one made for this run and removed after it, or the one in ASYNCTASKD_TEST_DSN, where
the role needs CREATEDB and every database that was made is dropped again.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from hypothesis import settings

from asynctaskd.postgres import embedded
from tests.support.freezer import freezer
from tests.support.proxy import Proxy, proxy_to
from tests.support.scripts import INVARIANTS, run_script

if TYPE_CHECKING:
    from tests.support.freezer import Freeze

    Connection = asyncpg.Connection[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]

PREFIX = "asynctaskd_test_"

LEFT_OVER = 6 * 3600
"""Seconds after which a database belongs to a run that was killed. No run takes so long."""

# A busy machine makes an example slow, not wrong.
settings.register_profile("asynctaskd", deadline=None)
settings.load_profile("asynctaskd")

_home = pytest.StashKey[Path]()
_numbers = count(1)


@dataclass(frozen=True)
class Database:
    """A migrated database that belongs to one test."""

    dsn: str
    schema: str = "asynctaskd"


def pytest_configure(config: pytest.Config) -> None:
    """Choose a directory for the embedded server; the workers of pytest-xdist use their controller's."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell has what it starts in the background ignore Ctrl-C, and so would every process of a test.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        config.stash[_home] = Path(worker["server_home"])
    else:
        config.stash[_home] = Path(tempfile.mkdtemp(prefix="asynctaskd-test-", dir=_fast_directory()))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: pytest.Config) -> None:
    """Tell a worker of pytest-xdist where the server is."""
    node.workerinput["server_home"] = str(node.config.stash[_home])  # type: ignore[attr-defined]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the embedded server and its data."""
    if hasattr(config, "workerinput"):
        return
    home = config.stash[_home]
    embedded.release(f"embedded:{home}")
    wait_until_stopped(home)
    shutil.rmtree(home)


def wait_until_stopped(home: Path, timeout: float = 30.0) -> None:
    """Wait until the embedded server of that directory is gone; the keeper stops it when nobody uses it."""
    until = time.monotonic() + timeout
    while (home / "data" / "postmaster.pid").exists() and time.monotonic() < until:
        time.sleep(0.01)


@pytest.fixture(scope="session")
def dsn(request: pytest.FixtureRequest) -> str:
    """A server to make databases on."""
    given = os.environ.get("ASYNCTASKD_TEST_DSN")
    if given:
        asyncio.run(_drop_left_over(given))
        return given
    server = embedded.start(f"embedded:{request.config.stash[_home]}")
    asyncio.run(_forget_durability(server))
    return server


@pytest.fixture(scope="session")
def template(dsn: str) -> Iterator[str]:
    """The name of a migrated database to copy. Nobody may be connected to it."""
    name = f"{PREFIX}{int(time.time())}_{os.getpid()}"
    asyncio.run(_make_template(dsn, name))
    yield name
    asyncio.run(run_script(dsn, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


@pytest.fixture
async def database(dsn: str, template: str) -> AsyncIterator[Database]:
    """A migrated database of the test's own, dropped after it whoever is still connected."""
    name = f"{template}_{next(_numbers)}"
    await run_script(dsn, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    yield Database(_with_database(dsn, name))
    await run_script(dsn, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[Connection]:
    """A connection to the test's database as asyncpg makes it: json comes as text."""
    opened = await asyncpg.connect(database.dsn)
    yield opened
    await opened.close()


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[Pool]:
    """A small pool of connections to the test's database."""
    async with asyncpg.create_pool(database.dsn, min_size=1, max_size=8) as opened:
        yield opened


@pytest.fixture
async def freeze(database: Database) -> AsyncIterator[Freeze]:
    """A way to stop a backend until the end of the test."""
    async with freezer(database.dsn) as stop:
        yield stop


@pytest.fixture
async def proxy(database: Database) -> AsyncIterator[Proxy]:
    """A way to the test's database that can be broken."""
    async with proxy_to(database.dsn) as opened:
        yield opened


def _fast_directory() -> str:
    """Memory where there is enough: copying a database makes 300 files, 10 ms there and 250 on a slow disk.

    Not pytest's own directory for temporary files: its path may be too long for a socket.
    """
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**30
    return str(memory) if roomy else "/tmp"


async def _make_template(dsn: str, name: str) -> None:
    from asynctaskd.postgres.migrate import migrate

    await run_script(dsn, f'CREATE DATABASE "{name}"')
    await migrate(_with_database(dsn, name))
    await run_script(_with_database(dsn, name), INVARIANTS)


async def _forget_durability(dsn: str) -> None:
    """Only the tests' own server may lose data in a power cut."""
    await run_script(dsn, "ALTER SYSTEM SET fsync = off")
    await run_script(dsn, "ALTER SYSTEM SET full_page_writes = off")
    await run_script(dsn, "SELECT pg_reload_conf()")


async def _drop_left_over(dsn: str) -> None:
    """Drop what killed runs left behind; a database's name says when its run began."""
    connection = await asyncpg.connect(dsn)
    try:
        for row in await connection.fetch(
            "SELECT datname FROM pg_database WHERE datname LIKE $1", f"{PREFIX}%"
        ):
            began = row["datname"].removeprefix(PREFIX).split("_")[0]
            if began.isdigit() and int(began) < time.time() - LEFT_OVER:
                await connection.execute(f'DROP DATABASE IF EXISTS "{row["datname"]}" WITH (FORCE)')
    finally:
        await connection.close()


def _with_database(dsn: str, name: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))
