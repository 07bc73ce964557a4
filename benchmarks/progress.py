"""Where a run stands, on standard error: one line that changes on a terminal, a line each elsewhere."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.status import Status


class Progress:
    """Says what is being done."""

    def __init__(self, console: Console, status: Status | None) -> None:
        self._console = console
        self._status = status
        self._began = time.monotonic()
        self._what = ""

    def say(self, what: str) -> None:
        """From now on this is being done."""
        self._what = what
        self._show(what)

    def step(self, part: str) -> None:
        """From now on it is this part of it."""
        self._show(f"{self._what}: {part}")

    def _show(self, what: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        line = f"{minutes}:{seconds:02} {what}"
        if self._status is not None:
            self._status.update(line)
        else:
            self._console.print(line, highlight=False)


@contextmanager
def shown() -> Iterator[Progress]:
    """While the block runs."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Progress(console, None)
        return
    with console.status("starting") as status:
        yield Progress(console, status)
