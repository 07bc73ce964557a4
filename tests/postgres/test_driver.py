"""No call hangs, nothing in doubt is used again, and a connection leads to a server that takes writes."""

from __future__ import annotations

import asyncio
import os
import socket
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from asynctaskd.errors import (
    DatabaseRefusedError,
    DatabaseUnavailableError,
)
from asynctaskd.postgres import access, connection
from asynctaskd.postgres.access import Access, hosts_of
from asynctaskd.postgres.driver import (
    connect,
    open_connection,
    open_pinned_sessions,
    open_pool,
    open_sessions,
    translate,
    translated,
)
from asynctaskd.postgres.sessions import History, LogPosition, Sessions
from asynctaskd.telemetry.events import attach
from tests.support.proxy import proxy_to

LOCAL = pytest.mark.skipif(
    "ASYNCTASKD_TEST_DSN" in os.environ, reason="needs the server's processes or files"
)
PID = "SELECT pg_backend_pid()"


@pytest.fixture
async def sessions(database):
    opened = await open_pinned_sessions(database.dsn, size=2)
    yield opened
    opened.terminate()


async def begun(sessions: Sessions) -> None:
    """Until a call has its connection."""
    while not sessions._busy:  # noqa: ASYNC110  (nobody tells)
        await asyncio.sleep(0)


async def pid_of(sessions: Sessions) -> int:
    [row] = await sessions.fetch(PID)
    return int(row[0])


async def test_a_call_without_an_answer_ends_its_connection_and_the_next_has_another(sessions):
    before = await pid_of(sessions)
    with pytest.raises(DatabaseUnavailableError, match="no answer within 0.1 s"):
        await sessions.fetch("SELECT pg_sleep(60)", timeout=0.1)
    assert await pid_of(sessions) != before


@LOCAL
async def test_a_frozen_backend_costs_one_call_its_limit(sessions, freeze):
    await freeze(await pid_of(sessions))
    with pytest.raises(DatabaseUnavailableError):
        await sessions.fetch("SELECT 1", timeout=0.1)
    assert await sessions.fetch("SELECT 1")


async def test_a_cancelled_call_ends_its_connection_and_gives_back_its_turn(sessions):
    for _ in range(5):
        call = asyncio.create_task(sessions.fetch("SELECT pg_sleep(60)"))
        await begun(sessions)
        call.cancel()
        await asyncio.wait([call], timeout=10)
        assert call.cancelled()
    assert await sessions.fetch("SELECT 1")


async def test_with_a_lost_connection_go_those_that_idle(sessions):
    await asyncio.gather(*(sessions.fetch("SELECT pg_sleep(0.01)") for _ in range(2)))
    idle = list(sessions._idle)
    assert len(idle) == 2
    with pytest.raises(DatabaseUnavailableError):
        await sessions.fetch("SELECT pg_sleep(60)", timeout=0.1)
    assert all(one.is_closed() for one in idle)


async def test_an_ordinary_error_costs_no_connection(sessions):
    before = await pid_of(sessions)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await sessions.fetch("SELECT 1 / $1::integer", 0)
    assert await pid_of(sessions) == before


async def test_who_waits_too_long_for_a_turn_is_told(database):
    sessions = Sessions(Access(database.dsn).open, 1, patience=0.05)
    holding = asyncio.create_task(sessions.fetch("SELECT pg_sleep(60)"))
    await begun(sessions)
    with pytest.raises(DatabaseUnavailableError, match="no connection came free within 0.05 s"):
        await sessions.fetch("SELECT 1")
    holding.cancel()
    await asyncio.wait([holding])
    assert await sessions.fetch("SELECT 1")
    await sessions.close()


async def test_closing_waits_for_calls_and_lets_no_other_begin(database):
    sessions = await open_sessions(database.dsn, size=1)
    call = asyncio.create_task(sessions.fetch("SELECT 7, pg_sleep(0.1)"))
    await begun(sessions)
    late = asyncio.create_task(sessions.fetch("SELECT 1"))
    await asyncio.sleep(0)
    await asyncio.wait_for(sessions.close(), 60)
    assert (await call)[0][0] == 7
    with pytest.raises(DatabaseUnavailableError, match="were closed"):
        await asyncio.wait_for(late, 60)


