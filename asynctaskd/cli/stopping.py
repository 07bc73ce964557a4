"""Signals, and a way out that no thread can block."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from asynctaskd.cli.failures import ExitCode
from asynctaskd.daemon.process import RELOAD
from asynctaskd.telemetry.events import emit
from asynctaskd.telemetry.logs import flush_logs

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

# Short: what was put back may be running elsewhere already.
_LAST_BREATH = 0.05


class Signals:
    """SIGTERM and SIGINT: the first drains, the second gives running tasks back at once, the third ends it.

    SIGHUP has the configuration read again. Not below a terminal: there it says that the terminal is gone.

    As long as there is nothing to stop, a signal ends the process with exit code 0. A parent's orders and
    signals count apart: what both say was said once.
    """

    def __init__(self) -> None:
        self._count = 0  # of signals
        self._ordered = 0
        self._obeyed = 0  # under _obeying, which a signal may interrupt while its own thread holds it
        self._obeying = threading.RLock()
        self._stop: Callable[[], object] | None = None
        self._reload: Callable[[], object] | None = None
        self._is_asked_to_reload = False
        self._heeded: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {
            signal.SIGTERM: self._on_signal,
            signal.SIGINT: self._on_signal,
        }
        if not has_terminal():
            self._heeded[signal.SIGHUP] = self._on_hangup

    def install(self) -> None:
        """Take the signals. Not by the loop: it doesn't turn while a handler blocks it."""
        for number, heed in self._heeded.items():
            signal.signal(number, heed)

    def take_back(self) -> None:
        """Take the signals again if somebody has taken one meanwhile: a handler, or a library it calls."""
        taken = [one for one, heed in self._heeded.items() if signal.getsignal(one) != heed]
        if taken:
            self.install()
            emit("signals.restored", signals=[one.name for one in taken])

    @contextmanager
    def bound_to(self, stop: Callable[[], object], reload: Callable[[], object]) -> Iterator[None]:
        """Within the block the first signal and the second call `stop`; after it all is stopped anyway.

        SIGHUP calls `reload`, also where it came before.
        """
        self._stop, self._reload = stop, reload
        if self._is_asked_to_reload:
            reload()
        try:
            yield
        finally:
            self._stop = self._reload = _do_nothing

    def follow(self, orders: Iterable[int]) -> None:
        """Take a parent's orders too, each as the number of signals it stands for, in a thread of its own."""

        def listen() -> None:
            for order in orders:
                if order == RELOAD:
                    self._ask_to_reload()
                    continue
                self._ordered = max(self._ordered, order)
                if self._stop is None:  # only the main thread can leave
                    os.kill(os.getpid(), signal.SIGTERM)
                else:
                    self._obey()

        threading.Thread(target=listen, name="asynctaskd-orders", daemon=True).start()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._count += 1
        if self._count >= 3:
            os._exit(ExitCode.FAILED)
        if self._stop is None:
            raise SystemExit(ExitCode.FINE)
        self._obey()

    def _on_hangup(self, _number: int, _frame: FrameType | None) -> None:
        self._ask_to_reload()

    def _ask_to_reload(self) -> None:
        self._is_asked_to_reload = True
        if self._reload is not None:
            self._reload()

    def _obey(self) -> None:
        with self._obeying:
            while self._stop is not None and self._obeyed < max(self._count, self._ordered):
                self._obeyed += 1
                self._stop()


def has_terminal() -> bool:
    """Whether somebody started this process at a terminal, and may close it."""
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()


def _do_nothing() -> None:
    pass


async def end_rest() -> bool:
    """Cancel what is left in this loop; False where something goes on all the same."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    if not rest:
        return True
    _, going_on = await asyncio.wait(rest, timeout=_LAST_BREATH)
    return not going_on


def threads_have_ended() -> bool:
    """Give threads that have nothing left to do a moment to end; False where one goes on."""
    until = time.monotonic() + _LAST_BREATH
    others = [one for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]
    for thread in others:
        thread.join(max(until - time.monotonic(), 0.0))
    return not any(thread.is_alive() for thread in others)


def exit_hard(code: int) -> None:
    """End the process without waiting for anybody; what was logged is written first, if somebody reads it."""
    flush_logs()
    flushing = threading.Thread(target=_flush_output, daemon=True)
    flushing.start()
    flushing.join(_LAST_BREATH)
    os._exit(code)


def _flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more, or a handler has closed it
            stream.flush()
