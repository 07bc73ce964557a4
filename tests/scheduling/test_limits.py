"""However a claim is cut: within every limit, nothing idle that could run, and by turns."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from asynctaskd.scheduling.limits import Part, cut

LABELS = ["a", "b", "c"]
GROUPS = ["default", "gold", "blue"]

parts = st.lists(
    st.builds(
        Part,
        group=st.sampled_from(GROUPS),
        limited=st.lists(st.sampled_from(LABELS), unique=True).map(tuple),
        most=st.integers(1, 20),
        weight=st.just(1),
        standing=st.floats(-2, 2),
    ),
    max_size=8,
)
spares = st.fixed_dictionaries({label: st.integers(0, 25) for label in LABELS})


def one(group: str, *limited: str, most: int = 10, weight: int = 1, standing: float = 0.0) -> Part:
    return Part(group, limited, most, weight, standing)


@given(parts, spares)
def test_no_label_is_taken_more_often_than_it_may_and_no_part_more_than_it_would(
    wanted: list[Part], spare: dict[str, int]
) -> None:
    taken: Counter[str] = Counter()
    for part, count in zip(wanted, cut(wanted, spare), strict=True):
        assert 0 <= count <= part.most
        assert part.limited or count == part.most
        for label in part.limited:
            taken[label] += count
    assert all(count <= spare[label] for label, count in taken.items())


@given(parts, spares)
def test_nothing_is_left_that_could_still_be_taken(wanted: list[Part], spare: dict[str, int]) -> None:
    left = dict(spare)
    counts = cut(wanted, spare)
    for part, count in zip(wanted, counts, strict=True):
        for label in part.limited:
            left[label] -= count
    for part, count in zip(wanted, counts, strict=True):
        assert count == part.most or not all(left[label] for label in part.limited)


def test_groups_take_turns_by_weight_where_a_limit_is_tight() -> None:
    wanted = [one("gold", "mail", weight=3), one("blue", "mail", weight=1), one("default", most=7)]
    assert cut(wanted, {"mail": 8}) == [6, 2, 7]


def test_who_is_behind_goes_first() -> None:
    wanted = [one("gold", "mail"), one("blue", "mail", standing=1.0)]
    assert cut(wanted, {"mail": 1}) == [0, 1]


def test_inside_a_group_the_first_part_goes_first() -> None:
    wanted = [one("default", "mail", most=2), one("default", "mail"), one("default", "mail")]
    assert cut(wanted, {"mail": 5}) == [2, 3, 0]


def test_a_label_that_is_full_leaves_what_carries_others_alone() -> None:
    wanted = [one("default", "mail", "eu"), one("default", "eu"), one("gold", "mail")]
    assert cut(wanted, {"mail": 0, "eu": 4}) == [0, 4, 0]
