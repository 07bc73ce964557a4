"""Interrupts: what operators ask of the tasks that run here."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asynctaskd.daemon.execute import failed_by_operator
from asynctaskd.daemon.loops import OUTAGE, Backoff
from asynctaskd.task import Stopped, TaskStatus

if TYPE_CHECKING:
    from asynctaskd.daemon.lease import Lease
    from asynctaskd.daemon.slots import Slots
    from asynctaskd.postgres.orders import Order, OrderStore
    from asynctaskd.task import Outcome

# A task may be asked to stop before the claim that brings it here has been answered.
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0


class Interrupts:
    """Tells executions to stop, until cancelled: woken by a notice, a renewal or a new connection."""

    def __init__(self, orders: OrderStore, lease: Lease, slots: Slots) -> None:
        self._orders = orders
        self._lease = lease
        self._slots = slots
        self._asked = asyncio.Event()
        self._pause = _FIRST_PAUSE

    def look(self) -> None:
        """Something may have been asked of this worker's tasks."""
        self._asked.set()

    async def run(self) -> None:
        """Obey whenever asked."""
        backoff = Backoff("interrupts")
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                all_found = await self._obey()
            except OUTAGE as error:
                self._asked.set()
                await backoff.wait(error)
            else:
                backoff.reset()
                self._look_again(all_found=all_found)

    async def _obey(self) -> bool:
        """Stop what is to be stopped; whether all of it was here."""
        orders = await self._orders.deliver(self._lease.worker_id)
        here = {(one.task.id, one.task.claim_token): one for one in self._slots}
        found = [(here[order[:2]], order) for order in orders if order[:2] in here]
        for execution, order in found:
            execution.stop_as(_outcome_of(order))
        return len(found) == len(orders)

    def _look_again(self, *, all_found: bool) -> None:
        if all_found:
            self._pause = _FIRST_PAUSE
        else:
            asyncio.get_running_loop().call_later(self._pause, self._asked.set)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)


def _outcome_of(order: Order) -> Outcome:
    if order.status is TaskStatus.FAILED:
        return failed_by_operator(order.why or "")
    return Stopped(order.status)
