"""Django: its connections, its settings, its commands."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from asgiref.sync import sync_to_async
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.test import override_settings

import asynctaskd.django
from asynctaskd import ConfigError, TaskAlreadyExistsError, TaskRequest, UnknownTaskError
from asynctaskd.django import aenqueue, aenqueue_many, enqueue, enqueue_many
from asynctaskd.django.apps import migrate_schema
from asynctaskd.django.configuration import configuration, database_url, has_our_backend
from asynctaskd.postgres.scratch import run_script
from tests.support.shop.background import add
from tests.support.ways import django_at

if TYPE_CHECKING:

    class Database:
        dsn: str


ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("shop")


@pytest.fixture
def count(dsn_of_shop: str) -> Callable[[], int]:
    """How many tasks are committed, as another connection sees it."""

    async def ask() -> int:
        other = await asyncpg.connect(dsn_of_shop)
        try:
            return int(await other.fetchval("SELECT count(*) FROM asynctaskd.tasks"))
        finally:
            await other.close()

    return lambda: asyncio.run(ask())


# Transactions


def test_outside_a_block_it_is_there_at_once(count: Callable[[], int]) -> None:
    enqueue("note")
    assert count() == 1


def test_inside_a_block_it_is_there_with_the_commit(count: Callable[[], int]) -> None:
    with transaction.atomic():
        first = enqueue(add, {"a": 1, "b": 2}, priority=2)
        [second] = enqueue_many([TaskRequest("note")])
        assert count() == 0
    assert (count(), first < second) == (2, True)


def test_a_block_that_raises_leaves_nothing(count: Callable[[], int]) -> None:
    def buy() -> None:
        with transaction.atomic():
            enqueue("note")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        buy()
    assert count() == 0


def test_a_refused_tag_in_an_inner_block_leaves_the_outer_one(count: Callable[[], int]) -> None:
    with transaction.atomic():
        first = enqueue("note", unique_tag="t")
        with pytest.raises(TaskAlreadyExistsError) as refused, transaction.atomic():
            enqueue("note", unique_tag="t", on_conflict="raise")
        assert refused.value.task_id == first
        enqueue("note")
    assert count() == 2


def test_on_commit_will_do_too(count: Callable[[], int]) -> None:
    with transaction.atomic():
        transaction.on_commit(partial(enqueue, "note"))
        assert count() == 0
    assert count() == 1


async def test_async_code_enqueues_in_the_thread_of_its_connections(look: asyncpg.Connection) -> None:
    try:
        task_id = await aenqueue("note", {"a": 1}, tags=["t"])
        ids = await aenqueue_many([TaskRequest("note"), TaskRequest("note")])
    finally:
        await sync_to_async(connections.close_all)()
    assert await look.fetchval("SELECT count(*) FROM asynctaskd.tasks") == 3
    assert len({task_id, *ids}) == 3


def test_another_database_of_the_project_may_hold_the_tasks(
    dsn_of_shop: str, count: Callable[[], int]
) -> None:
    connections.settings["second"] = connections.settings["default"]
    try:
        enqueue("note", using="second")
        with override_settings(ASYNCTASKD={"DATABASE": "second"}), transaction.atomic(using="second"):
            enqueue("note")
            assert count() == 1
        assert count() == 2
    finally:
        connections["second"].close()
        del connections["second"], connections.settings["second"]


# Settings


def test_the_app_of_the_settings_checks_names() -> None:
    with pytest.raises(UnknownTaskError):
        enqueue("nobody")
    with override_settings(ASYNCTASKD={}):
        enqueue("nobody")


def test_an_app_that_is_not_there_is_named() -> None:
    with (
        override_settings(ASYNCTASKD={"APP": "tests.support.shop.nowhere:app"}),
        pytest.raises(ConfigError, match="nowhere"),
    ):
        enqueue("note")


def test_a_key_that_nobody_knows_is_refused() -> None:
    with (
        override_settings(ASYNCTASKD={"DATABSE": "x"}),
        pytest.raises(ImproperlyConfigured, match="'DATABSE'.*APP, DATABASE, SCHEMA"),
    ):
        configuration()


def problems() -> list[str]:
    return [problem.msg for problem in checks.run_checks() if problem.id == "asynctaskd.E001"]


@pytest.mark.parametrize(
    "settings, problem",
    [
        ({"DATABASE": "other"}, "needs PostgreSQL, and DATABASES['other'] isn't"),
        ({"DATABASE": "nowhere"}, "'nowhere' doesn't exist"),
        ({"URL": "x"}, "no key 'URL'"),
        ({"APP": "tests.support.shop.nowhere:app"}, "there is no module 'tests.support.shop.nowhere'"),
    ],
)
def test_the_check_names_what_is_wrong(settings: dict[str, Any], problem: str) -> None:
    with override_settings(ASYNCTASKD=settings):
        [found] = problems()
    assert problem in found


@pytest.mark.parametrize(
    "backends, ours",
    [
        ({}, False),
        ({"default": {"BACKEND": "tests.support.shop.backends.OfSomebodyElse"}}, False),
        ({"default": {"BACKEND": "asynctaskd.django.TasksBackend"}}, True),
        ({"a": {"BACKEND": "tests.support.shop.backends.OfSomebodyElse"},
          "b": {"BACKEND": "tests.support.shop.backends.MadeOfOurs"}}, True),
    ],
)  # fmt: skip
def test_a_worker_runs_djangos_tasks_only_where_they_are_given_to_it(
    backends: dict[str, Any], ours: bool
) -> None:
    with override_settings(TASKS=backends):
        assert has_our_backend() is ours


def test_the_check_finds_nothing_wrong_where_nothing_is() -> None:
    assert problems() == []


DATABASES: list[tuple[dict[str, Any], str]] = [
    ({"NAME": "shop"}, "postgresql:///shop"),
    (
        {"NAME": "my shop", "USER": "ada@x", "PASSWORD": "p:/@?#%", "HOST": "db.example.org", "PORT": "5433"},
        "postgresql://ada%40x:p%3A%2F%40%3F%23%25@/my%20shop?host=db.example.org&port=5433",
    ),
    (
        {"NAME": "shop", "USER": "ada", "HOST": "/var/run/postgresql"},
        "postgresql://ada@/shop?host=%2Fvar%2Frun%2Fpostgresql",
    ),
    ({"NAME": "shop", "HOST": "a,b", "PORT": 5432}, "postgresql:///shop?host=a%2Cb&port=5432"),
    (
        {"NAME": "shop", "OPTIONS": {"sslmode": "require", "pool": True, "isolation_level": 3}},
        "postgresql:///shop?sslmode=require",
    ),
    ({"NAME": None, "OPTIONS": {"service": "shop"}}, "postgresql:///?service=shop"),
]


@pytest.mark.parametrize("given, url", DATABASES, ids=[url for _, url in DATABASES])
def test_the_url_of_a_database_is_made_of_its_settings(given: dict[str, Any], url: str) -> None:
    empty = {"USER": "", "PASSWORD": "", "HOST": "", "PORT": "", "OPTIONS": {}}
    connections.settings["third"] = {**connections.settings["default"], **empty, **given}
    try:
        assert database_url("third") == url
    finally:
        del connections["third"], connections.settings["third"]


# The schema


@pytest.fixture
async def empty(dsn: str, database: Database) -> str:
    """A database without asynctaskd's schema."""
    await run_script(database.dsn, "DROP SCHEMA asynctaskd CASCADE")
    return database.dsn


