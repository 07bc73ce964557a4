"""Log lines: a subscriber that turns events into lines, and a sink that never makes anybody wait.

`configure_logging` is for processes of their own (the command line); an application that embeds a worker
keeps its own logging. Lines are written by a thread: a pipe that nobody reads costs lines, never time.
"""

from __future__ import annotations

import atexit
import json
import logging
import math
import os
import queue
import re
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from typing import Any, TextIO, cast

import structlog

from asynctaskd.durations import format_duration
from asynctaskd.telemetry.events import attach

LEVELS: Mapping[str, str | None] = {
    "worker.started": "info",
    "worker.stopping": "info",
    "worker.stopped": "info",
    "task.claimed": None,
    "task.completed": "debug",
    "task.retried": "warning",
    "task.failed": "warning",
    "task.snoozed": "info",
    "task.released": "info",
    "task.expired": "warning",
    "task.stale_result": "warning",
    "task.unknown_name": "warning",
    "hook.failed": "error",
    "database.lost": "error",
    "database.restored": "info",
    "listener.up": "info",
    "listener.lost": "warning",
    "listener.deaf": "warning",
    "config.applied": "info",
    "lease.lost": "error",
    "workers.lost": "warning",
    "loop.crashed": "error",
    "handler.stuck": "error",
}
"""The level of each event: a task's own failure is at most a warning, the daemon's is an error.

None is never logged; an event that isn't named here logs at info.
"""

CAPACITY = 10_000
"""How many lines may wait for a pipe that doesn't take them; what comes then is dropped and counted."""

REPEAT_WINDOW = timedelta(seconds=10)
"""Within it the same error of the same event is written once, and then once more with `repeated`."""

_SEVERITY = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_LONGEST_TEXT = 8_000
_MOST_ITEMS = 100
_DEEPEST = 6
_BATCH = 500
_MOST_REPEATS = 1_000
_PRIVATE_FACTS = frozenset({"payload", "params", "result", "progress", "metadata"})
# Not every token is a secret: claim_token is a number that operators look for.
_SECRET_KEY = re.compile(
    r"password|passwd|secret|dsn|(^|_)(url|(auth|access|api)_(token|key)|credentials?|authorization)$",
    re.IGNORECASE,
)
_CREDENTIALS = re.compile(r"://\S*@")
_BREAKS = dict.fromkeys(map(ord, "\n\r\t\v\f\x1c\x1d\x1e\x85\u2028\u2029"), " ")
_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F)])
_ISOLATES = dict.fromkeys([*range(0x2066, 0x206A), 0xFEFF])
_CLEAN: dict[int, str | None] = {**_CONTROLS, **_ISOLATES, **_BREAKS}
_CLEAN_LINES: dict[int, str | None] = {**_CLEAN, ord("\n"): "\n"}

EventDict = MutableMapping[str, Any]
Renderer = Callable[[EventDict], str]


class LineSink:
    """Takes lines without ever blocking; a thread writes them.

    A line that finds `capacity` lines waiting is dropped, and the next line that gets through is followed
    by a count. A stream that refuses (a broken pipe, a full disk) costs the lines it refused.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        capacity: int = CAPACITY,
        describe_loss: Callable[[int], str] = "{} log lines were dropped".format,
        on_tick: Callable[[], None] | None = None,
    ) -> None:
        self.dropped = 0  # under _counting
        self._unreported = 0  # under _counting
        self._counting = threading.RLock()
        self._write = _writer(stream)
        self._capacity = capacity
        self._describe_loss = describe_loss
        self._on_tick = on_tick or (lambda: None)
        # A SimpleQueue may be put to from a signal handler; a lock of our own could not.
        self._lines: queue.SimpleQueue[str | threading.Event | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="asynctaskd-log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Hand over one line, without its line break."""
        if self._closed or self._lines.qsize() >= self._capacity:
            self._count(1)
        else:
            self._lines.put(line)

    def flush(self, timeout: float = 1.0) -> bool:
        """Wait at most `timeout` seconds until what was put before is written; whether it was."""
        written = threading.Event()
        self._lines.put(written)
        return self._thread.is_alive() and written.wait(timeout)

    def close(self, timeout: float = 1.0) -> None:
        """Write what waits, for at most `timeout` seconds, and end the thread; idempotent."""
        self._closed = True
        self._lines.put(None)
        self._thread.join(timeout)

    def _count(self, lines: int) -> None:
        with self._counting:
            self.dropped += lines
            self._unreported += lines

    def _run(self) -> None:
        while not self._write_next():
            pass

    def _write_next(self) -> bool:
        """Write what has gathered; True at the end."""
        batch = list(self._gathered())
        lines = [item for item in batch if isinstance(item, str)]
        if lines:
            self._deliver(lines)
        self._on_tick()
        for item in batch:
            if isinstance(item, threading.Event):
                item.set()
        return None in batch

    def _gathered(self) -> Iterator[str | threading.Event | None]:
        try:
            yield self._lines.get(timeout=1.0)
            for _ in range(_BATCH):
                yield self._lines.get_nowait()
        except queue.Empty:
            return

    def _deliver(self, lines: list[str]) -> None:
        try:
            self._write("".join(f"{line}\n" for line in lines))
            self._confess()
        except (OSError, ValueError):  # ValueError: the stream was closed
            self._count(len(lines))

    def _confess(self) -> None:
        with self._counting:
            lost, self._unreported = self._unreported, 0
        if lost:
            self._write(self._describe_loss(lost) + "\n")


