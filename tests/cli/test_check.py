from __future__ import annotations

import json
from dataclasses import replace

import pytest

from asynctaskd.cli import probes
from asynctaskd.cli.probes import FAILURE, OK, WARNING, Server, clock, encoding, primary, reachable
from asynctaskd.config import DaemonConfig
from asynctaskd.errors import DatabaseUnavailableError
from tests.support.bad_versions import bad_version
from tests.support.pooler import pooler_to

SERVER = Server("18.1", 180001, "UTF8", is_standby=False, is_read_only=False, seconds=0.001, skew=0.01)
UNREACHABLE = "postgresql://shop:sesame@127.0.0.1:1/shop"


def found(cli, *args):
    """The findings by what was checked, whatever the exit code."""
    result = cli.run("check", "--json", *args)
    return {finding["check"]: finding for finding in json.loads(result.stdout)}, result.exit_code


def test_a_good_database_has_nothing_but_a_missing_worker(cli):
    findings, code = found(cli)
    assert code == 0
    assert list(findings) == [
        "reachable", "encoding", "primary", "clock", "pooler", "notices", "schema", "rights", "workers",
        "connections", "names", "runtime", "lease",
    ]  # fmt: skip
    assert {name for name, finding in findings.items() if finding["status"] != OK} == {"workers"}
    assert list(findings["lease"]) == ["check", "status", "message", "remedy"]
    assert "asynctaskd run" in findings["workers"]["remedy"]


def test_for_people_it_prints_one_line_a_finding(cli):
    result = cli.run("check")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()].count("ok") == 12
    assert len(result.stdout.splitlines()) == 13


def test_a_runtime_configuration_that_cannot_be_read_is_a_failure(cli):
    cli.sql(bad_version(1, '{"mail": 0}'))
    findings, code = found(cli)
    assert (code, findings["runtime"]["status"]) == (1, FAILURE)
    assert "version 1 of the runtime configuration can't be read" in findings["runtime"]["message"]
    assert "config rollback" in findings["runtime"]["remedy"]


def test_a_live_worker_is_seen(cli, start):
    process = start("run", "--app", "shop:app")
    process.await_line("worker.started")
    findings, _ = found(cli)
    assert (findings["workers"]["status"], findings["workers"]["message"]) == (OK, "1 live")


def test_an_unreachable_database_is_a_finding_and_exits_69(bare):
    findings, code = found(bare, "--database", UNREACHABLE)
    assert code == 69
    assert findings["reachable"]["status"] == FAILURE
    result = bare.run("check", "--database", UNREACHABLE)
    assert result.exit_code == 69
    assert result.stdout.startswith("failure  reachable ")
    assert "sesame" not in result.output


def test_a_refusal_is_a_finding_and_exits_1(cli):
    findings, code = found(cli, "--database", cli.dsn_of(user="no_such_role"))
    assert code == 1
    assert findings["access"]["status"] == FAILURE


def test_a_missing_schema_exits_1_and_says_what_to_run(cli):
    findings, code = found(cli, "--schema", "elsewhere")
    assert code == 1
    assert "asynctaskd migrate" in findings["schema"]["remedy"]
    assert "rights" not in findings


def test_missing_rights_are_named(cli):
    role = cli.sql("SELECT current_database() || '_weak'")[0][0]
    cli.sql(f'CREATE ROLE "{role}"')
    try:
        cli.sql(f'GRANT USAGE ON SCHEMA asynctaskd TO "{role}"')
        cli.sql(f'GRANT SELECT ON ALL TABLES IN SCHEMA asynctaskd TO "{role}"')
        findings, code = found(cli, "--database", cli.dsn_of(role=role))
    finally:
        cli.sql(f'DROP OWNED BY "{role}"')
        cli.sql(f'DROP ROLE "{role}"')
    assert code == 1
    assert findings["rights"]["status"] == FAILURE
    assert "INSERT on tasks" in findings["rights"]["message"]