async def test_a_server_that_does_not_tell_where_its_log_is_serves_all_the_same(database):
    history = History("SELECT no_such_function()")
    sessions = Sessions(Access(database.dsn).open, 1, history=history)
    assert await sessions.fetch("SELECT 1")
    sessions.terminate()


async def test_a_session_that_became_read_only_is_replaced(sessions):
    await sessions.fetch("SELECT set_config('default_transaction_read_only', 'on', false)")
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await sessions.fetch("CREATE TABLE written ()")
    await sessions.fetch("CREATE TABLE written ()")


async def test_a_session_that_somebody_cleared_is_replaced(sessions):
    await sessions.fetch("SELECT 1")
    await sessions._idle[-1].execute("DEALLOCATE ALL")
    with pytest.raises(DatabaseUnavailableError), translated():
        await sessions.fetch("SELECT 1")
    assert await sessions.fetch("SELECT 1")


async def test_a_plan_whose_result_changed_is_made_again(sessions):
    await sessions.fetch("CREATE TABLE changing (a integer)")
    assert await sessions.fetch("SELECT * FROM changing") == []
    await sessions.fetch("ALTER TABLE changing ADD COLUMN b text")
    await sessions.fetch("INSERT INTO changing VALUES (1, 'b')")
    assert [tuple(row) for row in await sessions.fetch("SELECT * FROM changing")] == [(1, "b")]


async def test_its_settings_are_its_own_whatever_the_database_says(database, connection):
    name = urlsplit(database.dsn).path[1:]
    for setting in ("default_transaction_isolation = 'serializable'", "statement_timeout = '1ms'"):
        await connection.execute(f'ALTER DATABASE "{name}" SET {setting}')
    sessions = await open_pinned_sessions(database.dsn, size=1)
    [row] = await sessions.fetch(
        "SELECT current_setting('transaction_isolation'), current_setting('statement_timeout'),"
        " current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout')"
    )
    assert tuple(row) == ("read committed", "8s", "2500ms", "30s")
    sessions.terminate()


async def test_a_statement_that_waits_for_a_lock_gives_up_before_its_caller(sessions, connection):
    await connection.execute("CREATE TABLE locked ()")
    async with connection.transaction():
        await connection.execute("LOCK TABLE locked")
        with pytest.raises(DatabaseUnavailableError, match="lock timeout"), translated():
            await sessions.fetch("SELECT FROM locked", timeout=60)


@pytest.mark.parametrize(
    ("type_name", "times"), [("float4[]", 1), ("own[]", 2)], ids=["the server's", "the database's"]
)
async def test_what_types_of_the_server_are_made_of_is_asked_once_by_a_process(
    database, connection, monkeypatch, type_name, times
):
    monkeypatch.setattr("asynctaskd.postgres.connection._own_types", {})
    await connection.execute("CREATE TYPE own AS (a integer)")
    asked: list[str] = []
    for _ in range(2):
        async with connect(database.dsn) as opened:
            opened.add_query_logger(lambda record: asked.append(record.query))
            assert await opened.fetchval(f"SELECT $1::{type_name}", []) == []
    assert sum("typeinfo_tree" in query for query in asked) == times


async def test_what_types_are_made_of_is_asked_of_a_server_of_each_version(database, monkeypatch):
    """A row of pg_auth_members has a number below 10,000, and other columns since PostgreSQL 16."""
    monkeypatch.setattr("asynctaskd.postgres.connection._own_types", {})
    asked: list[str] = []
    for major in (15, 16, 15):
        async with connect(database.dsn) as opened:
            version = opened.get_server_version()._replace(major=major)
            monkeypatch.setattr(opened, "get_server_version", lambda version=version: version)
            opened.add_query_logger(lambda record: asked.append(record.query))
            await opened.fetch("SELECT m FROM pg_auth_members AS m")
    assert sum("typeinfo_tree" in query for query in asked) == 2


