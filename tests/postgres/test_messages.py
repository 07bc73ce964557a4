"""Messages only hurry: what can't be understood is passed over, and ends nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asynctaskd.postgres.messages import hearing
from asynctaskd.telemetry.events import attach


def heard_of(payload: str) -> list[dict[str, Any]]:
    heard: list[dict[str, Any]] = []
    hearing({"go": heard.append})(payload)
    return heard


def test_a_message_of_that_op_is_acted_on_with_its_params() -> None:
    assert heard_of('{"op": "go", "params": {"version": 3}}') == [{"version": 3}]


@pytest.mark.parametrize("payload", ['{"op": "go"}', '{"op": "go", "params": [1]}'])
def test_params_that_are_missing_or_no_object_are_empty(payload: str) -> None:
    assert heard_of(payload) == [{}]


@pytest.mark.parametrize("payload", ['{"op": "stop", "params": {}}', "{}", '{"op": null}'])
def test_an_unknown_op_is_passed_over(payload: str) -> None:
    assert heard_of(payload) == []


@pytest.mark.parametrize("payload", ["", "{", "[1]", "7", json.loads('"\\u0000"'), "[" * 7000])
def test_an_unreadable_message_is_told_and_otherwise_left_alone(payload: str) -> None:
    told: list[str] = []
    detach = attach(lambda event, _: told.append(event), "notice.unreadable")
    assert heard_of(payload) == []
    detach()
    assert told == ["notice.unreadable"]
