"""A Chromium, and a dashboard over a fleet at work for it to show."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from asynctaskd.postgres.scratch import copy_template, drop_database, run_script
from asynctaskd.telemetry import attach
from asynctaskd.web.dashboard import dashboard
from asynctaskd.web.server import serving
from tests.browser.install import AXE
from tests.support.chromium import Chromium, Tab, program
from tests.web.conftest import FLEET, PATIENT

NAME = "asynctaskd_test_browser"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """One browser for the whole run; skips where there is none, unless there has to be."""
    path = program()
    if path is None or not AXE.exists():
        reason = "needs Debian's chromium and npm's axe-core: `make browser-tools` installs both"
        if os.environ.get("ASYNCTASKD_TEST_BROWSER") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    opened = Chromium(path)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def fleet_dsn(asynctaskd_server: str, asynctaskd_template: str) -> Iterator[str]:
    """A database with a fleet at work, which tests only look at."""
    name = f"{NAME}_{os.getpid()}"
    dsn = asyncio.run(copy_template(asynctaskd_server, asynctaskd_template, name))
    asyncio.run(run_script(dsn, FLEET))
    yield dsn
    asyncio.run(drop_database(asynctaskd_server, name))


@pytest.fixture(scope="session")
def url(fleet_dsn: str) -> Iterator[str]:
    """Where that fleet's dashboard is; everything is shown, and may be changed."""
    told: dict[str, Any] = {}
    detach = attach(told.__setitem__, "http.serving")
    with serving(dashboard(fleet_dsn, may_write=True, shows_payloads=True, limit=PATIENT), "127.0.0.1", 0):
        yield f"http://127.0.0.1:{told['http.serving']['port']}"
    detach()


@pytest.fixture
def open_tab(chromium: Chromium) -> Iterator[Callable[..., Tab]]:
    """Opens tabs, and closes them."""
    opened: list[Tab] = []

    def open_one(**options: Any) -> Tab:
        opened.append(chromium.tab(**options))
        return opened[-1]

    yield open_one
    for tab in opened:
        tab.close()
