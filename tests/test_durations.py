import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctaskd.durations import DURATION_PATTERN, MAX_DURATION, format_duration, parse_duration

WRITTEN = {
    "0s": timedelta(0),
    "500ms": timedelta(milliseconds=500),
    "5s": timedelta(seconds=5),
    "30m": timedelta(minutes=30),
    "1h30m": timedelta(minutes=90),
    "2h": timedelta(hours=2),
    "1d": timedelta(days=1),
    "1d2h3m4s5ms": timedelta(days=1, hours=2, minutes=3, seconds=4, milliseconds=5),
    "1m5ms": timedelta(minutes=1, milliseconds=5),
    "36525d": MAX_DURATION,
}

MALFORMED = [
    "", " ", "5", "5 min", "5 s", " 5s", "5s ", "5s\n", "-5s", "+5s", "1.5h", "1,5h", "5S", "1w", "1y", "5us",
    "s", "ms5", "1m1h", "1s1s", "5s1m", "1h 30m", "P1D", "00:05:00", "\N{ARABIC-INDIC DIGIT FIVE}s", "5\0s",
]  # fmt: skip

durations = st.timedeltas(min_value=timedelta(0), max_value=MAX_DURATION)
whole_milliseconds = st.integers(0, MAX_DURATION // timedelta(milliseconds=1)).map(
    lambda count: count * timedelta(milliseconds=1)
)


@pytest.mark.parametrize("text", WRITTEN)
def test_a_written_duration_is_read_and_written_back_the_same(text: str) -> None:
    assert parse_duration(text) == WRITTEN[text]
    assert format_duration(WRITTEN[text]) == text


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_duration_is_refused_with_the_value_and_the_remedy(text: str) -> None:
    with pytest.raises(ValueError, match="write it as 500ms, 5s, 30m, 1h30m or 1d") as caught:
        parse_duration(text)
    assert str(caught.value) == f"malformed duration {text!r}: write it as 500ms, 5s, 30m, 1h30m or 1d"


@pytest.mark.parametrize("value", [5, 0, 1.5, True, None, b"5s", ["5s"]])
def test_a_value_without_a_unit_is_refused_with_its_type(value: object) -> None:
    with pytest.raises(ValueError, match=rf"text such as '5s' or a timedelta, got .*{type(value).__name__}"):
        parse_duration(value)  # type: ignore[arg-type]


def test_a_negative_timedelta_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        parse_duration(timedelta(microseconds=-1))
    with pytest.raises(ValueError, match="must not be negative"):
        format_duration(timedelta(days=-1))


@pytest.mark.parametrize("value", ["36525d1ms", "99999999999999999999d", "876601h", timedelta.max])
def test_a_duration_of_more_than_a_century_is_refused(value: str | timedelta) -> None:
    with pytest.raises(ValueError, match="must be at most 36525d"):
        parse_duration(value)


def test_units_may_be_larger_than_the_next_unit_and_are_written_shortest() -> None:
    assert format_duration(parse_duration("90m")) == "1h30m"
    assert format_duration(parse_duration("1000ms")) == "1s"
    assert format_duration(parse_duration("007s")) == "7s"


def test_what_is_finer_than_a_millisecond_is_rounded_up_and_never_to_nothing() -> None:
    assert parse_duration(timedelta(microseconds=1)) == timedelta(milliseconds=1)
    assert format_duration(timedelta(seconds=1, microseconds=1)) == "1s1ms"


@given(whole_milliseconds)
def test_writing_and_reading_give_the_same_duration(value: timedelta) -> None:
    assert parse_duration(format_duration(value)) == value


@given(durations)
def test_a_timedelta_and_its_text_mean_the_same(value: timedelta) -> None:
    assert parse_duration(format_duration(value)) == parse_duration(value)
    assert timedelta(0) <= parse_duration(value) - value < timedelta(milliseconds=1)


@given(st.text().filter(lambda text: not re.fullmatch(DURATION_PATTERN, text)))
def test_any_text_outside_the_grammar_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="malformed duration") as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


@given(st.from_regex(DURATION_PATTERN, fullmatch=True))
def test_any_text_within_the_grammar_is_read_or_too_long(text: str) -> None:
    try:
        assert parse_duration(format_duration(parse_duration(text))) == parse_duration(text)
    except ValueError as error:
        assert "must be at most 36525d" in str(error)
