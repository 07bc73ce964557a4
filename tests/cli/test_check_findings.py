"""Each thing that `asynctaskd check` looks at is brought into disorder, and found."""

from __future__ import annotations

import re
import ssl
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest
import trustme

from asynctaskd import Client, TaskRequest
from asynctaskd.cli.probes import FAILURE, OK, WARNING, capacity, examine, server, timing, upkeep, waste
from asynctaskd.cli.probes.ground import Server
from asynctaskd.config import DaemonConfig
from asynctaskd.errors import InvalidInputError
from asynctaskd.postgres import connection as connections
from asynctaskd.postgres.scratch import with_database
from tests.support.bad_versions import bad_version
from tests.support.divided import divided_or_skipped
from tests.support.findings import findings_at, role_with
from tests.support.pooler import pooler_to

SERVER = Server(
    "18.1", 180001, "UTF8", is_standby=False, is_read_only=False, role="shop", sees_all=True,
    seconds=0.001, skew=0.01,
)  # fmt: skip
UNREACHABLE = "postgresql://shop@127.0.0.1:1/shop"


async def finding(database, check, **options):
    return (await findings_at(database.dsn, **options))[check]


@asynccontextmanager
async def another(database, **settings):
    """Another application's session."""
    opened = await asyncpg.connect(database.dsn, server_settings={"application_name": "reports", **settings})
    try:
        yield opened
    finally:
        await opened.close()


class Asked:
    """What a look at the server itself needs."""

    def __init__(self, **facts) -> None:
        self.server = replace(SERVER, **facts)


class Answering(Asked):
    """A database that gives these answers, by the names of queries."""

    def __init__(self, **answers) -> None:
        super().__init__()
        self._answers = answers

    async def ask(self, name):
        return self._answers[name]


# The server


@pytest.mark.parametrize(
    "look,facts,status",
    [
        (server.version, {"version": "14.9", "number": 140009}, FAILURE),
        (server.encoding, {"encoding": "LATIN1"}, FAILURE),
        (server.primary, {"is_standby": True}, FAILURE),
        (server.primary, {"is_read_only": True}, FAILURE),
        (server.clock, {"skew": 1.5}, WARNING),
        (server.clock, {"skew": -1.5}, WARNING),
    ],
)
async def test_what_is_not_as_it_should_be_has_a_remedy(look, facts, status):
    assert (await look(Asked())).status == OK
    found = await look(Asked(**facts))
    assert found.status == status
    assert found.remedy


async def test_a_database_of_another_encoding_is_a_failure(dsn, connection):
    name = f"asynctaskd_test_{uuid4().hex[:12]}"
    await connection.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    try:
        findings = await findings_at(with_database(dsn, name))
    finally:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert findings["encoding"].status == FAILURE
    assert "SQL_ASCII" in findings["encoding"].message


async def test_transactions_that_are_read_only_are_a_failure(database, connection):
    role = await connection.fetchval("SELECT current_user")
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(
        f'ALTER ROLE "{role}" IN DATABASE "{name}" SET default_transaction_read_only = on'
    )
    found = await finding(database, "primary")
    assert (found.status, found.message) == (FAILURE, "transactions are read-only")


class Transport:
    """An open connection of TLS, as asyncio has it."""

    def __init__(self, peer, tls=None) -> None:
        self._facts = {"peername": peer, "ssl_object": tls}

    def get_extra_info(self, name):
        return self._facts[name]


def encrypted(*, verify: bool, names: bool) -> ssl.SSLObject:
    """The client's end of a handshake that is done, in memory."""
    authority = trustme.CA()
    hosts, clients = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("db.example").configure_cert(hosts)
    authority.configure_trust(clients)
    clients.check_hostname = names
    clients.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = clients.wrap_bio(back, there, server_hostname="db.example")
    host = hosts.wrap_bio(there, back, server_side=True)
    for side in (client, host, client, host):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return client


