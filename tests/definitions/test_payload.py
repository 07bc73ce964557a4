from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from time import perf_counter
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, SecretStr, computed_field, field_serializer

from asynctaskd.definitions.payload import (
    MAX_BYTES,
    are_unsuspicious,
    check_payload,
    dump_payload,
    write_payload,
)
from asynctaskd.definitions.text import MAX_TEXT_BYTES, describe_error, is_storable, truncate_text
from asynctaskd.errors import InvalidPayloadError

LARGEST = 2**63 - 1
SMALLEST = -(2**63)


class Order(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    order_id: int = Field(alias="orderId")
    price: float = 1.5
    note: str | None = None

    @computed_field
    @property
    def twice(self) -> float:
        return 2 * self.price


@dataclass
class Point:
    x: int


class Colour(Enum):
    RED = "red"


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


def wrapped(value: object, levels: int) -> object:
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def refusal(value: object) -> str:
    with pytest.raises(InvalidPayloadError) as caught:
        dump_payload(value)
    return str(caught.value)


def refusal_of_text(text: str) -> str:
    with pytest.raises(InvalidPayloadError) as caught:
        check_payload(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.5, None, True, "é"]}, '{"a":[1,2.5,null,true,"é"]}'),
        ([], "[]"),
        ("text", '"text"'),
        (7, "7"),
        (Order(orderId=7), '{"orderId":7,"price":1.5,"note":null}'),
        ({"orders": [Order(orderId=7)]}, '{"orders":[{"orderId":7,"price":1.5,"note":null}]}'),
        (datetime(2030, 1, 1, tzinfo=UTC), '"2030-01-01T00:00:00Z"'),
        (date(2030, 1, 1), '"2030-01-01"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Decimal("1.10"), '"1.10"'),
        ((1, 2), "[1,2]"),
        (Point(x=1), '{"x":1}'),
        (Colour.RED, '"red"'),
    ],
)
def test_what_pydantic_can_write_is_written(value: object, text: str):
    assert dump_payload(value) == text


def test_a_payload_of_1_mib_is_taken_and_one_byte_more_refused():
    assert len(dump_payload("a" * (MAX_BYTES - 2))) == MAX_BYTES
    assert refusal("a" * (MAX_BYTES - 1)) == "payload is 1048577 bytes; at most 1048576 are allowed"


def test_size_is_counted_in_bytes():
    assert refusal("é" * 600_000).startswith("payload is 1200002 bytes")


def test_64_levels_are_taken_and_65_refused():
    check_payload(dump_payload(nested(64)))
    assert refusal(nested(65)) == "payload is nested 65 levels deep; at most 64 are allowed"
    assert refusal_of_text("[" * 65 + "]" * 65) == "payload is nested 65 levels deep; at most 64 are allowed"


def test_objects_are_levels_too():
    text = '{"a":' * 64 + "[]" + "}" * 64
    assert refusal_of_text(text) == "payload is nested 65 levels deep; at most 64 are allowed"


def test_many_brackets_side_by_side_or_inside_strings_are_not_deep():
    check_payload(dump_payload([[{}]] * 500))
    check_payload(dump_payload({"a": '[{"' * 500}))


@pytest.mark.parametrize("levels", [200, 300, 100_000])
def test_a_nesting_bomb_is_refused_quietly(levels: int):
    assert "nested" in refusal(nested(levels))
    assert "nested" in refusal_of_text("[" * levels + "]" * levels)
    assert "nested" in refusal_of_text('{"a":' * levels + "1" + "}" * levels)


def test_a_value_that_holds_itself_is_refused():
    loop: list[Any] = []
    loop.append(loop)
    assert refusal(loop) == "payload refers to itself"


@pytest.mark.parametrize("number", [LARGEST, SMALLEST, 0, 1e18, -1e18, 1e-30, 0.1, 12345678901234.5])
def test_numbers_within_64_bits_are_taken(number: float):
    assert json.loads(dump_payload({"a": number})) == {"a": number}


