"""Was the same error written a moment ago? Then it is counted instead."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from structlog.typing import EventDict

REPEAT_WINDOW = timedelta(seconds=10)
"""Within it the same error of the same event is written once, and then once more with `repeated`."""

_MOST_REPEATS = 1_000


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
