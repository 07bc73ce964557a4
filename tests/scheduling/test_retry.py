import re
from asyncio import CancelledError
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctaskd.durations import MAX_DURATION
from asynctaskd.errors import InvalidInputError
from asynctaskd.scheduling.retry import NO_RETRY, SPEC_PATTERN, UNLIMITED, RetryPolicy
from asynctaskd.scheduling.transitions import decide
from asynctaskd.task import (
    Completed,
    EventKind,
    Failed,
    Overdue,
    Released,
    Snoozed,
    TaskStatus,
    Transition,
    Unroutable,
)
from tests.support.claimed import NOW, TASK

POLICY = RetryPolicy("1m,2m,4m", max_attempts=4)


def middle() -> float:
    return 0.5


def seconds(policy: RetryPolicy, *failures: int) -> list[float]:
    """The waits after these failures, unjittered."""
    return [round(policy.delay(n, middle).total_seconds(), 3) for n in failures]


def unjittered(text: str) -> RetryPolicy:
    return RetryPolicy(text, jitter=0)


waits = st.integers(0, 10**9).map(lambda ms: timedelta(milliseconds=ms))
chances = st.floats(0, 1, exclude_max=True)
jitters = st.none() | st.floats(0, 1)
limits = st.integers(-1, 2_147_483_647)


@st.composite
def exponentials(draw: st.DrawFn) -> RetryPolicy:
    base, longest = sorted([draw(waits.filter(bool)), draw(waits.filter(bool))])
    factor = draw(st.floats(1, 9999))
    return RetryPolicy.exponential(base, factor, longest, max_attempts=draw(limits), jitter=draw(jitters))


policies = st.one_of(
    st.builds(RetryPolicy, st.lists(waits, min_size=1, max_size=5), max_attempts=limits, jitter=jitters),
    st.builds(RetryPolicy.linear, waits, waits, st.integers(2, 9999), max_attempts=limits, jitter=jitters),
    exponentials(),
)


# How long to wait


def test_the_nth_entry_follows_the_nth_failure_and_the_last_repeats() -> None:
    assert seconds(RetryPolicy("1m,2m,4m"), 1, 2, 3, 4, 1000) == [60, 120, 240, 240, 240]


def test_one_interval_repeats() -> None:
    assert seconds(RetryPolicy("1m"), 1, 2, 10_000) == [60, 60, 60]


@pytest.mark.parametrize(
    "preset, expected",
    [
        ("linear_1m", [1, 29.898, 60, 60]),
        ("linear_10m", [60, 324.49, 600, 600]),
        ("linear_1h", [600, 2069.388, 3600, 3600]),
    ],
)
def test_a_preset_climbs_in_fifty_even_steps_and_stays_there(preset: str, expected: list[float]) -> None:
    assert seconds(unjittered(preset), 1, 25, 50, 51) == expected


def test_linear_policies_may_also_descend() -> None:
    assert seconds(RetryPolicy.linear("10s", "1s", 4, jitter=0), 1, 2, 3, 4, 5) == [10, 7, 4, 1, 1]


def test_exponential_delays_double_up_to_the_longest() -> None:
    policy = RetryPolicy.exponential("1s", 2, "1h", jitter=0)
    assert seconds(policy, 1, 2, 3, 4, 12, 13, 10_000) == [1, 2, 4, 8, 2048, 3600, 3600]


def test_exponential_delays_grow_by_a_broken_factor() -> None:
    assert seconds(RetryPolicy.exponential("10s", 1.5, "1m", jitter=0), 1, 2, 3, 4, 5, 6) == [
        10, 15, 22.5, 33.75, 50.625, 60,
    ]  # fmt: skip


def test_a_factor_of_one_never_grows() -> None:
    assert seconds(RetryPolicy.exponential("10s", 1, "1m", jitter=0), 1, 10_000) == [10, 10]


def test_a_function_says_how_long_to_wait_from_the_number_of_failures() -> None:
    assert seconds(RetryPolicy(lambda attempt: timedelta(seconds=attempt**2)), 1, 2, 9) == [1, 4, 81]


@given(policies, st.integers(1, 20_000), chances)
def test_a_delay_never_leaves_the_range_of_the_policy(
    policy: RetryPolicy, failures: int, chance: float
) -> None:
    lowest, highest = policy._shape.bounds()
    assert lowest <= policy.delay(failures, lambda: chance) <= highest


@given(policies, st.integers(1, 10_000), chances)
def test_a_delay_varies_by_no_more_than_the_jitter(policy: RetryPolicy, failures: int, chance: float) -> None:
    usual = policy._shape(failures)
    rounding = timedelta(microseconds=1)
    assert abs(policy.delay(failures, lambda: chance) - usual) <= usual * policy.jitter + rounding