@pytest.mark.parametrize(
    "peer,tls,status,said",
    [
        ("/run/postgresql/.s.PGSQL.5432", None, OK, "doesn't leave this machine"),
        (("127.0.0.1", 5432), None, OK, "doesn't leave this machine"),
        (("::1", 5432, 0, 0), None, OK, "doesn't leave this machine"),
        (("10.1.2.3", 5432), None, WARNING, "not encrypted"),
        (("10.1.2.3", 5432), {"verify": False, "names": False}, WARNING, "anybody could be the server"),
        (("10.1.2.3", 5432), {"verify": True, "names": False}, WARNING, "its name isn't verified"),
        (
            ("10.1.2.3", 5432),
            {"verify": True, "names": True},
            OK,
            "certificate and name are verified",
        ),
    ],
)
async def test_less_than_verify_full_to_another_machine_is_a_warning(peer, tls, status, said):
    asked = Asked()
    asked.connection = asked
    asked.link = connections.Link.of(Transport(peer, tls and encrypted(**tls)))
    found = await server.tls(asked)
    assert found.status == status
    assert said in found.message
    assert (found.remedy is None) == (status == OK)


async def test_a_pooler_is_found_and_what_it_needs_is_told(database):
    async with pooler_to(database.dsn) as pooler:
        findings = await findings_at(pooler.dsn)
    assert (findings["pooler"].status, findings["notices"].status) == (WARNING, WARNING)
    assert "at least 18 server connections" in str(findings["pooler"].remedy)
    assert "listen_url" in str(findings["notices"].remedy)
    assert findings["schema"].status == OK


@pytest.mark.parametrize("listen,status", [("auto", WARNING), ("on", FAILURE), ("off", OK)])
async def test_notices_that_do_not_come_back_leave_the_poll(database, listen, status):
    settings = {"url": database.dsn, "listen": listen, "listen_url": UNREACHABLE}
    config = DaemonConfig.model_validate({"database": settings})
    [found] = [one async for one in examine(database.dsn, config) if one.check == "notices"]
    assert found.status == status
    assert "by the poll, every 1s" in found.message


# Waste


async def test_an_open_transaction_that_pins_the_horizon_is_named(database, monkeypatch):
    monkeypatch.setattr(waste, "_MOST_SECONDS", 0.0)
    async with another(database) as session, session.transaction(isolation="repeatable_read"):
        await session.fetch("SELECT FROM asynctaskd.tasks")
        found = await finding(database, "horizon")
        pid = session.get_server_pid()
    assert found.status == WARNING
    assert f"session {pid} of postgres as reports (idle in transaction), for " in found.message
    assert f"pg_terminate_backend({pid})" in found.remedy


async def test_a_young_transaction_is_no_reason_to_worry(database):
    async with another(database) as session, session.transaction(isolation="repeatable_read"):
        await session.fetch("SELECT FROM asynctaskd.tasks")
        found = await finding(database, "horizon")
    assert found.status == OK
    assert "as reports (idle in transaction)" in found.message


async def test_a_transaction_of_another_database_pins_nothing_here(database, dsn, monkeypatch):
    monkeypatch.setattr(waste, "_MOST_SECONDS", 0.0)
    session = await asyncpg.connect(dsn)
    async with session.transaction(isolation="repeatable_read"):
        await session.fetch("SELECT FROM pg_class")
        found = await finding(database, "horizon")
    await session.close()
    assert found.status == OK


@pytest.mark.parametrize(
    "kind,seconds,transactions,remedy",
    [
        ("replication slot", None, 2_000_000, "pg_drop_replication_slot"),
        ("prepared transaction", 7200.0, 3, "ROLLBACK PREPARED"),
        ("standby", 7200.0, 3, "hot_standby_feedback"),
    ],
)
async def test_what_else_holds_rows_back_is_named_with_its_own_remedy(kind, seconds, transactions, remedy):
    row = {"kind": kind, "name": "one", "owner": None, "application": None, "state": None, "pid": None}
    rows = [row | {"seconds": seconds, "transactions": transactions}]
    found = await waste.horizon(Answering(check_horizon=rows))
    assert found.status == WARNING
    assert f"{kind} one, for {'2h' if seconds else '2,000,000 transactions'}" in found.message
    assert remedy in found.remedy
    young = [row | {"seconds": seconds and 1.0, "transactions": 10}]
    assert (await waste.horizon(Answering(check_horizon=young))).status == OK