def _writer(stream: TextIO) -> Callable[[str], None]:
    """Write to the descriptor itself where there is one.

    A thread that blocks inside the stream's buffer would hold its lock, and with it everybody who
    prints, and the interpreter at exit.
    """
    try:
        stream.fileno()
    except (OSError, ValueError, AttributeError):
        return lambda text: _write_stream(stream, text)
    return lambda text: _write_descriptor(stream, text.encode("utf-8", "backslashreplace"))


def _write_stream(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()


def _write_descriptor(stream: TextIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        # Asked each time: a closed stream raises, where its old number might be somebody else's file.
        descriptor = stream.fileno()
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:  # somebody else made the shared descriptor non-blocking
            select.select([], [descriptor], [])


@dataclass(slots=True)
class _Repeat:
    since: float
    facts: EventDict
    count: int = 0


class Throttle:
    """Lets the first of equal errors pass, counts the rest, and gives the count when the window is over.

    Args:
        window: how long equal errors are held back.
        now: a monotonic clock, in seconds.
    """

    def __init__(self, window: timedelta = REPEAT_WINDOW, now: Callable[[], float] = time.monotonic) -> None:
        self._window = window.total_seconds()
        self._now = now
        self._repeats: dict[tuple[object, ...], _Repeat] = {}  # under _lock
        self._lock = threading.RLock()

    def admits(self, line: EventDict) -> bool:
        """Whether to write this line now; a line without an `error` always passes."""
        if "error" not in line:
            return True
        key = (line["event"], line.get("name"), str(line["error"]))
        with self._lock:
            if repeat := self._repeats.get(key):
                repeat.count, repeat.facts = repeat.count + 1, line
            elif len(self._repeats) < _MOST_REPEATS:
                self._repeats[key] = _Repeat(self._now(), line)
        return repeat is None

    def expired(self, *, everything: bool = False) -> list[EventDict]:
        """The lines that stand for what was held back, each with `repeated`, where the window is over."""
        with self._lock:
            keys = [key for key, repeat in self._repeats.items() if everything or self._is_over(repeat)]
            over = [self._repeats.pop(key) for key in keys]
            for key, repeat in zip(keys, over, strict=True):
                if repeat.count and not everything:  # it goes on: hold it back for another window
                    self._repeats[key] = _Repeat(self._now(), repeat.facts)
        return [{**repeat.facts, "repeated": repeat.count} for repeat in over if repeat.count]

    def _is_over(self, repeat: _Repeat) -> bool:
        return self._now() - repeat.since >= self._window


class Logs:
    """The logging of this process, as `configure_logging` set it up."""

    def __init__(self, level: str, renderer: Renderer, stream: TextIO, throttle: Throttle) -> None:
        self._threshold = _SEVERITY[level]
        self._render = renderer
        self._throttle = throttle
        self._sink = LineSink(stream, describe_loss=self._describe_loss, on_tick=self._write_repeats)
        self._handler = _RecordHandler(self)
        self._detach = attach(self._on_event, but=self._unlogged())
        self._handler.install(self._threshold)
        structlog.configure(
            processors=[structlog.contextvars.merge_contextvars, _add_exception, self._drop_into_sink],
            wrapper_class=structlog.make_filtering_bound_logger(self._threshold),
            logger_factory=structlog.ReturnLoggerFactory(),
            cache_logger_on_first_use=False,
        )

    @property
    def dropped(self) -> int:
        """How many lines were lost because the stream didn't take them."""
        return self._sink.dropped

    def write(self, level: str, event: str, facts: Mapping[str, Any]) -> None:
        """Write one line, whatever its level; equal errors are held back."""
        line = _line(level, event, facts)
        if self._throttle.admits(line):
            self._sink.put(self._render(line))

    def flush(self, timeout: float = 1.0) -> bool:
        """Wait at most `timeout` seconds until everything is written; whether it was."""
        self._write_repeats(everything=True)
        return self._sink.flush(timeout)

    def close(self, timeout: float = 1.0) -> None:
        """Stop logging; what waits is written for at most `timeout` seconds. Idempotent."""
        self._detach()
        self._handler.uninstall()
        atexit.unregister(self.close)
        self._write_repeats(everything=True)
        self._sink.close(timeout)

    def _unlogged(self) -> list[str]:
        return [name for name, level in LEVELS.items() if not level or _SEVERITY[level] < self._threshold]

    def _on_event(self, event: str, facts: Mapping[str, Any]) -> None:
        level = LEVELS.get(event, "info") or "info"
        if _SEVERITY[level] >= self._threshold:
            self.write(level, event, _public(level, facts))

    def _write_repeats(self, *, everything: bool = False) -> None:
        for line in self._throttle.expired(everything=everything):
            self._sink.put(self._render(line))

    def _describe_loss(self, lines: int) -> str:
        return self._render(_line("error", "log.dropped", {"lines": lines}))

    def _drop_into_sink(self, _logger: object, method: str, facts: EventDict) -> str:
        self.write(_NAMES.get(method, method), str(facts.pop("event", "")), facts)
        raise structlog.DropEvent


_NAMES = {"exception": "error", "warn": "warning", "fatal": "critical", "msg": "info"}
_current: Logs | None = None


def configure_logging(
    level: str = "info",
    format: str = "auto",  # noqa: A002  (named as the key log.format)
    stream: TextIO | None = None,
) -> Logs:
    """Send events, structlog and the standard library's logging to `stream`, one line each.

    Called again, it replaces what was set up before. Threads don't survive a fork: call it in each process.

    Args:
        level: the least severe level that is written.
        format: `json`, `console`, or `auto`: console on a terminal, else JSON.
        stream: where to write; `sys.stderr` by default.
    """
    global _current  # noqa: PLW0603  (a process has one log)
    if _current:
        _current.close()
    out = sys.stderr if stream is None else stream
    _current = Logs(level, _renderer(format, out), out, Throttle())
    atexit.register(_current.close)
    return _current


def flush_logs(timeout: float = 1.0) -> bool:
    """Wait at most `timeout` seconds until all lines are written, before a hard exit; whether they were."""
    return _current is None or _current.flush(timeout)


def _renderer(format_: str, stream: TextIO) -> Renderer:
    on_terminal = stream.isatty()
    if format_ == "json" or (format_ == "auto" and not on_terminal):
        return _render_json
    return _console(colors=on_terminal and not os.environ.get("NO_COLOR"))


def _render_json(line: EventDict) -> str:
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"))


def _console(*, colors: bool) -> Renderer:
    render = structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="ts", sort_keys=False)

    def rendered(line: EventDict) -> str:
        stack = line.pop("traceback", None)
        text = str(render(None, line["level"], line))
        return text if stack is None else f"{text}\n{_indented(stack)}"

    return rendered


def _indented(stack: str) -> str:
    """Every line of it indented, so that none can pass for a line of the log."""
    return "\n".join(f"    {line}" for line in stack.splitlines())


class _RecordHandler(logging.Handler):
    """Brings the standard library's records (asyncio's, asyncpg's, a handler's own) into the same lines."""

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self._logs = logs
        self._level_before = logging.WARNING

    def install(self, threshold: int) -> None:
        """Take part in the root logger."""
        root = logging.getLogger()
        self._level_before = root.level
        root.setLevel(threshold)
        root.addHandler(self)

    def uninstall(self) -> None:
        """Leave the root logger as it was before."""
        root = logging.getLogger()
        if self in root.handlers:
            root.removeHandler(self)
            root.setLevel(self._level_before)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as one line."""
        facts: dict[str, Any] = {"logger": record.name}
        if record.exc_info and record.exc_info[1]:
            facts |= _exception_facts(record.exc_info[1])
        try:
            self._logs.write(_level_name(record.levelno), record.getMessage(), facts)
        except Exception:  # noqa: BLE001  (whoever logs a malformed record isn't harmed)
            self._logs.write("error", "log.unreadable_record", {"logger": record.name})


def _level_name(number: int) -> str:
    return next((name for name, severity in reversed(_SEVERITY.items()) if number >= severity), "debug")


def _add_exception(_logger: object, _method: str, facts: EventDict) -> EventDict:
    given = facts.pop("exc_info", None)
    error = given if isinstance(given, BaseException) else sys.exc_info()[1] if given else None
    return {**facts, **_exception_facts(error)} if error else facts


def _exception_facts(error: BaseException) -> dict[str, Any]:
    return {"error": error, "traceback": "".join(traceback.format_tb(error.__traceback__))}


def _public(level: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of an event without payloads, and with the stack where the daemon itself failed."""
    public = {key: value for key, value in facts.items() if key not in _PRIVATE_FACTS}
    error = facts.get("error")
    if isinstance(error, BaseException) and error.__traceback__ and _SEVERITY[level] >= _SEVERITY["error"]:
        public |= _exception_facts(error)
    return public


def _line(level: str, event: str, facts: Mapping[str, Any]) -> EventDict:
    line: EventDict = {"ts": _now(), "level": level, "event": _text(event)}
    for key, value in facts.items():
        name = _text(key)
        line[f"{name}_" if name in ("ts", "level", "event") else name] = _fact(name, value)
    return line


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fact(name: str, value: object) -> object:
    if _SECRET_KEY.search(name):
        return "***"
    if name == "traceback":
        return _shortened(_CREDENTIALS.sub("://***@", str(value)).translate(_CLEAN_LINES))
    return _plain(value, _DEEPEST)


def _plain(value: object, depth: int) -> object:
    """The value as JSON can hold it: whole, readable and harmless."""
    match value:
        case Enum():
            return _plain(value.value, depth)
        case None | bool():
            return value
        case int():
            return value if abs(value) < 2**64 else _text(f"{value:#x}")
        case float():
            return value if math.isfinite(value) else str(value)
        case timedelta():
            return _duration(value)
        case datetime() | date():
            return value.isoformat()
        case BaseException():
            return _text(describe_error(value))
        case bytes() | bytearray() | memoryview():
            return f"<{len(cast('bytes', value))} bytes>"
        case Mapping() | list() | tuple() | set() | frozenset() if depth:
            return _plain_items(cast("Iterable[object]", value), depth - 1)
        case _:
            return _text(value)


def _plain_items(items: Iterable[object], depth: int) -> object:
    if isinstance(items, Mapping):
        pairs = list(cast("Mapping[object, object]", items).items())[:_MOST_ITEMS]
        return {_text(k): "***" if _SECRET_KEY.search(_text(k)) else _plain(v, depth) for k, v in pairs}
    return [_plain(item, depth) for item in list(items)[:_MOST_ITEMS]]


def _duration(value: timedelta) -> str:
    try:
        return format_duration(value)
    except ValueError:  # negative, or longer than a century
        return str(value)


def _text(value: object) -> str:
    try:
        text = str(value)
    except Exception:  # noqa: BLE001  (a __str__ may raise anything)
        return f"<unprintable {type(value).__name__}>"
    text = text if text.isprintable() else text.translate(_CLEAN)
    return _shortened(_CREDENTIALS.sub("://***@", text) if "://" in text else text)


def _shortened(text: str) -> str:
    """Cut the middle out of what is long: errors begin with what, and end with where."""
    if len(text) <= _LONGEST_TEXT:
        return text
    half = _LONGEST_TEXT // 2
    return f"{text[:half]} …[{len(text) - 2 * half} characters]… {text[-half:]}"


def describe_error(error: BaseException) -> str:
    """What went wrong in one line: type and message, of a database error without the values it quotes."""
    name = type(error).__name__
    if isinstance(error, BaseExceptionGroup):
        inner = cast("tuple[BaseException, ...]", error.exceptions)
        return f"{name}: {'; '.join(map(describe_error, inner[:5]))}"
    if isinstance(state := getattr(error, "sqlstate", None), str):
        return _describe_database_error(error, name, state)
    message = _text(error)
    return f"{name}: {message}" if message else name


def _describe_database_error(error: BaseException, name: str, state: str) -> str:
    if constraint := getattr(error, "constraint_name", None):
        return f"{name} ({state}): constraint {constraint}"
    # Classes 22 and 23 quote the offending value in the message itself.
    message = "" if state[:2] in ("22", "23") or not error.args else f": {_text(error.args[0])}"
    return f"{name} ({state}){message}"
