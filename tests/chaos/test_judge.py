"""Each invariant judges a past that keeps it and one that breaks it: an oracle has to be able to fire."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chaos.by_time import _BACKLOG, _WINDOW
from tests.chaos.judge import INVARIANTS, duplicates, judge, violations
from tests.chaos.mutants import MUTANTS
from tests.chaos.pasts import Past, orderly
from tests.chaos.records import LedgerLine

Scene = Callable[[Past], None]

BREACHES: list[tuple[str, int | None, Scene]] = []
"""The invariant that is broken, the task that must be named, and how the orderly past goes on."""


def breaks(invariant: str, task: int | None = 99) -> Callable[[Scene], Scene]:
    def register(scene: Scene) -> Scene:
        BREACHES.append((invariant, task, scene))
        return scene

    return register


@breaks("conservation")
def deleted_without_a_record(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.leave(99, 13.2)


@breaks("conservation")
def changed_but_never_born(past: Past) -> None:
    past.done(99, "b", 13.0)
    past.history.births.pop()


@breaks("acknowledged_is_kept")
def acknowledged_and_gone(past: Past) -> None:
    past.history.ledger.append(LedgerLine(13.0, 99, "committed"))


@breaks("everything_ends")
def left_running(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)


@breaks("everything_ends")
def left_pending(past: Past) -> None:
    past.born(99, 13.0)


@breaks("tokens_grow")
def claimed_with_an_old_token(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.back(99, 13.2, "released")
    past.claim(99, "b", 13.3, token=1)


@breaks("one_end")
def moved_after_its_end(past: Past) -> None:
    past.done(99, "b", 13.0)
    past.change(99, 14.0, "update", 2, status="pending")


@breaks("finish_by_latest_claim")
def finished_with_an_older_token(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.back(99, 13.2, "released")
    past.claim(99, "b", 13.3)
    past.end(99, 13.4, token=1)


@breaks("finish_by_latest_claim")
def finished_by_another_process(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.run(99, 13.2, 13.3)
    past.end(99, 13.4, process=1)


@breaks("lease_respected")
def taken_from_a_live_worker(past: Past) -> None:
    past.worker("c", 3, 12.0)
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.back(99, 13.2, "lease_lost", process=3)
    past.claim(99, "c", 13.3)
    past.end(99, 13.4)


@breaks("claim_needs_lease")
def claimed_after_the_lease(past: Past) -> None:
    past.done(99, "a", 13.0)


@breaks("lease_by_database_clock", None)
def a_lease_that_is_too_long(past: Past) -> None:
    past.renew("b", 13.0, expires_at=33.0)


@breaks("lease_by_database_clock", None)
def a_lease_that_is_far_too_short(past: Past) -> None:
    past.renew("b", 13.0, expires_at=14.0)


@breaks("lease_by_database_clock", None)
def renewed_though_lost(past: Past) -> None:
    past.renew("a", 13.0)


@breaks("lease_by_database_clock", None)
def renewed_though_expired(past: Past) -> None:
    past.renew("b", 25.0)


@breaks("event_between_runs")
def back_without_an_event(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.back(99, 13.2, None)
    past.claim(99, "b", 13.3)
    past.end(99, 13.4)


@breaks("hook_with_status")
def failed_without_its_hook(past: Past) -> None:
    past.born(99, 13.0, name="doomed")
    past.claim(99, "b", 13.1)
    past.end(99, 13.2, "failed", "failed")


@breaks("hook_with_status")
def hook_in_another_transaction(past: Past) -> None:
    failed_without_its_hook(past)
    past.hook(99, beside=True)


@breaks("hook_with_status")
def hook_though_completed(past: Past) -> None:
    past.done(99, "b", 13.0, name="doomed")
    past.hook(99)


@breaks("hook_with_status")
def a_failing_hook_that_nobody_tells_of(past: Past) -> None:
    past.born(99, 13.0, name="accursed")
    past.claim(99, "b", 13.1)
    past.end(99, 13.2, "failed", "failed")


@breaks("effect_once")
def completed_without_its_effect(past: Past) -> None:
    past.done(99, "b", 13.0, name="effect")


@breaks("effect_once")
def an_effect_beside_its_completion(past: Past) -> None:
    past.done(99, "b", 13.0, name="effect")
    past.effect(99, beside=True)


@breaks("effect_once")
def an_effect_written_twice(past: Past) -> None:
    past.done(99, "b", 13.0, name="effect")
    past.effect(99)
    past.effect(99)


@breaks("attempts_counted")
def a_claim_that_counts_nothing(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1, attempts=0)


@breaks("attempts_counted")
def an_attempt_given_back_for_a_failure(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.back(99, 13.2, "retried", attempts=0)


@breaks("attempts_counted")
def failed_more_often_than_allowed(past: Past) -> None:
    past.born(99, 13.0, max_attempts=1)
    past.claim(99, "b", 13.1)
    past.back(99, 13.2, "retried")
    past.claim(99, "b", 13.3)
    past.end(99, 13.4, "failed", "failed")


@breaks("losses_bounded")
def a_loss_that_is_not_counted(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.back(99, 30.0, "lease_lost", losses=0)


def _lose(past: Past, times: int) -> None:
    past.born(99, 13.0)
    for nth in range(times):
        past.claim(99, "b", 13.1 + nth)
        past.back(99, 13.2 + nth, "lease_lost")


@breaks("losses_bounded")
def completed_after_three_losses(past: Past) -> None:
    _lose(past, 3)
    past.claim(99, "b", 18.0)
    past.end(99, 18.1)


@breaks("losses_bounded")
def run_after_three_losses(past: Past) -> None:
    _lose(past, 3)
    past.claim(99, "b", 18.0)
    past.run(99, 18.1, 18.2)
    past.end(99, 18.3, "failed", "quarantined", reason="quarantined")


@breaks("losses_bounded")
def quarantined_after_two_losses(past: Past) -> None:
    _lose(past, 2)
    past.claim(99, "b", 18.0)
    past.end(99, 18.3, "failed", "quarantined", reason="quarantined")


@breaks("unique_tags")
def two_holders_of_a_tag(past: Past) -> None:
    past.born(98, 13.0, unique_tag="t")
    past.born(99, 13.1, unique_tag="t")


@breaks("unique_tags")
def a_tag_taken_again_that_is_taken_for_ever(past: Past) -> None:
    past.done(98, "b", 13.0, unique_tag="forever:1")
    past.born(99, 14.0, unique_tag="forever:1")


@breaks("no_overlap")
def run_beside_itself(past: Past) -> None:
    past.worker("c", 3, 12.0)
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.run(99, 13.2, 15.0)
    past.back(99, 13.5, "lease_lost", process=3)
    past.claim(99, "c", 13.6)
    past.run(99, 13.7, 13.8)


@breaks("one_run_per_claim")
def run_twice_under_one_claim(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.run(99, 13.2, 13.3)
    past.run(99, 13.4, 13.5)


@breaks("one_run_per_claim")
def run_without_a_claim(past: Past) -> None:
    past.born(99, 13.0)
    past.run(99, 13.2, 13.3, token=1)


@breaks("stale_never_accepted")
def completed_while_its_handler_runs(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.run(99, 13.2, 14.0)
    past.end(99, 13.5)


@breaks("stale_never_accepted")
def completed_though_it_never_started(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.end(99, 13.5)


@breaks("begins_with_lease")
def begins_after_its_lease(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.run(99, 20.0, 20.1)


@breaks("stops_with_lease")
def goes_on_after_its_lease(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.run(99, 13.2, 21.0)


@breaks("serial_keys")
def two_of_one_key_at_once(past: Past) -> None:
    past.born(98, 13.0, serial_key="s")
    past.born(99, 13.0, serial_key="s")
    past.claim(99, "b", 13.1)
    past.claim(98, "b", 13.1)
    past.run(99, 13.2, 13.4)
    past.run(98, 13.3, 13.5)


@breaks("deadlines_kept")
def run_after_its_deadline(past: Past) -> None:
    past.done(99, "b", 13.0, deadline=13.05)


@breaks("rolled_back_never_ran")
def rolled_back_and_run(past: Past) -> None:
    past.done(99, "b", 13.0)
    past.history.ledger[-1] = LedgerLine(13.0, 99, "rolled_back")


@breaks("duplicates_explained")
def run_again_for_no_reason(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.run(99, 13.2, 13.3)
    past.back(99, 13.4, None)
    past.claim(99, "b", 13.5)
    past.run(99, 13.6, 13.7)
    past.end(99, 13.8)


def _alive_until(past: Past, at: float) -> None:
    """Worker b renews in time."""
    for tick in range(12, int(at)):
        past.renew("b", float(tick))


@breaks("results_written")
def ended_and_never_written(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.run(99, 13.2, 13.3)
    past.history.ended_at = 40.0


@breaks("results_written")
def ended_and_put_back(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.run(99, 13.2, 13.3)
    past.back(99, 13.4, "released")


@breaks("woken")
def waiting_beside_an_idle_worker(past: Past) -> None:
    _alive_until(past, 30.0)
    past.born(99, 13.0)
    past.claim(99, "b", 18.0)
    past.end(99, 18.1)


@breaks("strict_first")
def a_normal_task_before_a_strict_one(past: Past) -> None:
    past.born(98, 13.0, priority=5)
    past.born(99, 14.0)
    past.claim(99, "b", 15.0)
    past.claim(98, "b", 17.0)


def _backlog(past: Past, red: int, default: int, step: float = 0.0001) -> None:
    """Of a thousand claims so many go to each group, while both have more."""
    past.config(3, 12.97, weights={"red": 3})
    past.ack("b", 3, 12.98)
    for nth in range(red + _BACKLOG + 1):
        past.born(1000 + nth, 13.0, label_set="red")
    for nth in range(default + _BACKLOG + 1):
        past.born(5000 + nth, 13.0)
    for nth in range(red):
        past.claim(1000 + nth, "b", 15.0 + nth * step)
    for nth in range(default):
        past.claim(5000 + nth, "b", 15.5 + nth * step)


@breaks("group_shares", 1000)
def a_group_with_less_than_its_share(past: Past) -> None:
    _backlog(past, _WINDOW // 2, _WINDOW // 2)


@breaks("nothing_claimed_while_paused")
def claimed_though_its_label_is_paused(past: Past) -> None:
    past.config(3, 13.0, paused_labels=["red"])
    past.ack("b", 3, 13.1)
    past.done(99, "b", 13.2, label_set="red")


@breaks("nothing_claimed_while_paused")
def claimed_though_its_name_is_paused(past: Past) -> None:
    past.config(3, 13.0, paused_names=["quiet"])
    past.ack("b", 3, 13.1)
    past.done(99, "b", 13.2, name="quiet")


@breaks("nothing_claimed_while_paused")
def claimed_though_it_is_paused(past: Past) -> None:
    past.born(99, 13.0, status="paused")
    past.claim(99, "b", 13.1)
    past.end(99, 13.2)


@breaks("nothing_claimed_while_paused")
def put_back_and_claimed_though_it_is_to_be_cancelled(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.ask(99, 13.2, "cancelled")
    past.back(99, 13.3, "released")
    past.claim(99, "b", 13.4)
    past.end(99, 13.5)


def _pause(past: Past) -> None:
    past.born(99, 13.0)
    with past.transaction():
        past.command("pause", [99], 13.1, "p")
        past.change(99, 13.1, "update", None, status="paused")
        past.answer("p", 99, 13.1, "changed", "paused")


@breaks("commands_hold")
def claimed_after_its_pause_though_nobody_resumed_it(past: Past) -> None:
    _pause(past)
    past.change(99, 13.2, "update", 2, status="pending")
    past.claim(99, "b", 13.3)
    past.end(99, 13.4)


def _cancel_running(past: Past) -> None:
    past.born(98, 13.0, name="family")
    past.claim(98, "b", 13.1)
    with past.transaction():
        past.command("cancel", [98], 13.2, "c")
        past.ask(98, 13.2, "cancelled")


@breaks("no_child_of_cancelled")
def born_alive_below_a_cancelled_task(past: Past) -> None:
    _cancel_running(past)
    past.born(99, 13.3, parent=98)


@breaks("no_child_of_cancelled")
def claimed_below_a_cancelled_grandparent(past: Past) -> None:
    past.born(97, 13.0)
    past.born(98, 13.0, parent=97)
    past.born(99, 13.0, parent=98)
    past.end(97, 13.1, "cancelled", "cancelled")
    past.end(98, 13.1, "cancelled", "cancelled")
    past.claim(99, "b", 13.2)
    past.end(99, 13.3)


@breaks("born_paused")
def born_alive_below_a_paused_task(past: Past) -> None:
    past.born(98, 13.0)
    past.change(98, 13.1, "update", None, status="paused", reason="paused by operator")
    past.born(99, 13.2, parent=98)


@breaks("limits_kept")
def one_more_than_the_limit(past: Past) -> None:
    past.config(3, 13.0, limits={"red": 1})
    past.ack("b", 3, 13.1)
    for task in (98, 99):
        past.born(task, 13.2, label_set="red")
        past.claim(task, "b", 13.3)


@breaks("versions_forward", None)
def an_older_version_acknowledged_after_a_newer_one(past: Past) -> None:
    past.ack("b", 1, 13.0)


@breaks("versions_forward", None)
def acknowledged_before_it_is_there(past: Past) -> None:
    past.ack("b", 3, 13.0)


@breaks("versions_forward", None)
def versions_that_are_not_in_the_order_of_their_commits(past: Past) -> None:
    past.config(4, 13.0)
    past.config(3, 13.1)


@breaks("versions_arrive", None)
def a_version_that_a_worker_never_hears_of(past: Past) -> None:
    past.config(3, 13.0)


@breaks("receipts_complete")
def a_receipt_that_stays_open(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.command("cancel", [99], 13.2, "c")
    past.end(99, 13.3, "cancelled", "cancelled")


@breaks("receipts_complete")
def a_receipt_that_is_completed_far_too_late(past: Past) -> None:
    past.renew("b", 15.0, expires_at=40.0)
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.command("cancel", [99], 13.2, "c")
    past.end(99, 13.3, "cancelled", "cancelled")
    past.answer("c", 99, 23.0, "stopped", "cancelled")


@breaks("receipts_agree")
def said_to_be_cancelled_and_completed(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.command("cancel", [99], 13.2, "c")
    past.end(99, 13.3)
    past.answer("c", 99, 13.4, "stopped", "cancelled")


@breaks("receipts_agree")
def said_to_have_finished_first_and_cancelled(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.command("cancel", [99], 13.2, "c")
    past.end(99, 13.3, "cancelled", "cancelled")
    past.answer("c", 99, 13.4, "refused", "cancelled", "finished first")


@breaks("receipts_agree")
def cancelled_by_an_operator_without_a_receipt(past: Past) -> None:
    past.born(99, 13.0)
    past.end(99, 13.1, "cancelled", "cancelled", reason="cancelled by operator")


@breaks("stopped_after_end")
def said_to_have_stopped_while_it_runs(past: Past) -> None:
    past.born(99, 13.0)
    past.claim(99, "b", 13.1)
    past.command("cancel", [99], 13.2, "c")
    past.end(99, 13.3, "cancelled", "cancelled")
    past.answer("c", 99, 13.3, "stopped", "cancelled")
    past.run(99, 13.1, 14.0)


@breaks("answers_kept")
def an_answer_of_which_nothing_is_written(past: Past) -> None:
    past.tell_operator("cancel", 13.0, request="c", tasks=[[99, "changed"]])


@breaks("answers_kept", 31)
def an_answer_that_is_written_otherwise(past: Past) -> None:
    past.tell_operator("cancel", 13.0, request="cancelled", tasks=[[31, "refused"]])


@breaks("answers_kept", None)
def a_worker_that_is_said_to_apply_what_it_never_acknowledged(past: Past) -> None:
    past.tell_operator("config", 13.0, version=2, applied=["a"])


@breaks("one_task_per_slot")
def a_slot_with_two_tasks(past: Past) -> None:
    past.slot("tocking", 14.0, 14.0, 98)
    past.slot("tocking", 14.0, 14.1, 99)


@breaks("one_task_per_slot")
def a_slot_of_which_nothing_is_written(past: Past) -> None:
    past.born(99, 14.0, name="tocking", slot=14.0)


@breaks("slots_complete", None)
def a_slot_that_is_left_out(past: Past) -> None:
    past.slot("ticking", 15.0, 15.0, 99)


@pytest.mark.parametrize(
    ("invariant", "task", "scene"), [pytest.param(*breach, id=breach[2].__name__) for breach in BREACHES]
)
def test_a_breach_is_found_and_names_its_task(invariant: str, task: int | None, scene: Scene) -> None:
    past = orderly()
    scene(past)
    [verdict] = [one for one in judge(past.history) if one.invariant == invariant]
    assert task in {violation.task for violation in verdict.violations}
    assert all(violation.sentence and violation.evidence for violation in verdict.violations)


def test_every_invariant_has_a_breach() -> None:
    assert {invariant for invariant, _, _ in BREACHES} == set(INVARIANTS)


def test_an_orderly_past_breaks_nothing_though_almost_everything_is_judged() -> None:
    history = orderly().history
    assert violations(history) == []
    assert {verdict.invariant for verdict in judge(history) if not verdict.judged} == {"group_shares"}


def test_groups_that_share_as_weighted_are_judged_and_acquitted() -> None:
    past = orderly()
    _backlog(past, _WINDOW * 3 // 4, _WINDOW // 4)
    [verdict] = [one for one in judge(past.history) if one.invariant == "group_shares"]
    assert (verdict.judged, verdict.violations) == (1, [])


def found(past: Past, invariant: str) -> list[str]:
    return [str(one) for one in violations(past.history) if one.invariant == invariant]


def test_a_wait_while_the_worker_is_cut_off_is_no_breach() -> None:
    past = orderly()
    waiting_beside_an_idle_worker(past)
    past.fault("partition", 12.5, 2, over=17.0)
    assert found(past, "woken") == []


def test_a_wait_while_all_slots_are_taken_is_no_breach() -> None:
    past = orderly()
    _alive_until(past, 30.0)
    for task in (97, 98):
        past.born(task, 12.5)
        past.claim(task, "b", 12.6)
    past.born(99, 13.0)
    for task in (97, 98):
        past.end(task, 17.9)
    past.claim(99, "b", 18.0)
    past.end(99, 18.1)
    assert found(past, "woken") == []


def test_a_suspect_may_wait_beside_an_idle_worker() -> None:
    past = orderly()
    _alive_until(past, 30.0)
    _lose(past, 2)
    past.claim(99, "b", 28.0)
    assert found(past, "woken") == []


def test_losses_are_counted_anew_where_a_task_was_cancelled_at_rest_and_retried() -> None:
    past = orderly()
    _lose(past, 1)
    past.end(99, 14.0, "cancelled", "cancelled", reason="cancelled by operator")
    past.revive(99, 15.0)
    past.claim(99, "b", 16.0)
    past.back(99, 17.0, "lease_lost", losses=1)
    past.claim(99, "b", 18.0)
    past.end(99, 18.1)
    assert found(past, "losses_bounded") == []


def test_below_a_task_that_was_retried_by_itself_children_are_born_and_run() -> None:
    past = orderly()
    past.born(97, 13.0)
    past.born(98, 13.1, parent=97)
    for task in (97, 98):
        past.end(task, 13.2, "cancelled", "cancelled", reason="cancelled by operator")
    past.revive(98, 14.0)
    past.born(99, 15.0, parent=98)
    past.claim(99, "b", 15.1)
    past.end(99, 15.2)
    assert found(past, "no_child_of_cancelled") == []


def test_an_outcome_that_waits_for_the_database_is_no_breach() -> None:
    past = orderly()
    ended_and_never_written(past)
    past.fault("restart", 13.25, over=30.0)
    assert found(past, "results_written") == []


def test_an_outcome_may_be_put_back_unwritten_at_a_shutdown() -> None:
    past = orderly()
    past.fault("sigterm", 13.35, 2)
    ended_and_put_back(past)
    assert found(past, "results_written") == []


def test_a_frozen_process_may_only_stop_when_it_wakes() -> None:
    past = orderly()
    goes_on_after_its_lease(past)
    past.fault("sigstop", 14.0, 2, over=20.9)
    assert found(past, "stops_with_lease") == []


@pytest.mark.parametrize("name, breaches", [("effect", 0), ("quick", 1)])
def test_a_call_on_a_silent_connection_is_waited_for_a_second(name: str, breaches: int) -> None:
    past = orderly()
    past.born(99, 13.0, name=name)
    past.claim(99, "b", 13.1)
    past.fault("sigstop", 14.0, 2, over=20.0)
    past.run(99, 13.2, 21.4)
    assert len(found(past, "stops_with_lease")) == breaches


def test_a_strict_task_that_has_just_come_may_be_missed_by_a_claim() -> None:
    past = orderly()
    past.born(98, 14.5, priority=5)
    past.born(99, 14.0)
    past.claim(99, "b", 15.0)
    past.claim(98, "b", 17.0)
    assert found(past, "strict_first") == []


def test_what_was_cut_off_when_its_process_died_overlaps_nothing_later() -> None:
    past = orderly()
    past.worker("c", 3, 13.0)
    past.worker("d", 4, 13.0)
    past.born(99, 13.0)
    past.claim(99, "c", 13.1)
    past.run(99, 13.2, None)
    past.history.exits[3] = 14.0
    past.is_lost("c", 14.1)
    past.back(99, 14.2, "lease_lost", process=4)
    past.claim(99, "d", 14.3)
    past.run(99, 14.4, 14.5)
    past.end(99, 14.6)
    assert violations(past.history) == []


def test_duplicates_come_with_the_loss_or_the_release_that_explains_them() -> None:
    found = duplicates(orderly().history)
    assert [(one["task"], one["token"], one["because"]) for one in found] == [
        (10, 1, "released"),
        (10, 2, "lease_lost"),
    ]


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_names_invariants_that_exist(name: str) -> None:
    assert MUTANTS[name].caught_by
    assert set(INVARIANTS) >= MUTANTS[name].caught_by