@pytest.mark.parametrize(
    "policy, jitter",
    [
        (RetryPolicy("1m,2m"), 0),
        (RetryPolicy(lambda _: timedelta(0)), 0),
        (RetryPolicy("linear_1m"), 0.1),
        (RetryPolicy.exponential("1s", 2, "1h"), 0.1),
        (RetryPolicy("linear_1m", jitter=0), 0),
        (RetryPolicy("1m,2m jitter 0.25"), 0.25),
        (RetryPolicy("1m,2m jitter 0.25", jitter=0.5), 0.5),
    ],
)
def test_computed_delays_vary_by_a_tenth_and_written_ones_not_unless_told(
    policy: RetryPolicy, jitter: float
) -> None:
    assert policy.jitter == jitter


def test_jitter_spreads_delays_in_both_directions_and_inwards_at_the_ends() -> None:
    policy = RetryPolicy("10s,20s,40s", jitter=0.1)
    spans = [(policy.delay(n, lambda: 0.0), policy.delay(n, lambda: 1 - 2**-53)) for n in (1, 2, 3)]
    assert [(low.total_seconds(), high.total_seconds()) for low, high in spans] == [
        (10, 11),
        (18, 22),
        (36, 40),
    ]


# How often to try


@pytest.mark.parametrize("given_limit, limit", [(-1, UNLIMITED), (0, 1), (1, 1), (2, 2), (100, 100)])
def test_max_attempts_counts_executions_and_none_means_one(given_limit: int, limit: int) -> None:
    assert RetryPolicy("1m", max_attempts=given_limit).max_attempts == limit


def test_a_policy_without_a_limit_allows_ten_executions() -> None:
    assert RetryPolicy("1m").max_attempts == 10
    assert RetryPolicy.parse("1m").max_attempts == 10
    assert RetryPolicy.linear("1s", "2s", 2).max_attempts == 10
    assert RetryPolicy.exponential("1s", 2, "1h").max_attempts == 10


def test_no_retry_allows_one_execution() -> None:
    assert NO_RETRY.max_attempts == 1


# The text form


@pytest.mark.parametrize(
    "text",
    [
        "0s",
        "1m",
        "1m,2m,4m",
        "1h30m,500ms",
        "1m jitter 0.2",
        "1m,2m jitter 1",
        "exponential(1s, 2, 1h)",
        "exponential(500ms, 1.5, 1d) jitter 0",
        "linear(1s, 1m, 49)",
        "linear(1m, 1s, 50) jitter 0.000001",
        "linear_1m",
        "linear_10m jitter 0.25",
        "linear_1h",
    ],
)
def test_the_text_form_is_read_and_written_back_the_same(text: str) -> None:
    assert RetryPolicy(text).spec == text
    assert RetryPolicy.parse(text, max_attempts=3) == RetryPolicy(text, max_attempts=3)


@pytest.mark.parametrize(
    "text, canonical",
    [
        ("60s, 120s", "1m,2m"),
        ("exponential(1000ms,2.0,60m)", "exponential(1s, 2, 1h)"),
        ("linear(1s, 60s, 50)", "linear_1m"),
        ("linear_1m jitter 0.10", "linear_1m"),
        ("1m jitter 0", "1m"),
    ],
)
def test_other_ways_to_write_the_same_policy_are_equal_to_it(text: str, canonical: str) -> None:
    assert RetryPolicy(text) == RetryPolicy(canonical)
    assert hash(RetryPolicy(text)) == hash(RetryPolicy(canonical))
    assert RetryPolicy(text).spec == canonical


def test_constructors_and_texts_give_equal_policies() -> None:
    assert RetryPolicy(timedelta(minutes=1)) == RetryPolicy("1m")
    assert RetryPolicy(["1m", timedelta(minutes=2)]) == RetryPolicy("1m,2m")
    assert RetryPolicy.exponential("1s", 2, "1h") == RetryPolicy("exponential(1s, 2, 1h)")
    assert RetryPolicy.linear("1s", "1m", 50) == RetryPolicy("linear_1m")
    assert RetryPolicy("1m") != RetryPolicy("1m", max_attempts=9)


def test_a_function_has_no_text_form() -> None:
    assert RetryPolicy(lambda _: timedelta(0)).spec is None


def test_a_policy_shows_its_text_form_and_its_limit() -> None:
    assert repr(POLICY) == "RetryPolicy('1m,2m,4m', max_attempts=4)"