async def test_where_no_connection_is_to_be_had_the_open_ones_stay(database, connection):
    role = f"{urlsplit(database.dsn).path[1:]}_few"
    await connection.execute(f'CREATE ROLE "{role}" LOGIN CONNECTION LIMIT 1')
    try:
        url = urlsplit(database.dsn)
        dsn = url._replace(netloc=f"{role}@{url.netloc.rpartition('@')[2]}").geturl()
        sessions = await open_sessions(dsn, size=2)
        before = await pid_of(sessions)
        holding = asyncio.create_task(sessions.fetch("SELECT pg_backend_pid(), pg_sleep(0.3)"))
        await begun(sessions)
        with pytest.raises(DatabaseUnavailableError, match="too many connections"):
            await sessions.fetch("SELECT 1")
        assert (await holding)[0][0] == before
        assert await pid_of(sessions) == before
        await sessions.close()
    finally:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role
        )
        await connection.execute(f'DROP ROLE "{role}"')


@LOCAL
async def test_a_cancelled_call_of_a_user_s_does_not_block_the_pool(database, monkeypatch, freeze):
    monkeypatch.setattr(connection, "CANCEL_TIMEOUT", 0.1)
    pool = await open_pool(database.dsn, size=1)

    async def ask(asked: asyncio.Event) -> None:
        async with pool.acquire() as own:
            asked.set()
            await own.fetchval("SELECT 1")

    await freeze(await pool.fetchval(PID))
    asked = asyncio.Event()
    call = asyncio.create_task(ask(asked))
    await asked.wait()
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call], timeout=10)
    assert call.cancelled()
    assert await asyncio.wait_for(pool.fetchval("SELECT 1"), 10) == 1
    pool.terminate()


async def test_users_statements_have_the_server_s_settings(database, connection):
    pool = await open_pool(database.dsn, size=1)
    for _ in range(2):
        for setting in ("enable_seqscan", "statement_timeout", "lock_timeout"):
            assert await pool.fetchval(f"SHOW {setting}") == await connection.fetchval(f"SHOW {setting}")
    pool.terminate()


async def test_a_connection_that_is_closed_waits_a_second_for_a_server_that_says_nothing(proxy):
    opened = await open_connection(proxy.dsn)
    [way] = proxy.freeze()
    async with asyncio.timeout(5):
        await opened.close()
        await way.left.wait()
    assert opened.is_closed()


async def test_a_pool_whose_connections_have_expired_gives_silent_ones_up(proxy):
    pool = await open_pool(proxy.dsn, size=1)
    [way] = proxy.freeze()
    await pool.expire_connections()
    async with asyncio.timeout(5):
        async with pool.acquire() as another:
            assert await another.fetchval("SELECT 1") == 1
        await way.left.wait()
        while any("Connection.close" in repr(task) for task in asyncio.all_tasks()):  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0.01)
    pool.terminate()


async def test_sockets_notice_by_themselves_that_the_other_host_is_gone(proxy):
    async with connect(proxy.dsn) as opened:
        sock = opened._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        wanted = {"TCP_KEEPIDLE": 3, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 5000}
        for name, value in wanted.items():
            if option := getattr(socket, name, None):
                assert sock.getsockopt(socket.IPPROTO_TCP, option) == value


async def test_a_silent_host_costs_its_own_limit_and_is_asked_last_from_then_on(database, monkeypatch):
    monkeypatch.setattr(access, "CONNECT_TIMEOUT", 2.0)  # which the good one keeps on a busy machine too
    async with proxy_to(database.dsn) as silent, proxy_to(database.dsn) as good:
        silent.silence()
        way = Access(f"postgresql://postgres@{silent.address},{good.address}{urlsplit(database.dsn).path}")
        for _ in range(3):
            (await way.open()).terminate()
        assert (silent.accepted, good.accepted) == (1, 3)


