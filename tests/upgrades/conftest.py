"""Two releases on one database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from asynctaskd.postgres.scratch import PREFIX, drop_database, run_script, with_database
from tests.upgrades.releases import ROOT, SHOP, Release, unpack_previous


@pytest.fixture(scope="session")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The previous release's tree."""
    folder = tmp_path_factory.mktemp("previous")
    unpack_previous(folder)
    return folder


@pytest.fixture
async def empty(dsn: str) -> AsyncIterator[str]:
    """A database that nobody has migrated."""
    name = f"{PREFIX}{uuid4().hex[:12]}"
    await run_script(dsn, f'CREATE DATABASE "{name}"')
    yield with_database(dsn, name)
    await drop_database(dsn, name)


@pytest.fixture
def old(previous: Path, empty: str, tmp_path: Path) -> Release:
    """The previous release on that database."""
    (tmp_path / "shop.py").write_text(SHOP)
    return Release("old", previous, empty, tmp_path)


@pytest.fixture
def new(old: Release) -> Release:
    """This release, on the same."""
    return Release("new", ROOT, old.dsn, old.place)
