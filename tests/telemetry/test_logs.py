from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from enum import Enum
from uuid import UUID

import pytest
import structlog
from pydantic import SecretStr

from asynctaskd.telemetry import emit, is_watched
from asynctaskd.telemetry.logs import (
    LEVELS,
    LineSink,
    Throttle,
    configure_logging,
    describe_error,
    flush_logs,
)


class Log:
    def __init__(self, level: str = "info", format_: str = "json") -> None:
        self.stream = io.StringIO()
        self.logs = configure_logging(level, format_, self.stream)

    @property
    def text(self) -> str:
        assert self.logs.flush(5)
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def log():
    opened: list[Log] = []

    def configure(level: str = "info", format_: str = "json") -> Log:
        opened.append(Log(level, format_))
        return opened[-1]

    yield configure
    for one in opened:
        one.logs.close()
    structlog.reset_defaults()


@pytest.fixture
def pipe():
    """A pipe that nobody reads yet, and the stream of its writing end."""
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    yield reading, stream
    for close in (lambda: os.close(reading), stream.close):
        try:
            close()
        except OSError:
            pass


def read_until(descriptor: int, wanted: bytes, seconds: float = 20) -> bytes:
    end = time.monotonic() + seconds
    text = b""
    while wanted not in text and time.monotonic() < end:
        text += os.read(descriptor, 65536)
    return text


def test_an_event_is_one_json_line_with_ts_level_and_event_first(log):
    one = log()
    emit("worker.started", worker_id=UUID(int=7), concurrency=10)
    (line,) = one.lines
    assert list(line)[:3] == ["ts", "level", "event"]
    assert (line["level"], line["event"], line["concurrency"]) == ("info", "worker.started", 10)
    assert line["worker_id"] == str(UUID(int=7))
    assert datetime.fromisoformat(line["ts"]).tzinfo is not None


@pytest.mark.parametrize("event,level", [item for item in LEVELS.items() if item[1]])
def test_each_event_is_logged_at_its_level(log, event, level):
    one = log("debug")
    emit(event)
    assert [line["level"] for line in one.lines] == [level]


def test_a_failure_of_a_task_is_never_an_error_of_the_daemon():
    assert all(level != "error" for event, level in LEVELS.items() if event.startswith("task."))


def test_an_event_without_a_level_is_logged_at_info(log):
    one = log()
    emit("something.new", fact=1)
    assert [line["level"] for line in one.lines] == ["info"]


def test_what_is_not_logged_costs_nothing_because_nobody_watches_it(log):
    one = log("info")
    assert not is_watched("task.claimed")
    assert not is_watched("task.completed")
    emit("task.claimed")
    emit("task.completed")
    assert one.text == ""


def test_facts_are_rendered_readably(log):
    class Colour(Enum):
        RED = "red"

    one = log()
    emit(
        "worker.started",
        at=datetime(2026, 1, 2, tzinfo=UTC),
        after=timedelta(minutes=90),
        before=timedelta(seconds=-1),
        colour=Colour.RED,
        labels=("a", "b"),
        data=b"abc",
        share=float("nan"),
        huge=10**5000,
        nested={"ids": {1}},
        what=ValueError("no"),
    )
    (line,) = one.lines
    assert line["at"] == "2026-01-02T00:00:00+00:00"
    assert line["after"] == "1h30m"
    assert (line["colour"], line["labels"], line["data"]) == ("red", ["a", "b"], "<3 bytes>")
    assert (line["share"], line["nested"], line["what"]) == ("nan", {"ids": [1]}, "ValueError: no")
    assert line["huge"].startswith("0x")


def test_a_value_that_cannot_be_printed_loses_neither_the_line_nor_the_subscriber(log):
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no")

    loop: list[object] = []
    loop.append(loop)
    one = log()
    emit("worker.started", broken=Broken(), loop=loop)
    emit("worker.started", lone="\ud800")
    assert [line["event"] for line in one.lines] == ["worker.started"] * 2
    assert one.lines[0]["broken"] == "<unprintable Broken>"


def test_facts_named_like_the_keys_of_a_line_do_not_replace_them(log):
    one = log()
    emit("worker.started", level="x", ts="y")
    (line,) = one.lines
    assert (line["level"], line["level_"], line["ts_"]) == ("info", "x", "y")


def test_payloads_and_results_are_left_out(log):
    one = log()
    emit("task.failed", task_id=1, payload={"card": "4111"}, params="4111", result="4111", error="boom")
    assert "4111" not in one.text
    assert one.lines[0]["error"] == "boom"


