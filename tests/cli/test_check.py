from __future__ import annotations

import json

import pytest

from asynctaskd.cli.probes import CHECKS, OK, examination
from asynctaskd.cli.probes.finding import WARNING
from asynctaskd.cli.probes.ground import Look
from tests.support.findings import findings_at, role_with
from tests.support.proxy import proxy_to

UNREACHABLE = "postgresql://shop:sesame@127.0.0.1:1/shop"


def found(cli, *args):
    """The findings by what was checked, whatever the exit code."""
    result = cli.run("check", "--json", *args)
    return {finding["check"]: finding for finding in json.loads(result.stdout)}, result.exit_code


def test_a_good_database_has_nothing_but_a_missing_worker(cli):
    findings, code = found(cli)
    assert code == 0
    assert tuple(findings) == tuple(name for name in CHECKS if name != "access")
    assert {name for name, finding in findings.items() if finding["status"] != OK} == {"workers"}
    assert list(findings["lease"]) == ["check", "status", "message", "remedy"]
    assert "asynctaskd run" in findings["workers"]["remedy"]


def test_for_people_it_prints_one_line_a_finding(cli):
    result = cli.run("check")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == len(CHECKS) - 1
    assert [line.split()[0] for line in lines].count("ok") == len(lines) - 1
    assert result.stderr == ""


def test_an_unreachable_database_is_a_finding_and_exits_69(bare):
    findings, code = found(bare, "--database", UNREACHABLE)
    assert code == 69
    assert list(findings) == ["reachable", "secrets", "dashboard", "lease", "grace"]
    result = bare.run("check", "--database", UNREACHABLE)
    assert result.exit_code == 69
    assert result.stdout.startswith("failure  reachable ")
    assert "sesame" not in result.output


def test_a_refusal_is_a_finding_and_exits_1(cli):
    findings, code = found(cli, "--database", cli.dsn_of(user="no_such_role"))
    assert code == 1
    assert findings["access"]["status"] == "failure"


def test_a_missing_schema_exits_1_and_says_what_to_run(cli):
    findings, code = found(cli, "--schema", "elsewhere")
    assert code == 1
    assert "asynctaskd migrate" in findings["schema"]["remedy"]
    assert "rights" not in findings


def test_another_schema_is_looked_at_by_its_name(cli):
    cli.run("migrate", "--schema", "other")
    cli.sql("ALTER TABLE other.tasks SET (autovacuum_enabled = off)")
    findings, _ = found(cli, "--schema", "other")
    assert {name for name, finding in findings.items() if finding["status"] != OK} == {
        "workers",
        "autovacuum",
    }
    assert "ALTER TABLE other.tasks" in findings["autovacuum"]["remedy"]
    assert found(cli)[0]["autovacuum"]["status"] == OK


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


@pytest.mark.parametrize(
    "dashboard,tokens,said",
    [
        ('host = "0.0.0.0"', None, "the dashboard at 0.0.0.0 could be reached by anybody"),
        ("", "", "dashboard.token_file nowhere can't be read"),
        ("", "read x short\n", "dashboard.token_file tokens, line 1: the secret must have at least 16"),
    ],
)
def test_a_dashboard_that_no_worker_would_start_with_is_a_failure_in_the_same_words(
    cli, tmp_path, dashboard, tokens, said
):
    path = "" if tokens is None else f'token_file = "{"tokens" if tokens else "nowhere"}"'
    (tmp_path / "tokens").write_text(tokens or "")
    (tmp_path / "served.toml").write_text(
        f'[http]\nport = 0\n{dashboard}\n[dashboard]\nmode = "write"\n{path}\n'
    )
    findings, code = found(cli, "--config", "served.toml")
    refused = cli.run("run", "--app", "shop:app", "--config", "served.toml")
    assert (code, refused.exit_code) == (1, 78)
    assert findings["dashboard"]["status"] == "failure"
    assert said in findings["dashboard"]["message"]
    assert refused.stderr == f"error: {findings['dashboard']['message']}\n"


