"""Log lines: a subscriber that turns events into lines, and a sink that never makes anybody wait.

`configure_logging` is for processes of their own (the command line); an application that embeds a worker
keeps its own logging. Lines are written by a thread: a pipe that nobody reads costs lines, never time.
"""

from __future__ import annotations

import atexit
import logging
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict

from asynctaskd.telemetry.events import attach
from asynctaskd.telemetry.facts import describe_error, exception_facts, line_of, public_facts
from asynctaskd.telemetry.levels import LEVELS, SEVERITY, level_of
from asynctaskd.telemetry.render import Renderer, renderer_for
from asynctaskd.telemetry.sink import LineSink
from asynctaskd.telemetry.speaking import speaker_facts
from asynctaskd.telemetry.throttle import Throttle

__all__ = [
    "LEVELS",
    "LineSink",
    "Logs",
    "Throttle",
    "configure_logging",
    "describe_error",
    "flush_logs",
    "set_log_level",
]


class Logs:
    """The logging of this process, as `configure_logging` set it up."""

    def __init__(
        self, level: str, renderer: Renderer, stream: TextIO, common: Mapping[str, Any] | None = None
    ) -> None:
        self._common = common or {}
        self._render = renderer
        self._throttle = Throttle()
        self._sink = LineSink(stream, describe_loss=self._describe_loss, on_tick=self._write_repeats)
        self._handler = _RecordHandler(self)
        self._listen(level)

    def set_level(self, level: str) -> None:
        """Write whatever is at least as severe as that from now on."""
        self._detach()
        self._handler.uninstall()
        self._listen(level)

    def _listen(self, level: str) -> None:
        self._threshold = SEVERITY[level]
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
        line = line_of(level, event, {**self._common, **facts})
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
        return [name for name, level in LEVELS.items() if not level or SEVERITY[level] < self._threshold]

    def _on_event(self, event: str, facts: Mapping[str, Any]) -> None:
        level = LEVELS.get(event, "info") or "info"
        if SEVERITY[level] >= self._threshold:
            self.write(level, event, public_facts(level, facts))

    def _write_repeats(self, *, everything: bool = False) -> None:
        for line in self._throttle.expired(everything=everything):
            self._sink.put(self._render(line))

    def _describe_loss(self, lines: int) -> str:
        return self._render(line_of("error", "log.dropped", {**self._common, "lines": lines}))

    def _drop_into_sink(self, _logger: object, method: str, facts: EventDict) -> str:
        self.write(method, str(facts.pop("event", "")), {**speaker_facts(), **facts})
        raise structlog.DropEvent


_current: Logs | None = None


def configure_logging(
    level: str = "info",
    format: str = "auto",  # noqa: A002  (named as the key log.format)
    stream: TextIO | None = None,
    common: Mapping[str, Any] | None = None,
) -> Logs:
    """Send events, structlog and the standard library's logging to `stream`, one line each.

    Called again, it replaces what was set up before. Threads don't survive a fork: call it in each process.

    Args:
        level: the least severe level that is written.
        format: `json`, `console`, or `auto`: console on a terminal, else JSON.
        stream: where to write; `sys.stderr` by default.
        common: facts that every line begins with.
    """
    global _current  # noqa: PLW0603  (a process has one log)
    if _current:
        _current.close()
    out = sys.stderr if stream is None else stream
    _current = Logs(level, renderer_for(format, out), out, common)
    atexit.register(_current.close)
    return _current


def set_log_level(level: str) -> None:
    """Have the logging of this process write whatever is at least as severe as that."""
    if _current:
        _current.set_level(level)


def flush_logs(timeout: float = 1.0) -> bool:
    """Wait at most `timeout` seconds until all lines are written, before a hard exit; whether they were."""
    return _current is None or _current.flush(timeout)


def dropped_lines() -> int:
    """How many lines of this process's log were lost, because nobody read them or the disk was full."""
    return 0 if _current is None else _current.dropped


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
        facts: dict[str, Any] = {**speaker_facts(), "logger": record.name}
        if record.exc_info and record.exc_info[1]:
            facts |= exception_facts(record.exc_info[1])
        try:
            self._logs.write(level_of(record.levelno), record.getMessage(), facts)
        except Exception:  # noqa: BLE001  (whoever logs a malformed record isn't harmed)
            self._logs.write("error", "log.unreadable_record", {"logger": record.name})


def _add_exception(_logger: object, _method: str, facts: EventDict) -> EventDict:
    given = facts.pop("exc_info", None)
    error = given if isinstance(given, BaseException) else sys.exc_info()[1] if given else None
    return {**facts, **exception_facts(error)} if error else facts
