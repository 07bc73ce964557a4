"""What does the service manager hear of this process? systemd's notify protocol: datagrams to a socket.

Nobody waits: what the manager doesn't take at once is said again with the next round.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping, Sequence
from typing import Protocol

from asynctaskd.telemetry.events import attach, emit

# Of the time after which silence counts as death: a lost datagram must not be the end.
_WATCHDOG_SHARE = 1 / 4

# How much more time is asked for while a start or a stop goes on, in seconds, and how often.
_EXTENSION = 15.0
_EXTEND_EVERY = 2.0

# A stop takes at most so much longer than the grace period, in seconds.
_OVERTIME = 15.0


class ServiceManager:
    """The socket of whoever started this process, if that wants to hear; else all is said to nobody.

    Attributes:
        watchdog: after how many seconds of silence it ends this process; None: never.
    """

    def __init__(self, address: str | None = None, watchdog: float | None = None) -> None:
        self._address = None if address is None else _address(address)
        self._socket = None if address is None else socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._has_failed = False
        self.watchdog = None if address is None else watchdog

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> ServiceManager:
        """The one that the environment names, and no longer does: what this process starts has no say."""
        address = environ.pop("NOTIFY_SOCKET", None)
        usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", None)
        is_meant = usec.isdecimal() and pid in (None, str(os.getpid()))
        watchdog = int(usec) / 1e6 if is_meant else None
        return cls(address if address and address[0] in "/@" else None, watchdog or None)

    @property
    def listens(self) -> bool:
        """Whether there is one."""
        return self._socket is not None

    def tell(self, **facts: str | int) -> bool:
        """Say some variables of the protocol in one datagram, from any thread; False: say it again."""
        if self._socket is None or self._address is None:
            return True
        message = "\n".join(f"{name}={_in_one_line(value)}" for name, value in facts.items())
        try:
            self._socket.sendto(message.encode(), socket.MSG_DONTWAIT, self._address)
        except BlockingIOError:  # it is busy
            return False
        except OSError as error:
            if not self._has_failed:
                emit("systemd.unreachable", error=error)
            self._has_failed = True
            return False
        return True

    def tell_reloading(self) -> None:
        """Say that the configuration is being read; `READY=1` ends it."""
        self.tell(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)

    def close(self) -> None:
        """Say nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _address(given: str) -> str:
    return f"\0{given[1:]}" if given.startswith("@") else given


def _in_one_line(value: str | int) -> str:
    # A line break would begin another variable.
    return " ".join(str(value).splitlines())


class Vitals(Protocol):
    """How a process is: a worker's `Health`, or what a parent knows of its workers."""

    @property
    def is_draining(self) -> bool:
        """Whether it was told to stop."""
        ...

    def is_alive(self) -> bool:
        """Whether it shouldn't be started again."""
        ...

    def failing(self) -> Sequence[object]:
        """What it lacks to be ready."""
        ...

    def summary(self) -> str:
        """How it is, in one line."""
        ...


class Service:
    """Tells the service manager how a process is; `tick` is called by its main loop, twice a second or so.

    The watchdog is fed by whoever emits the event `fed_by`: in a worker the thread that keeps the lease. It
    is fed only while the main loop turns too, so each proves that it lives by doing it. A database that is
    away is no reason to stop that.

    Args:
        manager: whom to tell.
        health: what to tell.
        grace: how long a drain may take, in seconds, as of now.
    """

    def __init__(
        self,
        manager: ServiceManager,
        health: Vitals,
        *,
        fed_by: str,
        grace: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._manager = manager
        self._health = health
        self._grace = grace
        self._clock = clock
        self._is_ready = False
        self._is_reloading = False
        self._status = ""
        self._has_said_stop = False
        self._stops_by: float | None = None
        self._next_extension = 0.0
        self._next_feeding = 0.0  # of the watchdog; the keeper's thread has it
        self._detach = [attach(self._feed, fed_by)] if manager.watchdog else []

    def close(self) -> None:
        """Feed the watchdog no more."""
        for detach in self._detach:
            detach()

    def tick(self) -> None:
        """Say what has changed, and ask for time where a start or a stop takes longer."""
        if self._health.is_draining:
            self._stop()
        elif not self._is_ready and self._health.failing():
            self._extend()
        elif not self._is_ready:
            self._is_ready = self._manager.tell(READY=1)
        elif self._is_reloading:
            self.reloaded()
        self._tell_status()

    def reloaded(self) -> None:
        """What `tell_reloading` began has ended."""
        self._is_reloading = self._is_ready and not self._manager.tell(READY=1)

    def _stop(self) -> None:
        if self._stops_by is None:
            self._stops_by = self._clock() + self._grace() + _OVERTIME
        self._has_said_stop = self._has_said_stop or self._manager.tell(STOPPING=1)
        if self._clock() < self._stops_by:
            self._extend()

    def _extend(self) -> None:
        if self._clock() >= self._next_extension:
            self._next_extension = self._clock() + _EXTEND_EVERY
            self._manager.tell(EXTEND_TIMEOUT_USEC=int(_EXTENSION * 1e6))

    def _tell_status(self) -> None:
        status = self._health.summary()
        if status != self._status and self._manager.tell(STATUS=status):
            self._status = status

    def _feed(self, *_: object) -> None:
        now = self._clock()
        if self._manager.watchdog and now >= self._next_feeding and self._health.is_alive():
            self._next_feeding = now + self._manager.watchdog * _WATCHDOG_SHARE
            self._manager.tell(WATCHDOG=1)
