"""Claims, and the looks that tell where they may find something: the statements of the lanes."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from asynctaskd.postgres.records import NOTHING_BARRED, Barred, Look, StrictLane
from asynctaskd.postgres.statements import Statements
from asynctaskd.task import ClaimedTask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from asynctaskd.postgres.records import Position, Share

_UNLIMITED: Mapping[str, int] = MappingProxyType({})


class Claims(Statements):
    """What the claim loop asks of the database."""

    async def claim(
        self,
        worker_id: UUID,
        labels: Sequence[str],
        *,
        slots: int,
        shares: Sequence[Share],
        strict: StrictLane,
        suspects: int = 1,
        suspects_alone: bool = False,
        barred: Barred = NOTHING_BARRED,
        plain: bool = False,
    ) -> list[ClaimedTask]:
        """Claim at most `slots` tasks, and among them `suspects` that may kill their worker; with
        `suspects_alone` nothing but such.

        Tasks whose names are paused are put aside, not claimed; they are in the answer, with the reason
        `name paused`.

        `plain` is for less than half the price: from the normal lane, and nothing at all while another lane
        that may be asked holds something. Each share has to be all that its group gets and may run, and no
        tasks or names barred.
        """
        if plain:
            return await self._claim_normal(worker_id, shares, strict, suspects)
        rows = await self._fetch(
            "claim",
            worker_id,
            labels,
            strict.most,
            slots,
            [share.label_set for share in shares],
            [share.group for share in shares],
            [share.quota for share in shares],
            [share.row_limit for share in shares],
            [share.weight for share in shares],
            [share.standing for share in shares],
            [share.after[0] for share in shares],
            [share.after[1] for share in shares],
            barred.ids,
            suspects,
            suspects_alone,
            strict.new_above,
            list(strict.after),
            [place for place, _ in strict.after.values()],
            [task_id for _, task_id in strict.after.values()],
            barred.labels,
            list(barred.spare),
            list(barred.spare.values()),
            barred.names,
        )
        return sorted(map(ClaimedTask._make, rows), key=_strict_first)

    async def _claim_normal(
        self, worker_id: UUID, shares: Sequence[Share], strict: StrictLane, suspects: int
    ) -> list[ClaimedTask]:
        rows = await self._fetch(
            "claim_normal",
            worker_id,
            [share.label_set for share in shares],
            [share.quota for share in shares],
            [share.after[0] for share in shares],
            [share.after[1] for share in shares],
            strict.most,
            suspects,
            strict.new_above,
            max(strict.unblocked_above, strict.new_above),
            strict.blocked_sets,
        )
        return list(map(ClaimedTask._make, rows))

    async def ready_sets(self, labels: Sequence[str]) -> Look:
        """Look from the start for what is ready for a worker of these labels."""
        found: list[dict[str, Position]] = [{}, {}, {}]
        *rows, (_, _, sets, newest), (_, _, _, microseconds) = await self._fetch("ready_sets", labels)
        for lane, label_set, place, task_id in rows:
            found[lane][label_set] = (place, task_id - 1)
        normal, strict, suspects = found
        return Look(normal, strict, frozenset(suspects), newest, sets, microseconds / 1_000_000)

    async def has_work(
        self,
        worker_id: UUID,
        labels: Sequence[str],
        *,
        strict: bool,
        paused_labels: Sequence[str] = (),
        paused_names: Sequence[str] = (),
    ) -> bool:
        """Whether a worker holds anything, or anything is ready for it that isn't paused."""
        return bool(await self._value("has_work", worker_id, labels, strict, paused_labels, paused_names))

    async def has_suspect(
        self,
        labels: Sequence[str],
        *,
        strict: bool,
        paused_labels: Sequence[str] = (),
        paused_names: Sequence[str] = (),
        limits: Mapping[str, int] = _UNLIMITED,
    ) -> bool:
        """Whether a task may run now on a worker of these labels that has lost its worker twice in a row."""
        limited = (list(limits), list(limits.values()))
        return bool(await self._value("has_suspect", labels, strict, paused_labels, paused_names, *limited))


def _strict_first(task: ClaimedTask) -> tuple[bool, int]:
    return not task.strict, task.id
