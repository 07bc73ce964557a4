"""The figures of a run, from pasts made by hand."""

from __future__ import annotations

import pytest

from tests.chaos.measures import Figure, counts, measure, percentile
from tests.chaos.pasts import LEASE, Past, orderly


def figure(past: Past, name: str) -> Figure:
    [found] = [one for one in measure(past.history) if one.name == name]
    return found


def test_a_kill_is_measured_until_the_task_is_claimed_again():
    found = figure(orderly(), "kill -9 → running again")
    assert (found.count, found.held, found.bound) == (1, True, LEASE + 1.5)
    assert found.p100 == pytest.approx(3.4)


def test_a_kill_while_the_database_was_away_is_not_measured():
    past = orderly()
    past.fault("restart", 8.0, over=9.0)
    found = figure(past, "kill -9 → running again")
    assert (found.count, found.held) == (0, None)


def test_a_kill_that_nobody_could_see_is_not_measured():
    past = orderly()
    past.fault("partition", 5.0, 2, over=5.5)
    assert figure(past, "kill -9 → running again").count == 0


def test_a_kill_under_a_parent_is_measured_apart():
    past = orderly()
    past.history.faults[0].facts["parent"] = 77
    assert figure(past, "kill -9 → running again").count == 0
    found = figure(past, "kill -9 under a parent → running again")
    assert (found.count, found.held) == (1, False)


def test_a_kill_that_its_parent_could_not_put_right_in_time_is_not_measured():
    past = orderly()
    [kill] = past.history.faults
    kill.facts["parent"] = 77
    past.fault("delay", kill.at - 1.0, 77, over=kill.at + 1.0)
    assert figure(past, "kill -9 under a parent → running again").count == 0


def test_what_befell_the_parent_after_the_limit_is_no_excuse():
    past = orderly()
    [kill] = past.history.faults
    kill.facts["parent"] = 77
    past.fault("partition", kill.at + 2.5, 77, over=kill.at + 3.0)
    found = figure(past, "kill -9 under a parent → running again")
    assert (found.count, found.held) == (1, False)


def test_a_release_is_measured_from_the_end_of_the_grace_period():
    past = orderly()
    past.worker("c", 3, 13.0)
    past.born(99, 13.0)
    past.claim(99, "c", 13.1)
    past.fault("sigterm", 14.0, 3)
    past.renew("b", 18.0)
    past.back(99, 19.2, "released")
    past.claim(99, "b", 19.5)
    found = figure(past, "told to let go → claimed elsewhere")
    assert (found.count, found.p100, found.held) == (1, pytest.approx(0.5), True)


def test_a_release_after_the_second_signal_is_measured_from_there():
    past = orderly()
    past.worker("c", 3, 13.0)
    past.born(99, 13.0)
    past.claim(99, "c", 13.1)
    past.fault("sigterm", 14.0, 3)
    past.fault("sigterm", 14.5, 3, second=True)
    past.back(99, 16.9, "released")
    past.claim(99, "b", 17.0)
    found = figure(past, "told to let go → claimed elsewhere")
    assert (found.p100, found.held) == (pytest.approx(2.5), False)


def test_a_release_that_nobody_was_there_to_take_is_not_measured():
    past = orderly()
    past.worker("c", 3, 13.0)
    past.born(99, 13.0)
    past.claim(99, "c", 13.1)
    past.fault("sigterm", 14.0, 3)
    past.back(99, 19.2, "released")
    past.worker("d", 4, 21.0)
    past.claim(99, "d", 21.5)
    assert figure(past, "told to let go → claimed elsewhere").count == 0


def test_what_an_operator_keeps_waiting_is_not_measured():
    past = orderly()
    past.worker("c", 3, 13.0)
    past.born(99, 13.0)
    past.claim(99, "c", 13.1)
    past.fault("sigterm", 14.0, 3)
    past.renew("b", 18.0)
    past.back(99, 19.2, "released")
    past.command("pause", [99], 19.3, "p")
    past.answer("p", 99, 19.3, "changed", "paused")
    past.claim(99, "b", 25.0)
    assert figure(past, "told to let go → claimed elsewhere").count == 0


def test_claiming_again_is_measured_from_the_servers_return():
    past = orderly()
    past.born(99, 13.0)
    past.fault("restart", 13.5, over=15.0)
    past.claim(99, "b", 16.0)
    found = figure(past, "database accepting → claiming")
    assert (found.count, found.p99, found.held) == (1, pytest.approx(1.0), True)


def test_a_restart_with_nothing_to_claim_is_not_measured():
    past = orderly()
    past.fault("restart", 13.5, over=15.0)
    assert figure(past, "database accepting → claiming").count == 0


def test_a_half_open_connection_counts_when_it_is_found_and_for_its_whole_life_when_it_never_is():
    past = orderly()
    past.fault("half_open", 13.0, 2, over=25.0, found=17.0)
    assert figure(past, "half-open connection → found").p100 == pytest.approx(4.0)
    past.fault("half_open", 30.0, 2, over=48.0)
    found = figure(past, "half-open connection → found")
    assert (found.count, found.p100, found.held) == (2, pytest.approx(18.0), False)


def test_a_half_open_connection_of_a_process_that_died_is_not_measured():
    past = orderly()
    past.fault("half_open", 6.0, 1, over=18.0)
    assert figure(past, "half-open connection → found").count == 0


def test_a_half_open_connection_of_a_process_that_was_frozen_is_not_measured():
    past = orderly()
    past.fault("half_open", 13.0, 2, over=29.0)
    past.fault("sigstop", 20.0, 2, over=28.0)
    assert figure(past, "half-open connection → found").count == 0


def test_a_half_open_connection_that_ended_in_another_way_is_not_measured():
    past = orderly()
    past.fault("half_open", 13.0, 2, over=29.0, moot=True)
    assert figure(past, "half-open connection → found").count == 0


def test_a_wait_without_listen_is_measured_beside_the_free_slot():
    past = orderly()
    past.renew("b", 13.0)
    past.fault("listen_broken", 14.0, 2, over=18.0)
    past.born(99, 15.0)
    past.claim(99, "b", 16.5)
    found = figure(past, "wake-up while LISTEN was broken")
    assert (found.count, found.p100, found.held) == (1, pytest.approx(1.5), False)


def test_counts_tell_how_much_happened():
    told = counts(orderly().history)
    assert (told["tasks"], told["executions"], told["duplicates"], told["losses"]) == (18, 21, 2, 1)
    assert (told["ended completed"], told["ended failed"], told["hooks failed"]) == (14, 2, 1)


@pytest.mark.parametrize("share, value", [(0.5, 2.0), (0.99, 4.0), (1.0, 4.0), (0.25, 1.0)])
def test_a_percentile_is_one_of_the_values(share: float, value: float):
    assert percentile([1.0, 2.0, 3.0, 4.0], share) == value