@pytest.mark.parametrize(
    "number",
    [LARGEST + 1, SMALLEST - 1, 10**30, 1e19, 1e30, -1e30, 2.0**63, pytest.param(10**5000, id="long")],
)
def test_integral_numbers_beyond_64_bits_are_refused(number: float):
    assert refusal({"a": [number]}).startswith("payload holds an integral number beyond 64 bits")


@pytest.mark.parametrize(
    "text",
    [
        "1e19", "1E+19", "0.1e20", "10000000000000000000e0", "92233720368547758080e-1", "-1e999999999",
        "1e99999999999999999999", pytest.param("1" * 500_000, id="long"), "1e308", "100000000000000000000.00",
    ],
)  # fmt: skip
def test_however_it_is_written_a_number_too_large_is_refused(text: str):
    assert "beyond 64 bits" in refusal_of_text(f'{{"a": {text}}}')


@pytest.mark.parametrize(
    "text",
    [
        "9223372036854775807", "-9223372036854775808", "1e18", "922337203685477580700e-2", "0e50", "0.0E+99",
        "12345678901234567890.5", "1e-400", "0.1234567890123456789012345", "9223372036854775807.000",
    ],
)  # fmt: skip
def test_however_it_is_written_a_number_within_bounds_is_taken(text: str):
    check_payload(f"[{text}]")


def test_what_looks_like_a_number_inside_a_string_is_text():
    check_payload(dump_payload({"a": "1e30", "b": "9" * 40, "3e8": "NaN Infinity", "c": '\\"1e30\\" 1e30'}))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused(number: float):
    message = "payload holds NaN or Infinity, which JSON doesn't have"
    assert refusal(number) == refusal({"a": [number]}) == message
    assert refusal_of_text(f'{{"a": {json.dumps(number)}}}') == message


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_nan_is_refused_inside_models_too(number: float):
    order = Order(orderId=1, price=number)
    assert "NaN" in refusal(order)
    assert "NaN" in refusal({"orders": [order]})


def test_infinity_is_found_wherever_pydantic_loses_it():
    assert "NaN" in refusal([{"a": (Order(orderId=1, price=math.inf),)}])
    check_payload(dump_payload([{"a": (Order(orderId=1), None)}]))


def test_a_secret_is_refused_unless_it_writes_itself():
    class Login(BaseModel):
        password: SecretStr

    class Revealing(Login):
        @field_serializer("password", when_used="json")
        def reveal(self, password: SecretStr) -> str:
            return password.get_secret_value()

    assert "holds a secret, which needs a serializer" in refusal(Login(password=SecretStr("x")))
    assert "a secret" in refusal({"a": [Login(password=SecretStr("x"))]})
    assert dump_payload(Revealing(password=SecretStr("x"))) == '{"password":"x"}'
    assert dump_payload({"a": "**********"}) == '{"a":"**********"}'


@pytest.mark.parametrize("text", ["a\0", "\0", "\\\0"])
def test_a_nul_character_is_refused(text: str):
    assert refusal({"a": text}).startswith("payload holds a NUL character")
    assert refusal({text: 1}).startswith("payload holds a NUL character")


@pytest.mark.parametrize("text", ["\\u0000", "\\\\u0000", "\\ud800", "\x01\x1f", "\n\t"])
def test_what_only_looks_like_a_nul_character_is_text(text: str):
    assert json.loads(dump_payload({"a": text})) == {"a": text}


def test_lone_surrogates_are_refused_and_pairs_are_not():
    assert "lone surrogate" in refusal({"a": "\ud800"})
    assert "lone surrogate" in refusal_of_text('"\ud800"')
    for lone in ('"\\ud800"', '"\\udc00"', '"\\uDBFFx"', '"\\ud800\\n"', '"\\ud83d\\ud83d\\ude00"'):
        assert "lone surrogate" in refusal_of_text(lone)
    check_payload('"\\ud83d\\ude00 \\u00e9 \\\\ud800"')


