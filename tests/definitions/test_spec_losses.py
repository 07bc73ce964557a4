"""What a changed file passes over of what the old one read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asynctaskd.definitions.spec.losses import Losses, properties_lost
from asynctaskd.definitions.spec.spec import Spec
from asynctaskd.definitions.spec.tasks import load_spec


@pytest.fixture
def spec(tmp_path: Path):
    """The file of one task with those parameters; None: it has none."""

    def loaded(parameters: str | None) -> Spec:
        path = tmp_path / "tasks.yaml"
        path.write_text(f"tasks: [{{name: x{'' if parameters is None else f', parameters: {parameters}'}}}]")
        return load_spec(path)

    return loaded


def an_object(properties: str, more: str = "") -> str:
    return f"{{type: object, properties: {{{properties}}}{more}}}"


ONE = an_object("a: {type: integer}")
CASES = [
    (an_object("userId: {}, gone: {}"), an_object("user_id: {}"), {"userId": 1, "gone": 2},
     ["userId", "gone"]),
    # A field is read by its own name, too.
    (an_object("user_id: {}"), an_object("userId: {}"), {"user_id": 1}, []),
    (an_object("a: {}"), an_object("a: {}, b: {}"), {"a": 1}, []),
    (an_object("a: {}"), an_object("", ", additionalProperties: true"), {"a": 1}, []),
    (an_object("a: {}"), "{type: object}", {"a": 1}, []),
    # It is refused: a change, and no loss.
    (an_object("a: {}"), an_object("", ", additionalProperties: false"), {}, []),
    (an_object("a: {}"), None, {}, []),
    (an_object(f"in: {ONE}"), an_object("in: {type: object, properties: {}}"), {"in": {"a": 1}}, ["in.a"]),
    (an_object(f"in: {{type: array, items: {ONE}}}"),
     an_object("in: {type: array, items: {type: object, properties: {}}}"),
     {"in": [{"a": None}, {"a": 1}, {"a": 2}]}, ["in[].a"]),
    (an_object(f"in: {{type: object, additionalProperties: {ONE}}}"),
     an_object("in: {type: object, additionalProperties: {type: object, properties: {}}}"),
     {"in": {"ada@example.org": {"a": 1}}}, ["in.*.a"]),
    (an_object(f"in: {ONE}"), an_object("in: {type: object}"), {"in": {"a": 1}}, []),
    (an_object(f"in: {ONE}"), an_object("out: {}"), {"in": {"a": 1}}, ["in"]),
]  # fmt: skip


@pytest.mark.parametrize("old,new,payload,lost", CASES)
def test_what_is_passed_over_is_told_of_files_and_of_payloads(
    spec, old: str, new: str | None, payload: Any, lost: list[str]
):
    before, after = spec(old), spec(new)
    assert [(one.task, one.field) for one in properties_lost(before, after)] == [("x", it) for it in lost]
    assert Losses(before, after).of("x", json.dumps(payload)) == set(lost)
    assert Losses(None, after).of("x", json.dumps(payload)) == set(lost)


def test_what_the_old_file_passed_over_is_no_loss_unless_nobody_knows_the_old_file(spec):
    old, new = spec(an_object("a: {}")), spec(an_object("a: {}, b: {}"))
    payload = json.dumps({"a": 1, "more": 2})
    assert Losses(old, new).of("x", payload) == set()
    assert Losses(None, new).of("x", payload) == {"more"}


def test_what_a_payload_holds_where_anything_was_kept_is_lost_where_it_is_passed_over(spec):
    old, new = spec(an_object("in: {type: object}")), spec(an_object(f"in: {ONE}"))
    assert Losses(old, new).of("x", '{"in": {"a": 1, "b": 2}}') == {"in.b"}


def test_null_is_no_value(spec):
    old, new = spec(an_object("a: {}, gone: {}")), spec(an_object("a: {}"))
    assert Losses(old, new).of("x", '{"a": null, "gone": null}') == set()
