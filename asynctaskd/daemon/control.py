"""Control: claim what steers the fleet, and carry it out beside the slots.

So it gets through where every slot is taken and the strict lane is closed. What it comes to goes the way of
all outcomes: a lost lease, a shutdown and a retry mean the same as for any task.
"""

from __future__ import annotations

import asyncio
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from asynctaskd.daemon.execute import quarantined
from asynctaskd.daemon.execution import Execution
from asynctaskd.daemon.loops import OUTAGE, Backoff, wait_for
from asynctaskd.definitions.text import describe_error
from asynctaskd.errors import InvalidInputError, InvalidStateError
from asynctaskd.task import Completed, Failed, Released

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from asynctaskd.daemon.commands import Steering
    from asynctaskd.daemon.lease import Lease
    from asynctaskd.daemon.measures import Measures
    from asynctaskd.daemon.slots import Slots
    from asynctaskd.postgres.configs import ConfigStore
    from asynctaskd.task import ClaimedTask, Outcome

CONTROL = "!control"
"""The label set of control tasks, and the payload of their notices; no worker has such a label."""

_AT_ONCE = 10


class Control:
    """The loop of the control tasks.

    `carry_out(task)` returns what is stored as its result (JSON); `finish(execution, outcome)` is called once
    for each; `doubt(worker_id)` where a claim's answer got lost.
    """

    def __init__(
        self,
        configs: ConfigStore,
        lease: Lease,
        steering: Steering,
        slots: Slots,
        *,
        carry_out: Callable[[ClaimedTask], Awaitable[str]],
        measures: Measures,
        finish: Callable[[Execution, Outcome], None],
        doubt: Callable[[UUID], None],
        poll_interval: float,
    ) -> None:
        self._configs = configs
        self._lease = lease
        self._steering = steering
        self._slots = slots
        self._carry_out = carry_out
        self._measures = measures
        self._finish = finish
        self._doubt = doubt
        self.poll_interval = poll_interval
        self._wake = asyncio.Event()
        self._stopping = False

    def look(self) -> None:
        """A control task may have become ready."""
        self._wake.set()

    def stop(self) -> None:
        """Claim no more; a claim in flight is never cancelled."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Claim until stopped."""
        backoff = Backoff("control")
        while not self._stopping:
            self._wake.clear()
            if not self._lease.is_held:  # nothing is asked, so nobody knows whether the database is back
                await wait_for(self._wake, self.poll_interval)
                continue
            try:
                claimed = await self._claim()
            except OUTAGE as error:
                await backoff.wait(error)
            else:
                backoff.reset()
                if claimed < _AT_ONCE:
                    await wait_for(self._wake, self.poll_interval)

    async def _claim(self) -> int:
        """Claim and start; returns how many."""
        worker_id = self._lease.worker_id
        async with self._steering.between_claims:
            try:
                claimed = await self._configs.claim_control(worker_id, self._slots.aside, most=_AT_ONCE)
            except OUTAGE:
                self._doubt(worker_id)
                raise
            if not self._lease.covers(worker_id):
                self._doubt(worker_id)
                return 0
            for task in claimed:
                self._start(task)
        self._measures.claimed(claimed)
        return len(claimed)

    def _start(self, task: ClaimedTask) -> None:
        execution = Execution(task, None, self._lease.worker_id)
        execution.ends_at = inf  # it sees to its own end
        self._slots.take_aside(execution)
        execution.runner = asyncio.create_task(self._run(execution), name=task.name)
        execution.runner.add_done_callback(partial(self._end, execution))

    def _end(self, execution: Execution, _: asyncio.Task[None]) -> None:
        # Here, not in the runner: a task cancelled before its first step runs none of its body.
        execution.runner = None
        execution.note_end()
        self._finish(execution, execution.outcome or Released())

    async def _run(self, execution: Execution) -> None:
        if execution.task.reason == "quarantined":
            execution.outcome = quarantined(execution.task)
            return
        try:
            execution.outcome = Completed(await self._carry_out(execution.task))
        except InvalidInputError as error:
            execution.outcome = Failed(str(error), reason="invalid_payload", fatal=True)
        except InvalidStateError as error:
            execution.outcome = Failed(str(error), reason="terminated", fatal=True)
        except Exception as error:  # noqa: BLE001  (it is the task's failure, not the daemon's)
            execution.outcome = Failed(describe_error(error))
