"""The command line as processes under the logins of an operator, a viewer and an enqueuer."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from asynctaskd.postgres.scratch import run_script
from tests.support.divided import Divided, divided_or_skipped

SECRET = "4012-8888"
# The task 1 is scheduled after a failure and has a progress, the task 2 has failed for good.
THERE_IS = f"""
    SELECT asynctaskd.ensure_finished_partition(d::date)
    FROM generate_series(now(), now() + '9 days', '1 day') AS d;
    SELECT asynctaskd.enqueue('a', '{{"card": "{SECRET}"}}', labels => '{{mail}}',
                              metadata => '{{"of": "{SECRET}"}}');
    SELECT asynctaskd.enqueue('a', '{{"card": "{SECRET}"}}');
    UPDATE asynctaskd.tasks SET failures = 1, reason = 'error', last_error = 'bad card {SECRET}',
           progress = '{{"percent": 25, "message": "{SECRET}"}}', status = 'scheduled',
           run_at = now() + '1 h';
    SELECT asynctaskd.finish('{{2}}', 'failed', 'error', 'bad card {SECRET}');
    INSERT INTO asynctaskd.task_events (task_id, claim_token, kind, detail)
    VALUES (1, 1, 'retried', '{{"error": "bad card {SECRET}", "reason": "error"}}');
    SELECT asynctaskd.put_schedule('nightly', expression => '@daily', task => 'a',
                                   params => '{{"card": "{SECRET}"}}');
