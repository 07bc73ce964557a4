"""Histories made by hand, to judge the judges: a few workers and tasks, told step by step.

Every step writes what a faithful system would have written; what a test wants wrong it says.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from tests.chaos.history import (
    Birth,
    Change,
    Event,
    Execution,
    Fault,
    History,
    LeaseRow,
    LedgerLine,
    Mark,
    Settings,
)

LEASE = 10.0


class Past:
    """A history in the making."""

    def __init__(self) -> None:
        self.history = History(settings=Settings(lease=LEASE, grace=5.0), ended_at=1000.0)
        self._numbers = count(1)
        self._rows: dict[int, dict[str, Any]] = {}
        self._txid = 0

    def worker(self, worker: str, pid: int, at: float = 0.0, **facts: Any) -> None:
        """A worker registers."""
        own = {"concurrency": 2, "labels": (), "expires_at": at + LEASE} | facts
        self.history.leases.append(LeaseRow(next(self._numbers), at, worker, pid, **own))

    def renew(self, worker: str, at: float, **facts: Any) -> None:
        """A worker renews its lease, or loses it where `facts` say so."""
        last = [row for row in self.history.leases if row.worker == worker][-1]
        own = {"seq": next(self._numbers), "at": at, "expires_at": at + LEASE} | facts
        self.history.leases.append(last._replace(**own))

    def is_lost(self, worker: str, at: float) -> None:
        """A worker is declared lost."""
        last = [row for row in self.history.leases if row.worker == worker][-1]
        self.renew(worker, at, expires_at=last.expires_at, lost_at=at)

    def born(self, task: int, at: float, **facts: Any) -> None:
        """A task is enqueued and committed."""
        self._txid += 1
        self.history.births.append(Birth(next(self._numbers), at, self._txid, task, **facts))
        status = facts.get("status", "pending")
        self._rows[task] = {
            "status": status,
            "token": 0,
            "worker": None,
            "attempts": 0,
            "failures": 0,
            "losses": 0,
            "reason": None,
        }
        self.history.ledger.append(LedgerLine(at, task, "committed"))

    def claim(self, task: int, worker: str, at: float, **facts: Any) -> None:
        """A worker claims a task."""
        row = self._rows[task]
        new = {
            "status": "running",
            "worker": worker,
            "token": row["token"] + 1,
            "attempts": row["attempts"] + 1,
        }
        self.change(task, at, "update", self._pid(worker), **new | facts)

    def run(self, task: int, start: float, end: float | None, **facts: Any) -> None:
        """The witness sees the handler, under the task's present claim."""
        row = self._rows[task]
        name = next(birth.name for birth in self.history.births if birth.task == task)
        how = None if end is None else "end"
        own = {"token": row["token"], "name": name, "pid": self._pid(row["worker"]), "how": how} | facts
        self.history.executions.append(Execution(task, start=start, end=end, **own))

    def back(
        self, task: int, at: float, event: str | None, *, process: int | None = None, **facts: Any
    ) -> None:
        """What a worker held goes back to the queue."""
        row = self._rows[task]
        own: dict[str, Any] = {"status": "pending", "worker": None}
        if event in ("released", "snoozed"):
            own["attempts"] = row["attempts"] - 1
        if event == "lease_lost":
            own |= {"losses": row["losses"] + 1, "reason": "lease_lost"}
        if event == "retried":
            own |= {"failures": row["failures"] + 1, "losses": 0}
        self.change(task, at, "update", process or self._pid(row["worker"]), **own | facts)
        self.tell(task, at, event)

    def end(
        self,
        task: int,
        at: float,
        status: str = "completed",
        event: str | None = None,
        *,
        process: int | None = None,
        **facts: Any,
    ) -> None:
        """A task reaches its end: it leaves the live tasks and arrives among the finished."""
        row = dict(self._rows[task])
        if status == "failed" and event == "failed":
            row["failures"] += 1
        self.leave(task, at, process)
        self.arrive(task, at, **row | {"status": status} | facts)
        self.tell(task, at, event)

    def leave(self, task: int, at: float, process: int | None = None) -> None:
        """A task is deleted from the live ones."""
        row = self._rows[task]
        nothing = dict.fromkeys(row)
        self.change(task, at, "delete", process or self._pid(row["worker"]), **nothing)

    def arrive(self, task: int, at: float, **row: Any) -> None:
        """A task is inserted among the finished ones, in the last transaction."""
        old = {"old_status": None, "old_token": None, "old_worker": None, "old_attempts": None}
        old |= {"old_failures": None, "old_losses": None}
        own = {"status": "completed", "token": 1, "worker": None, "attempts": 1, "failures": 0, "losses": 0}
        own |= {"reason": None}
        self._write(task, at, "finish", None, **own | row | old)

    def change(self, task: int, at: float, op: str, process: int | None, **facts: Any) -> None:
        """Any change of a task's row, in a transaction of its own."""
        self._txid += 1
        row = self._rows[task]
        old = {f"old_{name}": value for name, value in row.items() if name != "reason"}
        asked_at = facts.pop("asked_at", at)
        self._rows[task] = row | facts
        self._write(task, at, op, process, asked_at=asked_at, **self._rows[task] | old)

    def tell(self, task: int, at: float, kind: str | None) -> None:
        """An event in the last transaction."""
        if kind is not None:
            token = self._rows[task]["token"] or 0
            self.history.events.append(Event(next(self._numbers), at, self._txid, task, token, kind))

    def hook(self, task: int, *, beside: bool = False) -> None:
        """A failure hook writes its row, in the last transaction or in another one."""
        self.history.hooks.append(Mark(task, None, self._txid + 1000 * beside))

    def effect(self, task: int, *, beside: bool = False) -> None:
        """A handler writes its row, in the last transaction or in another one."""
        change = self.history.changes[-1]
        self.history.effects.append(Mark(task, change.token, self._txid + 1000 * beside))

    def fault(
        self, kind: str, at: float, pid: int | None = None, *, over: float | None = None, **facts: Any
    ) -> None:
        """Something is broken on purpose."""
        known = {name: facts.pop(name) for name in ("found", "moot") if name in facts}
        number = len(self.history.faults) + 1
        self.history.faults.append(Fault(at, kind, number, pid, facts, over=over, **known))

    def done(self, task: int, worker: str, at: float, **birth: Any) -> None:
        """A task is born, claimed, run and completed, a tenth of a second for each step."""
        self.born(task, at, **birth)
        self.claim(task, worker, at + 0.1)
        self.run(task, at + 0.2, at + 0.3)
        self.end(task, at + 0.4)

    def _pid(self, worker: str | None) -> int | None:
        return next((row.pid for row in self.history.leases if row.worker == worker), None)

    def _write(self, task: int, at: float, op: str, process: int | None, **facts: Any) -> None:
        asked_at = facts.pop("asked_at", at)
        self.history.changes.append(
            Change(next(self._numbers), at, asked_at, self._txid, process, op, task, **facts)
        )


