"""When a schedule is due: expressions, zones, changes of the clock, and what others think of it."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctaskd.scheduling.cron import Timetable, zone_of
from tests.scheduling import cron_oracle as oracle

MAY = datetime(2026, 5, 1, 12, tzinfo=UTC)
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def next_of(expression: str, count: int = 3, *, zone: str = "UTC", after: datetime = MAY) -> list[str]:
    """The next slots as the zone's clocks show them."""
    timetable = Timetable.read(expression, zone)
    slots = itertools.islice(timetable.slots(after), count)
    return [f"{slot.astimezone(timetable.zone):%m-%d %H:%M:%S%z}" for slot in slots]


def remarks(expression: str, zone: str, after: datetime, count: int) -> list[str | None]:
    return [slot.remark for slot in itertools.islice(Timetable.read(expression, zone).preview(after), count)]


# Expressions


@pytest.mark.parametrize(
    ("expression", "first"),
    [
        ("0 0 2 * * *", "05-02 02:00:00"),
        ("0 2 * * *", "05-02 02:00:00"),
        ("30 0 2 * * *", "05-02 02:00:30"),
        ("* * * * * *", "05-01 12:00:01"),
        ("*/15 * * * * *", "05-01 12:00:15"),
        ("0 5-5 * * * *", "05-01 12:05:00"),
        ("0 10-30/10,50 * * * *", "05-01 12:10:00"),
        ("0 0 0 * * 7", "05-03 00:00:00"),
        ("0 0 0 * * 0", "05-03 00:00:00"),
        ("0 0 0 * * MON-wed", "05-04 00:00:00"),
        ("0 0 0 1 jul *", "07-01 00:00:00"),
        ("0 0 0 13 * fri", "05-08 00:00:00"),  # one of the days will do
        ("0 0 0 */2 * mon", "05-11 00:00:00"),  # with a star, both
        ("  0\t0 2 * * * ", "05-02 02:00:00"),
        ("@hourly", "05-01 13:00:00"),
        ("@daily", "05-02 00:00:00"),
        ("@weekly", "05-03 00:00:00"),
        ("@monthly", "06-01 00:00:00"),
        ("@yearly", "01-01 00:00:00"),
    ],
)
def test_an_expression_means(expression: str, first: str) -> None:
    assert next_of(expression, 1) == [f"{first}+0000"]


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("", "has six fields.*; '' has 0"),
        ("* * * *", "has six fields.*has 4"),
        ("* * * * * * 2026", "has six fields.*has 7"),
        ("0 0 24 * * *", "hour must be from 0 to 23, got 24, in the cron expression '0 0 24"),
        ("60 * * * *", "minute must be from 0 to 59, got 60"),
        ("* * * * * 30", "day of week must be from 0 to 7, got 30"),
        ("0 0 0 31 2 *", "no such month has a day 31"),
        ("0 0 0 30,31 2 *", "no such month has a day 30"),
        ("0 22-2 * * *", "hour must not have a range that goes down, got '22-2'"),
        ("0 0 * * fri-sun", "day of week must not have a range that goes down"),
        ("5/10 * * * *", "minute has a step without a range: write 5-59/10, got '5/10'"),
        ("*/0 * * * *", "minute must have steps of 1 to 59, got 0"),
        ("*/60 * * * *", "minute must have steps of 1 to 59, got 60"),
        ("*-5 * * * *", "must not have a range that begins with a star"),
        ("R * * * *", "minute must be 0 to 59, got 'r'"),
        ("H H * * *", "minute must be 0 to 59, got 'h'"),
        ("H(0-29) * * * *", r"must be made of \*, numbers, ranges"),
        ("0 0 L * *", "day of month must be 1 to 31, got 'l'"),
        ("0 0 15W * *", r"day of month must be made of \*"),
        ("0 0 * * 5#3", r"day of week must be made of \*"),
        ("0 0 ? * *", r"day of month must be made of \*"),
        ("0 0 * foo *", "month must be 1 to 12, jan to dec, got 'foo'"),
        ("0 0 * * \u0665", r"must be made of \*"),
        ("1,,2 * * * *", r"minute must be made of \*.*got ''"),
        ("@reboot", "a cron word must be one of @yearly"),
        ("@every", "@every takes one duration"),
        ("@every 10", "malformed duration '10'"),
        ("@every 500ms", "@every must be at least 1s"),
    ],
)
def test_what_crons_disagree_about_is_refused_with_the_rule_and_the_value(
    expression: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        Timetable.read(expression)


def test_every_counts_from_its_anchor() -> None:
    anchor = MAY + timedelta(seconds=7)
    timetable = Timetable.read("@every 10m", anchor=anchor)
    assert timetable.after(anchor) == anchor + timedelta(minutes=10)
    assert timetable.after(anchor + timedelta(minutes=10)) == anchor + timedelta(minutes=20)
    assert timetable.after(anchor + timedelta(minutes=29, seconds=59)) == anchor + timedelta(minutes=30)
    assert timetable.after(anchor - timedelta(days=1)) == anchor + timedelta(minutes=10)


def test_fractions_of_a_second_skip_nothing() -> None:
    timetable = Timetable.read("* * * * * *")
    assert timetable.after(MAY + timedelta(microseconds=1)) == MAY + timedelta(seconds=1)
    assert timetable.after(MAY - timedelta(microseconds=1)) == MAY


def test_the_29th_of_february_is_found_across_a_century() -> None:
    start = datetime(2097, 1, 1, tzinfo=UTC)
    assert Timetable.read("0 0 0 29 2 *").after(start) == datetime(2104, 2, 29, tzinfo=UTC)
    assert Timetable.read("0 0 0 29 2 */7").after(start) == datetime(2128, 2, 29, tzinfo=UTC)


def test_the_calendar_ends() -> None:
    assert Timetable.read("0 0 0 29 2 *").after(datetime(9997, 1, 1, tzinfo=UTC)) is None
    assert Timetable.read("@daily").after(datetime.max.replace(tzinfo=UTC)) is None


# Zones


def test_every_zone_is_known() -> None:
    for name in oracle.zones():
        assert zone_of(name).key == name


@pytest.mark.parametrize(
    "name", ["", "Vienna", "../etc/passwd", "Europe", "iso3166.tab", "/Europe/Vienna", "+02:00"]
)
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"zone must be a name such as 'Europe/Vienna' or 'UTC', got"):
        zone_of(name)


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("0 30 2 * * *", ["03-28 02:30:00+0100", "03-29 03:00:00+0200", "03-30 02:30:00+0200"]),
        ("0 0 2,3 * * *", ["03-28 02:00:00+0100", "03-28 03:00:00+0100", "03-29 03:00:00+0200"]),
        ("0 0 3 * * *", ["03-28 03:00:00+0100", "03-29 03:00:00+0200", "03-30 03:00:00+0200"]),
    ],
)
def test_a_time_of_day_in_a_gap_comes_once_right_after_it(expression: str, shown: list[str]) -> None:
    after = datetime(2026, 3, 27, 12, tzinfo=UTC)
    assert next_of(expression, zone="Europe/Vienna", after=after) == shown


