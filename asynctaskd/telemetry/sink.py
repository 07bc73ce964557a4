"""How does a line get out without anybody waiting? A thread writes it; a full pipe costs lines."""

from __future__ import annotations

import os
import queue
import select
import threading
from collections.abc import Callable, Iterator
from typing import TextIO

CAPACITY = 10_000
"""How many lines may wait for a pipe that doesn't take them; what comes then is dropped and counted."""

_BATCH = 500


class LineSink:
    """Takes lines without ever blocking; a thread writes them.

    A line that finds `CAPACITY` lines waiting is dropped, and the next line that gets through is followed
    by a count. A stream that refuses (a broken pipe, a full disk) costs the lines it refused.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        describe_loss: Callable[[int], str] = "{} log lines were dropped".format,
        on_tick: Callable[[], None] | None = None,
    ) -> None:
        self.dropped = 0  # under _counting
        self._unreported = 0  # under _counting
        self._counting = threading.RLock()
        self._write = _writer(stream)
        self._describe_loss = describe_loss
        self._on_tick = on_tick or (lambda: None)
        # A SimpleQueue may be put to from a signal handler; a lock of our own could not.
        self._lines: queue.SimpleQueue[str | threading.Event | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="asynctaskd-log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Hand over one line, without its line break."""
        if self._closed or self._lines.qsize() >= CAPACITY:
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