def test_no_password_reaches_a_line(log):
    one = log()
    emit("database.lost", url="postgresql://u:hunter2@h/d", password="hunter2", key=SecretStr("hunter2"))
    emit("listener.lost", error=OSError("no route to postgresql://u:hunter2@h/d"))
    emit("something.new", settings={"dsn": "hunter2", "nested": "postgres://u:hun@ter2@h"})
    structlog.get_logger().warning("connecting to postgres://u:hunter2@h")
    assert "hunter2" not in one.text
    assert "hun@" not in one.text


def test_a_claim_token_is_no_secret(log):
    one = log()
    emit("task.stale_result", claim_token=7)
    assert one.lines[0]["claim_token"] == 7


@pytest.mark.parametrize("format_", ["json", "console"])
def test_text_cannot_forge_a_line_or_steer_a_terminal(log, format_):
    one = log(format_=format_)
    evil = "x\n2026 [error] forged\r\x1b[31mred\x07\x9b31m\u2028sep\u202eover\x00"
    emit("task.failed", error=evil, **{"key\nevil": 1})
    structlog.get_logger().info(evil)
    logging.getLogger("test").warning(evil)
    assert len(one.text.splitlines()) == 3
    assert not set("\r\x07\x9b\u2028\u202e\x00\x1b") & set(one.text)


@pytest.mark.parametrize("format_", ["json", "console"])
def test_a_traceback_cannot_forge_a_line(log, format_):
    one = log(format_=format_)
    try:
        raise RuntimeError("x\n2026 [error] forged")
    except RuntimeError as error:
        emit("loop.crashed", error=error)
    assert "test_a_traceback_cannot_forge_a_line" in one.text
    assert not any(line.startswith("2026 [error] forged") for line in one.text.splitlines())


def test_very_long_text_is_cut_in_the_middle(log):
    one = log()
    emit("task.failed", error="A" + "x" * 1_000_000 + "Z")
    error = one.lines[0]["error"]
    assert len(error) < 9_000
    assert error[0] + error[-1] == "AZ"


def test_console_is_chosen_by_name_and_json_where_there_is_no_terminal(log):
    console = log(format_="console")
    emit("worker.started", concurrency=3)
    assert "worker.started" in console.text
    assert not console.text.startswith("{")
    auto = log(format_="auto")
    emit("worker.started", concurrency=3)
    assert auto.lines[0]["concurrency"] == 3


def test_structlog_and_the_standard_library_write_into_the_same_lines(log):
    one = log()
    structlog.get_logger().bind(task_id=5).info("hello", n=1)
    structlog.get_logger().debug("quiet")
    logging.getLogger("asyncio").warning("slow %s", "callback")
    hello, slow = one.lines
    assert (hello["event"], hello["level"], hello["task_id"], hello["n"]) == ("hello", "info", 5, 1)
    assert (slow["event"], slow["level"], slow["logger"]) == ("slow callback", "warning", "asyncio")


def test_a_record_whose_arguments_do_not_fit_harms_nobody(log):
    one = log()
    record = logging.LogRecord("test", logging.WARNING, __file__, 1, "wrong %d", ("format",), None)
    one.logs._handler.handle(record)
    assert [line["event"] for line in one.lines] == ["log.unreadable_record"]


def test_an_exception_that_is_logged_carries_its_stack(log):
    one = log()
    try:
        raise ValueError("boom")
    except ValueError:
        structlog.get_logger().exception("failed")
    (line,) = one.lines
    assert (line["level"], line["error"]) == ("error", "ValueError: boom")
    assert "test_logs.py" in line["traceback"]


def test_configuring_again_replaces_what_was_configured_before(log):
    first, second = log(), log()
    emit("worker.started")
    assert first.stream.getvalue() == ""
    assert len(second.lines) == 1


def test_closing_restores_the_standard_library(log):
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    one = log("debug")
    one.logs.close()
    assert (root.level, root.handlers) == before


def test_equal_errors_are_written_once_and_then_counted(log):
    one = log()
    for task_id in range(5):
        emit("database.lost", error="refused", task_id=task_id)
    emit("database.lost", error="timeout")
    emit("worker.started")
    emit("worker.started")
    lines = one.lines
    assert [line["event"] for line in lines].count("worker.started") == 2
    refused = [line for line in lines if line.get("error") == "refused"]
    assert [(line["task_id"], line.get("repeated")) for line in refused] == [(0, None), (4, 4)]


def test_what_was_held_back_is_reported_when_its_window_is_over_even_if_nothing_follows():
    clock = [0.0]
    throttle = Throttle(timedelta(seconds=10), lambda: clock[0])
    line = {"event": "database.lost", "error": "refused"}
    assert [throttle.admits(dict(line)) for _ in range(3)] == [True, False, False]
    assert throttle.expired() == []
    clock[0] = 10.0
    assert throttle.expired() == [{**line, "repeated": 2}]
    assert not throttle.admits(dict(line))
    clock[0] = 20.0
    assert throttle.expired() == [{**line, "repeated": 1}]
    clock[0] = 30.0
    assert throttle.expired() == []
    assert throttle.admits(dict(line))