def test_a_policy_can_not_be_changed() -> None:
    with pytest.raises(AttributeError):
        POLICY.max_attempts = 5  # type: ignore[misc]


@given(policies)
def test_every_policy_survives_being_written_and_read(policy: RetryPolicy) -> None:
    assert policy.spec is not None
    assert RetryPolicy.parse(policy.spec, max_attempts=policy.max_attempts) == policy


@given(policies)
def test_every_text_form_matches_the_pattern(policy: RetryPolicy) -> None:
    assert re.search(SPEC_PATTERN, policy.spec or "")


@given(st.from_regex(SPEC_PATTERN, fullmatch=True))
def test_what_matches_the_pattern_is_read_or_breaks_a_rule_of_arithmetic(text: str) -> None:
    try:
        policy = RetryPolicy(text)
    except InvalidInputError as error:
        assert re.search("at most 36525d|must be longer than 0s", str(error))
    else:
        assert RetryPolicy(policy.spec or "") == policy


def test_the_pattern_is_in_the_dialect_that_python_and_postgresql_share() -> None:
    assert not re.search(r"\(\?[^:]|\\[dwsb]|[*+?}][+?]", SPEC_PATTERN)
    assert (SPEC_PATTERN[:2], SPEC_PATTERN[-2:]) == (r"\A", r"\Z")


# What is refused


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "1x", "1m,", ",1m", "1m,,2m", "1m 2m", " 1m", "1m\n", "-1m", "1.5m", "5", "linear_2m",
        "linear", "linear(1s, 1m)", "linear(1s, 1m, 1)", "linear(1s, 1m, 0)", "linear(1s, 1m, 10000)",
        "linear(1s, 1m, 5.0)", "exponential(1s, 2)", "exponential(1s, 0.5, 1h)", "exponential(1s, 10000, 1h)",
        "exponential(1s, 1e3, 1h)", "exponential(1s, 2, 1h, 3)", "exponential(1s, 2, 1h",
        "Linear_1m", "1m jitter", "1m jitter 1.1", "1m jitter -0.1", "1m  jitter 0.1",
        "1m jitter 0.1 jitter 0.1", "1m jitter .5", "1m jitter 0.1234567",
    ],
)  # fmt: skip
def test_a_malformed_text_is_refused_with_the_value_and_the_remedy(text: str) -> None:
    assert not re.search(SPEC_PATTERN, text)
    with pytest.raises(InvalidInputError, match="write it as 1m or 1m,2m,4m or exponential") as caught:
        RetryPolicy(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("0s", 2, "1h"), "must be longer than 0s and at most its longest delay, got exponential(0s, 2, 1h)"),
        (("2h", 2, "1h"), "must be longer than 0s and at most its longest delay, got exponential(2h, 2, 1h)"),
        (("1s", 0.99, "1h"), "factor must be a number from 1 to below 10000, got 0.99"),
        (("1s", 9999.9999999, "1h"), "factor must be a number from 1 to below 10000, got 9999.9999999"),
        (("1s", float("nan"), "1h"), "got nan"),
        (("1s", float("inf"), "1h"), "got inf"),
        (("1s", "2", "1h"), "got '2'"),
        (("1s", True, "1h"), "got True"),
        (("1 s", 2, "1h"), "the base of a retry policy: malformed duration '1 s'"),
        (
            ("1s", 2, 3600),
            "the longest delay of a retry policy: a duration is text such as '5s' or a timedelta",
        ),
    ],
)
def test_a_malformed_exponential_policy_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        RetryPolicy.exponential(*arguments)


@pytest.mark.parametrize("steps", [1, 0, -1, 10_000, 2.0, "2", True])
def test_a_linear_policy_without_two_steps_is_refused(steps: Any) -> None:
    with pytest.raises(InvalidInputError, match="steps of a retry policy must be an integer from 2 to 9999"):
        RetryPolicy.linear("1s", "1m", steps)


@pytest.mark.parametrize("max_attempts", [-2, -100, 2_147_483_648, 1.5, "3", None, True])
def test_a_limit_below_unlimited_or_that_is_no_integer_is_refused(max_attempts: Any) -> None:
    with pytest.raises(InvalidInputError, match="max_attempts must be -1"):
        RetryPolicy("1m", max_attempts=max_attempts)


@pytest.mark.parametrize("jitter", [-0.1, 1.1, float("nan"), "0.1", True])
def test_a_jitter_outside_of_nought_to_one_is_refused(jitter: Any) -> None:
    with pytest.raises(InvalidInputError, match="jitter must be a number from 0 to 1"):
        RetryPolicy("1m", jitter=jitter)


