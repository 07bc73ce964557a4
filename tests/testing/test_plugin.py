"""The plugin as others use it: in a run of pytest of their own."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

pytest_plugins = ["pytester"]

# What pytest-asyncio wants to be told.
LOOP = ["-o", "asyncio_default_fixture_loop_scope=function"]

SHOP = """
    import pytest
    from asynctaskd import App

    app = App()

    @app.task("add")
    async def add(a: int, b: int) -> int:
        return a + b
"""

TESTS = (
    SHOP
    + """
    {mark}
    @pytest.mark.parametrize("n", [1, 2])
    async def test_each_has_a_database_of_its_own(asynctaskd_client, asynctaskd_worker, n):
        assert await asynctaskd_client.list_tasks() == []
        async with asynctaskd_worker(app) as worker:
            task_id = await asynctaskd_client.enqueue(add.request(1, n))
            await worker.drain()
        assert (await asynctaskd_client.get_task(task_id)).result == 1 + n

    {mark}
    async def test_time_leaps(asynctaskd_client, asynctaskd_worker, asynctaskd_clock):
        task_id = await asynctaskd_client.enqueue(add.request(1, 2), delay="1d")
        async with asynctaskd_worker(app) as worker:
            await asynctaskd_clock.advance("1d")
            await worker.drain()
        await asynctaskd_client.wait(task_id, timeout="20s")
"""
)


@pytest.fixture
def run(pytester: pytest.Pytester):
    """Run the tests of others."""

    def run(tests: str, *arguments: str) -> pytest.RunResult:
        pytester.makeini("[pytest]\nfilterwarnings = error")
        pytester.makepyfile(dedent(tests))
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *(arguments or LOOP))

    return run


@pytest.fixture
def others(run, asynctaskd_server, monkeypatch):
    """Run them on the server of this run."""
    monkeypatch.setenv("ASYNCTASKD_TEST_DSN", asynctaskd_server)
    return run


@pytest.mark.parametrize(
    ("mark", "arguments"),
    [
        ("", [*LOOP, "-o", "asyncio_mode=auto"]),
        ("@pytest.mark.asyncio", [*LOOP, "-o", "asyncio_mode=strict"]),
        ("@pytest.mark.asyncio", [*LOOP, "-n", "2"]),
    ],
    ids=["auto", "strict", "xdist"],
)
def test_the_fixtures_work_in_every_mode(others, mark, arguments):
    others(TESTS.format(mark=mark), *arguments).assert_outcomes(passed=3)


def test_the_fixtures_that_are_no_coroutines_work_without_pytest_asyncio(others):
    tests = """
    import asyncio
    from asynctaskd import Client
    from asynctaskd.testing import assert_enqueued

    def test_synchronous(asynctaskd_dsn, asynctaskd_worker, asynctaskd_clock):
        async def see():
            async with Client(asynctaskd_dsn) as client, asynctaskd_worker(app) as worker:
                await client.enqueue("add", {"a": 1, "b": 2}, delay="1h")
                await asynctaskd_clock.advance("1h")
                await worker.drain()
                return await assert_enqueued(client, "add", status="completed")
        assert asyncio.run(see()).result == 3
    """
    others(dedent(SHOP) + dedent(tests), "-p", "no:asyncio").assert_outcomes(passed=1)


def test_a_run_that_asks_for_nothing_makes_nothing(run):
    result = run(
        """
        def test_nothing(pytestconfig):
            from asynctaskd.testing import plugin
            assert not pytestconfig.stash[plugin._home].exists()
        """
    )
    result.assert_outcomes(passed=1)


def test_the_server_of_a_run_is_removed_after_it(run, pytester: pytest.Pytester, monkeypatch):
    monkeypatch.delenv("ASYNCTASKD_TEST_DSN", raising=False)
    result = run(
        """
        from pathlib import Path

        def test_home(asynctaskd_dsn, pytestconfig):
            from asynctaskd.testing import plugin
            home = pytestconfig.stash[plugin._home]
            assert (home / "data" / "postmaster.pid").exists()
            Path("home").write_text(str(home))
        """
    )
    result.assert_outcomes(passed=1)
    home = Path((pytester.path / "home").read_text())
    assert home.is_absolute()
    assert not home.exists()


def test_databases_of_a_run_are_dropped_after_it(others):
    result = others(
        """
        import asyncio
        from urllib.parse import urlsplit
        from asynctaskd.postgres.scratch import PREFIX, connected

        names = []

        def test_a_name(asynctaskd_dsn):
            names.append(urlsplit(asynctaskd_dsn).path.lstrip("/"))
            assert names[0].startswith(PREFIX)

        def test_it_is_gone(asynctaskd_server):
            async def look():
                async with connected(asynctaskd_server) as connection:
                    question = "SELECT count(*) FROM pg_database WHERE datname = $1"
                    return await connection.fetchval(question, names[0])
            assert asyncio.run(look()) == 0
        """
    )
    result.assert_outcomes(passed=2)


def blocks(marker: str, language: str = "python") -> str:
    """The example of the page that begins so."""
    page = Path(__file__).parent.parent.parent / "docs" / "how-to" / "test-your-tasks.md"
    [code] = re.findall(rf"```{language}\n({marker}\n.*?)```", page.read_text("utf8"), re.DOTALL)
    return code


def test_the_examples_of_the_page_on_tests_run_with_nothing_beside_them(
    pytester: pytest.Pytester, asynctaskd_server, monkeypatch
):
    monkeypatch.setenv("ASYNCTASKD_TEST_DSN", asynctaskd_server)
    pytester.makepyprojecttoml(blocks("# pyproject.toml", "toml"))
    pytester.makeconftest(blocks("# conftest.py"))
    pytester.makepyfile(test_shop=blocks("# test_shop.py"))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error")
    result.assert_outcomes(passed=3)


def test_the_template_can_hold_more(others):
    others(
        """
        import asyncio
        import pytest
        from asynctaskd.postgres.scratch import connected, run_script, with_database

        @pytest.fixture(scope="session")
        def asynctaskd_template(asynctaskd_server, asynctaskd_template):
            database = with_database(asynctaskd_server, asynctaskd_template)
            asyncio.run(run_script(database, "CREATE TABLE users ()"))
            return asynctaskd_template

        def test_a_table_of_ours(asynctaskd_dsn):
            async def look():
                async with connected(asynctaskd_dsn) as connection:
                    return await connection.fetchval("SELECT count(*) FROM users")
            assert asyncio.run(look()) == 0
        """
    ).assert_outcomes(passed=1)
