from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctaskd.definitions.options import TaskOptions
from asynctaskd.definitions.request import TaskRequest
from asynctaskd.errors import InvalidInputError
from asynctaskd.scheduling.retry import RetryPolicy

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Nowhere(tzinfo):
    """A time zone that doesn't know its offset: such a datetime is naive all the same."""

    def utcoffset(self, _: datetime | None) -> None:
        return None


def requested(**options: Any) -> TaskOptions:
    return TaskOptions.requested(options)


def declared(**options: Any) -> TaskOptions:
    return TaskOptions.declared(options)


def message_of(**options: Any) -> str:
    with pytest.raises(InvalidInputError) as caught:
        requested(**options)
    return str(caught.value)


def test_what_is_left_out_or_none_stays_none():
    assert requested() == requested(priority=None, labels=None) == TaskOptions()
    assert requested().given() == {}


def test_an_empty_list_of_labels_is_a_value():
    assert requested(labels=[]).given() == {"labels": ()}


def test_durations_are_parsed():
    options = requested(delay="1h30m", timeout=timedelta(seconds=5), keep="1d", deadline="2h")
    assert options.given() == {
        "delay": timedelta(minutes=90),
        "timeout": timedelta(seconds=5),
        "keep": timedelta(days=1),
        "deadline": timedelta(hours=2),
    }


@pytest.mark.parametrize("zero", [0, "0", "0s", timedelta(0)])
def test_a_record_can_be_kept_for_no_time_at_all(zero: Any):
    assert requested(keep=zero).keep == timedelta(0)


def test_labels_are_sorted_by_bytes_and_each_is_kept_once():
    assert requested(labels=["b", "a", "B", "_", "a", "worker:1"]).labels == ("B", "_", "a", "b", "worker:1")


def test_tags_keep_their_order_and_each_is_kept_once():
    assert requested(tags=["zürich", "bern", "zürich"]).tags == ("zürich", "bern")


def test_instants_are_brought_to_utc():
    tokyo = timezone(timedelta(hours=9))
    options = requested(run_at=datetime(2030, 1, 1, 21, tzinfo=tokyo), deadline=NOON)
    assert options.run_at == options.deadline == NOON
    assert options.run_at.tzinfo is UTC


def test_metadata_becomes_json_text():
    assert requested(metadata={"order": 7}).metadata == '{"order":7}'


def test_a_retry_policy_may_be_given_as_text():
    policy = requested(retry="1m,2m").retry
    assert policy is not None
    assert policy.spec == "1m,2m"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 0}, "weight must be at least 1, got 0"),
        ({"weight": 2**31}, "weight must be at most 2147483647, got 2147483648"),
        ({"weight": True}, "weight must be an integer, got True"),
        ({"priority": -1}, "priority must be at least 0, got -1"),
        ({"priority": 1.0}, "priority must be an integer, got 1.0"),
        ({"priority": "1"}, "priority must be an integer, got '1'"),
        ({"serial_id": 2**63}, f"serial_id must be at most {2**63 - 1}, got {2**63}"),
        ({"serial_id": -(2**63) - 1}, f"serial_id must be at least {-(2**63)}, got {-(2**63) - 1}"),
        ({"parent_id": 0}, "parent_id must be at least 1, got 0"),
        ({"labels": "mail"}, "labels must be a list of strings, got 'mail'"),
        ({"labels": 3}, "labels must be a list of strings, got 3"),
        ({"labels": ["a b"]}, "a label must match [A-Za-z0-9_.:/-]{1,128}, got 'a b'"),
        ({"labels": ["a\n"]}, "a label must match [A-Za-z0-9_.:/-]{1,128}, got 'a\\n'"),
        ({"labels": ["é"]}, "a label must match [A-Za-z0-9_.:/-]{1,128}, got 'é'"),
        ({"labels": [1]}, "a label must match [A-Za-z0-9_.:/-]{1,128}, got 1"),
        ({"labels": map(str, range(17))}, "at most 16 labels are allowed, got 17"),
        ({"tags": [""]}, "a tag must have 1 to 512 characters, got 0"),
        ({"tags": ["a" * 513]}, "a tag must have 1 to 512 characters, got 513"),
        ({"tags": ["a\0"]}, "a tag must hold no NUL character or lone surrogate, got 'a\\x00'"),
        ({"unique_tag": "\ud800"}, "unique_tag must hold no NUL character or lone surrogate, got '\\ud800'"),
        ({"serial_key": 5}, "serial_key must be a string, got 5"),
        ({"unique_until": "never"}, "unique_until must be finished or forgotten, got 'never'"),
        ({"on_conflict": "ignore"}, "on_conflict must be return or raise, got 'ignore'"),
        ({"on_conflict": []}, "on_conflict must be return or raise, got []"),
        ({"delay": "1s", "run_at": NOON}, "delay and run_at exclude each other"),
        ({"delay": 5}, "delay must be text such as '5s' or a timedelta, got 5"),
        ({"keep": False}, "keep must be text such as '5s' or a timedelta, got False"),
        ({"timeout": "0s"}, "timeout must be more than 0, got '0s'"),
        ({"deadline": "0s"}, "deadline must be more than 0, got '0s'"),
        ({"run_at": "12:00"}, "run_at must be a datetime with a time zone, got '12:00'"),
        ({"run_at": datetime(2030, 1, 1)}, "run_at must have a time zone, got the naive 2030-01-01T00:00:00"),  # noqa: DTZ001
        (
            {"deadline": datetime(2030, 1, 1, tzinfo=Nowhere())},
            "deadline must have a time zone, got the naive 2030-01-01T00:00:00",
        ),
        ({"metadata": [1]}, "metadata must be a mapping, got [1]"),
        ({"metadata": {"a": "\0"}}, "metadata holds a NUL character"),
        ({"retry": 3}, "retry must be a RetryPolicy or its text, got 3"),
        ({"prioritty": 3}, "unknown option 'prioritty'; the nearest known one is 'priority'"),
        ({"max_tries": None}, "unknown option 'max_tries'; the nearest known one is"),
    ],
)
def test_a_broken_rule_is_named_with_the_value(options: dict[str, Any], message: str):
    assert message_of(**options).startswith(message)


