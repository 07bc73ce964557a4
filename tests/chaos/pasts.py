"""Histories made by hand, to judge the judges: a few workers and tasks, told step by step.

Every step writes what a faithful system would have written; what a test wants wrong it says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from tests.chaos.history import History
from tests.chaos.records import (
    Ack,
    Birth,
    Change,
    Config,
    Event,
    Execution,
    Fault,
    LeaseRow,
    LedgerLine,
    Mark,
    ReceiptRow,
    Settings,
    Slot,
)

LEASE = 10.0


class Past:
    """A history in the making."""

    def __init__(self) -> None:
        self.history = History(settings=Settings(lease=LEASE, grace=5.0), ended_at=1000.0)
        self._numbers = count(1)
        self._rows: dict[int, dict[str, Any]] = {}
        self._txid = 0
        self._is_open = False

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Changes that belong together."""
        self._txid += 1
        self._is_open = True
        yield
        self._is_open = False

    def _begin(self) -> None:
        self._txid += not self._is_open

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
        self._begin()
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
            "requested": None,
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
        self._write(task, at, "finish", None, **own | row | old | {"requested": None})
        self._rows[task] = own | row

    def change(self, task: int, at: float, op: str, process: int | None, **facts: Any) -> None:
        """Any change of a task's row, in a transaction of its own unless one is open."""
        self._begin()
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

    def revive(self, task: int, at: float) -> None:
        """An operator retries a task: it leaves the finished ones and is live again."""
        row = self._rows[task] | {"status": "pending", "worker": None, "failures": 0, "losses": 0}
        with self.transaction():
            self.change(task, at, "forget", None)
            self.change(task, at, "revive", None, **row)
            self.command("retry", [task], at, "retried")
            self.answer("retried", task, at, "changed", "pending")

    def ask(self, task: int, at: float, wanted: str | None) -> None:
        """A request is written on a task that runs."""
        self.change(task, at, "update", None, requested=wanted)

    def command(self, action: str, tasks: list[int], at: float, request: str, **facts: Any) -> None:
        """Receipts are issued."""
        self._begin()
        for task in tasks:
            row = self._rows[task]
            own = {"status": row["status"], "worker": row["worker"], "token": row["token"]}
            self.history.receipt_rows.append(
                ReceiptRow(next(self._numbers), at, self._txid, request, task, action, **own | facts)
            )

    def answer(
        self, request: str, task: int, at: float, outcome: str, status: str, reason: str | None = None
    ) -> None:
        """A receipt is completed, in the last transaction."""
        rows = self.history.receipt_rows
        last = [row for row in rows if (row.request, row.task) == (request, task)][-1]
        known = {"outcome": outcome, "status": status, "reason": reason, "stopped_at": at}
        rows.append(last._replace(seq=next(self._numbers), at=at, txid=self._txid, **known))

    def tell_operator(self, action: str, at: float, **facts: Any) -> None:
        """An answer arrives."""
        self.history.answers.append({"action": action, "at": at, **facts})

    def config(self, version: int, at: float, **content: Any) -> None:
        """A version of the configuration is written."""
        first = Config(next(self._numbers), at, version)
        self.history.configs.append(first._replace(content=first.content | content))

    def ack(self, worker: str, version: int, at: float) -> None:
        """A worker says that it applies a version."""
        self.history.acks.append(Ack(next(self._numbers), at, worker, version))

    def slot(self, schedule: str, slot: float, at: float, task: int | None) -> None:
        """A slot is decided: its row, and its task."""
        with self.transaction():
            if task is not None:
                self.born(task, at, name=schedule, slot=slot)
            outcome = "skipped" if task is None else "ran"
            self.history.slots.append(
                Slot(next(self._numbers), at, self._txid, schedule, slot, task, outcome)
            )

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
    _steer(past)
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


def _steer(past: Past) -> None:
    past.config(1, 12.5, limits={"red": 1}, paused_labels=["blue"])
    past.ack("b", 1, 12.51)
    past.done(30, "b", 12.52, label_set="red")
    past.tell_operator("config", 12.6, version=1, applied=["b"])
    past.config(2, 12.95)
    past.ack("b", 2, 12.96)
    _cancel_a_family(past)
    _pause_and_resume(past)
    for task, slot in ((40, 12.0), (41, 13.0)):
        past.slot("ticking", slot, 12.8, task)
        past.claim(task, "b", 12.81)
        past.run(task, 12.82, 12.83)
        past.end(task, 12.84)
    past.slot("tocking", 12.0, 12.8, None)


def _cancel_a_family(past: Past) -> None:
    """While it runs; one child is there, and another one comes too late."""
    past.born(31, 12.5, name="family")
    past.claim(31, "b", 12.51)
    past.born(32, 12.53, parent=31)
    with past.transaction():
        past.command("cancel", [31, 32], 12.54, "cancelled")
        past.end(32, 12.54, "cancelled", "cancelled", reason="cancelled by operator")
        past.answer("cancelled", 32, 12.54, "changed", "cancelled")
        past.ask(31, 12.54, "cancelled")
    with past.transaction():
        past.born(33, 12.55, parent=31, status="paused")
        past.end(33, 12.55, "cancelled", "cancelled", reason="parent cancelled")
    past.run(31, 12.52, 12.56, how="cancelled")
    past.end(31, 12.57, "cancelled", "cancelled", reason="cancelled by operator")
    past.answer("cancelled", 31, 12.6, "stopped", "cancelled")
    past.tell_operator("cancel", 12.6, request="cancelled", tasks=[[31, "stopped"], [32, "changed"]])
    past.revive(32, 12.7)
    past.claim(32, "b", 12.71)
    past.run(32, 12.72, 12.73)
    past.end(32, 12.74)


def _pause_and_resume(past: Past) -> None:
    past.born(34, 12.5, name="family")
    past.claim(34, "b", 12.51)
    with past.transaction():
        past.command("pause", [34], 12.52, "paused")
        past.ask(34, 12.52, "paused")
    past.run(34, 12.52, 12.53, how="cancelled")
    past.back(34, 12.54, None, status="paused", attempts=0)
    past.ask(34, 12.6, None)
    past.answer("paused", 34, 12.6, "stopped", "paused")
    past.born(35, 12.61, parent=34, status="paused")
    with past.transaction():
        past.command("resume", [34, 35], 12.7, "resumed")
        for task in (34, 35):
            past.change(task, 12.7, "update", None, status="pending")
            past.answer("resumed", task, 12.7, "changed", "pending")
    for task in (34, 35):
        past.claim(task, "b", 12.71)
        past.run(task, 12.72, 12.73)
        past.end(task, 12.74)
