"""A canary is worse where it fails more often than chance explains."""

from __future__ import annotations

from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctaskd.scheduling.canary import Tally, is_worse


def chance(tried: Tally, others: Tally) -> float:
    """Fisher's exact test, one-sided, by counting."""
    total, failed = tried.finished + others.finished, tried.failed + others.failed
    ways = sum(
        comb(failed, n) * comb(total - failed, tried.finished - n)
        for n in range(tried.failed, min(failed, tried.finished) + 1)
    )
    return ways / comb(total, tried.finished)


@st.composite
def tallies(draw):
    finished = draw(st.integers(0, 60))
    return Tally(finished, draw(st.integers(0, finished)))


@given(tallies(), tallies())
def test_it_is_worse_exactly_where_the_counting_says_so(tried, others):
    probability = chance(tried, others)
    if abs(probability - 0.01) > 1e-9:
        assert is_worse(tried, others) == (probability < 0.01)


@pytest.mark.parametrize(
    "tried,others,worse",
    [
        (Tally(0, 0), Tally(100, 0), False),  # nothing was tried
        (Tally(10, 10), Tally(0, 0), False),  # nobody to compare with
        (Tally(1, 1), Tally(10, 0), False),  # one failure is chance
        (Tally(5, 5), Tally(100, 0), True),
        (Tally(100, 3), Tally(1000, 30), False),
        (Tally(1000, 60), Tally(10_000, 300), True),
        (Tally(2_000_000, 20_000), Tally(50_000_000, 500_000), False),
        (Tally(2_000_000, 21_000), Tally(50_000_000, 500_000), True),
    ],
)
def test_what_is_worse(tried, others, worse):
    assert is_worse(tried, others) == worse


def test_what_was_added_since_is_never_negative():
    assert Tally(10, 2).since(Tally(4, 1)) == Tally(6, 1)
    assert Tally(1, 0).since(Tally(4, 1)) == Tally(0, 0)
    assert Tally(1, 0) + Tally(4, 1) == Tally(5, 1)