@pytest.mark.parametrize("option", ["delay", "timeout", "deadline", "keep"])
@pytest.mark.parametrize("value", ["soon", "-5s", "1.5h", timedelta(seconds=-1), timedelta.max])
def test_a_bad_duration_is_refused_by_the_name_of_its_option(option: str, value: Any):
    assert message_of(**{option: value}).startswith(f"{option}: ")


def test_an_instant_beyond_the_calendar_in_utc_is_refused():
    last = datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))
    assert message_of(run_at=last).startswith("run_at is beyond the calendar")


def test_a_malformed_policy_is_refused_by_the_name_of_its_option():
    assert message_of(retry="now and then").startswith("retry: ")
    with pytest.raises(InvalidInputError, match="^retry: malformed retry policy 'now and then'"):
        declared(retry="now and then")


def test_a_callable_policy_belongs_to_definitions_only():
    policy = RetryPolicy(lambda attempt: timedelta(seconds=attempt))
    assert declared(retry=policy).retry is policy
    assert message_of(retry=policy) == "retry must not hold a callable: only a definition's can"


def test_a_huge_value_makes_no_huge_message():
    assert len(message_of(weight="x" * 1_000_000)) < 200
    assert message_of(priority=10**6000) == "priority must be at most 2147483647, got an unprintable int"


@pytest.mark.parametrize(
    "option", ["unique_tag", "on_conflict", "serial_id", "parent_id", "run_at", "metadata"]
)
def test_what_concerns_one_task_only_cannot_be_declared(option: str):
    with pytest.raises(InvalidInputError, match="belongs to an enqueue, not to a definition"):
        declared(**{option: 1})


def test_a_declared_deadline_is_relative():
    assert declared(deadline="2h").deadline == timedelta(hours=2)
    with pytest.raises(InvalidInputError, match="deadline must be text"):
        declared(deadline=NOON)


def test_options_show_only_what_was_given():
    assert repr(requested(priority=1, labels=["b", "a"])) == "TaskOptions(priority=1, labels=('a', 'b'))"


def test_overriding_keeps_what_is_not_overridden():
    first = requested(priority=1, labels=["mail"])
    assert first.overridden_by(requested(priority=2)) == requested(priority=2, labels=["mail"])


def test_overriding_one_start_time_drops_the_other():
    assert requested(delay="1s").overridden_by(requested(run_at=NOON)) == requested(run_at=NOON)
    assert requested(run_at=NOON).overridden_by(requested(delay="1s")) == requested(delay="1s")


def test_a_request_is_checked_when_it_is_made():
    assert TaskRequest("mail", {"a": 1}, priority=3).options == requested(priority=3)
    with pytest.raises(InvalidInputError, match="weight must be at least 1, got 0"):
        TaskRequest("mail", {}, weight=0)
    with pytest.raises(InvalidInputError, match="task name must match .* got 'no spaces'"):
        TaskRequest("no spaces")


def test_a_request_without_payload_has_an_empty_one():
    assert TaskRequest("tick").payload == {}


def test_a_request_cannot_be_changed_but_copied_with_other_options():
    request = TaskRequest("mail", {"a": 1}, priority=1)
    assert request.with_options(weight=2) == TaskRequest("mail", {"a": 1}, priority=1, weight=2)
    with pytest.raises(AttributeError):
        request.name = "other"  # type: ignore[misc]


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(codec=None)),
    st.binary(),
    st.lists(st.one_of(st.text(), st.integers())),
    st.dictionaries(st.text(), st.integers()),
    st.timedeltas(),
    st.datetimes(),
    st.datetimes(timezones=st.timezones()),
)


@given(option=st.sampled_from(sorted(TaskOptions.__dataclass_fields__)), value=ANYTHING)
def test_any_value_is_taken_or_refused_by_a_rule(option: str, value: object):
    for make in (TaskOptions.requested, TaskOptions.declared):
        try:
            options = make({option: value})
        except InvalidInputError as error:
            assert len(str(error)) < 400
        else:
            assert (getattr(options, option) is None) == (value is None)
