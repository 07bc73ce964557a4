"""TLS: a host that isn't this machine proves who it is, unless less is asked for by name."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import trustme

from asynctaskd import App, Client
from asynctaskd.config import DaemonConfig
from asynctaskd.daemon.supervisor import Daemon
from asynctaskd.errors import DatabaseRefusedError
from asynctaskd.postgres import tls
from asynctaskd.postgres.driver import LoginRefusedError, connect, translate
from asynctaskd.postgres.tls import is_local, named_hosts, tls_for, weakness
from asynctaskd.telemetry import attach
from tests.support.tls import TlsServer, tls_to

FAR = "db.example"
"""A name that isn't this machine's; in these tests it leads to it all the same."""


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def root(authority: trustme.CA, tmp_path: Path) -> Path:
    """The file with the authority's certificate."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """That name leads here, and nothing of whoever runs the tests says anything of TLS."""
    resolve = socket.getaddrinfo

    def resolved(host: Any, *arguments: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if host in (FAR, "other.example") else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGHOST", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def server(database: Any) -> AsyncIterator[TlsServer]:
    async with tls_to(database.dsn) as opened:
        yield opened


@pytest.fixture
def url(database: Any, server: TlsServer) -> Any:
    """The test's database at a host, by TLS."""

    def at(host: str = FAR, **parameters: object) -> str:
        own = urlsplit(database.dsn)
        user = own.netloc.rpartition("@")[0]
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return own._replace(netloc=f"{user}@{host}:{server.port}", query=query).geturl()

    return at


async def ask(dsn: str) -> int:
    async with connect(dsn) as connection:
        answer: int = await connection.fetchval("SELECT 1")
    return answer


async def test_a_host_that_proves_who_it_is_is_talked_to(
    server: TlsServer, url: Any, authority: trustme.CA, root: Path
) -> None:
    server.show(authority.issue_cert(FAR))
    assert await ask(url(sslrootcert=root)) == 1
    assert server.versions == ["TLSv1.3"]


async def test_a_client_with_a_url_does_the_same(
    server: TlsServer, url: Any, authority: trustme.CA, root: Path
) -> None:
    server.show(authority.issue_cert(FAR))
    async with Client(url(sslrootcert=root)) as client:
        assert await client.enqueue("a") == 1
    server.show(None)
    async with Client(url()) as client:
        with pytest.raises(DatabaseRefusedError, match="offers no TLS"):
            await client.enqueue("a")


@pytest.mark.parametrize("parameters", [{}, {"sslmode": "verify-full"}, {"sslrootcert": "system"}])
async def test_authorities_that_the_system_trusts_will_do(
    server: TlsServer, url: Any, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, parameters: Any
) -> None:
    server.show(authority.issue_cert(FAR))
    with pytest.raises(DatabaseRefusedError, match="isn't accepted"):
        await ask(url(**parameters))

    make = ssl.create_default_context

    def trusting() -> ssl.SSLContext:
        context = make()
        authority.configure_trust(context)
        return context

    monkeypatch.setattr(tls.ssl, "create_default_context", trusting)
    assert await ask(url(**parameters)) == 1


async def test_one_that_offers_no_tls_is_refused_with_what_to_do(server: TlsServer, url: Any) -> None:
    with pytest.raises(
        DatabaseRefusedError, match="db.example offers no TLS.*ssl = on.*sslmode=disable"
    ) as one:
        await ask(url())
    assert not isinstance(one.value, LoginRefusedError), "user and password have nothing to do with it"
    assert await ask(url(sslmode="disable")) == 1


def test_a_server_that_lets_nobody_in_without_tls_is_told_from_a_wrong_password() -> None:
    entry = 'no pg_hba.conf entry for host "10.0.0.1", user "shop", database "shop"'
    for said in ("no encryption", "SSL off"):
        told = translate(asyncpg.InvalidAuthorizationSpecificationError(f"{entry}, {said}"))
        assert isinstance(told, DatabaseRefusedError)
        assert not isinstance(told, LoginRefusedError)
        assert "sslmode=verify-full" in str(told)
    for said in ("SSL encryption", "SSL on"):
        told = translate(asyncpg.InvalidAuthorizationSpecificationError(f"{entry}, {said}"))
        assert isinstance(told, LoginRefusedError)


async def test_one_of_another_authority_is_refused(server: TlsServer, url: Any, root: Path) -> None:
    server.show(trustme.CA().issue_cert(FAR))
    with pytest.raises(DatabaseRefusedError, match="isn't accepted: .*sslrootcert=PATH"):
        await ask(url(sslrootcert=root))
    assert await ask(url(sslmode="require")) == 1


async def test_one_of_another_name_is_refused(
    server: TlsServer, url: Any, authority: trustme.CA, root: Path
) -> None:
    server.show(authority.issue_cert("other.example"))
    with pytest.raises(DatabaseRefusedError, match="db.example.*Name the host as its certificate does"):
        await ask(url(sslrootcert=root))
    assert await ask(url("other.example", sslrootcert=root)) == 1
    assert await ask(url(sslmode="verify-ca", sslrootcert=root)) == 1


async def test_a_certificate_that_has_expired_is_refused(
    server: TlsServer, url: Any, authority: trustme.CA, root: Path
) -> None:
    server.show(authority.issue_cert(FAR, not_after=datetime(2020, 1, 1, tzinfo=UTC)))
    with pytest.raises(DatabaseRefusedError, match="expired. Renew it"):
        await ask(url(sslrootcert=root))


async def test_less_than_tls_1_2_is_refused(
    server: TlsServer, url: Any, authority: trustme.CA, root: Path
) -> None:
    server.show(authority.issue_cert(FAR))
    server.is_old = True
    with pytest.raises(DatabaseRefusedError, match=r"1\.2 is the least"):
        await ask(url(sslrootcert=root))


async def test_a_certificate_and_an_authority_that_were_replaced_hold_for_the_next_connection(
    server: TlsServer, url: Any, authority: trustme.CA, root: Path
) -> None:
    server.show(authority.issue_cert(FAR))
    dsn = url(sslrootcert=root)
    async with Client(dsn) as client:
        await client.enqueue("a")
        another = trustme.CA()
        another.cert_pem.write_to_path(root)
        server.show(another.issue_cert(FAR))
        assert client._own_pool is not None
        for connection in client._own_pool._idle:
            connection.terminate()
        await client.enqueue("a")
    assert server.versions == ["TLSv1.3", "TLSv1.3"]


async def test_this_machine_has_nothing_to_prove(server: TlsServer, url: Any) -> None:
    assert await ask(url("127.0.0.1")) == 1
    assert await ask(url("localhost")) == 1


def test_what_is_this_machine() -> None:
    near = ["/run/postgresql", "@abstract", "localhost", "db.localhost", "127.0.0.1", "127.9.9.9", "::1"]
    far = ["db", "10.0.0.1", "db.example", "localhost.example", "0.0.0.0", "fe80::1", "128.0.0.1"]
    assert [is_local(host) for host in (*near, *far)] == [True] * len(near) + [False] * len(far)


def test_the_hosts_of_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    assert named_hosts("postgresql://me@db1:1,[::1]:2,db3/shop") == ["db1", "::1", "db3"]
    assert named_hosts("postgresql://me@/shop?host=/run/a,::1,db") == ["/run/a", "::1", "db"]
    assert named_hosts("postgresql://me@db/shop?host=/run/a") == ["db"], "asyncpg connects to that one"
    assert named_hosts("postgresql://me@%2Frun%2Fpostgresql/shop") == ["/run/postgresql"]
    assert named_hosts("postgresql:///shop") == ["/"]
    monkeypatch.setenv("PGHOST", "db")
    assert named_hosts("postgresql:///shop") == ["db"]


@pytest.mark.parametrize(
    ("dsn", "told"),
    [
        ("postgresql://db/shop", None),
        ("postgresql://db/shop?sslmode=verify-full", None),
        ("postgresql://db/shop?sslmode=require", "sslmode=require doesn't prove that db is who answers"),
        ("postgresql://db1,localhost/shop?sslmode=disable", "sslmode=disable doesn't prove that db1 is who"),
        ("postgresql://localhost/shop?sslmode=disable", None),
        ("postgresql:///shop?host=/run/postgresql&sslmode=disable", None),
        ("postgresql://db/shop?sslmode=require&sslrootcert=system", None),
    ],
)
def test_what_is_asked_for_by_name_is_told(dsn: str, told: str | None) -> None:
    found = weakness(dsn)
    assert found is None if told is None else found is not None and found.startswith(told)


def test_a_service_file_decides_only_where_the_url_names_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tls_for("postgresql://db.example/app?service=prod", "db.example") is not None
    assert weakness("postgresql://db.example/app?service=prod") is None
    monkeypatch.setenv("PGSERVICE", "prod")
    assert "nothing proves who answers" in str(weakness("postgresql:///app"))


async def test_a_worker_warns_of_what_is_asked_for_by_name_and_lives_through_a_file_that_is_replaced(
    server: TlsServer, url: Any, authority: trustme.CA, root: Path, tmp_path: Path
) -> None:
    server.show(authority.issue_cert(FAR))
    kept, told, lost = tmp_path / "url", [], asyncio.Event()
    back = asyncio.Event()

    def note(event: str, facts: Any) -> None:
        if event == "database.unproven":
            told.append(facts["note"])
        elif event == "database.lost":
            loop.call_soon_threadsafe(lost.set)
        elif event == "database.restored":
            loop.call_soon_threadsafe(back.set)

    loop = asyncio.get_running_loop()
    kept.write_text(url(sslmode="require"))
    app, done = App(), asyncio.Event()

    @app.task("a")
    async def a() -> None:
        done.set()

    config = DaemonConfig.model_validate({"database": {"url": f"file:{kept}"}})
    daemon = Daemon(app, f"file:{kept}", config)
    detach = attach(note)
    life = asyncio.create_task(daemon.run())
    try:
        async with asyncio.timeout(20):
            await daemon.ready.wait()
            assert told == ["sslmode=require doesn't prove that db.example is who answers"]
            away = kept.rename(tmp_path / "away")
            server.reset()
            await lost.wait()
            away.rename(kept)
            await back.wait()
            async with Client(f"file:{kept}") as client:
                await client.enqueue("a")
            await done.wait()
    finally:
        detach()
        daemon.stop()
        daemon.stop()
        await life
