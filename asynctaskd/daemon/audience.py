"""The audience: tell those who watch what is claimed, how far it is and what is completed here.

While nobody watches, nothing is gathered. Everything else that happens to tasks stands in `task_events`,
where watchers read it themselves.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from asynctaskd.scheduling.lanes import group_of
from asynctaskd.task import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from asynctaskd.daemon.commands import Steering
    from asynctaskd.daemon.execution import Execution
    from asynctaskd.daemon.lease import Lease
    from asynctaskd.postgres.watchers import WatchStore
    from asynctaskd.task import ClaimedTask, Transition

WATCHED = "!watched"
"""The payload of a notice that somebody begins to watch; no label set is called that."""

STRICT = "!strict"
"""What stands for the strict lane where claims are counted by group; no label is called that."""

# How often, in seconds: whether somebody still watches, and with that the counts; and the events.
_WORD_INTERVAL = 1.0
_EVENTS_INTERVAL = 0.1
_SELDOM = 3600.0

# Between two messages: whoever reads can't follow more, and what is left out is counted.
_MOST_EVENTS = 500
# In bytes. PostgreSQL's own limit of a notice is 8,000.
_LONGEST_MESSAGE = 7900
_ENVELOPE = 120
_BEFORE_DETAIL = 6  # elements of an event


class Audience:
    """Counts and gathers while somebody watches. Woken by a notice, or by what a renewal tells."""

    def __init__(self, store: WatchStore, lease: Lease, steering: Steering) -> None:
        self._store = store
        self._lease = lease
        self._steering = steering
        self._wants: frozenset[str] = frozenset()
        self._claims: Counter[str] = Counter()
        self._events: list[list[Any]] = []
        self._left_out = 0
        self._next_word = 0.0
        self.wake = asyncio.Event()

    def look(self) -> None:
        """Somebody may watch."""
        if not self._wants:
            self._next_word = 0.0
            self.wake.set()

    def claimed(self, tasks: Sequence[ClaimedTask]) -> None:
        """These were claimed just now."""
        if "shares" in self._wants:
            self._claims.update(map(self._group, tasks))
        if "events" in self._wants:
            for task in tasks:
                self._note("claimed", task, task.claimed_at)

    def ended(self, batch: Iterable[tuple[Execution, Transition]], stale: set[int]) -> None:
        """These were written just now, but for those whose claims were stale."""
        if "events" in self._wants:
            for execution, transition in batch:
                if transition.status is TaskStatus.COMPLETED and execution.task.id not in stale:
                    self._note("completed", execution.task, execution.now())

    def progressed(self, execution: Execution, progress: str) -> None:
        """It has said how far it is (JSON, as stored)."""
        if "events" in self._wants:
            self._note("progress", execution.task, execution.now(), {"progress": json.loads(progress)})

    async def step(self) -> float:
        """Tell what has gathered; returns the pause until there is more to tell, in seconds."""
        now = asyncio.get_running_loop().time()
        if now >= self._next_word:
            self._wants = await self._store.tell_claims(self._lease.worker_id, json.dumps(self._claims))
            self._next_word = now + _WORD_INTERVAL
        await self._tell_events()
        if "events" in self._wants:
            return _EVENTS_INTERVAL
        return _WORD_INTERVAL if self._wants else _SELDOM

    async def _tell_events(self) -> None:
        events, self._events = self._events, []
        left_out, self._left_out = self._left_out, 0
        if events:
            await self._store.tell_events(messages_of(str(self._lease.worker_id), events, left_out))

    def _note(self, kind: str, task: ClaimedTask, at: datetime, *detail: dict[str, Any]) -> None:
        if len(self._events) < _MOST_EVENTS:
            told = [kind, task.id, task.name, task.label_set, task.attempts, at.timestamp()]
            self._events.append([*told, *detail])
        else:
            self._left_out += 1

    def _group(self, task: ClaimedTask) -> str:
        if task.strict:
            return STRICT
        return group_of(task.label_set.split(","), self._steering.config.weights)


def messages_of(worker_id: str, events: Iterable[list[Any]], left_out: int) -> list[str]:
    """As few messages as hold the events, each short enough for a notice; the last says what was left out."""
    parts: list[list[str]] = [[]]
    length = 0
    for event in map(_written, events):
        if length + len(event) + 1 > _LONGEST_MESSAGE - _ENVELOPE:
            parts.append([])
            length = 0
        parts[-1].append(event)
        length += len(event) + 1
    missing = [0] * (len(parts) - 1) + [left_out]
    return [_message(worker_id, part, missed) for part, missed in zip(parts, missing, strict=True)]


def _written(event: list[Any]) -> str:
    """As JSON; without its detail where no notice could hold that, such as a long message of a handler."""
    whole = json.dumps(event, separators=(",", ":"))
    return whole if len(whole) <= _LONGEST_MESSAGE - _ENVELOPE else json.dumps(event[:_BEFORE_DETAIL])


def _message(worker_id: str, events: Iterable[str], left_out: int) -> str:
    params = f'{{"worker_id":"{worker_id}","left_out":{left_out},"events":[{",".join(events)}]}}'
    return f'{{"op":"task_events","params":{params}}}'