def orderly() -> Past:
    """A past in which everything that is judged happens, and as it should."""
    past = Past()
    past.worker("a", 1)
    past.worker("b", 2, labels=("red",))
    past.history.ledger.append(LedgerLine(0.5, 900, "rolled_back"))
    _finish_some(past)
    _lose_one(past)
    _fail_some(past)
    return past


def _finish_some(past: Past) -> None:
    past.done(1, "a", 1.0)
    past.done(2, "a", 2.0, serial_key="k")
    past.done(3, "b", 2.5, serial_key="k")
    past.done(4, "a", 3.0, unique_tag="again:1")
    past.done(5, "a", 4.0, unique_tag="again:1", deadline=9.0)
    past.done(6, "a", 4.5, priority=3)
    past.born(7, 5.0, name="effect")
    past.claim(7, "a", 5.1)
    past.run(7, 5.2, 5.5)
    past.end(7, 5.4)
    past.effect(7)


def _lose_one(past: Past) -> None:
    """Released by one worker, lost by it later, then run by another."""
    past.born(10, 6.0)
    past.claim(10, "a", 6.1)
    past.run(10, 6.2, 6.5, how="cancelled")
    past.back(10, 6.6, "released")
    past.claim(10, "a", 6.7)
    past.run(10, 6.8, None)
    past.fault("sigkill", 7.0, 1)
    past.history.exits[1] = 7.0
    past.renew("b", 9.0)
    past.is_lost("a", 10.2)
    past.back(10, 10.3, "lease_lost", process=2)
    past.claim(10, "b", 10.4)
    past.run(10, 10.5, 10.6)
    past.end(10, 10.7)


def _fail_some(past: Past) -> None:
    past.born(20, 11.0, name="doomed", max_attempts=2)
    past.claim(20, "b", 11.1)
    past.run(20, 11.2, 11.3)
    past.back(20, 11.4, "retried", status="scheduled")
    past.change(20, 11.6, "update", 2, status="pending")
    past.claim(20, "b", 11.7)
    past.run(20, 11.8, 11.9)
    past.end(20, 12.0, "failed", "failed", reason="error")
    past.hook(20)
    past.born(21, 12.0, name="accursed", max_attempts=1)
    past.claim(21, "b", 12.1)
    past.run(21, 12.2, 12.3)
    past.end(21, 12.4, "failed", "failed", reason="error")
    past.tell(21, 12.4, "hook_failed")
