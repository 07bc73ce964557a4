"""Whether the payloads that are in the queue could still be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asynctaskd.errors import InvalidPayloadError
from asynctaskd.postgres.caller import Caller

if TYPE_CHECKING:
    from collections.abc import Callable

    import asyncpg

    from asynctaskd.definitions.registry import Registry

UNDEFINED = "it isn't defined"

_BATCH = 2_000
_IDS_SHOWN = 5


@dataclass(slots=True)
class Unreadable:
    """Tasks of one name that can't be read, for one reason.

    Attributes:
        name: the tasks' name.
        problem: which fields don't fit and why; it holds no values.
        count: how many there are.
        ids: the first of them.
    """

    name: str
    problem: str
    count: int = 0
    ids: list[int] = field(default_factory=list[int])

    def add(self, task_id: int) -> None:
        """Count one more."""
        self.count += 1
        if len(self.ids) < _IDS_SHOWN:
            self.ids.append(task_id)


@dataclass(slots=True)
class PayloadReport:
    """What became of reading every payload: how many were looked at, and which can't be read."""

    checked: int = 0
    unreadable: list[Unreadable] = field(default_factory=list[Unreadable])


class OpenPayloads(Caller):
    """The payloads of tasks that aren't at their end."""

    async def read_by(self, app: Registry, *, progress: Callable[[int], None]) -> PayloadReport:
        """Read every payload by the definitions of a registry, some thousand at a time.

        Args:
            app: what its definitions can't read, and names that it doesn't know, are in the report.
            progress: called with the number of tasks that were looked at so far.
        """
        found: dict[tuple[str, str], Unreadable] = {}
        report, last = PayloadReport(), 0
        while rows := await self._fetch("open_payloads", last, _BATCH):
            _note_unreadable(rows, app, found)
            last = rows[-1]["id"]
            report.checked += len(rows)
            progress(report.checked)
        report.unreadable = sorted(found.values(), key=lambda one: (one.name, one.ids))
        return report


def _note_unreadable(
    rows: Sequence[asyncpg.Record], app: Registry, found: dict[tuple[str, str], Unreadable]
) -> None:
    for task_id, name, payload in rows:
        problem = _problem(app, name, payload)
        if problem is not None:
            found.setdefault((name, problem), Unreadable(name, problem)).add(task_id)


def _problem(app: Registry, name: str, payload: str) -> str | None:
    definition = app.get(name)
    if definition is None:
        return UNDEFINED
    try:
        definition.bind(payload)
    except InvalidPayloadError as error:
        return str(error).partition(f"task {name!r}: ")[2]
    return None