async def test_of_several_hosts_the_one_that_takes_writes_is_taken(database, connection):
    name = urlsplit(database.dsn).path[1:]
    async with proxy_to(database.dsn) as one, proxy_to(database.dsn) as other:
        hosts = f"postgresql://postgres@{one.address},{other.address}/{name}?sslmode=disable"
        async with connect(hosts):
            assert (one.accepted, other.accepted) == (1, 0)
        await connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        with pytest.raises(DatabaseUnavailableError, match="takes no writes"):
            await open_connection(hosts)
        assert (one.accepted, other.accepted) == (2, 1)
        async with connect(f"{hosts}&target_session_attrs=any"):
            assert (one.accepted, other.accepted) == (3, 1)


@pytest.mark.parametrize(
    "dsn,hosts",
    [
        ("postgresql://u:p@db:6543/shop", [{}]),
        ("postgresql://u@/shop?host=/run/postgresql", [{}]),
        ("postgresql://u@a,b:6543/shop", [{"host": "a", "port": 5432}, {"host": "b", "port": 6543}]),
        ("postgresql://u@[::1]:1,[::2]/shop", [{"host": "::1", "port": 1}, {"host": "::2", "port": 5432}]),
        ("postgresql:///shop?host=/a,b&port=1,2", [{"host": "/a", "port": 1}, {"host": "b", "port": 2}]),
        ("postgresql:///shop?host=a,b&port=7", [{"host": "a", "port": 7}, {"host": "b", "port": 7}]),
    ],
)
def test_the_hosts_of_a_url(dsn, hosts, monkeypatch):
    monkeypatch.delenv("PGPORT", raising=False)
    assert hosts_of(dsn) == hosts


async def test_what_could_be_read_before_is_an_outage_later(database, monkeypatch):
    sessions = await open_sessions(database.dsn, size=1)
    sessions._idle.pop().terminate()

    async def unreadable(*_, **__):
        raise asyncpg.ClientConfigurationError("a certificate is just being replaced")

    monkeypatch.setattr(access.asyncpg, "connect", unreadable)
    with pytest.raises(DatabaseUnavailableError):
        await sessions.fetch("SELECT 1")


@LOCAL
async def test_a_password_that_was_changed_is_read_again_from_its_file(database, connection, tmp_path):
    role = f"{urlsplit(database.dsn).path[1:]}_pw"
    rules = Path(await connection.fetchval("SHOW hba_file"))
    before, passwords = rules.read_text(), tmp_path / "passwords"  # noqa: ASYNC240
    await connection.execute(f"CREATE ROLE \"{role}\" LOGIN PASSWORD 'one'")
    try:
        rules.write_text(f'local all "{role}" scram-sha-256\n{before}')  # noqa: ASYNC240
        await connection.execute("SELECT pg_reload_conf()")
        while not await connection.fetchval(
            "SELECT count(*) FROM pg_hba_file_rules WHERE $1 = ANY (user_name)", role
        ):
            pass
        passwords.write_text("*:*:*:*:one\n")
        passwords.chmod(0o600)
        url = urlsplit(database.dsn)
        dsn = url._replace(netloc=f"{role}@", query=f"{url.query}&passfile={passwords}").geturl()
        sessions = await until_asked_for_a_password(dsn)
        await connection.execute(f"ALTER ROLE \"{role}\" PASSWORD 'two'")
        sessions._idle.pop().terminate()
        with pytest.raises(DatabaseRefusedError):
            await sessions.fetch("SELECT 1")
        passwords.write_text("*:*:*:*:two\n")
        assert await sessions.fetch("SELECT 1")
        sessions.terminate()

        # A URL with its password, in a file.
        passwords.write_text(url._replace(netloc=f"{role}:two@").geturl())
        sessions = await open_sessions(f"file:{passwords}", size=1)
        await connection.execute(f"ALTER ROLE \"{role}\" PASSWORD 'three'")
        sessions._idle.pop().terminate()
        with pytest.raises(DatabaseRefusedError):
            await sessions.fetch("SELECT 1")
        passwords.write_text(url._replace(netloc=f"{role}:three@").geturl())
        assert await sessions.fetch("SELECT 1")
        sessions.terminate()
    finally:
        rules.write_text(before)  # noqa: ASYNC240
        await connection.execute("SELECT pg_reload_conf()")
        await connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = $1", role
        )
        await connection.execute(f'DROP ROLE "{role}"')


