"""What may be asked of all tasks that fit a filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from asynctaskd.errors import InvalidInputError
from asynctaskd.task import TaskStatus

if TYPE_CHECKING:
    from asynctaskd.control.browsing import TaskFilter

CAP = 1000
"""How many tasks one action may concern."""

_LIVE = tuple(status for status in TaskStatus if not status.is_terminal)
_FINISHED = tuple(status for status in TaskStatus if status.is_terminal)


@dataclass(frozen=True, slots=True)
class Action:
    """Something to ask of tasks.

    Attributes:
        title: on its button.
        of: in which statuses it makes sense.
        effect: what it does, in a sentence.
        in_bulk: whether it may be asked of many at once.
    """

    title: str
    of: tuple[TaskStatus, ...]
    effect: str
    in_bulk: bool = True

    def narrowed(self, wanted: TaskFilter) -> TaskFilter:
        """The filter for those of the tasks that it makes sense for.

        Raises:
            InvalidInputError: that is none of them.
        """
        statuses = tuple(one for one in wanted.statuses or self.of if one in self.of)
        if not statuses:
            raise InvalidInputError(f"{self.title.lower()} is for tasks that are {', '.join(self.of)}")
        return replace(wanted, statuses=statuses)


ACTIONS: Mapping[str, Action] = {
    "cancel": Action("Cancel", _LIVE, "Ends them without completing them; what runs is stopped."),
    "pause": Action(
        "Pause",
        tuple(one for one in _LIVE if one is not TaskStatus.PAUSED),
        "Keeps them from running until they are resumed; what runs is stopped and goes back.",
    ),
    "resume": Action("Resume", (TaskStatus.PAUSED,), "Lets them go on."),
    "retry": Action(
        "Retry",
        (TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.EXPIRED),
        "Runs them again under their ids, with a fresh budget of attempts.",
    ),
    "run_now": Action(
        "Run now",
        (TaskStatus.PENDING, TaskStatus.SCHEDULED),
        "Has a worker with a free slot run it out of turn.",
        in_bulk=False,
    ),
    "purge": Action("Purge", _FINISHED, "Forgets their records, with their events. It can't be undone."),
}
"""By the word of the command."""
