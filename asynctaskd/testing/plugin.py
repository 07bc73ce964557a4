"""A plugin for pytest: a PostgreSQL server for the run, and for each test a migrated database of its own.

It is there wherever asynctaskd is installed, and does nothing until a test asks for one of its fixtures.
The server is an embedded one, made for this run and removed after it, or the one in ASYNCTASKD_TEST_DSN,
where the role needs CREATEDB.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import pytest

from asynctaskd.app import App
from asynctaskd.client import Client
from asynctaskd.postgres import embedded, scratch
from asynctaskd.testing.clock import Clock
from asynctaskd.testing.worker import Worker

if TYPE_CHECKING:
    async_fixture = pytest.fixture
elif find_spec("pytest_asyncio"):  # whose strict mode leaves pytest's own alone
    from pytest_asyncio import fixture as async_fixture
else:
    async_fixture = pytest.fixture

T = TypeVar("T")

_home = pytest.StashKey[Path]()
_numbers = count(1)


def pytest_configure(config: pytest.Config) -> None:
    """Choose where an embedded server would be; the workers of pytest-xdist use their controller's."""
    told = getattr(config, "workerinput", {}).get("asynctaskd_home")
    config.stash[_home] = Path(told) if told else _fast_directory() / f"asynctaskd-test-{uuid4().hex[:12]}"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist where the server is."""
    node.workerinput["asynctaskd_home"] = str(node.config.stash[_home])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the embedded server and its data, if there was one."""
    home = config.stash.get(_home, None)
    if home is None or hasattr(config, "workerinput") or not home.exists():
        return
    embedded.release(f"embedded:{home}")
    wait_until_stopped(home)
    shutil.rmtree(home)


def wait_until_stopped(home: Path, timeout: float = 30.0) -> None:
    """Wait until the embedded server of that directory is gone; its keeper stops it when nobody uses it."""
    until = time.monotonic() + timeout
    while (home / "data" / "postmaster.pid").exists() and time.monotonic() < until:
        time.sleep(0.01)


@pytest.fixture(scope="session")
def asynctaskd_server(request: pytest.FixtureRequest) -> str:
    """The URL of a server to make databases on."""
    given = os.environ.get("ASYNCTASKD_TEST_DSN")
    if given:
        _run(scratch.drop_left_over(given))
        return given
    home = request.config.stash[_home]
    home.mkdir(mode=0o700, exist_ok=True)
    server = embedded.start(f"embedded:{home}")
    _run(scratch.forget_durability(server))
    return server


@pytest.fixture(scope="session")
def asynctaskd_template(asynctaskd_server: str) -> Iterator[str]:
    """The name of a migrated database that each test's is a copy of.

    Override it to give them all something more; nobody may be connected to it then.
    """
    name = scratch.template_name(os.getpid())
    _run(scratch.make_template(asynctaskd_server, name))
    yield name
    _run(scratch.drop_database(asynctaskd_server, name))


@pytest.fixture
def asynctaskd_dsn(asynctaskd_server: str, asynctaskd_template: str) -> Iterator[str]:
    """The URL of a migrated database of the test's own, dropped after it whoever is still connected."""
    name = f"{asynctaskd_template}_{next(_numbers)}"
    yield _run(scratch.copy_template(asynctaskd_server, asynctaskd_template, name))
    _run(scratch.drop_database(asynctaskd_server, name))


@async_fixture
async def asynctaskd_client(asynctaskd_dsn: str) -> AsyncIterator[Client]:
    """A client on the test's database."""
    async with Client(asynctaskd_dsn) as client:
        yield client


@pytest.fixture
def asynctaskd_clock(asynctaskd_dsn: str) -> Clock:
    """The clock of the test's database, which the workers of `asynctaskd_worker` follow."""
    return Clock(asynctaskd_dsn)


@pytest.fixture
def asynctaskd_worker(asynctaskd_dsn: str, asynctaskd_clock: Clock) -> Callable[..., Worker]:
    """What makes workers on the test's database.

    `async with asynctaskd_worker(app, concurrency=1) as worker:` runs one; see `Worker`.
    """

    def make(app: App, **settings: Any) -> Worker:
        return Worker(app, asynctaskd_dsn, clock=asynctaskd_clock, **settings)

    return make


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run it in a loop of its own, in a thread: this one's loop is the business of other plugins."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def _fast_directory() -> Path:
    """Memory where there is enough: copying a database makes 300 files, 10 ms there and 250 on a slow disk.

    Not pytest's own directory for temporary files: its path may be too long for a socket.
    """
    memory = Path("/dev/shm")  # noqa: S108  (a directory of our own is made there)
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**30
    return memory if roomy else Path("/tmp")  # noqa: S108
