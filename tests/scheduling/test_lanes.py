import math
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctaskd.scheduling.lanes import DEFAULT_GROUP, LaneState, group_of, settle, share, strict_cap

CAPS = {
    1: [0, 0, 1, 1, 1, 1, 1, 1, 1, 1],
    2: [0, 0, 1, 1, 1, 1, 1, 2, 2, 2],
    3: [0, 0, 1, 1, 1, 1, 2, 3, 3, 3],
    10: [0, 0, 1, 1, 2, 4, 5, 10, 10, 10],
    100: [0, 0, 1, 10, 20, 33, 50, 99, 100, 100],
}
PERCENTAGES = [-5, 0, 1, 10, 20, 33, 50, 99, 100, 150]

groups = st.sampled_from(["a", "b", "c", "d", "e", "f", "default"])
weightings = st.dictionaries(groups, st.integers(1, 100), min_size=1)
chunks = st.lists(st.sampled_from([1, 2, 3, 7, 50, 1000]), min_size=1, max_size=60)


def pick(
    state: LaneState, weights: Mapping[str, int], chunk_sizes: Collection[int], taken: Counter[str]
) -> LaneState:
    """All groups of `weights` have backlog and give what they are asked for."""
    for slots in chunk_sizes:
        quotas = share(state, weights, weights.keys(), slots)
        assert sum(quotas.values()) == slots
        taken.update(quotas)
        state = settle(state, weights, quotas, weights.keys())
    return state


def distance(taken: Mapping[str, int], weights: Mapping[str, int], picks: float) -> float:
    """How many picks the farthest group is away from its ideal share."""
    total = sum(weights.values())
    return max(abs(taken.get(group, 0) - picks * weight / total) for group, weight in weights.items())


@pytest.mark.parametrize(
    "concurrency, percentage, cap",
    [(n, percentage, cap) for n in CAPS for percentage, cap in zip(PERCENTAGES, CAPS[n], strict=True)],
)
def test_the_strict_cap_is_the_percentage_rounded_up(concurrency: int, percentage: int, cap: int) -> None:
    assert strict_cap(concurrency, percentage) == cap


@given(st.integers(1, 10_000), st.integers(1, 99))
def test_a_strict_cap_within_the_range_leaves_at_least_one_slot_to_the_strict_lane(
    n: int, percent: int
) -> None:
    assert strict_cap(n, percent) == math.ceil(n * percent / 100) >= 1


@pytest.mark.parametrize(
    "labels, group",
    [
        ([], DEFAULT_GROUP),
        (["other"], DEFAULT_GROUP),
        (["mail"], "mail"),
        (["web", "mail"], "mail"),
        (["web", "other"], "web"),
        (["a", "B"], "B"),
        (["a", "a:b", "a-b"], "a"),
        (["default", "mail"], "mail"),
        (["default"], DEFAULT_GROUP),
    ],
)
def test_a_task_belongs_to_the_smallest_of_its_weighted_labels_by_bytes(
    labels: list[str], group: str
) -> None:
    weights = dict.fromkeys(["mail", "web", "a", "B", "a:b", "a-b", DEFAULT_GROUP], 1)
    assert group_of(labels, weights) == group


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), unique=True, min_size=1))
def test_the_order_of_labels_is_that_of_their_bytes(labels: list[str]) -> None:
    weights = dict.fromkeys(labels, 1)
    expected = min(
        (label for label in labels if label != DEFAULT_GROUP), key=str.encode, default=DEFAULT_GROUP
    )
    assert group_of(labels, weights) == expected