async def test_who_sees_little_of_others_is_told_the_grant(database, connection):
    async with role_with(connection, database.dsn, "USAGE ON SCHEMA asynctaskd") as (role, dsn):
        found = (await findings_at(dsn))["horizon"]
    assert found.status == WARNING
    assert found.remedy.startswith(f"GRANT pg_read_all_stats TO {role}")


async def test_a_queue_of_notices_that_is_not_read_is_a_warning_and_who_holds_it_is_named(
    database, connection, monkeypatch
):
    monkeypatch.setattr(waste, "_MUCH_QUEUED", 1e-6)
    async with another(database) as listener:
        await listener.add_listener("news", lambda *_: None)
        async with listener.transaction():
            await listener.fetch("SELECT 1")
            await connection.execute(
                "SELECT pg_notify('news', repeat('x', 7000) || n) FROM generate_series(1, 200) AS n"
            )
            found = await finding(database, "queue")
    assert found.status == WARNING
    assert "as reports (idle in transaction)" in found.message
    assert "pg_terminate_backend" in found.remedy


# Upkeep


@pytest.mark.parametrize(
    "setting,said,remedy",
    [
        ("autovacuum_enabled = off", "leaves asynctaskd.tasks alone", "RESET (autovacuum_enabled)"),
        (
            "autovacuum_vacuum_threshold = 500000",
            "comes to asynctaskd.tasks after 500,000 dead rows",
            "autovacuum_vacuum_threshold = 5000",
        ),
    ],
)
async def test_a_table_that_autovacuum_comes_to_too_late_is_a_warning(
    database, connection, setting, said, remedy
):
    await connection.execute(f"ALTER TABLE asynctaskd.tasks SET ({setting})")
    found = await finding(database, "autovacuum")
    assert found.status == WARNING
    assert said in found.message
    assert remedy in found.remedy


async def test_a_share_of_a_large_table_is_too_many_dead_rows_if_it_is_hot(database, connection):
    await connection.execute("ALTER TABLE asynctaskd.tasks SET (autovacuum_vacuum_scale_factor = 100)")
    assert (await finding(database, "autovacuum")).status == OK
    await Client(connection).enqueue_many([TaskRequest("report", {})] * 200)
    await connection.fetch("SELECT pg_stat_force_next_flush()")
    found = await finding(database, "autovacuum")
    assert found.status == WARNING
    assert "after 25,000 dead rows" in found.message


async def test_dead_rows_that_nobody_clears_away_are_a_warning(database, connection):
    async with another(database) as session, session.transaction(isolation="repeatable_read"):
        await session.fetch("SELECT FROM asynctaskd.tasks")
        await connection.execute("CREATE TABLE asynctaskd.ours AS SELECT FROM generate_series(1, 100001)")
        await connection.execute("ALTER TABLE asynctaskd.ours SET (autovacuum_vacuum_scale_factor = 0)")
        await connection.execute("DELETE FROM asynctaskd.ours")
        await connection.fetch("SELECT pg_stat_force_next_flush()")
        found = await finding(database, "autovacuum")
    assert found.status == WARNING
    assert "asynctaskd.ours has 100,001 dead rows, it should come after 50" in found.message


async def test_an_autovacuum_that_is_off_is_a_failure_and_one_that_naps_long_a_warning():
    for on, nap, status in ((False, 60, FAILURE), (True, 600, WARNING), (True, 15, OK)):
        ground = Answering(check_autovacuum=[(on, nap)], check_vacuum=[])
        assert (await upkeep.autovacuum(ground)).status == status


async def test_an_index_whose_making_failed_is_a_warning(database, connection):
    await connection.execute("CREATE TABLE asynctaskd.twice AS SELECT 1 AS n FROM generate_series(1, 2)")
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute("CREATE UNIQUE INDEX CONCURRENTLY twice_n ON asynctaskd.twice (n)")
    found = await finding(database, "indexes")
    assert found.status == WARNING
    assert "asynctaskd.twice_n" in found.message
    assert "REINDEX INDEX CONCURRENTLY asynctaskd.twice_n" in found.remedy


