from __future__ import annotations

from asynctaskd.postgres.migrate import shipped_migrations

NUMBERS = [migration.number for migration in shipped_migrations()]


def test_a_plan_names_what_is_missing_and_changes_nothing(cli):
    for _ in range(2):
        plan = cli.json("migrate", "--plan", "--schema", "fresh")
        assert plan["plan"] is True
        assert [one["number"] for one in plan["migrations"]] == NUMBERS
        assert plan["migrations"][-1]["version"] == plan["version"]


def test_migrating_applies_once_and_then_finds_nothing_to_do(cli):
    first = cli.run("migrate", "--schema", "fresh")
    assert first.exit_code == 0
    assert first.stdout.splitlines()[0] == "applied 0001_tasks"
    version = first.stdout.split()[-1]
    again = cli.run("migrate", "--schema", "fresh")
    assert (again.exit_code, again.stdout) == (0, f"nothing to do: the schema version is {version}\n")
    assert cli.json("migrate", "--schema", "fresh") == {"plan": False, "migrations": [], "version": version}
    assert cli.run("enqueue", "add", "--schema", "fresh").exit_code == 0


def test_a_plan_for_people_says_what_would_happen(cli):
    lines = cli.run("migrate", "--plan", "--schema", "fresh").stdout.splitlines()
    assert lines[0] == "would apply 0001_tasks"
    assert lines[-1].startswith("the schema version would be ")


def test_a_plan_with_roles_says_whose_everything_would_be(cli):
    fresh = cli.run("migrate", "--roles", "--plan", "--schema", "fresh").stdout
    assert "all that is made would belong to fresh_owner\n" in fresh
    there = cli.run("migrate", "--roles", "--plan").stdout
    assert "tables and all else in the schema to asynctaskd_owner: whoever owned them needs a part\n" in there


def test_a_schema_of_a_newer_major_version_exits_78(cli):
    cli.sql("INSERT INTO asynctaskd.migrations (number, name, major, minor) VALUES (9000, 'future', 99, 0)")
    for args in (["migrate"], ["migrate", "--plan"]):
        result = cli.run(*args)
        assert result.exit_code == 78
        assert "99.0" in result.stderr


def test_a_malformed_schema_name_exits_78(cli):
    result = cli.run("migrate", "--schema", "no-name")
    assert result.exit_code == 78
    assert "--schema" in result.stderr