def test_django_migrations_bring_the_schema(empty: str, capsys: pytest.CaptureFixture[str]) -> None:
    with django_at(empty):
        call_command("migrate", verbosity=1)
        assert enqueue("note") > 0
        assert "migrations of asynctaskd" in capsys.readouterr().out
        call_command("migrate", verbosity=1)
        assert "migrations of asynctaskd" not in capsys.readouterr().out


def test_only_the_database_that_holds_the_tasks_is_given_the_schema(empty: str) -> None:
    with django_at(empty):
        migrate_schema("other", plan=[])
        migrate_schema("default")  # as `flush` does
        assert schemas() == []
        migrate_schema("default", plan=[], verbosity=0)
        assert schemas() == ["asynctaskd"]


def schemas() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT nspname FROM pg_namespace WHERE nspname = 'asynctaskd'")
        return [name for [name] in cursor.fetchall()]


# manage.py, in processes of its own


Manage = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def manage(dsn_of_shop: str, tmp_path: Path) -> Manage:
    """Runs `manage.py` with these arguments, from some other directory than the project's."""
    script = (
        "import os, sys; from django.core.management import execute_from_command_line;"
        " os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.support.shop.settings');"
        f" sys.path.insert(0, {str(ROOT)!r}); execute_from_command_line(sys.argv)"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO")}

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=environ | {"SHOP_DSN": dsn_of_shop},
        )
        assert done.returncode == code, done.stderr
        return done

    return run


def test_a_worker_of_the_project_runs_its_tasks_with_django_set_up(manage: Manage) -> None:
    task_id = enqueue(add, {"a": 1, "b": 2})
    manage("asynctaskd", "run", "--once", "--concurrency", "2")
    shown = manage("asynctaskd", "tasks", "show", str(task_id), "--json").stdout
    assert '"status": "completed"' in shown


def test_several_processes_find_the_project_too(manage: Manage) -> None:
    task_id = enqueue(add, {"a": 1, "b": 2})
    manage("asynctaskd", "run", "--processes", "1", "--once")
    shown = manage("asynctaskd", "tasks", "show", str(task_id), "--json").stdout
    assert '"status": "completed"' in shown


def test_its_exit_codes_and_messages_are_those_of_the_command_line(manage: Manage) -> None:
    done = manage("asynctaskd", "tasks", "show", "404", code=1)
    assert "there is no task 404" in done.stderr
    assert manage("asynctaskd", "enqueue", "nobody", code=2).stderr != ""
    assert "Usage: asynctaskd" in manage("asynctaskd").stdout


def test_migrate_of_the_command_line_will_do_too(manage: Manage) -> None:
    assert "nothing to do" in manage("asynctaskd", "migrate").stdout


def test_with_psycopg_2_it_is_the_same(dsn_of_shop: str) -> None:
    stored = subprocess.run(
        [sys.executable, "-m", "tests.support.shop.psycopg2_only"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | {"SHOP_DSN": dsn_of_shop},
    ).stdout
    assert stored.splitlines() == [
        "['a', 'b'] [] 100% :p1 $1 %s 0:00:01.500000",
        "[] [] None None",
        "[] ['50%'] None None",
    ]


# What the package offers


def test_the_package_says_what_it_has() -> None:
    assert all(getattr(asynctaskd.django, name) is not None for name in asynctaskd.django.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = asynctaskd.django.nothing