async def test_old_partitions_that_are_still_there_are_a_warning(database, connection):
    await connection.execute("SELECT asynctaskd.ensure_finished_partition('2026-01-01')")
    await connection.execute("SELECT asynctaskd.ensure_finished_partition('2026-01-02')")
    await connection.execute(
        "ALTER TABLE asynctaskd.finished_tasks DETACH PARTITION asynctaskd.finished_tasks_20260102"
    )
    found = await finding(database, "partitions")
    assert found.status == WARNING
    assert "finished_tasks_20260101 (attached), finished_tasks_20260102 (detached)" in found.message


# Capacity


def test_the_connections_of_all_workers_are_counted_against_the_server_s(cli, monkeypatch):
    allowed = cli.sql("SELECT current_setting('max_connections')::integer")[0][0]
    monkeypatch.setenv("ASYNCTASKD_DATABASE_POOL_SIZE", str(allowed))
    [found] = [one for one in cli.json("check") if one["check"] == "connections"]
    assert found["status"] == WARNING
    assert f"1 × {allowed + 8} = {allowed + 8} at most" in found["message"]


async def test_a_limit_of_the_database_s_counts_where_it_is_narrower(database, connection):
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT 17')
    found = await finding(database, "connections")
    assert found.status == WARNING
    assert "the database's CONNECTION LIMIT leaves 17, others hold 1" in found.message


@pytest.mark.parametrize("last,status", [(400, OK), (600, WARNING), (950, FAILURE)])
async def test_a_sequence_near_its_end_is_found(database, connection, last, status):
    await connection.execute("ALTER SEQUENCE asynctaskd.task_ids MAXVALUE 1000")
    await connection.fetch("SELECT setval('asynctaskd.task_ids', $1)", last)
    found = await finding(database, "sequences")
    assert found.status == status
    assert ("task_ids" in found.message) == (status != OK)


# Rights


async def test_rights_that_are_missing_are_named(database, connection):
    weak = ("USAGE ON SCHEMA asynctaskd", "SELECT ON ALL TABLES IN SCHEMA asynctaskd")
    async with role_with(connection, database.dsn, *weak) as (_, dsn):
        found = (await findings_at(dsn))["rights"]
    assert found.status == FAILURE
    assert "INSERT on tasks" in found.message


async def test_a_role_that_may_only_enqueue_is_told_apart(database, connection):
    grants = (
        "USAGE ON SCHEMA asynctaskd",
        "USAGE ON SEQUENCE asynctaskd.task_ids",
        "SELECT ON ALL TABLES IN SCHEMA asynctaskd",
        "INSERT, UPDATE, DELETE ON asynctaskd.tasks, asynctaskd.unique_tags",
        "INSERT ON asynctaskd.finished_tasks, asynctaskd.task_events",
        "INSERT, DELETE ON asynctaskd.dependencies",
        "INSERT, UPDATE ON asynctaskd.schedules",
        "UPDATE ON asynctaskd.trees",
    )
    async with role_with(connection, database.dsn, *grants) as (_, dsn):
        found = (await findings_at(dsn))["rights"]
    assert found.status == WARNING
    assert found.message == "this role is for enqueuers, and a worker can't run as it"


async def findings_of(divided, part):
    config = DaemonConfig.model_validate({"database": {"schema": divided.schema}})
    return {one.check: one async for one in examine(divided.logins[part], config)}


@pytest.fixture(scope="module")
def divided(dsn):
    with divided_or_skipped(dsn) as made:
        yield made


@pytest.mark.parametrize(
    "part,status", [("worker", OK), ("enqueuer", WARNING), ("operator", WARNING), ("viewer", WARNING)]
)
async def test_each_role_is_told_what_it_is_for(divided, part, status):
    found = await findings_of(divided, part)
    assert found["rights"].status == status
    assert (f"for {part}s" in found["rights"].message) == (part != "worker")
    assert FAILURE not in {one.status for one in found.values()}
    if status != OK:
        assert f"a login of its own: GRANT {divided.schema}_worker TO it" in found["rights"].remedy


async def test_a_login_without_a_part_is_a_failure(divided):
    assert (await findings_of(divided, "stranger"))["rights"].status == FAILURE