@pytest.mark.parametrize(
    "interval", [5, 1.5, None, [], [5], timedelta(-1), "36526d", b"1m", MAX_DURATION * 2]
)
def test_an_interval_that_is_none_is_refused(interval: Any) -> None:
    with pytest.raises(InvalidInputError, match="retry policy"):
        RetryPolicy(interval)


def test_an_async_function_is_refused_when_declared() -> None:
    async def slow(attempt: int) -> timedelta:
        return timedelta(attempt)

    with pytest.raises(InvalidInputError, match="must not be async"):
        RetryPolicy(slow)  # type: ignore[arg-type]


class Slow:
    async def __call__(self, attempt: int) -> timedelta:
        return timedelta(attempt)


def test_an_object_whose_call_is_async_is_refused_when_declared() -> None:
    with pytest.raises(InvalidInputError, match="must not be async"):
        RetryPolicy(Slow())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "function", [lambda: timedelta(1), lambda one, two: timedelta(1), lambda *, attempt: timedelta(1)]
)
def test_a_function_that_cannot_take_the_number_of_failures_is_refused_when_declared(function: Any) -> None:
    with pytest.raises(InvalidInputError, match="is called with the number of failures, got <function"):
        RetryPolicy(function)


@pytest.mark.parametrize(
    "function", [lambda *failures: timedelta(1), lambda n, step=2: timedelta(n * step), max]
)
def test_a_function_that_can_take_the_number_of_failures_is_taken(function: Any) -> None:
    assert RetryPolicy(function).spec is None


def broken(attempt: int) -> timedelta:
    raise KeyError(attempt)


def exiting(_: int) -> timedelta:
    raise SystemExit(3)


def interrupting(_: int) -> timedelta:
    raise KeyboardInterrupt


def cancelling(_: int) -> timedelta:
    raise CancelledError


def negative(_: int) -> timedelta:
    return timedelta(seconds=-1)


def unitless(_: int) -> timedelta:
    return 5  # type: ignore[return-value]


def endless(_: int) -> timedelta:
    return timedelta.max


@pytest.mark.parametrize(
    "function, message",
    [
        (broken, "retry policy broken raised KeyError: 3"),
        (exiting, "retry policy exiting raised SystemExit: 3"),
        (interrupting, "retry policy interrupting raised KeyboardInterrupt"),
        (cancelling, "retry policy cancelling raised CancelledError"),
        (negative, "the delay of retry policy negative: a duration must not be negative"),
        (unitless, "retry policy unitless must return a timedelta, got 5"),
        (endless, "the delay of retry policy endless: a duration must be at most 36525d"),
    ],
)
def test_a_function_that_misbehaves_is_named_and_makes_the_failure_final(function: Any, message: str) -> None:
    policy = RetryPolicy(function)
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        policy.delay(3, middle)
    transition = decide(Failed("boom"), TASK._replace(failures=2), policy, NOW, middle)
    assert transition.status is TaskStatus.FAILED
    assert transition.error is not None
    assert transition.error.startswith(f"boom (not retried: {message}")
    assert (transition.reason, transition.event) == ("error", EventKind.FAILED)


# What becomes of a task


def test_a_completed_task_keeps_its_result() -> None:
    assert decide(Completed('"ok"'), TASK, POLICY, NOW, middle) == Transition(
        TaskStatus.COMPLETED, result='"ok"'
    )


@pytest.mark.parametrize("failures, delay", [(0, 60), (1, 120), (2, 240)])
def test_a_failure_with_attempts_left_is_retried_after_its_delay(failures: int, delay: int) -> None:
    assert decide(
        Failed("boom", "timeout"), TASK._replace(failures=failures), POLICY, NOW, middle
    ) == Transition(
        TaskStatus.SCHEDULED,
        delay=timedelta(seconds=delay),
        error="boom",
        reason="timeout",
        failed_execution=True,
        event=EventKind.RETRIED,
    )


def test_the_last_attempt_fails_for_good() -> None:
    assert decide(Failed("boom"), TASK._replace(failures=3), POLICY, NOW, middle) == Transition(
        TaskStatus.FAILED, error="boom", reason="error", failed_execution=True, event=EventKind.FAILED
    )


@given(limits, limits | st.none(), st.integers(0, 100))
def test_a_task_is_executed_as_often_as_its_own_limit_or_the_policy_says(
    policy_limit: int, task_limit: int | None, failures: int
) -> None:
    task = TASK._replace(failures=failures, max_attempts=task_limit)
    status = decide(Failed("boom"), task, RetryPolicy("1m", max_attempts=policy_limit), NOW, middle).status
    limit = policy_limit if task_limit is None else task_limit
    is_last = limit != -1 and failures + 1 >= max(limit, 1)
    assert status is (TaskStatus.FAILED if is_last else TaskStatus.SCHEDULED)


