"""Whether the payloads that are in the queue could still be read, and all of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asynctaskd.errors import InvalidPayloadError
from asynctaskd.postgres.caller import Caller

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctaskd.definitions.registry import Registry

UNDEFINED = "it isn't defined"
DROPPED = "isn't read any more"

_BATCH = 2_000
_IDS_SHOWN = 5


@dataclass(slots=True)
class Concerned:
    """Tasks of one name that have one problem.

    Attributes:
        name: the tasks' name.
        problem: which fields it is about and why; it holds no values.
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
    """What became of reading every payload.

    Attributes:
        checked: how many were looked at.
        unreadable: those that can't be read.
        dropped: those that can, but not all of what they hold.
    """

    checked: int = 0
    unreadable: list[Concerned] = field(default_factory=list[Concerned])
    dropped: list[Concerned] = field(default_factory=list[Concerned])


class _Found:
    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Concerned] = {}

    def note(self, task_id: int, name: str, problem: str) -> None:
        self._found.setdefault((name, problem), Concerned(name, problem)).add(task_id)

    def in_order(self) -> list[Concerned]:
        return sorted(self._found.values(), key=lambda one: (one.name, one.ids, one.problem))


class OpenPayloads(Caller):
    """The payloads of tasks that aren't at their end."""

    async def read_by(
        self, app: Registry, *, lost: Callable[[str, str], set[str]], progress: Callable[[int], None]
    ) -> PayloadReport:
        """Read every payload by the definitions of a registry, some thousand at a time.

        Args:
            app: what its definitions can't read, and names that it doesn't know, are in the report.
            lost: (name, payload) → the fields that they drop, of a payload that they can read.
            progress: called with the number of tasks that were looked at so far.
        """
        unreadable, dropped = _Found(), _Found()
        report, last = PayloadReport(), 0
        while rows := await self._fetch("open_payloads", last, _BATCH):
            for task_id, name, payload in rows:
                problem = _problem(app, name, payload)
                if problem is not None:
                    unreadable.note(task_id, name, problem)
                else:
                    for one in lost(name, payload):
                        dropped.note(task_id, name, f"{one}: {DROPPED}")
            last = rows[-1]["id"]
            report.checked += len(rows)
            progress(report.checked)
        report.unreadable, report.dropped = unreadable.in_order(), dropped.in_order()
        return report


def _problem(app: Registry, name: str, payload: str) -> str | None:
    definition = app.get(name)
    if definition is None:
        return UNDEFINED
    try:
        definition.bind(payload)
    except InvalidPayloadError as error:
        return str(error).partition(f"task {name!r}: ")[2]
    return None
