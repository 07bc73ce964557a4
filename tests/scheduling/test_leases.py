from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asynctaskd.scheduling.leases import LeaseTerm, may_judge

moments = st.floats(min_value=0, max_value=1e9, allow_nan=False)
lengths = st.floats(min_value=0.1, max_value=86400, allow_nan=False)


@given(moments, lengths, moments)
def test_a_claim_never_stands_where_the_database_may_have_ended_the_lease(asked_at, length, later):
    """The database counts from between question and answer, so no earlier than `asked_at`."""
    term = LeaseTerm(asked_at, length)
    if term.stands(asked_at + later):
        assert later < length


@given(moments, lengths)
def test_a_worker_stops_claiming_first_then_its_handlers_and_only_then_does_the_lease_end(asked_at, length):
    term = LeaseTerm(asked_at, length)
    assert asked_at < term.fence_at < term.last_at < asked_at + length


@given(moments, lengths, moments)
def test_who_was_cut_off_judges_nobody_for_one_lease(cut_off_at, lease, now):
    assert may_judge(now, None, lease)
    assert may_judge(now, cut_off_at, lease) == (now >= cut_off_at + lease)