async def until_asked_for_a_password(dsn: str) -> Sessions:
    """A server takes a moment to read its rules again."""
    wrong = dsn.replace("passfile=", "password=wrong&passfile=")
    async with asyncio.timeout(20):
        while True:
            try:
                async with connect(wrong):
                    continue
            except DatabaseRefusedError:
                return await open_sessions(dsn, size=1)


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.DiskFullError("53100"),
        asyncpg.TooManyConnectionsError("53300"),
        asyncpg.CannotConnectNowError("57P03"),
        asyncpg.AdminShutdownError("57P01"),
        asyncpg.QueryCanceledError("57014"),
        asyncpg.LockNotAvailableError("55P03"),
        asyncpg.SerializationError("40001"),
        asyncpg.DeadlockDetectedError("40P01"),
        asyncpg.ReadOnlySQLTransactionError("25006"),
        asyncpg.IdleInTransactionSessionTimeoutError("25P03"),
        asyncpg.PostgresIOError("58030"),
        asyncpg.InternalServerError("XX000"),
        asyncpg.ProtocolViolationError("08P01: query_wait_timeout"),
        asyncpg.TargetServerAttributeNotMatched("a standby"),
        ConnectionResetError(),
        TimeoutError(),
        socket.gaierror(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_passes_by_itself_is_an_outage(error):
    assert isinstance(translate(error), DatabaseUnavailableError)


class Told:
    """What was told of a database's log."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def note(self, _: str, facts: object) -> None:
        self.events.append(str(facts))


@pytest.fixture
def told():
    told = Told()
    detach = attach(told.note, "database.stepped_back")
    yield told
    detach()


def test_a_log_that_goes_on_is_nothing_to_tell(told):
    history = History("")
    for position in [(1, 1, 100), (1, 1, 100), (1, 1, 200), (1, 2, 200), (1, 3, 900)]:
        history.note(LogPosition(*position))
    assert told.events == []


def test_a_server_that_lacks_writes_is_told_once(told):
    history = History("")
    for position in [(1, 1, 100), (1, 1, 5000), (1, 1, 6000), (1, 2, 4000), (1, 2, 4100), (1, 2, 4200)]:
        history.note(LogPosition(*position))
    assert len(told.events) == 1
    assert "'before': '0/1388 on timeline 1', 'now': '0/FA0 on timeline 2'" in told.events[0]


def test_the_newest_bytes_may_be_missing_for_nobody_was_told_that_they_are_safe(told):
    history = History("")
    for position in [(1, 1, 100), (1, 1, 5000), (1, 2, 4000)]:
        history.note(LogPosition(*position))
    assert told.events == []


def test_another_cluster_is_told(told):
    history = History("")
    for position in [(1, 1, 100), (1, 1, 200), (2, 1, 900)]:
        history.note(LogPosition(*position))
    assert "another database cluster" in told.events[0]


async def test_the_log_is_looked_at_on_each_new_connection(database, told, connection):
    class Ahead(History):
        def note(self, found: LogPosition) -> None:
            super().note(LogPosition(found.system, found.timeline, found.bytes + 10**12))
            Ahead.note = History.note  # type: ignore[method-assign]

    question = "SELECT 1::bigint, 1, (pg_current_wal_flush_lsn() - '0/0')::bigint"
    sessions = Sessions(partial(open_connection, database.dsn), 1, history=Ahead(question))
    await sessions.fetch("SELECT 1")
    sessions._idle[-1].terminate()
    await sessions.fetch("SELECT 1")
    assert len(told.events) == 1
    sessions.terminate()


async def test_a_worker_s_own_sessions_ask_where_the_log_is(database, told):
    sessions = await open_pinned_sessions(database.dsn, size=1)
    position = sessions._history._sure
    assert position.timeline >= 1
    assert position.system > 0
    assert position.bytes > 0
    sessions.terminate()
