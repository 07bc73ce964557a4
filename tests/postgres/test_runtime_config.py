"""The rules of a change are the same in SQL as in Python."""

from __future__ import annotations

import json
import re

import asyncpg
import pytest

from asynctaskd import InvalidInputError
from asynctaskd.config.convergence import Answer, Canary, ConfigReport, report_of
from asynctaskd.control.runtime_config import _request

GOOD = [
    {"promote": True},
    {"rollback_to": 0},
    {"rollback_to": "previous"},
    {"max_strict_percentage": 0},
    {"max_strict_percentage": None},
    {"default_weight": 2**31 - 1},
    {"weights": {}},
    {"weights": {"a": 1, "b:c/d-e.f_G9": 5}, "limits": {"a": 0}},
    {"labels": ["a", "b", "a"], "weights": [1, 2, 3]},
    {"paused_labels": ["a"], "paused_names": []},
    {"default_weight": 1, "expires": "1h30m", "canary": "10m"},
    {"default_weight": 1, "canary": "1s", "canary_worker": "6f1c7c52-0f5a-4a56-9a3e-2f3f0c5d8b11"},
]
BAD = [
    {},
    {"expires": "1h"},
    {"max_strict_percentage": 101},
    {"max_strict_percentage": -1},
    {"max_strict_percentage": True},
    {"max_strict_percentage": 2.5},
    {"max_strict_percentage": "20"},
    {"default_weight": 0},
    {"default_weight": None},
    {"default_weight": 2**31},
    {"weights": {"mail": 0}},
    {"weights": {"mail": "5"}},
    {"weights": {"mail": None}},
    {"weights": "mail"},
    {"weights": None},
    {"weights": {"a b": 1}},
    {"weights": {"": 1}},
    {"weights": {"x" * 129: 1}},
    {"weights": {"default": 1}},
    {"limits": {"__default__": 1}},
    {"limits": {"worker:1": 1}},
    {"limits": {"mail": -1}},
    {"paused_labels": "mail"},
    {"paused_labels": [7]},
    {"paused_names": [""]},
    {"labels": ["a"], "weights": [1, 2]},
    {"labels": ["a"], "weights": {"a": 1}},
    {"labels": ["a"]},
    {"labels": ["a b"], "weights": [1]},
    {"labels": ["a"], "weights": [0]},
    {"default_weight": 1, "expires": "1 hour"},
    {"default_weight": 1, "expires": ""},
    {"default_weight": 1, "canary": "5"},
    {"promote": True, "weights": {}},
    {"promote": False},
    {"rollback_to": -1},
    {"rollback_to": "yesterday"},
]


async def problem(connection, changes):
    return await connection.fetchval(
        "SELECT asynctaskd.runtime_config_problem($1::text::jsonb)", json.dumps(changes)
    )


@pytest.mark.parametrize("changes", GOOD, ids=json.dumps)
async def test_both_take_what_is_right(connection, changes):
    _request(changes)
    assert await problem(connection, changes) is None


@pytest.mark.parametrize("changes", BAD, ids=lambda changes: json.dumps(changes)[:60])
async def test_both_refuse_with_the_same_words(connection, changes):
    with pytest.raises(InvalidInputError) as refused:
        _request(changes)
    assert await problem(connection, changes) == str(refused.value)


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"wieghts": {}}, "unknown runtime configuration field wieghts"),
        ({"version": 5}, "unknown runtime configuration field version"),
        ({"weights": ["mail"]}, "weights must map labels to integers, got"),
        ({"default_weight": 1, "canary": "0s"}, "canary must be more than 0s"),
        ({"default_weight": 1, "canary": "1h", "expires": "1h"}, "canary must be shorter than expires"),
        ({"default_weight": 1, "canary_worker": "x"}, "canary_worker needs canary"),
        ({"default_weight": 1, "canary": "1h", "canary_worker": "x"}, "canary_worker must be the id"),
        ([], "must be an object, got []"),
        (None, "must be an object, got None"),
    ],
)
async def test_what_only_sql_can_be_asked(connection, changes, message):
    assert message in await problem(connection, changes)