def test_ever_new_errors_do_not_make_the_throttle_grow():
    throttle = Throttle()
    assert all(throttle.admits({"event": "e", "error": str(n)}) for n in range(5_000))
    assert len(throttle._repeats) <= 1_000


def test_a_database_error_is_described_without_the_values_it_quotes():
    class UniqueViolationError(Exception):
        sqlstate = "23505"
        constraint_name = "tasks_pkey"

    class DataError(Exception):
        sqlstate = "22P02"

    class UndefinedTableError(Exception):
        sqlstate = "42P01"

    assert describe_error(UniqueViolationError("secret")) == (
        "UniqueViolationError (23505): constraint tasks_pkey"
    )
    assert describe_error(DataError("invalid input: 'secret'")) == "DataError (22P02)"
    assert describe_error(UndefinedTableError("no tasks")) == "UndefinedTableError (42P01): no tasks"
    group = ExceptionGroup("unhandled", [ValueError("a"), TypeError()])
    assert describe_error(group) == "ExceptionGroup: ValueError: a; TypeError"


def test_a_pipe_that_nobody_reads_never_blocks_the_emitter_and_the_loss_is_counted(pipe):
    reading, stream = pipe
    logs = configure_logging("info", "json", stream)
    try:
        longest = 0.0
        for n in range(30_000):
            start = time.monotonic()
            emit("worker.started", n=n, filler="x" * 50)
            longest = max(longest, time.monotonic() - start)
        assert logs.dropped > 5_000
        assert longest < 2
        assert not flush_logs(0.05)
        written = read_until(reading, b'"log.dropped"')
        assert b'"log.dropped"' in written
        assert b'"n":0,' in written
    finally:
        os.close(reading)
        logs.close(5)
        structlog.reset_defaults()


def test_closing_waits_for_a_blocked_pipe_only_as_long_as_it_may(pipe):
    reading, stream = pipe
    sink = LineSink(stream)
    for _ in range(5_000):
        sink.put("x" * 100)
    start = time.monotonic()
    sink.close(0.1)
    assert time.monotonic() - start < 5
    assert sink._thread.is_alive()
    os.close(reading)
    sink._thread.join(20)
    assert not sink._thread.is_alive()


def test_a_full_pipe_does_not_hold_the_lock_of_the_stream_for_others(pipe):
    reading, stream = pipe
    sink = LineSink(stream)
    for _ in range(5_000):
        sink.put("x" * 100)
    writer = threading.Thread(target=stream.write, args=("hello",), daemon=True)
    writer.start()
    writer.join(10)
    assert not writer.is_alive()
    os.close(reading)
    sink.close(20)


def test_a_non_blocking_descriptor_loses_no_line(pipe):
    reading, stream = pipe
    os.set_blocking(stream.fileno(), False)
    sink = LineSink(stream)
    for n in range(3_000):
        sink.put(f"{n} " + "x" * 100)
    sink.put("the end")
    text = read_until(reading, b"the end")
    assert len(text.splitlines()) == 3_001
    assert sink.dropped == 0
    sink.close()


def test_a_broken_pipe_costs_its_lines_and_nothing_else(pipe):
    reading, stream = pipe
    os.close(reading)
    sink = LineSink(stream)
    sink.put("lost")
    assert sink.flush(10)
    assert sink.dropped == 1
    assert sink._thread.is_alive()
    sink.close()


def test_a_closed_stream_costs_its_lines_and_nothing_else():
    stream = io.StringIO()
    sink = LineSink(stream)
    stream.close()
    sink.put("lost")
    assert sink.flush(10)
    assert sink.dropped == 1
    sink.close()
    sink.close()


def test_lines_put_before_the_end_of_the_process_are_written():
    script = (
        "from asynctaskd.telemetry.logs import configure_logging\n"
        "from asynctaskd.telemetry import emit\n"
        "configure_logging()\n"
        "for n in range(500): emit('worker.stopped', n=n)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=60)
    assert [json.loads(line)["n"] for line in done.stderr.splitlines()] == list(range(500))


def test_a_process_whose_pipe_is_full_ends_all_the_same():
    script = (
        "from asynctaskd.telemetry.logs import configure_logging\n"
        "from asynctaskd.telemetry import emit\n"
        "configure_logging()\n"
        "for n in range(20000): emit('worker.stopped', n=n)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)
    try:
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
