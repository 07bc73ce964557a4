"""The benchmark of steering, as far as it can be judged without measuring anything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from asynctaskd.config import WorkerConfig
from benchmarks.process import WorkerError
from benchmarks.steering import QUESTIONS, wanted
from benchmarks.steering.answers import Answer, as_json
from benchmarks.steering.converge import UNHEARD
from benchmarks.steering.limit import most_at_once, share_in_use
from benchmarks.steering.options import QUICK, Sizes, parse
from benchmarks.steering.question import Bound, Finding
from benchmarks.steering.shares import WINDOW, deviation, first_shown

README = Path(__file__).parents[2] / "benchmarks" / "README.md"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_the_page_names_every_question(question):
    assert f"| `{question.name}` |" in README.read_text()


def test_questions_can_be_chosen():
    assert wanted(()) == list(QUESTIONS)
    assert [question.name for question in wanted(("tree", "busy"))] == ["busy", "tree"]
    with pytest.raises(SystemExit, match="--only must be one of .*, got 'speed'"):
        wanted(("speed",))


def test_a_number_of_rounds_wins_over_what_quick_changes():
    assert parse(["--quick"]).sizes == QUICK
    assert parse(["--quick", "--rounds", "4"]).sizes.rounds == 4
    assert parse([]).sizes == Sizes()


def test_only_a_whole_run_is_a_record():
    assert not parse(["--rounds", "1"]).is_partial
    assert parse(["--quick"]).is_partial
    assert parse(["--only", "limit, why"]).is_partial
    assert parse(["--only", "limit, why"]).only == ("limit", "why")


def test_a_span_that_begins_where_another_ends_doesnt_overlap_it():
    assert most_at_once([(0, 1), (1, 2), (1, 3)]) == 2


def test_spans_inside_each_other_are_counted_together():
    assert most_at_once([(0, 9), (1, 8), (2, 3), (4, 5)]) == 3


def test_what_runs_after_the_last_claim_isnt_held_against_the_limit():
    assert share_in_use([(0, 2), (0, 1), (2, 90)], most=2) == 0.75
    assert share_in_use([(0, 4), (1, 3)], most=1) == 1


def test_shares_are_compared_over_all_groups():
    weights = {"mail": 3, "default": 1}
    assert deviation(["mail", "mail", "mail", "default"], weights) == 0
    assert deviation(["mail"] * 4, weights) == 25
    assert deviation(["default"] * 4, weights) == 75


def test_new_weights_are_shown_at_the_end_of_the_first_window_that_goes_by_them():
    groups = ["mail"] * WINDOW + ["mail", "orders"] * WINDOW
    claims = [(NOON + timedelta(seconds=n), group) for n, group in enumerate(groups)]
    shown = first_shown(claims, {"mail": 1, "orders": 1})
    # One claim in ten may be another group's than it should be.
    assert (shown - NOON).total_seconds() == pytest.approx(WINDOW * 1.9, abs=2)


def test_weights_that_are_never_shown_are_a_failure():
    with pytest.raises(WorkerError, match=r"no 200 of 300 claims show the new weights"):
        first_shown([(NOON, "mail")] * 300, {"mail": 1, "orders": 1})


def test_a_bound_holds_of_each_value_or_of_their_median():
    assert not Bound(most=1).holds([0.5, 0.6, 1.5])
    assert Bound(most=1, of_median=True).holds([0.5, 0.6, 1.5])
    assert not Bound(least=90).holds([95, 80])
    assert [str(Bound(most=0.2, of_median=True)), str(Bound(least=3_000))] == ["median ≤ 0.2", "≥ 3,000"]


def test_without_listen_the_bound_is_the_workers_own_renewal_and_a_second():
    assert UNHEARD.most == WorkerConfig().renew_interval.total_seconds() + 1


def test_rounds_become_one_row_with_its_verdict():
    found = [Finding("a case", "s", seconds, Bound(most=1)) for seconds in (0.2, 1.7, 0.4)]
    answer = Answer(QUESTIONS[0], {"date": "2026-01-01"}, [*found, Finding("a case", "ms", 3.0)])
    rows = as_json({"converge": answer})["converge"]["rows"]
    spread = {"median": 0.4, "min": 0.2, "max": 1.7, "values": [0.2, 1.7, 0.4]}
    assert rows[0] == {"case": "a case", "figure": "s", "bound": "≤ 1", "verdict": "NOT MET"} | spread
    assert rows[1] == {"case": "a case", "figure": "ms", "median": 3, "min": 3, "max": 3, "values": [3]}
