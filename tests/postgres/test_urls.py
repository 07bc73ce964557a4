"""Where the URL and its password are kept: in files, read anew for each new connection, and shown nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from asynctaskd import Client
from asynctaskd.errors import ConfigError, DatabaseUnavailableError
from asynctaskd.postgres.access import hosts_of
from asynctaskd.postgres.driver import open_connection
from asynctaskd.postgres.urls import has_password, read_url, require_readable

URL = "postgresql://shop:hunter2@db.example/shop"


@pytest.fixture
def kept(tmp_path: Path, database: Any) -> Path:
    """A file with the URL of the test's database."""
    path = tmp_path / "url"
    path.write_text(f"{database.dsn}\n")
    return path


def write(path: Path, text: str) -> None:
    path.write_text(text)


def move(path: Path, to: Path) -> Path:
    return path.rename(to)


async def lose_connections(client: Client) -> None:
    assert client._own_pool is not None
    for connection in client._own_pool._idle:
        connection.terminate()


async def test_a_file_with_a_url_is_as_good_as_the_url(kept: Path) -> None:
    async with Client(f"file:{kept}") as client:
        assert await client.enqueue("a") == 1


async def test_a_file_that_was_replaced_holds_for_the_next_connection(kept: Path, database: Any) -> None:
    async with Client(f"file:{kept}") as client:
        await client.enqueue("a")
        sign = "&" if urlsplit(database.dsn).query else "?"
        write(kept, f"{database.dsn}{sign}asynctaskd.mine=rotated")
        await lose_connections(client)
        assert client._own_pool is not None
        [row] = await client._own_pool.fetch("SELECT current_setting('asynctaskd.mine', true)")
        assert row[0] == "rotated"


async def test_a_file_that_is_gone_for_a_moment_is_waited_for(kept: Path) -> None:
    async with Client(f"file:{kept}") as client:
        await client.enqueue("a")
        await lose_connections(client)
        away = move(kept, kept.with_name("away"))
        with pytest.raises(DatabaseUnavailableError, match="can't be read: No such file"):
            await client.enqueue("a")
        move(away, kept)
        await client.enqueue("a")


def test_what_is_wrong_with_a_file_is_told_without_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "url"
    with pytest.raises(ConfigError, match=r"url with the database's URL can't be read: No such file"):
        read_url(f"file:{path}")
    path.write_text("hunter2")
    with pytest.raises(ConfigError, match="must hold a URL such as") as caught:
        read_url(f"file:{path}")
    assert "hunter2" not in str(caught.value)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="can't be read: it isn't text"):
        read_url(f"file:{path}")


def test_a_password_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pgpass"
    dsn = f"postgresql://shop@db/shop?passfile={path}"
    with pytest.raises(ConfigError, match="pgpass can't be read"):
        require_readable(dsn)
    path.write_text("*:*:*:*:hunter2\n")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match=r"others may read .* \(mode 0644\).*chmod 600"):
        require_readable(dsn)
    path.chmod(0o400)
    require_readable(dsn)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("sslmode=verify_full", "there is no sslmode=verify_full: it must be disable, .* or verify-full"),
        ("sslrootcert=/none/ca.pem", "sslrootcert: the file /none/ca.pem can't be read: No such file"),
        ("sslcert=/none/me.pem", "sslcert: the file /none/me.pem can't be read: No such file"),
    ],
)
def test_what_is_wrong_with_tls_shows_at_the_start(asked: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        require_readable(f"postgresql://shop@db/shop?{asked}")
    require_readable("postgresql://shop@db/shop?sslmode=verify-full&sslrootcert=system")
    require_readable("postgresql://shop@localhost/shop?sslrootcert=/none/ca.pem")
    require_readable("postgresql://shop@db/shop?sslmode=disable&sslrootcert=/none/ca.pem")


@pytest.mark.parametrize(
    ("url", "holds"),
    [
        (URL, True),
        ("postgresql://shop@db/shop?password=hunter2", True),
        ("postgresql://shop@db/shop?sslpassword=hunter2", True),
        ("postgresql://shop@db/shop?passfile=/etc/pgpass", False),
        ("postgresql://shop@db/shop", False),
        ("file:/run/secrets/url", False),
        ("embedded", False),
        ("postgresql://[::1/shop", False),
    ],
)
def test_which_urls_hold_a_password(url: str, holds: bool) -> None:
    assert has_password(url) is holds


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://shop@db:hunter/shop", "port that is no number from 1 to 65535: write"),
        ("postgresql://shop@db:99999/shop", "port that is no number"),
        ("postgresql://shop@[::1]:hunter,db/shop", "port that is no number"),
        ("postgresql://shop@/shop?host=db&port=hunter", "port that is no number"),
        ("postgresql://shop:hunter/2@db/shop", "in a password, / .* as %2F"),
        ("postgresql:///shop?host=a,b,c&port=1,2", "3 hosts and 2 ports: name one port"),
        ("postgresql://shop@[::1/shop", "can't be read .*: write postgresql://host:5432/name"),
        (
            "postgresql://db/shop?target_session_attrs=banana",
            r"target_session_attrs \(in database.url\) must be any, primary, .*, got 'banana'",
        ),
    ],
)
async def test_what_is_wrong_in_a_url_is_named_with_what_to_write(url: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as raised:
        await open_connection(url)
    assert "hunter" not in str(raised.value)


async def test_a_wrong_variable_of_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "banana")
    with pytest.raises(ConfigError, match=r"\(PGTARGETSESSIONATTRS\) must be any"):
        await open_connection("postgresql://db/shop")


def test_hosts_and_ports_of_the_environment_are_left_to_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "one,other")
    monkeypatch.setenv("PGPORT", "6432,6433")
    assert hosts_of("postgresql:///shop") == [{}]


def test_a_url_that_cant_be_read_is_left_to_whoever_connects() -> None:
    require_readable("postgresql://[::1/shop?passfile=/none")