@pytest.mark.parametrize("chunk", [1, 7, 40, 1000])
@pytest.mark.parametrize(
    "weights",
    [
        {"a": 5, "b": 1, "default": 1},
        {"a": 3, "b": 2, "default": 1},
        {"a": 7, "default": 2},
        {"a": 1, "b": 1, "default": 1},
        {"a": 100, **{f"light{n}": 1 for n in range(100)}},
        {"a": 1_000_003, "b": 7},
    ],
    ids=lambda weights: ":".join(map(str, list(weights.values())[:3])),
)
def test_over_4000_picks_every_group_gets_its_share_whatever_the_chunks(
    weights: dict[str, int], chunk: int
) -> None:
    taken: Counter[str] = Counter()
    sizes = [chunk] * (4000 // chunk) + [4000 % chunk] * bool(4000 % chunk)
    pick(LaneState(), weights, sizes, taken)
    assert taken.total() == 4000
    assert distance(taken, weights, 4000) < 1


@pytest.mark.parametrize(
    "weights, expected",
    [
        ({"a": 5, "b": 2, "c": 1}, {"a": 2500, "b": 1000, "c": 500}),
        ({"a": 3, "b": 1}, {"a": 3000, "b": 1000}),
        ({"a": 1, "b": 1}, {"a": 2000, "b": 2000}),
        ({"a": 7, "b": 2, "c": 1}, {"a": 2800, "b": 800, "c": 400}),
    ],
)
def test_whole_rounds_are_exact(weights: dict[str, int], expected: dict[str, int]) -> None:
    taken: Counter[str] = Counter()
    assert pick(LaneState(), weights, [1] * 4000, taken) == LaneState()
    assert taken == expected


@given(weightings, chunks)
def test_on_the_way_no_group_is_a_whole_pick_away_from_its_share(
    weights: dict[str, int], sizes: list[int]
) -> None:
    state, taken = LaneState(), Counter[str]()
    for slots in sizes:
        state = pick(state, weights, [slots], taken)
        assert distance(taken, weights, taken.total()) < 1


@given(weightings, chunks, st.integers(1, 5))
def test_rounds_from_the_start_give_each_group_exactly_its_weight(
    weights: dict[str, int], sizes: list[int], rounds: int
) -> None:
    whole = rounds * sum(weights.values())
    taken: Counter[str] = Counter()
    state = LaneState()
    for slots in (*sizes, whole):
        state = pick(state, weights, [min(slots, whole - taken.total())], taken)
    assert taken == {group: rounds * weight for group, weight in weights.items()}


@given(weightings, chunks, st.integers(1, 5))
def test_rounds_from_anywhere_give_each_group_its_weight_but_for_one_pick(
    weights: dict[str, int], sizes: list[int], rounds: int
) -> None:
    state = pick(LaneState(), weights, sizes, Counter())
    taken: Counter[str] = Counter()
    pick(state, weights, [rounds * sum(weights.values())], taken)
    assert all(abs(taken[group] - rounds * weight) <= 1 for group, weight in weights.items())


def test_picks_alternate_instead_of_coming_in_runs() -> None:
    weights, state, order = {"a": 3, "b": 1, "default": 2}, LaneState(), ""
    for _ in range(12):
        [(group, _)] = (quotas := share(state, weights, weights, 1)).items()
        order += group[0]
        state = settle(state, weights, quotas, weights)
    assert order == "adadab" * 2


@given(weightings, st.sets(groups), st.integers(-1, 2000))
def test_all_slots_are_given_out_and_only_to_groups_with_backlog(
    weights: dict[str, int], backlog: set[str], slots: int
) -> None:
    quotas = share(LaneState(), weights, backlog, slots)
    assert quotas.keys() <= backlog
    assert sum(quotas.values()) == (max(slots, 0) if backlog else 0)
    assert all(quota > 0 for quota in quotas.values())


@given(st.randoms(use_true_random=False), weightings)
def test_all_slots_are_given_out_and_nothing_grows_whatever_comes_and_goes(
    rng: random.Random, weights: dict[str, int]
) -> None:
    state = LaneState()
    for _ in range(100):
        changed = {group: rng.choice([weight, rng.randint(1, 100)]) for group, weight in weights.items()}
        backlog = {group for group in weights if rng.random() < 0.6}
        slots = rng.choice([1, 2, 7, 100])
        quotas = share(state, changed, backlog, slots)
        assert sum(quotas.values()) == (slots if backlog else 0)
        claimed = {
            group: rng.choice([quota, quota, rng.randint(0, quota)]) for group, quota in quotas.items()
        }
        state = settle(state, changed, claimed, {group for group in backlog if rng.random() < 0.8})
        assert state.lags.keys() <= weights.keys()
        assert all(abs(lag) < 1000 * state.pick for lag in state.lags.values())


def test_a_million_picks_leave_numbers_as_small_as_they_were() -> None:
    weights = {"a": 5, "b": 3, "default": 1}
    state = pick(LaneState(), weights, [997] * 1000, Counter())
    assert all(abs(lag) < state.pick for lag in state.lags.values())
    assert state.pick == settle(LaneState(), weights, {"a": 1}, weights).pick


def test_a_group_whose_weight_was_removed_is_forgotten() -> None:
    weights = {"a": 1, "b": 1, "c": 1}
    state = settle(LaneState(), weights, {"c": 1}, {"a", "b"})
    assert "c" in state.lags
    assert "c" not in settle(state, {"a": 1, "b": 1}, {"a": 1}, {"a", "b"}).lags


def test_a_group_that_joins_is_neither_ahead_nor_behind() -> None:
    weights, taken = {"a": 2, "b": 1, "c": 1}, Counter[str]()
    state = pick(LaneState(), {"a": 2, "b": 1}, [1] * 1000, Counter())
    for n in range(1, 401):
        state = pick(state, weights, [1], taken)
        assert distance(taken, weights, n) < 2


def test_a_group_that_was_empty_for_long_has_no_credit() -> None:
    weights, taken = {"a": 1, "b": 1}, Counter[str]()
    state = pick(LaneState(), weights, [7], Counter())
    for _ in range(1000):
        state = settle(state, weights, share(state, weights, {"a"}, 10), {"a"})
    pick(state, weights, [10], taken)
    assert taken == {"a": 5, "b": 5}


def test_a_group_that_gave_less_than_it_was_asked_for_has_no_credit() -> None:
    weights, taken = {"a": 1, "b": 1}, Counter[str]()
    state = settle(LaneState(), weights, {"a": 500, "b": 3}, {"a"})
    pick(state, weights, [100], taken)
    assert distance(taken, weights, 100) <= 1


def test_a_group_that_gives_nothing_though_it_has_backlog_keeps_a_credit_of_two_picks_at_most() -> None:
    weights, taken = {"a": 1, "b": 1}, Counter[str]()
    state = LaneState()
    for _ in range(50):
        state = settle(state, weights, {"a": 10}, weights)
    pick(state, weights, [100], taken)
    assert distance(taken, weights, 100) <= 2


@pytest.mark.parametrize(
    "weights, slots, refill",
    [
        ({"a": 1, "b": 1}, 1, {"a": 1}),
        ({"a": 100, "b": 1}, 50, {"a": 50}),
        ({"a": 3, "b": 1, "c": 2}, 1, {"a": 1, "c": 1}),
        ({"a": 3, "b": 1, "c": 2, "d": 50}, 4, {"a": 2, "c": 1, "d": 4}),
    ],
)
def test_a_group_that_is_refilled_between_any_two_claims_gets_its_share_and_no_more(
    weights: dict[str, int], slots: int, refill: dict[str, int]
) -> None:
    state, taken = LaneState(), Counter[str]()
    for _ in range(5000):
        quotas = share(state, weights, weights, slots)
        claimed = {group: min(quota, refill.get(group, quota)) for group, quota in quotas.items()}
        taken.update(claimed)
        emptied = {group for group in refill if claimed.get(group, 0) == refill[group]}
        state = settle(state, weights, claimed, weights.keys() - emptied)
    assert distance(taken, weights, taken.total()) < 0.002 * taken.total()


def test_two_steady_groups_stay_fair_while_a_third_comes_and_goes() -> None:
    weights, taken = {"a": 1, "b": 1, "c": 1}, Counter[str]()
    state = LaneState()
    for n in range(3000):
        backlog = {"a", "b", "c"} if n % 2 else {"a", "b"}
        quotas = share(state, weights, backlog, 1)
        taken.update(quotas)
        state = settle(state, weights, quotas, {"a", "b"})
    assert abs(taken["a"] - taken["b"]) <= 2


@given(weightings, weightings, st.integers(0, 500))
def test_new_weights_apply_at_once_and_without_catching_up(
    before: dict[str, int], after: dict[str, int], picks: int
) -> None:
    after = {group: after.get(group, 1) for group in before}
    state, taken = pick(LaneState(), before, [1] * picks, Counter()), Counter[str]()
    for n in range(1, 101):
        state = pick(state, after, [1], taken)
        assert distance(taken, after, n) <= 2.5


@given(weightings, chunks)
def test_the_plan_does_not_depend_on_the_order_in_which_groups_are_given(
    weights: dict[str, int], sizes: list[int]
) -> None:
    turned = dict(reversed(weights.items()))
    straight, backward = (
        pick(LaneState(), weights, sizes, Counter()),
        pick(LaneState(), turned, sizes, Counter()),
    )
    assert straight == backward
    assert share(straight, weights, list(weights), 9) == share(backward, turned, list(turned), 9)


def test_more_due_than_there_are_slots_is_cut_where_turns_end_last() -> None:
    # a and b are owed three picks, c is that far ahead; only one can be made.
    state = LaneState({"a": 3 * 3, "b": 3 * 3 - 1, "c": -6 * 3 + 1}, pick=3)
    assert share(state, dict.fromkeys("abc", 1), "abc", 1) == {"a": 1}


def test_a_group_without_a_weight_counts_one() -> None:
    assert share(LaneState(), {"a": 3}, {"a", "unheard"}, 4) == {"a": 3, "unheard": 1}


def test_one_group_alone_takes_all_and_leaves_nothing_to_remember() -> None:
    assert share(LaneState(), {"a": 3}, {"a"}, 1000) == {"a": 1000}
    assert settle(LaneState(), {"a": 3}, {"a": 1000}, {"a"}) == LaneState()


def test_without_backlog_there_is_nothing_to_share_or_to_remember() -> None:
    state = settle(LaneState(), {"a": 1, "b": 1}, {"a": 1}, {"a", "b"})
    assert share(state, {"a": 1, "b": 1}, [], 10) == {}
    assert settle(state, {"a": 1, "b": 1}, {"b": 1}, []) == LaneState()


@pytest.mark.parametrize("backlog", [list, set, tuple, lambda groups: dict.fromkeys(groups, 5)])
def test_backlog_may_be_any_collection(backlog: Callable[[list[str]], Collection[str]]) -> None:
    assert share(LaneState(), {"a": 1, "b": 1}, backlog(["a", "b"]), 2) == {"a": 1, "b": 1}
