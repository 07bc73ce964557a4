"""A database with a table of the application's own, and workers that run what is due."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asynctaskd import App
from asynctaskd.config import load_config
from asynctaskd.daemon.supervisor import Daemon
from tests.support.ways import ORDERS, django_at

if TYPE_CHECKING:

    class Database:
        dsn: str


@pytest.fixture
async def dsn_of_shop(database: Database) -> str:
    """The test's database, with the table `orders`."""
    connection = await asyncpg.connect(database.dsn)
    await connection.execute(ORDERS)
    await connection.close()
    return database.dsn


@pytest.fixture
async def look(dsn_of_shop: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that sees what is committed."""
    connection = await asyncpg.connect(dsn_of_shop)
    yield connection
    await connection.close()


@pytest.fixture
def shop(dsn_of_shop: str) -> Any:
    """Django on the test's database; for tests that aren't async, as Django's own code isn't."""
    with django_at(dsn_of_shop):
        yield


@pytest.fixture
def work_off(dsn_of_shop: str) -> Callable[..., Awaitable[None]]:
    """Run a worker until nothing is due."""

    async def work(app: App, labels: str = "", concurrency: int | None = None) -> None:
        given = {"worker.labels": labels or None, "worker.concurrency": concurrency}
        await Daemon(app, dsn_of_shop, load_config(None, {}, given)).run(once=True)

    return work