def test_what_cannot_be_written_is_refused():
    assert refusal({"a": object()}) == (
        "payload can't be written as JSON: Unable to serialize unknown type: <class 'object'>"
    )
    assert "can't be written as JSON" in refusal(b"\xff")


def test_a_serializer_that_raises_is_a_refusal():
    class Odd(BaseModel):
        a: int = 1

        @field_serializer("a")
        def odd(self, _: int) -> int:
            raise KeyError("odd")

    assert "can't be written as JSON" in refusal(Odd())


@pytest.mark.parametrize("text", ["", "{", "[1,]", "{'a': 1}", '"a', "nul", "1 2", '{"a" 1}', '"\n"'])
def test_text_that_is_no_json_is_refused(text: str):
    assert refusal_of_text(text).startswith("payload is not valid JSON: ")


def test_messages_call_the_value_what_it_is():
    with pytest.raises(InvalidPayloadError, match="^result holds NaN"):
        dump_payload(math.nan, "result")


@pytest.mark.parametrize("part", ['\\"', '"', "[", "\\u", "[],", "1e9,", '"a",'])
def test_a_text_made_to_be_slow_is_not(part: str):
    began = perf_counter()
    refusal_of_text('"' + part * (1_000_000 // len(part)))
    refusal_of_text(part * (1_000_000 // len(part)))
    assert perf_counter() - began < 5


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(min_value=SMALLEST, max_value=LARGEST),
        st.floats(min_value=-1e18, max_value=1e18),
        st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    ),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(st.characters(codec="ascii")), inner)),
)
ANYTHING = st.recursive(
    st.one_of(
        st.none(), st.integers(), st.floats(), st.text(st.characters(codec=None)), st.binary(),
        st.dates(), st.decimals(), st.uuids(), st.complex_numbers(),
        st.sampled_from([10**40, 1e40, "\0", object(), Order]),
    ),
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner),
        st.dictionaries(st.one_of(st.text(), st.integers(), st.none()), inner),
        st.builds(wrapped, inner, st.integers(min_value=0, max_value=300)),
    ),
)  # fmt: skip


def levels_in(value: object) -> int:
    members = list(value.values()) if isinstance(value, dict) else value
    return 1 + max(map(levels_in, members), default=0) if isinstance(members, list) else 0


@given(value=JSON)
def test_a_payload_reads_back_as_it_was_given(value: Any):
    try:
        text = dump_payload(value)
    except InvalidPayloadError:
        assert levels_in(value) > 64 or "\\u0000" in json.dumps(value)
    else:
        assert json.loads(text) == value
        check_payload(text)


@given(value=ANYTHING)
def test_any_value_is_written_within_the_limits_or_refused(value: object):
    try:
        text = dump_payload(value)
    except InvalidPayloadError:
        return
    check_payload(text)
    assert levels_in(json.loads(text, parse_constant=pytest.fail)) <= 64


def written_together(values: list[object]) -> list[bytes] | None:
    try:
        return [write_payload(value) for value in values]
    except InvalidPayloadError:
        return None


@given(values=st.lists(st.one_of(JSON, ANYTHING), max_size=4))
def test_what_is_unsuspicious_together_is_taken_alone(values: list[object]):
    written = written_together(values)
    if written is not None and are_unsuspicious(written):
        assert [dump_payload(value) for value in values] == [data.decode() for data in written]


