"""Who has changed what by hand: rows that nothing forgets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from asynctaskd.control.plain import plain
from asynctaskd.postgres.caller import Caller

_JSON = ("target", "before", "after")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """Something that somebody has changed.

    Attributes:
        at: when, by the database's clock.
        actor: who: the name of a token, or `local` where none is needed.
        address: where the request came from.
        db_user: the database's user by whom it was written.
        target: of what: tasks, a label, a schedule, a version.
        before: how it was, where that is known; and `after`: how it is to be.
        outcome: what came of it, in words; `asked` in the row from before it is done. The row from after has
            that one's id in its target.
    """

    id: int
    at: datetime
    actor: str
    address: str | None
    db_user: str
    action: str
    target: dict[str, Any]
    before: Any
    after: Any
    outcome: str


class Auditing(Caller):
    """The rows of `audit`."""

    async def note_audit(
        self,
        *,
        actor: str,
        address: str | None,
        action: str,
        target: dict[str, Any],
        before: Any = None,
        after: Any = None,
        outcome: str,
    ) -> int:
        """Write down what was changed; returns the row's id."""
        texts = [None if one is None else json.dumps(one, default=plain) for one in (target, before, after)]
        row_id: int = await self._value("note_audit", actor, address, action, *texts, outcome)
        return row_id

    async def list_audit(self, *, before: int | None = None, limit: int = 50) -> list[AuditRow]:
        """What was changed, the newest first; only rows `before` an id."""
        rows = [dict(row) for row in await self._fetch("list_audit", before, limit)]
        return [
            AuditRow(**row | {name: row[name] and json.loads(row[name]) for name in _JSON}) for row in rows
        ]