"""

LOOKS = (
    "tasks list", "tasks list --status failed --label mail", "tasks show 1", "tasks show 2", "tasks why 2",
    "tasks timeline 1", "tasks timeline 2", "workers", "config show", "config history", "labels list",
    "cron list", "cron slots nightly", "top --once",
)  # fmt: skip
CHANGES = (
    "tasks cancel 1", "tasks retry 2", "tasks pause 2", "tasks resume 2", "tasks reprioritize --weight 2",
    "tasks pause --name a --yes", "labels set mail --max-running 2 --no-wait",
    "config set default_weight=2 --no-wait", "config set weights.mail=3 --no-wait",
    "config rollback --no-wait",
    "cron pause nightly", "cron resume nightly", "cron change nightly --cron @hourly",
    "cron add other @hourly", "cron remove other", "enqueue a", "tasks purge 1",
)  # fmt: skip
READ_FIRST = ("config set weights.mail=3", "labels set mail --weight 2", "cron change nightly --cron @hourly")


Told = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Logins:
    """Runs commands as processes, with the login of a role."""

    divided: Divided

    def __call__(self, part: str, command: str, *more: str) -> Told:
        environ = {
            "ASYNCTASKD_DATABASE_URL": self.divided.logins[part],
            "ASYNCTASKD_DATABASE_SCHEMA": self.divided.schema,
        }
        return subprocess.run(
            [sys.executable, "-m", "asynctaskd", *command.split(), *more],
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def names(self, told: Told, part: str) -> bool:
        """Whether somebody was refused, and told to be granted that role and no other."""
        granted = re.findall(r"GRANT (\S+) TO", told.stderr)
        return told.returncode == 78 and granted == [f"{self.divided.schema}_{part}"]


@contextmanager
def filled(dsn: str) -> Iterator[Logins]:
    with divided_or_skipped(dsn) as divided:
        script = f"SET ROLE {divided.schema}_owner; {divided.sql(THERE_IS)}"
        asyncio.run(run_script(divided.admin, script))
        yield Logins(divided)


@pytest.fixture(scope="module")
def as_login(dsn: str) -> Iterator[Logins]:
    with filled(dsn) as logins:
        yield logins


pytestmark = pytest.mark.usefixtures("own_surroundings")


def of_json(told: Told) -> Any:
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


@pytest.mark.timeout(300)  # thirty processes, one after the other
@pytest.mark.parametrize("commands", [LOOKS, CHANGES], ids=["looks", "changes"])
def test_an_operator_can_do_all_that_steering_takes(dsn: str, commands: tuple[str, ...]) -> None:
    with filled(dsn) as as_login:
        for command in commands:
            told = as_login("operator", command)
            assert told.returncode == 0, (command, told.stderr, told.stdout)
            assert "not shown" not in told.stdout + told.stderr


def test_an_operator_is_shown_what_tasks_carry(as_login: Logins) -> None:
    for command in ("tasks list", "tasks show 1", "tasks timeline 1", "tasks timeline 2", "cron list"):
        assert SECRET in as_login("operator", command, "--json").stdout, command
    [_, task] = of_json(as_login("operator", "tasks list", "--json"))
    assert task["payload"] == {"card": SECRET}
    assert task["progress"] == {"percent": 25, "message": SECRET}


def test_a_viewer_looks_at_everything_and_is_shown_nothing_that_tasks_carry(as_login: Logins) -> None:
    for command in LOOKS:
        told = as_login("viewer", command, "--json")
        assert told.returncode == 0, (command, told.stderr)
        assert SECRET not in told.stdout + told.stderr, command


def test_a_login_that_was_granted_tasks_by_hand_is_shown_what_they_carry_without_their_events(
    dsn: str,
) -> None:
    with filled(dsn) as as_login:
        divided = as_login.divided
        grant = divided.sql("GRANT SELECT ON asynctaskd.all_tasks TO asynctaskd_viewer")
        asyncio.run(run_script(divided.admin, grant))
        shown = of_json(as_login("viewer", "tasks show 1", "--json"))
    assert shown["payload"] == {"card": SECRET}
    assert shown["events"][0]["detail"] == {"reason": "error"}


def test_a_viewer_is_told_what_isnt_shown(as_login: Logins) -> None:
    told = as_login("viewer", "tasks show 1").stdout
    assert SECRET not in told
    lines = told.splitlines()
    facts = dict(line.split(maxsplit=1) for line in lines if " " in line.strip())
    for name in ("payload", "result", "last_error", "metadata"):
        assert facts[name] == "not shown to this login"
    assert facts["progress"] == "25 %"
    assert "not shown to this login" in as_login("viewer", "tasks timeline 1").stderr


def test_what_a_viewer_isnt_shown_is_absent_from_json(as_login: Logins) -> None:
    left_out = {"payload", "result", "last_error", "metadata"}
    for task in of_json(as_login("viewer", "tasks list", "--json")):
        assert not left_out & task.keys()
    shown, whole = (of_json(as_login(part, "tasks show 1", "--json")) for part in ("viewer", "operator"))
    assert whole.keys() - shown.keys() == left_out
    assert shown["progress"] == {"percent": 25}
    assert shown["events"][0]["detail"] == {"reason": "error"}
    [schedule] = of_json(as_login("viewer", "cron list", "--json"))
    assert not {"params", "options"} & schedule.keys()
    assert schedule["tended"] is True


def test_a_viewer_changes_nothing_and_is_told_which_role_does(as_login: Logins) -> None:
    for command in ("tasks cancel 1", "cron pause nightly", *READ_FIRST):
        assert as_login.names(as_login("viewer", command), "operator"), command
    assert as_login.names(as_login("viewer", "enqueue a"), "enqueuer")


def test_what_reads_before_it_changes_names_the_operators_role(as_login: Logins) -> None:
    for command in READ_FIRST:
        assert as_login.names(as_login("enqueuer", command), "operator"), command
    assert as_login.names(as_login("enqueuer", "tasks list"), "viewer")


@pytest.mark.parametrize("part", ["operator", "viewer"])
def test_check_says_what_the_login_is_for_and_fails_nothing(as_login: Logins, part: str) -> None:
    told = as_login(part, "check", "--json")
    findings = {one["check"]: one for one in json.loads(told.stdout)}
    assert told.returncode == 0, told.stdout
    assert part in findings["rights"]["message"]