def test_names_that_no_worker_knows_are_a_warning(cli):
    cli.enqueue("mystery")
    cli.sql("UPDATE asynctaskd.tasks SET reason = 'unknown_name', status = 'scheduled', run_at = now()")
    findings, code = found(cli)
    assert (code, findings["names"]["status"]) == (0, WARNING)
    assert "mystery (1)" in findings["names"]["message"]


@pytest.mark.parametrize(
    "listen,status,exit_code", [("auto", WARNING, 0), ("on", FAILURE, 1), ("off", OK, 0)]
)
def test_notices_that_do_not_come_back_leave_the_poll(cli, monkeypatch, listen, status, exit_code):
    monkeypatch.setenv("ASYNCTASKD_DATABASE_LISTEN", listen)
    monkeypatch.setenv("ASYNCTASKD_DATABASE_LISTEN_URL", UNREACHABLE)
    findings, code = found(cli)
    assert (findings["notices"]["status"], code) == (status, exit_code)
    assert "by the poll, every 1s" in findings["notices"]["message"]


@pytest.mark.parametrize(
    "look,server,status",
    [
        (reachable, replace(SERVER, version="14.9", number=140009), FAILURE),
        (encoding, replace(SERVER, encoding="LATIN1"), FAILURE),
        (primary, replace(SERVER, is_standby=True), FAILURE),
        (primary, replace(SERVER, is_read_only=True), FAILURE),
        (clock, replace(SERVER, skew=1.5), WARNING),
        (clock, replace(SERVER, skew=-1.5), WARNING),
    ],
)
def test_what_is_not_as_it_should_be_has_a_remedy(look, server, status):
    assert look(SERVER).status == OK
    finding = look(server)
    assert finding.status == status
    assert finding.remedy


def test_the_connections_of_all_workers_are_counted_against_the_server_s(cli, monkeypatch):
    allowed = cli.sql("SELECT current_setting('max_connections')::integer")[0][0]
    assert found(cli)[0]["connections"]["status"] == OK
    monkeypatch.setenv("ASYNCTASKD_DATABASE_POOL_SIZE", str(allowed))
    findings, code = found(cli)
    assert (findings["connections"]["status"], code) == (WARNING, 0)
    assert f"1 × {allowed + 8} = {allowed + 8} at most" in findings["connections"]["message"]


async def test_a_pooler_is_found_and_what_it_needs_is_told(database, monkeypatch):
    async with pooler_to(database.dsn) as pooler:
        config = DaemonConfig.model_validate({"database": {"url": pooler.dsn}})
        findings = {finding.check: finding for finding in await probes.probe(pooler.dsn, config)}
    assert (findings["pooler"].status, findings["notices"].status) == (WARNING, WARNING)
    assert "at least 18 server connections" in str(findings["pooler"].remedy)
    assert "listen_url" in str(findings["notices"].remedy)
    assert findings["schema"].status == OK


def test_a_parameter_nobody_knows_exits_78_and_is_named(cli):
    result = cli.run("check", "--database", cli.dsn_of(bogus="1"))
    assert result.exit_code == 78
    assert "bogus" in result.stderr
    assert cli.run("tasks", "list", "--database", cli.dsn_of(bogus="1")).exit_code == 78


def test_a_bad_configuration_exits_78(cli, tmp_path):
    (tmp_path / "bad.toml").write_text('[worker]\nlease = "10s"\n')
    result = cli.run("check", "--config", "bad.toml")
    assert result.exit_code == 78
    assert "worker.lease must be at least 3" in result.stderr


def test_what_was_found_before_the_database_went_away_counts(cli, monkeypatch):
    async def lost(*_):
        raise DatabaseUnavailableError("the database is unavailable: gone")

    monkeypatch.setattr(probes, "rights", lost)
    findings, code = found(cli)
    assert code == 69
    assert (findings["schema"]["status"], findings["reachable"]["status"]) == (OK, FAILURE)