def test_a_time_of_day_that_exists_twice_comes_the_first_time() -> None:
    after = datetime(2026, 10, 24, 12, tzinfo=UTC)
    shown = next_of("0 30 2 * * *", 2, zone="Europe/Vienna", after=after)
    assert shown == ["10-25 02:30:00+0200", "10-26 02:30:00+0100"]


def test_between_the_two_times_it_is_over() -> None:
    between = datetime(2026, 10, 25, 0, 45, tzinfo=UTC)  # 02:45 for the first time
    assert next_of("0 30 2 * * *", 1, zone="Europe/Vienna", after=between) == ["10-26 02:30:00+0100"]


def test_with_a_star_it_goes_on_by_real_time() -> None:
    after = datetime(2026, 10, 24, 23, 45, tzinfo=UTC)
    assert next_of("0 */30 * * * *", 4, zone="Europe/Vienna", after=after) == [
        "10-25 02:00:00+0200",
        "10-25 02:30:00+0200",
        "10-25 02:00:00+0100",
        "10-25 02:30:00+0100",
    ]
    after = datetime(2026, 3, 29, 0, 15, tzinfo=UTC)
    shown = next_of("0 */30 * * * *", 2, zone="Europe/Vienna", after=after)
    assert shown == ["03-29 01:30:00+0100", "03-29 03:00:00+0200"]


def test_remarks_say_what_a_change_of_the_clock_did() -> None:
    march, october = datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 10, 24, 23, 45, tzinfo=UTC)
    vienna = "Europe/Vienna"
    gone = "02:30:00 doesn't exist that day: once, right after the gap"
    assert remarks("0 30 2 * * *", vienna, march, 2) == [gone, None]
    twice = "02:30:00 exists twice that day"
    assert remarks("0 30 2 * * *", vienna, october, 2) == [f"{twice}: only the first time", None]
    assert remarks("0 30 * * * *", vienna, october, 3) == [
        f"{twice}: the first time",
        f"{twice}: the second time",
        None,
    ]
    early = datetime(2026, 3, 29, 0, 45, tzinfo=UTC)
    left_out = "the clock goes from 02:00 to 03:00: what is between is left out"
    assert remarks("0 */10 * * * *", vienna, early, 3) == [None, left_out, None]
    assert remarks("@every 1h", vienna, early, 3) == [None, None, None]


# What others think; see cron_oracle


THIS_YEAR = list(oracle.windows(2026, 2026))


@pytest.mark.parametrize("window", THIS_YEAR, ids=lambda window: f"{window.zone} {window.start:%m-%d}")
def test_everybody_agrees_around_every_change_of_the_clock(window: oracle.Window) -> None:
    rng = random.Random(f"{window}")
    assert [line for expression in oracle.TABLE for line in oracle.differences(expression, window)] == []
    assert oracle.second_differences(oracle.random_expression(rng), window) == []


seeds = st.integers(0, 2**32)


@settings(max_examples=150)
@given(window=st.sampled_from(THIS_YEAR), seed=seeds)
def test_everybody_agrees_about_random_expressions(window: oracle.Window, seed: int) -> None:
    expression = oracle.random_expression(random.Random(seed)).partition(" ")[2]
    assert oracle.differences(expression, window) == []


@settings(max_examples=150)
@given(seed=seeds, hours=st.integers(0, 24 * 365))
def test_croniter_agrees_where_no_clock_changes(seed: int, hours: int) -> None:
    expression = oracle.random_expression(random.Random(seed))
    start = NEW_YEAR + timedelta(hours=hours)
    if not oracle.is_croniters_own(expression):
        mine = list(itertools.islice(Timetable.read(expression).slots(start), 10))
        assert mine == oracle.from_croniter(expression, start, 10)
