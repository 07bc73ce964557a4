"""The payloads of many requests are what each would be alone, however they were written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from asynctaskd import App
from asynctaskd.definitions.batch import dump_many
from asynctaskd.definitions.payload import MAX_BYTES
from asynctaskd.definitions.request import TaskRequest
from asynctaskd.errors import InvalidInputError, InvalidPayloadError, UnknownTaskError

app = App()


class Order(BaseModel):
    order_id: int = Field(alias="orderId")


@app.task("add")
async def add(a: int, b: int = 2) -> None: ...


@app.task("sum")
async def total(numbers: list[int] | None) -> None: ...


@app.task("ship")
async def ship(order: Order) -> None: ...


def payloads(documents: list[str]) -> list[Any]:
    return [payload for document in documents for payload in json.loads(document)]


@given(
    st.lists(
        st.one_of(
            st.builds(lambda a: TaskRequest("add", {"a": a}), st.integers(-(2**65), 2**65)),
            st.builds(lambda a: TaskRequest("add", {"a": str(a)}), st.integers(0, 9)),
            st.builds(lambda n: TaskRequest("ship", {"order_id": n}), st.integers(0, 9)),
            st.just(TaskRequest("ship", Order(orderId=1))),
            st.just(TaskRequest("add", {"a": "x"})),
            st.just(TaskRequest("sub", {"a": 1})),
        ),
        max_size=5,
    )
)
def test_each_is_stored_as_it_would_be_alone_and_the_first_bad_one_is_named(requests: list[TaskRequest]):
    alone, wrong = [], None
    for place, request in enumerate(requests, 1):
        try:
            alone.append(json.loads(app[request.name].dump(request.payload)))
        except InvalidInputError as error:
            wrong = f"request {place}: {error}"
            break
    try:
        assert payloads(dump_many(requests, app)) == alone
    except InvalidInputError as error:
        assert str(error) == wrong
    else:
        assert wrong is None


@pytest.mark.parametrize("place", [0, 999, 1_000, 2_499])
@pytest.mark.parametrize(
    ("odd", "error"),
    [
        (TaskRequest("sub"), UnknownTaskError),
        (TaskRequest("add", {"a": None}), InvalidPayloadError),
        (TaskRequest("add", {"a": "x" * MAX_BYTES}), InvalidPayloadError),
    ],
)
def test_of_thousands_the_bad_one_is_named(place: int, odd: TaskRequest, error: type[InvalidInputError]):
    requests = [TaskRequest("add", {"a": 1})] * 2_500
    assert payloads(dump_many(requests, app)) == [{"a": 1}] * 2_500
    requests[place] = odd
    with pytest.raises(error, match=rf"^request {place + 1}: "):
        dump_many(requests, app)


@pytest.mark.parametrize(
    "others",
    [
        [TaskRequest("add", {"a": 2})],
        [TaskRequest("add", {"a": 2}), TaskRequest("ship", {"order_id": 1})],
        [TaskRequest("sum", {"numbers": None})],
    ],
    ids=["one name", "two names", "null"],
)
def test_what_can_be_read_once_only_is_read_once(others: list[TaskRequest]):
    [first, *_] = payloads(dump_many([TaskRequest("sum", {"numbers": iter([1, 2])}), *others], app))
    assert first == {"numbers": [1, 2]}


def test_without_an_app_whatever_can_be_written_is_taken():
    assert payloads(dump_many([TaskRequest("x", "y"), TaskRequest("z", [1])], None)) == ["y", [1]]
    assert dump_many([], None) == []


def test_no_document_of_large_payloads_is_more_than_a_jsonb_value_can_hold():
    large = "x" * (MAX_BYTES - 2)
    documents = dump_many([TaskRequest("x", large)] * 20, None)
    assert payloads(documents) == [large] * 20
    assert max(map(len, documents)) < 9 * MAX_BYTES