def test_claims_that_were_given_back_do_not_use_up_the_limit() -> None:
    task = TASK._replace(attempts=100, losses=2)
    assert decide(Failed("boom"), task, POLICY, NOW, middle).status is TaskStatus.SCHEDULED


def test_without_a_policy_the_first_failure_is_final() -> None:
    assert decide(Failed("boom"), TASK, NO_RETRY, NOW, middle).status is TaskStatus.FAILED


def test_a_quiet_failure_is_retried_without_an_event_but_never_final_without_one() -> None:
    quiet = Failed("boom", quiet=True)
    assert decide(quiet, TASK, POLICY, NOW, middle).event is None
    assert decide(quiet, TASK._replace(failures=3), POLICY, NOW, middle).event is EventKind.FAILED


def test_a_fatal_failure_is_final_whatever_is_left_of_the_limit() -> None:
    transition = decide(Failed("boom", "terminated", fatal=True), TASK, POLICY, NOW, middle)
    assert (transition.status, transition.reason, transition.error) == (
        TaskStatus.FAILED,
        "terminated",
        "boom",
    )


def test_a_function_is_not_asked_where_there_is_no_retry() -> None:
    transition = decide(Failed("boom"), TASK, RetryPolicy(broken, max_attempts=1), NOW, middle)
    assert transition.error == "boom"


@pytest.mark.parametrize("left, status", [(59, "failed"), (60, "failed"), (61, "scheduled")])
def test_a_retry_that_would_not_start_before_the_deadline_is_a_final_failure(left: int, status: str) -> None:
    task = TASK._replace(deadline=NOW + timedelta(seconds=left))
    assert decide(Failed("boom"), task, POLICY, NOW, middle).status == status


def test_a_failure_made_final_by_the_deadline_says_so() -> None:
    transition = decide(Failed("boom", "timeout"), TASK._replace(deadline=NOW), POLICY, NOW, middle)
    assert transition == Transition(
        TaskStatus.FAILED,
        error="boom (not retried: the retry would start after the deadline 2026-01-02 03:04:05+00:00)",
        reason="timeout",
        failed_execution=True,
        event=EventKind.FAILED,
    )


def test_a_quarantined_task_fails_for_good_and_is_not_counted_as_a_failed_execution() -> None:
    assert decide(Failed("lost", "quarantined"), TASK, POLICY, NOW, middle) == Transition(
        TaskStatus.FAILED, error="lost", reason="quarantined", event=EventKind.QUARANTINED
    )


def test_a_snooze_gives_the_attempt_back_even_past_the_deadline() -> None:
    task, delay = TASK._replace(deadline=NOW), timedelta(hours=1)
    assert decide(Snoozed(delay), task, POLICY, NOW, middle) == Transition(
        TaskStatus.SCHEDULED, delay=delay, attempt_spent=False, event=EventKind.SNOOZED
    )


def test_a_released_task_can_be_claimed_at_once_with_its_attempt_back() -> None:
    assert decide(Released(), TASK, POLICY, NOW, middle) == Transition(
        TaskStatus.PENDING, attempt_spent=False, event=EventKind.RELEASED
    )


@pytest.mark.parametrize(
    "age, delay", [(-3, 5), (0, 5), (5, 5), (10, 10), (77, 77), (300, 300), (10**6, 300)]
)
def test_a_task_of_an_unknown_name_waits_as_long_again_within_bounds(age: int, delay: int) -> None:
    task = TASK._replace(created_at=NOW - timedelta(seconds=age), reason="unknown_name")
    assert decide(Unroutable(), task, POLICY, NOW, middle) == Transition(
        TaskStatus.SCHEDULED, delay=timedelta(seconds=delay), reason="unknown_name", attempt_spent=False
    )


def test_a_task_that_meets_an_unknown_name_for_the_first_time_waits_the_least() -> None:
    task = TASK._replace(created_at=None)  # it is told only of names that were unknown before
    assert decide(Unroutable(), task, POLICY, NOW, middle).delay == timedelta(seconds=5)


def test_an_overdue_task_expires_without_an_attempt() -> None:
    assert decide(Overdue(), TASK, POLICY, NOW, middle) == Transition(
        TaskStatus.EXPIRED, reason="deadline passed", attempt_spent=False, event=EventKind.EXPIRED
    )
