"""What a worker process tells the harness: lines of JSON on its standard output.

    {"event": "first", "at": …, "cpu": …}     the first task that does nothing has started
    {"event": "all", "at": …}                 and as many as BENCH_TASKS says have
    {"event": "count", "pid": …, "count": …}  how many so far (BENCH_REPORT=often)
    {"event": "stamps", "stamps": [[…, …]]}   when timed tasks were sent and when they started

`at` and stamps are the wall clock in seconds, which every process of a machine shares; `cpu` is in seconds.
BENCH_REPORT=each tells of each timed task at once. With `often` a thread tells ten times a second, so that
a task costs no more than a counter and a list's place.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from typing import Any

_PAUSE = 0.1


class Tally:
    """Counts tasks and notes their starts, in a process that was told by the environment what to say."""

    def __init__(self) -> None:
        # Where the harness itself runs the App, nobody listens.
        self._speaks = "BENCH_TASKS" in os.environ
        self._target = int(os.environ.get("BENCH_TASKS", "0"))
        self._says_each = os.environ.get("BENCH_REPORT") == "each"
        self._count = 0
        self._stamps: list[tuple[float, float]] = []
        self._turn = threading.Lock()
        if os.environ.get("BENCH_REPORT") == "often":
            threading.Thread(target=self._tell_often, daemon=True).start()

    def tick(self) -> None:
        """A task that does nothing has started."""
        self._count += 1
        if self._count == 1:
            self._say(event="first", at=time.time(), cpu=_cpu())
        if self._count == self._target:
            self._say(event="all", at=time.time())

    def stamp(self, sent_at: float) -> None:
        """A timed task has started."""
        self._stamps.append((sent_at, time.time()))
        if self._says_each:
            self._tell_stamps()

    def _tell_often(self) -> None:
        while True:
            time.sleep(_PAUSE)
            self._say(event="count", pid=os.getpid(), count=self._count)
            self._tell_stamps()

    def _tell_stamps(self) -> None:
        stamps, self._stamps = self._stamps, []
        if stamps:
            self._say(event="stamps", stamps=stamps)

    def _say(self, **line: Any) -> None:
        if not self._speaks:
            return
        with self._turn:
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
