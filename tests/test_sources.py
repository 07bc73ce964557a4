"""The page on five other systems: each of their features has a test here, or a reason why it has none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reference" / "sources.md"

# How many features each system has on the page, at least: none is taken off it unnoticed.
FEATURES = {
    "Anclax": 133,
    "Anchor": 12,
    "asyncjobs": 52,
    "The task module of Uber's fx": 31,
    "async_task": 25,
}


class Row(NamedTuple):
    """One feature: under which system, what it is called here, and what holds it."""

    system: str
    feature: str
    here: str
    held: str


def rows() -> list[Row]:
    found = []
    for section in re.split(r"^## ", PAGE.read_text("utf8"), flags=re.MULTILINE)[1:]:
        system = section.partition("\n")[0]
        lines = [line for line in section.splitlines() if line.startswith("| ")]
        cells = [line.strip("| ").split(" | ") for line in lines if line != "| feature | here | tests |"]
        assert all(len(row) == 3 for row in cells), [row for row in cells if len(row) != 3]
        found += [Row(system, *row) for row in cells]
    return found


ROWS = rows()


def is_defined(test: str) -> bool:
    file, _, name = test.partition("::")
    path = TESTS / file
    return path.is_file() and bool(
        re.search(rf"^( {{4}})?(async )?def {name}\(", path.read_text("utf8"), re.MULTILINE)
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.system}: {row.feature}")
def test_every_feature_has_tests_that_exist_or_a_reason(row: Row) -> None:
    tests = re.findall(r"`([\w/]+\.py::test_\w+)`", row.held)
    assert [test for test in tests if not is_defined(test)] == []
    if tests:
        assert row.held == ", ".join(f"`{test}`" for test in tests)
    else:
        assert row.held.startswith("no counterpart: ")


@pytest.mark.parametrize("system", FEATURES)
def test_no_feature_has_left_the_page(system: str) -> None:
    features = [row.feature for row in ROWS if row.system == system]
    assert len(features) >= FEATURES[system]
    assert len(features) == len(set(features))


def test_the_page_knows_no_other_system() -> None:
    assert {row.system for row in ROWS} == set(FEATURES)