def test_a_dashboard_that_can_be_served_is_fine(cli, monkeypatch):
    assert found(cli)[0]["dashboard"]["status"] == OK
    monkeypatch.setenv("ASYNCTASKD_HTTP_PORT", "0")
    monkeypatch.setenv("ASYNCTASKD_DASHBOARD_MODE", "write")
    assert found(cli)[0]["dashboard"]["status"] == OK


async def test_what_was_found_before_the_database_went_away_counts(database, monkeypatch):
    async with proxy_to(database.dsn) as proxy:

        async def lost(ground):
            proxy.refuse()
            proxy.cut()
            await ground.ask("check_queue")

        looks = [Look("rights", lost) if look.check == "rights" else look for look in examination._ALL]
        monkeypatch.setattr(examination, "_ALL", looks)
        findings = await findings_at(proxy.dsn)
    assert (findings["schema"].status, findings["reachable"].status) == (OK, "failure")
    assert "connections" not in findings


async def test_a_lock_on_its_tables_is_a_finding_of_each_that_needs_them_and_ends_none_of_the_others(
    database, connection
):
    async with connection.transaction():
        await connection.execute("LOCK asynctaskd.tasks, asynctaskd.workers")
        findings = await findings_at(database.dsn)
    assert tuple(findings) == tuple(name for name in CHECKS if name != "access")
    held_up = {name for name, finding in findings.items() if finding.message.startswith("no answer: ")}
    assert held_up == {"connections", "workers", "lost", "names", "runtime", "schedules"}
    assert "pg_stat_activity" in str(findings["names"].remedy)
    assert "lock timeout" in findings["names"].message


async def test_a_frozen_look_is_a_finding_and_the_rest_goes_on_with_another_connection(
    database, freeze, monkeypatch
):
    told = []

    async def frozen(ground):
        await freeze(ground.connection.get_server_pid())
        return await ground.ask("check_queue")

    looks = [Look("horizon", frozen) if look.check == "horizon" else look for look in examination._ALL]
    monkeypatch.setattr(examination, "_ALL", looks)
    findings = await findings_at(database.dsn, tell=told.append)
    assert findings["horizon"].status == WARNING
    assert "no answer within 3 s" in findings["horizon"].message
    assert findings["names"].status == OK
    assert "horizon" in told


async def test_who_may_not_look_is_told_what_to_grant(database, connection):
    fewest = ("USAGE ON SCHEMA asynctaskd", "SELECT ON asynctaskd.migrations")
    async with role_with(connection, database.dsn, *fewest) as (role, dsn):
        findings = await findings_at(dsn)
    blind = {name: finding for name, finding in findings.items() if "may not look" in finding.message}
    assert set(blind) == {"connections", "sequences", "workers", "lost", "names", "runtime", "schedules"}
    assert {finding.status for finding in blind.values()} == {WARNING}
    assert blind["names"].remedy == (
        f"GRANT SELECT ON asynctaskd.workers TO {role}; GRANT SELECT ON asynctaskd.task_list TO {role}"
    )
    assert findings["rights"].status == "failure"


async def test_who_may_not_even_use_the_schema_is_told_so_of_everything_in_it(database, connection):
    async with role_with(connection, database.dsn) as (role, dsn):
        findings = await findings_at(dsn)
    grant = f"GRANT USAGE ON SCHEMA asynctaskd TO {role}"
    version = f"{grant}; GRANT SELECT ON asynctaskd.migrations TO {role}"
    assert (findings["schema"].status, findings["schema"].remedy) == (WARNING, version)
    assert (findings["rights"].status, findings["rights"].remedy) == ("failure", grant)
    assert "may not look" in findings["indexes"].message
    assert findings["indexes"].remedy == grant


def test_a_password_in_an_argument_is_warned_of_and_one_in_a_file_is_not(cli, tmp_path):
    """Everybody on the machine can read the arguments of a program."""
    open_to_all = cli.dsn_of(user="postgres:hunter2")
    told = cli.run("workers", "--database", open_to_all)
    assert told.exit_code == 0
    assert told.stderr.startswith("warning: everybody on this machine can read the password in --database")
    assert "hunter2" not in told.stderr + told.stdout
    path = tmp_path / "url"
    path.write_text(open_to_all)
    kept = cli.run("workers", "--database", f"file:{path}")
    assert (kept.exit_code, kept.stderr) == (0, "")
