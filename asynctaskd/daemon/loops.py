"""The one way to run something every so often: survive an outage, say so once, stop when cancelled."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from asynctaskd.errors import DatabaseRefusedError, DatabaseUnavailableError
from asynctaskd.postgres.driver import NotPrimaryError
from asynctaskd.telemetry.events import emit
from asynctaskd.telemetry.health import STANDBY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

OUTAGE = (DatabaseUnavailableError, DatabaseRefusedError)
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


class Backoff:
    """Pauses that grow to 2 s, jitter included, while the database is away."""

    def __init__(self, station: str) -> None:
        self._station = station
        self._pause = 0.0
        self._cause: str | None = None

    async def wait(self, error: Exception) -> None:
        """Pause after a failed call; the first of a row is reported, and whichever has another cause."""
        if (cause := _cause_of(error)) != self._cause:
            self._cause = cause
            emit("database.lost", station=self._station, cause=cause, error=str(error))
        self._pause = min(self._pause * 2 or _FIRST_PAUSE, _LONGEST_PAUSE)
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311  (jitter, not a secret)

    @property
    def has_waited(self) -> bool:
        """Whether the last call failed."""
        return self._pause > 0

    def reset(self) -> None:
        """A call went through again."""
        if self._pause:
            emit("database.restored", station=self._station)
        self._pause = 0.0
        self._cause = None


def _cause_of(error: Exception) -> str:
    if isinstance(error, NotPrimaryError):
        return STANDBY
    return "refused" if isinstance(error, DatabaseRefusedError) else "unavailable"


async def repeat(station: str, step: Callable[[], Awaitable[float]], wake: asyncio.Event) -> None:
    """Run `step` until cancelled; it returns the seconds to the next one, which `wake` cuts short."""
    backoff = Backoff(station)
    while True:
        try:
            pause = await step()
        except OUTAGE as error:
            await backoff.wait(error)
        else:
            backoff.reset()
            await wait_for(wake, pause)
            wake.clear()


async def wait_for(event: asyncio.Event, longest: float) -> None:
    """Until the event is set, but not longer than that, in seconds."""
    # Not asyncio.wait_for: on Python 3.11 it swallows a cancellation that comes just as the event is set.
    with suppress(TimeoutError):
        async with asyncio.timeout(longest):
            await event.wait()


def run_to_end(loop: asyncio.AbstractEventLoop, main: asyncio.Task[T]) -> T:
    """Run the loop until `main` is over, whatever handlers do to it.

    A callback that raises SystemExit or KeyboardInterrupt, and `loop.stop()`, end the run, but not what runs
    in it: it is taken up again, and the log says so.
    """
    while True:
        try:
            return loop.run_until_complete(main)
        except (SystemExit, KeyboardInterrupt, RuntimeError) as error:
            if main.done() or loop.is_closed():
                raise
            emit("loop.interrupted", error=error)
