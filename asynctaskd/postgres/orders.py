"""What operators ask of running tasks, as a worker sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from asynctaskd.postgres.statements import Statements
from asynctaskd.task import ClaimedTask, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from asynctaskd.postgres.records import Barred


class Order(NamedTuple):
    """A task that an operator wants to stop: its claim, what it is to become, and why if that is `failed`."""

    task_id: int
    claim_token: int
    status: TaskStatus
    why: str | None


class OrderStore(Statements):
    """Requests of operators and their receipts."""

    long = frozenset({"settle"})

    async def deliver(self, worker_id: UUID) -> list[Order]:
        """Take in what is asked of the tasks that a worker runs: all of it, each time."""
        rows = await self._fetch("deliver", worker_id)
        return [Order(row[0], row[1], TaskStatus(row[2]), row[3]) for row in rows]

    async def claim_asked(
        self,
        worker_id: UUID,
        labels: Sequence[str],
        names: Sequence[str],
        *,
        strict: bool,
        barred: Barred,
    ) -> list[ClaimedTask]:
        """Claim one of the tasks that operators want to run now, if this worker may run one."""
        but = barred.labels, barred.names, barred.ids
        rows = await self._fetch("claim_asked", worker_id, labels, names, strict, *but)
        return list(map(ClaimedTask._make, rows))

    async def settle(self) -> None:
        """Obey what is asked of tasks that don't run any more, and complete the receipts of what is over."""
        await self._fetch("settle")
