"""Where claims go on between two looks, so that they never walk through what is dead and can't be removed.

In the normal lane that is after the last task that was claimed from a label set; what has more weight is
asked for beside it. The strict lane comes first whatever became ready where, so it is read from its start.
But where a look took its time, strict claims, too, go on after the last one and ask for what is new beside
it, and more weight counts from the next look on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctaskd.postgres.records import START

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from asynctaskd.postgres.records import Look, Position
    from asynctaskd.task import ClaimedTask

# In seconds. A look that took the server longer has most likely walked through thousands of dead entries.
_CHEAP = 0.0005
_CHEAP_PER_SET = 0.00002


class Cursors:
    """The positions, a hint: what appears behind them (a late commit, a retry) is found by the next look.

    Attributes:
        new_above: 0, or where walking takes long: strict tasks with a higher id are new, and claims find them
            in whatever label set they are.
        strict: other label sets of the strict lane, each with the position after which claims look there.
        newest: the newest id that the last look saw.
    """

    def __init__(self) -> None:
        self.new_above = 0
        self.strict: dict[str, Position] = {}
        self.newest = 0
        self._normal: dict[str, Position] = {}

    def after(self, label_set: str) -> Position:
        """After which position a claim looks for this set's tasks of the normal lane."""
        return self._normal.get(label_set, START)

    def put_back(self, look: Look, labels: Collection[str]) -> None:
        """Go back to where a look found the first tasks for a worker of these labels."""
        # The others hold nothing: there the next claim goes on where the last one stopped.
        self._normal.update(look.normal)
        is_cheap = look.seconds <= _CHEAP + _CHEAP_PER_SET * look.sets
        # Not the newest id that this look saw: who drew one before it may have committed since.
        self.new_above = 0 if is_cheap else self.newest
        self.newest = look.newest
        self.strict = {}
        if self.new_above:
            self.strict = {one: after for one, after in look.strict.items() if may_run(one, labels)}

    def pass_by(self, claimed: Iterable[ClaimedTask]) -> None:
        """These were claimed: go on after them."""
        for task in claimed:
            if task.is_normal:
                position = -task.weight, task.id
                self._normal[task.label_set] = max(position, self.after(task.label_set))
            elif task.label_set in self.strict and not task.is_suspect:
                position = -task.priority, task.id
                self.strict[task.label_set] = max(position, self.strict[task.label_set])


def may_run(label_set: str, labels: Collection[str]) -> bool:
    """Whether a worker of these labels may run tasks of a label set."""
    return not label_set or set(label_set.split(",")) <= set(labels)