@pytest.mark.parametrize(
    "columns,message",
    [
        ({"weights": '{"default": 3}'}, "weights can't name the label default: it is reserved"),
        ({"weights": '{"mail": 0}'}, "weights[mail] must be at least 1, got 0"),
        ({"weights": "[1]"}, "weights must map labels to integers, got [1]"),
        ({"limits": '{"mail": -1}'}, "limits[mail] must be at least 0, got -1"),
        ({"max_strict_percentage": 101}, "max_strict_percentage must be at most 100, got 101"),
        ({"default_weight": 0}, "default_weight must be at least 1, got 0"),
        (
            {"paused_names": ["a b"]},
            "paused_names must name 1 to 128 characters A-Z a-z 0-9 _ . : / -, got 'a b'",
        ),
        ({"version": 0}, "version must be at least 1, got 0"),
        ({"version": 2**31}, "version must be at most 2147483647, got 2147483648"),
    ],
)
async def test_nobody_writes_a_row_that_breaks_a_rule(connection, columns, message):
    given = {"version": 1} | columns
    row = f"({', '.join(given)}) VALUES ({', '.join(f'${n}' for n in range(1, len(given) + 1))})"
    with pytest.raises(asyncpg.PostgresError) as refused:
        await connection.execute(f"INSERT INTO asynctaskd.runtime_configs {row}", *given.values())
    assert (refused.value.sqlstate, str(refused.value)) == ("ATD01", message)


async def test_nor_does_anybody_break_one_that_is_there(connection):
    await connection.execute("INSERT INTO asynctaskd.runtime_configs (version) VALUES (1)")
    with pytest.raises(asyncpg.PostgresError, match="weights must map labels to integers, got None"):
        await connection.execute("UPDATE asynctaskd.runtime_configs SET weights = NULL")


async def test_null_is_refused(connection):
    assert "must be an object" in await connection.fetchval("SELECT asynctaskd.runtime_config_problem(NULL)")


async def test_a_written_duration_is_an_interval(connection):
    assert await connection.fetchval("SELECT asynctaskd.duration_of('1h30m500ms') = interval '5400.5 s'")


# What the workers' answers come to


def answer(number, applied, rejected=None):
    from uuid import UUID

    return Answer(UUID(int=number), f"host:{number}", applied, rejected, rejected and "too new")


def test_it_has_converged_where_nobody_lags():
    report = report_of(3, 3, [answer(1, 3), answer(2, 4)])
    assert (report.status, len(report.applied), report.is_final) == ("converged", 2, True)
    assert report_of(3, 3, []).status == "converged"


def test_a_newer_version_supersedes_it():
    assert report_of(3, 4, [answer(1, 3)]).status == "superseded"


def test_who_lags_is_waited_for_and_who_rejects_is_not():
    waiting = report_of(3, 3, [answer(1, 3), answer(2, 2), answer(3, 2, 3)])
    assert (waiting.status, len(waiting.lagging), len(waiting.rejected)) == ("not_converged", 1, 1)
    assert not waiting.is_final
    assert report_of(3, 3, [answer(1, 3), answer(3, 2, 3)]).is_final


def test_what_was_rejected_before_says_nothing_about_a_later_version():
    assert len(report_of(4, 4, [answer(1, 2, 3)]).lagging) == 1


def test_what_was_never_written_lags_everywhere():
    report = report_of(None, 7, [answer(1, 7)])
    assert (report.version, report.status, len(report.lagging)) == (None, "not_converged", 1)


def test_a_report_survives_its_way_through_the_database():
    from uuid import UUID

    report = report_of(3, 3, [answer(1, 3), answer(2, 2), answer(3, 2, 3)])
    for one in (
        report,
        ConfigReport(version=1, status="converged", canary=Canary(UUID(int=1), "promoted", "x")),
    ):
        assert ConfigReport.from_json(json.loads(json.dumps(one.as_json()))) == one


def test_the_fields_that_sql_knows_are_those_of_python():
    from dataclasses import fields
    from pathlib import Path

    from asynctaskd.config import RuntimeConfig

    source = (Path(__file__).parents[2] / "migrations" / "0010_runtime_config.sql").read_text()
    [known] = re.findall(r"fields constant text\[\] :=\s+'\{(.*)\}'", source)
    assert known.split(",") == [field.name for field in fields(RuntimeConfig) if field.name != "version"]
