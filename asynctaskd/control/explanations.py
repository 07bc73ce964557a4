"""Explanations: why a task isn't running, and what happened to it so far."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asynctaskd.postgres.caller import Caller, not_found
from asynctaskd.postgres.records import task_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    import asyncpg

    from asynctaskd.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """The one reason why a task isn't running.

    Attributes:
        reason: a word for programs; docs/reference/why.md lists them.
        explanation: a sentence.
        remedy: what would change it; None where nothing has to.
        detail: the facts: ids, labels, limits, workers.
    """

    reason: str
    explanation: str
    remedy: str | None
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Something that happened to a task.

    Attributes:
        at: when, by the database's clock.
        after: how long after the moment before; None for the first.
        what: `enqueued`, `claimed`, one of the kinds of events, or the status it ended with.
        detail: what is known of it.
    """

    at: datetime
    after: timedelta | None
    what: str
    detail: dict[str, Any]


class Explanations(Caller):
    """Answers to the questions that come first at three in the morning."""

    async def why(self, task_id: int) -> Why:
        """The one reason why a task isn't running, in words, and what would change it.

        Raises:
            TaskNotFoundError: there is none, or it was already forgotten.
        """
        [(reason, explanation, remedy, detail)] = await self._fetch("why", task_id)
        if reason is None:
            raise not_found(task_id)
        return Why(reason=reason, explanation=explanation, remedy=remedy, detail=json.loads(detail))

    async def timeline(self, task_id: int) -> list[Moment]:
        """What happened to a task, in order, with the time between.

        Raises:
            TaskNotFoundError: there is none, or it was already forgotten.
        """
        rows = await self._fetch("get_tasks", [task_id])
        if not rows:
            raise not_found(task_id)
        return _in_order(task_of(rows[0]), await self._fetch("list_events", task_id))


def _in_order(task: Task, events: list[asyncpg.Record]) -> list[Moment]:
    happened = {("enqueued", task.created_at): _given(priority=task.priority, labels=task.labels)}
    claims = {(event["claimed_at"], event["claim_token"]) for event in events}
    claims.add((task.claimed_at, task.claim_token))
    happened |= {("claimed", at): {"claim_token": token} for at, token in claims if at is not None}
    for event in events:
        detail: Mapping[str, Any] = json.loads(event["detail"] or "{}")
        happened[event["kind"], event["at"]] = dict(detail)
    if task.finished_at is not None:
        happened[task.status.value, task.finished_at] = _given(reason=task.reason, error=task.last_error)
        happened = _once(happened, task)
    moments = sorted(happened, key=lambda moment: moment[1])
    before = [None, *(at for _, at in moments)]
    return [
        Moment(at=at, after=None if last is None else at - last, what=what, detail=happened[what, at])
        for (what, at), last in zip(moments, before, strict=False)
    ]


def _once(happened: dict[Any, dict[str, Any]], task: Task) -> dict[Any, dict[str, Any]]:
    """Without the last event that says the same as the end itself."""
    same = [key for key in happened if key[0] == task.status.value and key[1] != task.finished_at]
    for key in same:
        if key[1] >= (task.claimed_at or task.created_at):
            del happened[key]
    return happened


def _given(**facts: Any) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value}
