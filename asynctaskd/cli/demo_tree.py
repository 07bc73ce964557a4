"""The demo's second act of steering: a tree of tasks is cancelled, and each gives a receipt."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asynctaskd.cli.demo_app import LIBRARY, Folder, find_copies, look_into, source_files
from asynctaskd.cli.demo_files import DemoFailedError
from asynctaskd.cli.demo_view import duration, late
from asynctaskd.postgres.driver import translated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    import asyncpg

    from asynctaskd import Client
    from asynctaskd.cli.demo_view import View
    from asynctaskd.control.receipts import Receipt, TaskReceipt

_TREE = """
SELECT count(*) FILTER (WHERE status = 'running') AS running, count(*) AS tasks
FROM asynctaskd_demo.all_tasks WHERE name = 'find_copies'
"""

_LOOK_EVERY = 0.05
_PATIENCE = 30.0  # seconds for the tree to fill all slots


@dataclass(frozen=True, slots=True)
class Stopped:
    """What one worker was told to stop.

    Attributes:
        host: where it runs, as `hostname:pid`.
        receipts: one of each execution.
    """

    worker: UUID
    host: str
    receipts: Sequence[TaskReceipt]

    @property
    def delivered(self) -> float | None:
        """Seconds from the request until it had heard of all; None if it hasn't."""
        return _latest(self.receipts, [one.delivered_at for one in self.receipts])

    @property
    def stopped(self) -> float | None:
        """Seconds from the request until the last one had stopped; None if one goes on."""
        return _latest(self.receipts, [one.stopped_at for one in self.receipts])

    @property
    def is_complete(self) -> bool:
        """Whether each was requested, delivered and stopped, in this order."""
        return all(
            one.delivered_at is not None
            and one.stopped_at is not None
            and one.requested_at <= one.delivered_at <= one.stopped_at
            for one in self.receipts
        )

    def __str__(self) -> str:
        count = len(self.receipts)
        return (
            f"{self.host}: {count} execution{'' if count == 1 else 's'} requested to stop, "
            f"delivered after {late(self.delivered)}, stopped after {late(self.stopped)}"
        )

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "worker": str(self.worker),
            "host": self.host,
            "executions": len(self.receipts),
            "delivered_milliseconds": _milliseconds(self.delivered),
            "stopped_milliseconds": _milliseconds(self.stopped),
        }


@dataclass(frozen=True, slots=True)
class TreeCancel:
    """What became of the tree.

    Attributes:
        root: the task that was cancelled, with all below it.
        seconds: how long the command took.
        receipt: of all tasks that hadn't ended.
        workers: what each worker was told to stop.
    """

    root: int
    seconds: float
    receipt: Receipt
    workers: Sequence[Stopped]

    @property
    def at_rest(self) -> int:
        """How many tasks didn't run, and were changed at once."""
        return sum(one.outcome == "changed" for one in self.receipt.tasks)

    @property
    def cancelled(self) -> list[int]:
        """The tasks that obeyed; another may have finished first."""
        return [one.task_id for one in self.receipt.tasks if one.outcome in ("stopped", "changed")]

    def is_answered_by(self, workers: int) -> bool:
        """Whether no receipt is open, and so many workers have answered for what they ran."""
        answered = all(worker.is_complete for worker in self.workers)
        return answered and not self.receipt.open and len(self.workers) == workers and self.at_rest > 0

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "root": self.root,
            "request_id": str(self.receipt.request_id),
            "seconds": round(self.seconds, 3),
            "receipts": len(self.receipt.tasks),
            "open": len(self.receipt.open),
            "refused": len(self.receipt.refused),
            "at_rest": self.at_rest,
            "workers": [worker.as_json() for worker in self.workers],
        }


async def cancel_tree(client: Client, connection: asyncpg.Connection, slots: int, view: View) -> TreeCancel:
    """Begin what nobody wants to wait for, think better of it, and tell what each worker answers.

    Args:
        client: through whom.
        connection: to look on with.
        slots: how many tasks the workers run at once; the tree is cancelled when it has taken all.
        view: where to tell it.

    Raises:
        DemoFailedError: the workers didn't take that many.
    """
    root = await client.enqueue(find_copies, Folder())
    files = await asyncio.to_thread(source_files, LIBRARY)
    tasks = await _await_tree(connection, slots, len(look_into("", files)[1]))
    pairs = len(files) * (len(files) - 1) // 2
    view.tell(
        f"a tree, so far of {tasks} tasks, began to compare {pairs:,} pairs of files; now it is cancelled"
    )
    began = time.monotonic()
    request_id = (await client.cancel(root)).request_id
    took = time.monotonic() - began
    receipt = await client.receipt(request_id)
    hosts = {one["id"]: f"{one['hostname']}:{one['pid']}" for one in await client.list_workers()}
    cancel = TreeCancel(root, took, receipt, _by_worker(receipt, hosts))
    _tell(cancel, view)
    return cancel


async def _await_tree(connection: asyncpg.Connection, slots: int, children: int) -> int:
    """Wait until all slots are taken and the root has so many children; returns how many tasks there are."""
    try:
        async with asyncio.timeout(_PATIENCE):
            while True:
                with translated():
                    running, tasks = await connection.fetchrow(_TREE) or (0, 0)
                if running >= slots and tasks > children:
                    return int(tasks)
                await asyncio.sleep(_LOOK_EVERY)
    except TimeoutError:
        raise DemoFailedError(f"the workers don't take {slots} tasks of the tree") from None


def _by_worker(receipt: Receipt, hosts: Mapping[UUID, str]) -> list[Stopped]:
    """The receipts of what was running, by who ran it."""
    ran = [one for one in receipt.tasks if one.outcome != "changed" and one.worker_id is not None]
    return [
        Stopped(worker, hosts[worker], [one for one in ran if one.worker_id == worker])
        for worker in sorted({one.worker_id for one in ran if one.worker_id}, key=hosts.__getitem__)
    ]


def _tell(cancel: TreeCancel, view: View) -> None:
    for worker in cancel.workers:
        view.tell(f"  {worker}")
    view.tell(f"  {cancel.at_rest} tasks that waited: cancelled where they were")
    told = len(cancel.receipt.tasks)
    done = told - len(cancel.receipt.open)
    view.tell(f"  in sum {done} of {told} receipts complete, the last one after {duration(cancel.seconds)}")


def _latest(receipts: Sequence[TaskReceipt], moments: Sequence[datetime | None]) -> float | None:
    """The longest time from a request to its moment, in seconds; None if one hasn't come."""
    pairs = zip(receipts, moments, strict=True)
    spans = [(at - one.requested_at).total_seconds() for one, at in pairs if at is not None]
    return max(spans) if len(spans) == len(receipts) else None


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
