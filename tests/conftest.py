"""The database of the tests: one server for the whole run, a freshly migrated database for each test.

A test that takes `database` has one to itself, so it shares neither rows nor notices with another one,
whatever runs beside it. Server and databases are those of our own plugin, `asynctaskd.testing.plugin`.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg
import pytest
from hypothesis import settings

from asynctaskd.postgres.scratch import run_script, with_database
from tests.support.freezer import freezer
from tests.support.proxy import Proxy, proxy_to
from tests.support.scripts import INVARIANTS

if TYPE_CHECKING:
    from tests.support.freezer import Freeze

    Connection = asyncpg.Connection[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]

# A busy machine makes an example slow, not wrong.
settings.register_profile("asynctaskd", deadline=None)
settings.load_profile("asynctaskd")


@dataclass(frozen=True)
class Database:
    """A migrated database that belongs to one test."""

    dsn: str
    schema: str = "asynctaskd"


def pytest_configure() -> None:
    """Have the processes of a test hear Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell has what it starts in the background ignore Ctrl-C, and so would every process of a test.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def dsn(asynctaskd_server: str) -> str:
    """A server to make databases on."""
    return asynctaskd_server


@pytest.fixture(scope="session")
def asynctaskd_template(asynctaskd_server: str, asynctaskd_template: str) -> str:
    """The template of all databases, which checks what holds for live tasks."""
    asyncio.run(run_script(with_database(asynctaskd_server, asynctaskd_template), INVARIANTS))
    return asynctaskd_template


@pytest.fixture
def database(asynctaskd_dsn: str) -> Database:
    """A migrated database of the test's own, dropped after it whoever is still connected."""
    return Database(asynctaskd_dsn)


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
