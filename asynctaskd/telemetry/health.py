"""How is this process? The facts that liveness and readiness depend on: a subscriber like the metrics.

Whoever asks gets an answer from what was told before. Nothing is looked up, so nobody waits: not for the
database, and not for an event loop that is blocked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from asynctaskd.telemetry.events import attach

STANDBY = "standby"
"""The cause of an outage where the database answers, and takes no writes."""

# The stations that ask all the time, and so know whether the database answers.
_ASKERS = ("start", "lease", "housekeeping")

# In characters: reports go through a pipe, each in one piece.
_LONGEST_TROUBLE = 500

# What a poll may take beside its interval, in seconds.
_LONGEST_POLL = 10.0


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of readiness. `reason` says how it is, whether it holds or not."""

    name: str
    ok: bool
    reason: str


@dataclass(frozen=True, slots=True)
class _Outage:
    cause: str
    error: str


class Health:
    """Facts about this process's worker, told by events until it is closed; to be asked from any thread.

    Each fact is replaced as a whole by whoever tells it; only the outages are a mapping, under a lock.

    Args:
        stall_limit: for how long the main loop may stand still, in seconds.
        requires_notices: whether polling won't do (`database.listen = on`).
        counts: whether to have the tasks counted that wait, which costs the database something.
        clock: seconds by a clock that only runs forward.

    Attributes:
        running: how many tasks run, as of the last poll.
        waiting: how many tasks could run and don't, in the whole queue; None where nobody has counted.
        config_version: the runtime configuration in force.
        is_draining: whether it was told to stop.
    """

    def __init__(
        self,
        *,
        stall_limit: float,
        requires_notices: bool = False,
        counts: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stall_limit = stall_limit
        self._requires_notices = requires_notices
        self._clock = clock
        self._turned_at = clock()
        self._schema: str | None = None
        self._outages: dict[str, _Outage] = {}  # by station, under _changing
        self._changing = threading.Lock()
        self._listens = False
        self._polls_until = float("-inf")
        self._poll_interval = 0.0
        self._leased_until: float | None = None
        self._lost_lease: str | None = None
        self.running = 0
        self.waiting: int | None = None
        self.config_version = 0
        self.is_draining = False
        self._detach = [attach(note, event) for event, note in self._notes().items()]
        if counts:
            self._detach.append(attach(self._on_measured, "fleet.measured"))

    def close(self) -> None:
        """Hear no more."""
        for detach in self._detach:
            detach()

    def turn(self) -> None:
        """The main loop turns: said by itself, at least once a second."""
        self._turned_at = self._clock()

    def stood_still(self) -> float:
        """For how long the main loop hasn't turned, in seconds."""
        return max(self._clock() - self._turned_at, 0.0)

    def is_alive(self) -> bool:
        """Whether the main loop turns; neither an outage nor a drain is a reason to end a worker."""
        return self.stood_still() <= self.stall_limit

    def checks(self) -> list[Check]:
        """All conditions of readiness, the most fundamental first."""
        return [
            self._database(),
            self._primary(),
            self._schema_suits(),
            self._listening(),
            self._lease(),
            Check("draining", not self.is_draining, "it drains" if self.is_draining else "it doesn't drain"),
        ]

    def failing(self) -> list[Check]:
        """The conditions that don't hold; a worker is ready without any."""
        return [check for check in self.checks() if not check.ok]

    def report(self) -> dict[str, Any]:
        """The same for a parent, as JSON can hold it."""
        failing = self.failing()
        return {
            "ready": not failing,
            "trouble": _trouble(failing),
            "running": self.running,
            "waiting": self.waiting,
            "config_version": self.config_version,
        }

    def summary(self) -> str:
        """How it is in one line: `12 running, 340 waiting, config v7`, and what doesn't hold."""
        return in_short(self.report())

    def _database(self) -> Check:
        outages = [one for one in self._current_outages() if one.cause != STANDBY]
        if outages:
            return Check("database", ok=False, reason=outages[0].error)
        if self._schema is None and not self._current_outages():
            return Check("database", ok=False, reason="it wasn't reached yet")
        return Check("database", ok=True, reason="it answers")

    def _primary(self) -> Check:
        standby = [one for one in self._current_outages() if one.cause == STANDBY]
        if standby:
            return Check("primary", ok=False, reason=standby[0].error)
        if self._schema is None:
            return Check("primary", ok=False, reason="not looked at yet")
        return Check("primary", ok=True, reason="it takes writes")

    def _schema_suits(self) -> Check:
        if self._schema is None:
            return Check("schema", ok=False, reason="not looked at yet")
        return Check("schema", ok=True, reason=f"version {self._schema}")

    def _listening(self) -> Check:
        if self._listens:
            return Check("listening", ok=True, reason="notices come")
        if self._requires_notices:
            return Check(
                "listening", ok=False, reason="no notices come, and database.listen = on asks for them"
            )
        if self._clock() <= self._polls_until:
            return Check("listening", ok=True, reason=f"no notices; it polls every {self._poll_interval:g} s")
        return Check("listening", ok=False, reason="no notices come, and the poll doesn't get through")

    def _lease(self) -> Check:
        if self._lost_lease is not None:
            return Check("lease", ok=False, reason=f"it was lost: {self._lost_lease}")
        if self._leased_until is None:
            return Check("lease", ok=False, reason="not acquired yet")
        left = self._leased_until - self._clock()
        if left <= 0:
            return Check("lease", ok=False, reason="it ran out")
        return Check("lease", ok=True, reason=f"claims stand for {left:.0f} s more")

    def _current_outages(self) -> list[_Outage]:
        with self._changing:
            return list(self._outages.values())

    def _notes(self) -> Mapping[str, Callable[[str, Mapping[str, Any]], None]]:
        return {
            "database.lost": self._on_lost,
            "database.restored": self._on_restored,
            "database.suits": self._on_suits,
            "listener.up": lambda _, __: self._set_listening(True),
            "listener.lost": lambda _, __: self._set_listening(False),
            "queue.polled": self._on_polled,
            "lease.renewed": self._on_renewed,
            "lease.lost": self._on_lease_lost,
            "config.applied": self._on_config,
            "worker.stopping": self._on_stopping,
        }

    def _on_lost(self, _: str, facts: Mapping[str, Any]) -> None:
        if facts["station"] in _ASKERS:
            with self._changing:
                self._outages[facts["station"]] = _Outage(facts["cause"], facts["error"])

    def _on_restored(self, _: str, facts: Mapping[str, Any]) -> None:
        with self._changing:
            self._outages.pop(facts["station"], None)

    def _on_suits(self, _: str, facts: Mapping[str, Any]) -> None:
        self._schema = facts["schema_version"]

    def _set_listening(self, listens: bool) -> None:
        self._listens = listens

    def _on_polled(self, _: str, facts: Mapping[str, Any]) -> None:
        self._poll_interval = facts["interval"]
        self._polls_until = self._clock() + facts["interval"] + _LONGEST_POLL
        self.running = facts["running"]

    def _on_measured(self, _: str, facts: Mapping[str, Any]) -> None:
        self.waiting = sum(facts["waiting"].values())

    def _on_renewed(self, _: str, facts: Mapping[str, Any]) -> None:
        self._leased_until = self._clock() + facts["seconds"]
        self._lost_lease = None

    def _on_lease_lost(self, _: str, facts: Mapping[str, Any]) -> None:
        self._lost_lease = facts["error"]

    def _on_config(self, _: str, facts: Mapping[str, Any]) -> None:
        self.config_version = facts["version"]

    def _on_stopping(self, _: str, __: Mapping[str, Any]) -> None:
        self.is_draining = True


def in_short(report: Mapping[str, Any]) -> str:
    """A report in one line, for people."""
    waiting = report["waiting"]
    counted = "" if waiting is None else f", {waiting} waiting"
    line = f"{report['running']} running{counted}, config v{report['config_version']}"
    return f"{line}; {report['trouble']}" if report["trouble"] else line


def _trouble(failing: Iterable[Check]) -> str:
    return "; ".join(f"{check.name}: {check.reason}" for check in failing)[:_LONGEST_TROUBLE]
