from __future__ import annotations

import logging
from pathlib import Path

import pytest

from asynctaskd.telemetry import attach, emit, events, is_watched


@pytest.fixture
def heard():
    """A list of (event, facts), and a function that attaches what fills it."""
    collected: list[tuple[str, dict[str, object]]] = []
    detachers = []

    def listen(*names: str, but: tuple[str, ...] = ()):
        detach = attach(lambda event, facts: collected.append((event, dict(facts))), *names, but=but)
        detachers.append(detach)
        return detach

    yield collected, listen
    for detach in detachers:
        detach()


def test_a_subscriber_hears_the_names_it_asked_for_with_their_facts(heard):
    collected, listen = heard
    listen("test.one", "test.two")
    emit("test.one", task_id=1)
    emit("test.three", task_id=2)
    emit("test.two")
    assert collected == [("test.one", {"task_id": 1}), ("test.two", {})]


def test_a_subscriber_without_names_hears_everything_but_what_it_excludes(heard):
    collected, listen = heard
    listen(but=("test.loud",))
    emit("test.loud")
    emit("test.quiet")
    assert collected == [("test.quiet", {})]


def test_facts_may_be_called_name_and_event(heard):
    collected, listen = heard
    listen("test.one")
    emit("test.one", name="send_email", event="x")
    assert collected == [("test.one", {"name": "send_email", "event": "x"})]


def test_a_name_is_watched_only_while_somebody_listens_to_it(heard):
    _, listen = heard
    assert not is_watched("test.one")
    detach = listen("test.one")
    assert is_watched("test.one")
    assert not is_watched("test.two")
    detach()
    assert not is_watched("test.one")


def test_excluding_a_name_leaves_it_unwatched(heard):
    _, listen = heard
    listen(but=("test.loud",))
    assert not is_watched("test.loud")
    assert is_watched("test.quiet")


def test_detaching_twice_leaves_a_second_attachment_of_the_same_function_alone():
    calls: list[str] = []

    def subscriber(event, facts):
        calls.append(event)

    first, second = attach(subscriber, "test.one"), attach(subscriber, "test.one")
    first()
    first()
    emit("test.one")
    second()
    assert calls == ["test.one"]


def test_a_subscriber_that_raises_harms_neither_the_emitter_nor_the_others_and_is_reported_once(
    heard, caplog
):
    collected, listen = heard

    def broken(event, facts):
        raise RuntimeError("broken")

    detach = attach(broken, "test.one")
    listen("test.one")
    with caplog.at_level(logging.ERROR):
        emit("test.one")
        emit("test.one")
    detach()
    assert len(collected) == 2
    assert [record.name for record in caplog.records] == ["asynctaskd.telemetry.events"]


def test_a_subscriber_may_detach_itself_while_it_is_told(heard):
    collected, listen = heard
    detach = attach(lambda event, facts: detach(), "test.one")
    listen("test.one")
    emit("test.one")
    emit("test.one")
    assert len(collected) == 2


def test_a_subscriber_that_emits_its_own_event_does_not_bring_down_the_emitter(caplog):
    detach = attach(lambda event, facts: emit("test.one"), "test.one")
    emit("test.one")
    detach()


def test_emitting_knows_nothing_of_how_lines_are_written():
    assert "structlog" not in Path(events.__file__).read_text(encoding="utf-8")
