"""The statements about the runtime configuration that workers run, on sessions of the store's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from asynctaskd.config.convergence import Answer
from asynctaskd.config.runtime import MAPPINGS
from asynctaskd.postgres.statements import Statements
from asynctaskd.task import ClaimedTask

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    import asyncpg


class Written(NamedTuple):
    """A version, and its identity: a number that got lost with a primary is given again."""

    version: int
    identity: UUID


class Published(NamedTuple):
    """A version, and whom it is for: `all`, its `canary` alone, or `nobody` any more."""

    version: int
    identity: UUID
    reach: str
    canary: UUID | None

    @property
    def written(self) -> Written:
        """Which version it is."""
        return Written(self.version, self.identity)


class Trial(NamedTuple):
    """How a canary goes: whom its version is for by now, for how many more seconds it is to be tried, and
    what each worker had finished and failed when that began.
    """

    reach: str
    seconds_left: float
    base: dict[str, tuple[int, int]]


class ConfigStore(Statements):
    """What a worker asks about the runtime configuration, and the claims of control tasks."""

    async def claim_control(
        self, worker_id: UUID, but: Sequence[int], *, most: int = 10
    ) -> list[ClaimedTask]:
        """Claim control tasks, at most so many and no id in `but`; they take no slot."""
        rows = await self._fetch("claim_control", worker_id, most, but)
        return list(map(ClaimedTask._make, rows))

    async def newest(self, worker_id: UUID | None) -> dict[str, Any] | None:
        """The newest version that is for a worker, with its `identity`; None where there is none.

        Beside it `applied_config` and `rejected_config`: the identities of what the worker answered last.
        """
        rows = await self._fetch("newest_config", worker_id)
        if not rows:
            return None
        row = dict(rows[0])
        return row | {name: json.loads(row[name]) for name in MAPPINGS}

    async def declare_labels(self, declared: str) -> bool:
        """Add what an App says of labels (JSON) where nothing is set yet; False: ask again later."""
        return bool(await self._value("declare_labels", declared))

    async def acknowledge(
        self,
        worker_id: UUID,
        version: int,
        identity: UUID | None,
        request_id: UUID | None,
        *,
        rejected: str | None = None,
    ) -> None:
        """Say that a worker applies a configuration, or why it can't; without identity: the defaults."""
        await self._fetch("acknowledge_config", worker_id, version, identity, rejected, request_id)

    async def publish(self, task_id: int, changes: str) -> Published:
        """Write the version that a control task asks for (JSON), unless it has done so before.

        Raises:
            InvalidInputError: a field breaks a rule.
            InvalidStateError: there is no canary to promote, or no version to go back to.
        """
        [row] = await self._fetch("publish_config", task_id, changes)
        return Published(*row)

    async def answers(self, identity: UUID) -> tuple[int, list[Answer]]:
        """The newest version that is for all, and how far the live workers have come towards that one."""
        return answers_of(await self._fetch("config_answers", identity))

    async def trial(self, identity: UUID) -> Trial:
        """How a canary goes; one that got lost with a primary is for nobody."""
        rows = await self._fetch("watch_canary", identity)
        if not rows:
            return Trial("nobody", 0.0, {})
        [(reach, seconds, base)] = rows
        return Trial(reach, seconds, {} if base is None else json.loads(base))

    async def settle_canary(self, identity: UUID, *, promoted: bool) -> Written | None:
        """End a canary; returns the version that is to hold, or None where somebody else has ended it."""
        [(version, settled)] = await self._fetch("settle_canary", identity, promoted)
        return None if settled is None else Written(version, settled)

    async def expire(self) -> int:
        """Take back what has expired; returns how many versions that took."""
        return int(await self._value("expire_config"))


def answers_of(rows: Sequence[asyncpg.Record]) -> tuple[int, list[Answer]]:
    """The rows of `config_answers.sql`: the newest version that is for all, and an answer each."""
    answers = [
        Answer(
            row["id"],
            f"{row['hostname']}:{row['pid']}",
            row["applied"],
            row["rejected"],
            row["because"],
            row["finished"],
            row["failed"],
            row["process"],
            row["place"],
        )
        for row in rows
        if row["id"] is not None
    ]
    return rows[0]["newest"], answers