@pytest.mark.parametrize(
    "part,least",
    [("viewer", "sequences"), ("operator", "sequences"), ("enqueuer", "sequences lost names runtime")],
)
async def test_no_login_with_a_part_is_advised_to_get_more_rights(divided, part, least):
    """A viewer that followed it would read all payloads."""
    found = await findings_of(divided, part)
    blind = {name: one for name, one in found.items() if "may not look" in one.message}
    assert set(least.split()) <= set(blind)
    assert part == "enqueuer" or set(blind) == {"sequences"}
    for one in blind.values():
        assert re.fullmatch(
            rf"normal for an? {part}: the login of .*a worker or the schema's owner tells", one.remedy
        )
        assert "GRANT" not in one.message
    # Others' statements may quote payloads, which an operator reads anyway.
    advised = {name for name, one in found.items() if f"TO {divided.schema}_as_" in str(one.remedy)}
    assert advised == ({"horizon"} if part == "operator" else set())


async def test_a_viewer_is_told_of_lost_workers_unknown_names_and_schedules(divided):
    worker = uuid4()
    owner = await asyncpg.connect(divided.admin)
    try:
        await owner.execute(divided.sql(LIVE), worker)
        await owner.execute(
            divided.sql("UPDATE asynctaskd.workers SET expires_at = now() - interval '2 hours'")
        )
        await owner.execute(
            divided.sql("""
                INSERT INTO asynctaskd.tasks (name, payload, status, worker_id, claimed_at, claim_token)
                VALUES ('held', '{}', 'running', $1, now(), 1)
            """),
            worker,
        )
        await owner.execute(
            divided.sql("""
                INSERT INTO asynctaskd.tasks (name, payload, status, run_at, reason)
                VALUES ('mystery', '{}', 'scheduled', now(), 'unknown_name');
                INSERT INTO asynctaskd.schedules (name, task, expression, zone)
                VALUES ('lost', 'report', '@daily', 'Atlantis/Centre')
            """)
        )
        found = await findings_of(divided, "viewer")
    finally:
        await owner.execute(
            divided.sql("TRUNCATE asynctaskd.tasks, asynctaskd.workers, asynctaskd.schedules CASCADE")
        )
        await owner.close()
    assert "holds 1 task" in found["lost"].message
    assert "mystery (1)" in found["names"].message
    assert "Atlantis/Centre" in found["schedules"].message


async def test_a_login_without_a_part_is_told_which_one_to_get(divided):
    """Not `pg_monitor`: without the schema it would be told the same again."""
    found = await findings_of(divided, "stranger")
    blind = {name: one for name, one in found.items() if "may not look" in one.message}
    assert {"sequences", "autovacuum", "indexes", "partitions", "names"} <= set(blind)
    stranger = f"{divided.schema}_as_stranger"
    for name, one in blind.items():
        part = "worker" if name == "rights" else "viewer"
        assert one.remedy == f"GRANT {divided.schema}_{part} TO {stranger}"


# The fleet


LIVE = """
    INSERT INTO asynctaskd.workers (id, name, hostname, pid, version, labels, names, concurrency, expires_at)
    VALUES ($1, $1, 'web1', 17, '0.9', '{}', '{}', 10, now() + interval '30 s')
"""


async def test_a_live_worker_is_seen_with_its_version(database, connection):
    await connection.execute(LIVE, uuid4())
    found = await finding(database, "workers")
    assert (found.status, found.message) == (OK, "1 live, of version 0.9")


async def test_a_worker_that_died_is_a_warning_with_the_tasks_it_holds(database, connection):
    worker = uuid4()
    await connection.execute(LIVE, worker)
    await connection.execute("UPDATE asynctaskd.workers SET expires_at = now() - interval '7200 s'")
    assert (await finding(database, "lost")).status == OK
    await connection.execute(
        "INSERT INTO asynctaskd.tasks (name, payload, status, worker_id, claimed_at, claim_token)"
        " VALUES ('report', '{}', 'running', $1, now(), 1)",
        worker,
    )
    found = await finding(database, "lost")
    assert found.status == WARNING
    # On a busy machine seconds pass.
    assert re.search(r"web1:17 lost 2h(\d+s)? ago, holds 1 task", found.message)


async def test_a_worker_that_is_silent_is_a_warning(database, connection):
    await connection.execute(LIVE, uuid4())
    await connection.execute("UPDATE asynctaskd.workers SET renewed_at = now() - interval '40 s'")
    found = await finding(database, "lost")
    assert found.status == WARNING
    assert "web1:17 silent for 40s" in found.message