@pytest.mark.parametrize(
    "odd",
    [
        math.nan, {"a": 2**63}, 1e19, "1e19", "\0", None, nested(65), "a" * (MAX_BYTES - 1), SecretStr("x"),
        [Order(orderId=1, note=None)],
    ],
    ids=lambda odd: repr(odd)[:20],
)  # fmt: skip
def test_one_that_needs_a_closer_look_is_suspicious_among_others(odd: object):
    ordinary = [{"user_id": 1, "template": "welcome"}, Order(orderId=1, note="x"), [[{}]] * 20]
    assert are_unsuspicious(list(map(write_payload, ordinary)))
    assert not are_unsuspicious(list(map(write_payload, [*ordinary, odd])))


@given(text=st.one_of(st.text(st.characters(codec=None)), st.text('[]{}",:\\u0dDc8eE+-.19 ')))
def test_any_text_is_taken_or_refused(text: str):
    try:
        check_payload(text)
    except InvalidPayloadError:
        return
    json.loads(text)


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_refused_exactly_when_it_is_integral_and_beyond_64_bits(number: float):
    beyond = number.is_integer() and not SMALLEST < number < 2.0**63
    try:
        dump_payload([number])
    except InvalidPayloadError:
        assert beyond
    else:
        assert not beyond


def test_random_nesting_is_judged_by_its_true_depth():
    rng = random.Random(7)  # a fixed seed: the cases are the same in every run
    for _ in range(200):
        value = wrapped([rng.random()] * rng.randrange(80), rng.randrange(100))
        if levels_in(value) > 64:
            assert refusal(value).startswith(f"payload is nested {levels_in(value)} levels")
        else:
            check_payload(dump_payload(value))


def test_a_short_text_is_not_truncated():
    assert truncate_text("é" * 10) == "é" * 10
    assert truncate_text("é" * 50, limit=100) == "é" * 50


def test_a_long_text_is_cut_and_says_how_long_it_was():
    cut = truncate_text("é" * 100_000)
    assert cut.endswith("é … [truncated, 100000 characters]")
    assert len(cut.encode()) <= MAX_TEXT_BYTES


@given(text=st.text(st.characters(codec=None)), limit=st.integers(min_value=0, max_value=100))
def test_truncated_text_is_storable_and_within_its_limit(text: str, limit: int):
    cut = truncate_text(text, limit)
    assert is_storable(cut)
    assert len(cut.encode()) <= limit


def test_an_error_is_described_by_type_and_message():
    assert describe_error(ValueError("no such user")) == "ValueError: no such user"
    assert describe_error(ValueError()) == "ValueError"
    assert describe_error(KeyError("a")) == "KeyError: 'a'"


@pytest.mark.parametrize("raised", [ValueError("x"), SystemExit(1), KeyboardInterrupt(), RecursionError()])
def test_an_error_that_cannot_be_printed_is_described_all_the_same(raised: BaseException):
    class OddError(Exception):
        def __str__(self) -> str:
            raise raised

    assert describe_error(OddError()) == "OddError: (its message can't be read)"


def test_a_description_is_storable_and_short():
    assert (
        describe_error(ValueError("a\0b\ud800"))
        == "ValueError: a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"
    )
    assert len(describe_error(ValueError("x" * 10_000_000)).encode()) <= MAX_TEXT_BYTES


def test_an_error_whose_message_is_an_odd_string_is_described():
    class Odd(str):
        __slots__ = ()

        def __format__(self, _: str) -> str:
            raise ValueError

    class OddError(Exception):
        def __str__(self) -> str:
            return Odd("odd")

    assert describe_error(OddError()) == "OddError: odd"


def test_a_group_names_its_members():
    group = ExceptionGroup("two", [ValueError("a"), ExceptionGroup("inner", [KeyError("b")])])
    assert describe_error(group) == (
        "ExceptionGroup: two (2 sub-exceptions) "
        "[ValueError: a; ExceptionGroup: inner (1 sub-exception) [KeyError: 'b']]"
    )


def test_a_group_of_many_names_the_first():
    group = ExceptionGroup("many", [ValueError(n) for n in range(7)])
    assert describe_error(group).endswith("ValueError: 4; and 2 more]")
