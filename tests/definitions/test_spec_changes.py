"""What a changed file may no longer read of what the old one accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from asynctaskd.definitions.spec.changes import breaking_changes
from asynctaskd.definitions.spec.tasks import load_spec


@pytest.fixture
def changes(tmp_path: Path):
    """The changes between two files of that text: field and problem each."""

    def between(old: str, new: str) -> list[tuple[str, str]]:
        specs = []
        for name, text in (("old", old), ("new", new)):
            path = tmp_path / f"{name}.yaml"
            path.write_text(text)
            specs.append(load_spec(path))
        return [(change.field, change.problem) for change in breaking_changes(*specs)]

    return between


def task(properties: str = "", required: str = "", more: str = "") -> str:
    parameters = f"{{type: object, properties: {{{properties}}}, required: [{required}]{more}}}"
    return f"tasks: [{{name: x, parameters: {parameters}}}]"


def test_a_removed_task_is_a_change_and_a_new_one_is_none(changes):
    both = "tasks: [{name: x}, {name: y}]"
    assert changes(both, "tasks: [{name: x}]") == [("", "was removed")]
    assert changes("tasks: [{name: x}]", both) == []


# What was, what is, and what is told of it: one property `a`, which is required in both.
VALUES = [
    ("{type: integer}", "{type: integer}", None),
    ("{type: integer}", "{}", None),
    ("{type: integer}", "{type: number}", None),
    ("{type: integer, format: int32}", "{type: integer, format: int64}", None),
    ("{type: integer, format: int64}", "{type: integer}", None),
    ("{type: string, format: date}", "{type: string}", None),
    ("{type: string}", "{type: string, nullable: true}", None),
    ("{enum: [a]}", "{enum: [a, b]}", None),
    ("{enum: [a]}", "{type: string}", None),
    ("{enum: [a]}", "{type: string, maxLength: 1}", None),
    ("{type: integer, multipleOf: 4}", "{type: integer, multipleOf: 2}", None),
    ("{type: string, maxLength: 3}", "{type: string, maxLength: 4}", None),
    ("{type: string, minLength: 3}", "{type: string}", None),
    ("{type: array, items: {type: integer}}", "{type: array}", None),
    ("{type: string}", "{type: string, default: x}", None),
    ("{type: string}", "{type: integer}", "was of type string, is of type integer"),
    ("{type: number}", "{type: integer}", "was of type number, is of type integer"),
    ("{}", "{type: string}", "was of type any, is of type string"),
    ("{type: string, nullable: true}", "{type: string}", "may no longer be null"),
    ("{type: integer}", "{type: integer, format: int64}", "is of format int64, was of none"),
    ("{type: integer, format: int64}", "{type: integer, format: int32}",
     "is of format int32, was of int64"),
    ("{type: string}", "{type: string, format: date}", "is of format date, was of none"),
    ("{type: string}", "{enum: [a, b]}", "may only be one of ['a', 'b']"),
    ("{enum: [a, b, c]}", "{enum: [a]}", "may no longer be one of ['b', 'c']"),
    ("{enum: [a, bcd]}", "{type: string, maxLength: 1}", "may no longer be one of ['bcd']"),
    ("{type: integer, multipleOf: 2}", "{type: integer, multipleOf: 4}", "has multipleOf 4, had 2"),
    ("{type: string}", "{type: string, maxLength: 3}", "has maxLength 3, had none"),
    ("{type: string, maxLength: 4}", "{type: string, maxLength: 3}", "has maxLength 3, had 4"),
    ("{type: integer, minimum: 1}", "{type: integer, minimum: 2}", "has minimum 2, had 1"),
    ("{type: string, pattern: a}", "{type: string, pattern: b}", "has pattern b, had a"),
]  # fmt: skip


@pytest.mark.parametrize("old,new,problem", VALUES)
def test_what_a_value_may_no_longer_be_is_a_change(changes, old: str, new: str, problem: str | None):
    expected = [] if problem is None else [("a", problem)]
    assert changes(task(f"a: {old}", "a"), task(f"a: {new}", "a")) == expected


OBJECTS = [
    ("", "", "a: {type: string}", "", []),
    ("", "", "a: {type: string}", "a", [("a", "is required, and new")]),
    ("a: {type: string}", "", "a: {type: string}", "a",
     [("a", "is required, and wasn't"), ("a", "may no longer be null")]),
    ("a: {type: string}", "a", "a: {type: string}", "", []),
    # A model writes what is left out as null.
    ("a: {type: string}", "", "a: {type: string, default: x}", "", [("a", "may no longer be null")]),
    ("a: {type: string}", "", "a: {type: string, default: x, nullable: true}", "", []),
    ("a: {type: string, default: x}", "", "a: {type: string}", "", []),
    ("a: {type: string}", "", "", "", []),
    ("a: {type: array, items: {type: integer}}", "a", "a: {type: array, items: {type: string}}", "a",
     [("a[]", "was of type integer, is of type string")]),
    ("a: {type: object}", "a", "a: {type: object, additionalProperties: {type: string}}", "a",
     [("a.*", "was of type any, is of type string")]),
    ("a: {type: object, properties: {b: {type: string}}}", "a",
     "a: {type: object, properties: {b: {type: integer}, c: {}}, required: [c]}", "a",
     [("a.b", "was of type string, is of type integer"), ("a.c", "is required, and new")]),
]  # fmt: skip


@pytest.mark.parametrize("old,required,new,then_required,expected", OBJECTS)
def test_what_an_object_may_no_longer_hold_is_a_change(
    changes, old: str, required: str, new: str, then_required: str, expected: list[tuple[str, str]]
):
    assert changes(task(old, required), task(new, then_required)) == expected


def test_an_object_that_refuses_what_it_passed_over_is_a_change(changes):
    closed = ", additionalProperties: false"
    assert changes(task("a: {}"), task("a: {}", more=closed)) == [("", "other properties are refused")]
    assert changes(task("a: {}", more=closed), task("b: {}", more=closed)) == [
        ("a", "was removed, and what isn't defined is refused")
    ]
    assert changes(task("a: {}", more=closed), task("a: {}")) == []


def test_parameters_where_there_were_none_are_a_change_if_they_are_required(changes):
    without = "tasks: [{name: x}]"
    assert changes(without, task("a: {}")) == []
    assert changes(without, task("a: {}", "a")) == [("a", "is required, and new")]
    assert changes(task("a: {}"), without) == [
        ("a", "was removed, and what isn't defined is refused"),
        ("", "other properties are refused"),
    ]