async def test_names_that_no_worker_knows_are_a_warning(database, connection):
    await Client(connection).enqueue("mystery")
    await connection.execute(
        "UPDATE asynctaskd.tasks SET reason = 'unknown_name', status = 'scheduled', run_at = now()"
    )
    found = await finding(database, "names")
    assert found.status == WARNING
    assert "mystery (1)" in found.message


async def test_a_runtime_configuration_that_cannot_be_read_is_a_failure(database, connection):
    await connection.execute(bad_version(1, '{"mail": 0}'))
    found = await finding(database, "runtime")
    assert found.status == FAILURE
    assert "version 1 of the runtime configuration can't be read" in found.message
    assert "config rollback" in found.remedy


async def test_workers_that_lag_behind_the_runtime_configuration_are_named(database, connection):
    await connection.execute("INSERT INTO asynctaskd.runtime_configs (version) VALUES (1)")
    assert (await finding(database, "runtime")).status == OK
    await connection.execute(LIVE, uuid4())
    found = await finding(database, "runtime")
    assert found.status == WARNING
    assert "isn't applied by web1:17 (it applies 0)" in found.message


async def test_schedules_in_a_zone_that_nobody_knows_are_a_warning(database, connection):
    await connection.execute("""
        INSERT INTO asynctaskd.schedules (name, task, expression, zone, paused_at, paused_because) VALUES
            ('good', 'report', '@daily', 'Europe/Vienna', NULL, NULL),
            ('resting', 'report', '@daily', 'Nowhere/Land', now(), NULL),
            ('lost', 'report', '@daily', 'Atlantis/Centre', NULL, NULL),
            ('refused', 'report', '@daily', 'UTC', now(), 'its payload doesn''t fit')
    """)
    found = await finding(database, "schedules")
    assert found.status == WARNING
    assert found.message == (
        "can't be kept: lost (unknown time zone 'Atlantis/Centre'), refused (paused: its payload doesn't fit)"
    )


# Durations


@pytest.mark.parametrize(
    "given,status",
    [("40", OK), ("1min", OK), ("infinity", OK), ("39s", WARNING), ("30", FAILURE), ("10s", FAILURE)],
)
def test_whoever_stops_a_worker_must_wait_for_longer_than_its_grace(given, status):
    found = timing.grace(DaemonConfig(), timing.read_stop_timeout(given))
    assert found.status == status
    assert ("terminationGracePeriodSeconds" in str(found.remedy)) == (status != OK)


@pytest.mark.parametrize(
    "written,seconds", [("600", 600), ("10min", 600), ("1min 30s", 90), ("500ms", 0.5), ("1h 2min", 3720)]
)
def test_a_stop_timeout_is_read_as_systemctl_and_kubectl_show_it(written, seconds):
    assert timing.read_stop_timeout(written) == timedelta(seconds=seconds)


@pytest.mark.parametrize("written", ["", "soon", "10 parsecs", "-5", "1.5s"])
def test_a_stop_timeout_that_is_none_is_refused(written):
    with pytest.raises(InvalidInputError, match="--stop-timeout must be a length of time"):
        timing.read_stop_timeout(written)


def test_the_command_takes_the_stop_timeout(cli):
    result = cli.run("check", "--stop-timeout", "5s")
    assert result.exit_code == 1
    assert "a worker is killed 5s after it was told to stop" in result.stdout


def test_the_lease_is_told_in_renewals(cli):
    assert "6 × worker.renew_interval" in cli.run("check").stdout
    assert capacity.connections_of(DaemonConfig()) == 18


async def test_a_secret_file_that_everybody_may_read_is_found_and_one_for_a_group_isnt(database, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("")
    config = DaemonConfig.model_validate(
        {"database": {"url": database.dsn}, "dashboard": {"token_file": tokens}}
    )

    async def found():
        return {one.check: one async for one in examine(UNREACHABLE, config)}["secrets"]

    tokens.chmod(0o644)
    assert (await found()).status == WARNING
    assert f"{tokens} of dashboard.token_file (mode 0644)" in (await found()).message
    assert "defaultMode: 0440" in (await found()).remedy
    tokens.chmod(0o440)
    assert (await found()).status == OK
