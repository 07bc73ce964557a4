"""What the runner did and saw, as JSON lines with the wall clock: the fault log."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any


class Journal:
    """The fault log of one run. `n` is the number of the planned event that a line belongs to."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self.faults: Counter[str] = Counter()
        self._counted: set[tuple[int, str]] = set()

    def fault(self, n: int, kind: str, **facts: Any) -> None:
        """A fault begins: a line for each process or connection that it concerns; it counts once."""
        if (n, kind) not in self._counted:
            self._counted.add((n, kind))
            self.faults[kind] += 1
        self._write({"n": n, "fault": kind, **facts})

    def event(self, event: str, n: int | None = None, **facts: Any) -> None:
        """Something else: the end of a fault, a process that started or ended."""
        self._write({"event": event, **({} if n is None else {"n": n}), **facts})

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps({"at": time.time(), **line}) + "\n")

    def close(self) -> None:
        """Nothing follows."""
        self._file.close()
