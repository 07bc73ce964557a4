"""A dashboard over a fleet at work, and those who ask it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from asynctaskd.postgres.scratch import run_script
from asynctaskd.web.dashboard import dashboard
from tests.support.browser import HOST, Browser

FLEET = (Path(__file__).parent.parent / "support" / "fleet.sql").read_text(encoding="utf8")

# A busy machine makes a page slow, not wrong.
PATIENT = timedelta(seconds=60)


@pytest.fixture
async def browse(pool) -> AsyncIterator[Callable[..., Any]]:
    """Makes browsers, each before a dashboard of its own, on the test's pool unless it has another."""
    async with AsyncExitStack() as stack:

        async def make(*, headers: dict[str, str] | None = None, **options: Any) -> Browser:
            site = dashboard(options.pop("dsn", pool), **{"limit": PATIENT} | options)
            await stack.enter_async_context(site.router.lifespan_context(site))
            http = httpx.AsyncClient(
                transport=httpx.ASGITransport(site),
                base_url=HOST,
                headers={"Accept": "text/html", **(headers or {})},
            )
            return Browser(await stack.enter_async_context(http), site)

        yield make


@pytest.fixture
async def fleet(database) -> None:
    """A fleet at work in the test's database."""
    await run_script(database.dsn, FLEET)
