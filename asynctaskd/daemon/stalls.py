"""Whether the handlers' event loop turns, asked from another thread; and if it doesn't, who blocks it."""

from __future__ import annotations

import asyncio
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from asynctaskd.daemon.slots import Slots

NOTICED_AFTER = 1.0
"""Seconds without an answer that are a stall."""

_INNERMOST_FRAMES = 12
_LONGEST_STACK = 4000


@dataclass(frozen=True, slots=True)
class Stall:
    """What blocks an event loop, for how many seconds so far. `task_id` is None where it is no handler."""

    task_id: int | None
    task: str
    seconds: float
    stack: str

    def as_json(self) -> dict[str, Any]:
        """For the worker's row."""
        return {
            "task_id": self.task_id,
            "task": self.task,
            "seconds": round(self.seconds, 1),
            "stack": self.stack,
        }


class LoopWatch:
    """Asks a loop to answer, and counts how long it doesn't. `tick` is called by the watching thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, thread_id: int, slots: Slots) -> None:
        self._loop = loop
        self._thread_id = thread_id
        self._slots = slots
        self._answered = True
        self._report_at = NOTICED_AFTER
        self._last: Stall | None = None
        self.blocked_for = 0.0

    @property
    def stall(self) -> Stall | None:
        """What blocks the loop now."""
        return self._last

    def tick(self, passed: float) -> None:
        """Look once more, after `passed` seconds.

        They are those during which the watching thread ran itself: time that the whole process was frozen is
        no stall of its loop.
        """
        if self._answered:
            self._note_recovery()
            self._ask()
        else:
            self.blocked_for += passed
            if self.blocked_for >= NOTICED_AFTER:
                self._last = self._look()
                self._report(self._last)

    def _ask(self) -> None:
        self._answered = False
        with suppress(RuntimeError):  # the loop is closed: its worker ends
            self._loop.call_soon_threadsafe(self._answer, monotonic())

    def _answer(self, asked_at: float) -> None:
        self._answered = True
        emit("loop.answered", seconds=monotonic() - asked_at)

    def _note_recovery(self) -> None:
        if self._last is not None:
            emit("loop.recovered", task_id=self._last.task_id, task=self._last.task, seconds=self.blocked_for)
        self._last, self._report_at, self.blocked_for = None, NOTICED_AFTER, 0.0

    def _report(self, stall: Stall) -> None:
        if stall.seconds >= self._report_at:
            self._report_at *= 2
            emit(
                "loop.stalled",
                task_id=stall.task_id,
                task=stall.task,
                seconds=stall.seconds,
                traceback=stall.stack,
            )

    def _look(self) -> Stall:
        task_id, name = self._culprit()
        return Stall(task_id, name, self.blocked_for, stack_of(self._thread_id))

    def _culprit(self) -> tuple[int | None, str]:
        current = asyncio.current_task(self._loop)
        for execution in self._slots:
            if current is not None and (execution.runner is current or current in execution.offspring):
                return execution.task.id, execution.task.name
        return None, "a callback" if current is None else _name_of(current)


def _name_of(task: asyncio.Task[Any]) -> str:
    """The name that somebody gave it, or where it comes from: one of few, and not Task-4711."""
    name = task.get_name()
    return getattr(task.get_coro(), "__qualname__", "a task") if name.startswith("Task-") else name


def stack_of(thread_id: int) -> str:
    """Where a thread is: its innermost frames."""
    frame = sys._current_frames().get(thread_id)  # noqa: SLF001  (documented, for debuggers such as this)
    lines = traceback.format_stack(frame) if frame is not None else []
    return "".join(lines[-_INNERMOST_FRAMES:])[-_LONGEST_STACK:]


def stack_of_task(task: asyncio.Task[Any] | None) -> str:
    """Where a suspended task waits: its innermost frames, those of what it awaits included."""
    frames = [(frame, frame.f_lineno) for frame in _frames_of(task and task.get_coro())]
    return "".join(traceback.StackSummary.extract(iter(frames)).format()[-_INNERMOST_FRAMES:])[
        -_LONGEST_STACK:
    ]


def _frames_of(awaited: Any) -> Iterator[FrameType]:
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
