"""The examples of the pages on other drivers run as they stand there."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import asyncpg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tests.support.ways import engine_for
from tests.test_docs import DOCS, module_in

OTHER_DRIVERS = DOCS / "how-to" / "other-drivers.md"
DJANGO = DOCS / "how-to" / "django.md"
ROOT = Path(__file__).parents[2]


@pytest.fixture
async def shop_dsn(dsn_of_shop: str) -> str:
    """Its table `orders` has ids that the application gives."""
    connection = await asyncpg.connect(dsn_of_shop)
    await connection.execute("DROP TABLE orders; CREATE TABLE orders (id integer)")
    await connection.close()
    return dsn_of_shop


@pytest.fixture
def example(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    name = request.param
    with module_in(OTHER_DRIVERS, name, f"# {name}.py", tmp_path) as module:
        yield module


def told(rows: list[asyncpg.Record]) -> list[tuple[object, ...]]:
    return [tuple(row) for row in rows]


TASKS = "SELECT id, name, payload ->> 'order_id', priority, unique_tag FROM asynctaskd.all_tasks ORDER BY id"


@pytest.mark.parametrize("example", ["shop_sync"], indirect=True)
async def test_the_example_of_sqlalchemy_runs(
    example: ModuleType, shop_dsn: str, look: asyncpg.Connection
) -> None:
    task_id = await asyncio.to_thread(example.buy, engine_for(shop_dsn, "psycopg"), 7)
    assert told(await look.fetch(TASKS)) == [(task_id, "ship", "7", 10, None)]
    assert told(await look.fetch("SELECT id FROM orders")) == [(7,)]


@pytest.mark.parametrize("example", ["shop_async"], indirect=True)
async def test_the_example_of_async_sqlalchemy_runs(
    example: ModuleType, shop_dsn: str, look: asyncpg.Connection
) -> None:
    url = sqlalchemy.make_url(shop_dsn).set(drivername="postgresql+asyncpg")
    ids = await example.buy(create_async_engine(url, poolclass=NullPool), [7, 8])
    assert told(await look.fetch(TASKS)) == [(ids[0], "ship", "7", 0, None), (ids[1], "ship", "8", 0, None)]
    assert told(await look.fetch("SELECT id FROM orders ORDER BY id")) == [(7,), (8,)]


@pytest.mark.parametrize("example", ["shop_psycopg"], indirect=True)
async def test_the_example_of_psycopg_runs(
    example: ModuleType, shop_dsn: str, look: asyncpg.Connection
) -> None:
    task_id = await asyncio.to_thread(example.buy, shop_dsn, 7)
    assert told(await look.fetch(TASKS)) == [(task_id, "ship", "7", 0, "ship:7")]
    assert told(await look.fetch("SELECT id FROM orders")) == [(7,)]


# A project with what the page on Django says

MODELS = """
from django.db import models


class Order(models.Model):
    title = models.TextField()
    shipped = models.BooleanField(default=False)

    class Meta:
        app_label = "shop"
"""

REST_OF_SETTINGS = """
import os
from tests.support.shop.settings import database_at

DATABASES = {"default": database_at(os.environ["SHOP_DSN"])}
SECRET_KEY = "of a test"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
"""

BUY = """
import django

django.setup()

from shop.services import buy
from shop.checkout import pay

print(buy("a book").id, pay(1))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    page = DJANGO.read_text("utf8")
    if find_spec("django.tasks") is None:
        page = page.replace("from django.tasks", "from django_tasks").replace(
            '    "shop",', '    "shop", "django_tasks",'
        )
    files = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", page, re.DOTALL))
    files |= {"mysite/settings.py": files["mysite/settings.py"] + REST_OF_SETTINGS, "shop/models.py": MODELS}
    for name, code in (files | {"shop/__init__.py": "", "mysite/__init__.py": ""}).items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(code, encoding="utf8")
    return tmp_path


@pytest.fixture
def python(project: Path, shop_dsn: str) -> Callable[..., str]:
    """Runs Python in the project, and returns what it prints."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "ASYNC"))}
    environ |= {"SHOP_DSN": shop_dsn, "DJANGO_SETTINGS_MODULE": "mysite.settings", "PYTHONPATH": str(ROOT)}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=project,
            env=environ,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


async def test_the_project_of_the_page_on_django_runs(
    python: Callable[..., str], look: asyncpg.Connection
) -> None:
    await look.execute("DROP SCHEMA asynctaskd CASCADE")

    def manage(*arguments: str) -> str:
        return python("-m", "django", *arguments)

    def all_of_it() -> list[str]:
        manage("migrate", "--run-syncdb")
        found = python("-c", BUY).split()
        manage("asynctaskd", "run", "--once", "--labels", "mail")
        return found

    order_id, _receipt = await asyncio.to_thread(all_of_it)
    rows = await look.fetch(
        "SELECT name, status, result, priority, labels FROM asynctaskd.all_tasks ORDER BY id"
    )
    assert told(rows) == [
        ("ship", "completed", None, 0, []),
        ("django_task", "completed", '"receipt of order 1"', 10, ["mail"]),
    ]
    assert told(await look.fetch("SELECT id, shipped FROM shop_order")) == [(int(order_id), True)]
