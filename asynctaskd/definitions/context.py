"""What a handler is told about its execution, and what it may ask for while it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Unpack

if TYPE_CHECKING:
    import asyncpg

    from asynctaskd.definitions.definition import Definition
    from asynctaskd.definitions.options import RequestOptions
    from asynctaskd.definitions.request import TaskRequest


class TaskContext(ABC):
    """One execution of a task, as its handler sees it.

    A handler gets it by annotating one parameter, of any name and at any place, with this class. A
    synchronous handler (it runs in a thread) may use all that isn't `async`. Tests may pass a subclass of
    their own, or a mock.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def task_id(self) -> int:
        """The task's id."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The task's name; for a handler of several names, the one that was enqueued."""

    @property
    @abstractmethod
    def attempt(self) -> int:
        """Which execution this is, counted from 1; snoozed and released ones don't count."""

    @property
    @abstractmethod
    def deadline(self) -> datetime:
        """When this attempt times out: an aware datetime."""

    @abstractmethod
    def remaining(self) -> timedelta:
        """How long until this attempt times out; never negative."""

    @property
    @abstractmethod
    def result(self) -> Any:
        """What is stored as the task's result; a value that the handler returns wins over it."""

    @result.setter
    @abstractmethod
    def result(self, value: Any) -> None: ...

    @property
    @abstractmethod
    def log(self) -> Any:
        """A structlog logger bound to the task's id, name and attempt."""

    @property
    @abstractmethod
    def cancelled(self) -> bool:
        """Whether this execution should stop: a cancel, a pause, its timeout or a shutdown.

        Async handlers are cancelled anyway; handlers in threads should look here between steps.
        """

    @abstractmethod
    async def enqueue(
        self,
        task: str | Definition[..., Any] | TaskRequest,
        payload: object = None,
        **options: Unpack[RequestOptions],
    ) -> int:
        """Enqueue a task, as a child of this one unless `parent_id` says otherwise; returns its id.

        Raises:
            InvalidInputError: an option or the payload breaks a rule; nothing was written.
        """

    @abstractmethod
    async def dependency_results(self) -> dict[int, Any]:
        """The results of the tasks that this one depends on, by id, in the order of `depends_on`.

        One whose record was forgotten (its `keep`) is left out.
        """

    @abstractmethod
    def transaction(self) -> AbstractAsyncContextManager[asyncpg.Connection[asyncpg.Record]]:
        """A connection whose commit completes the task together with what was written on it.

        The result is what `result` holds inside the block. Once per attempt.

        Raises:
            LeaseLostError: this execution no longer owns the task; everything was rolled back.
        """

    @abstractmethod
    async def progress(self, percent: float, message: str = "") -> None:
        """Say how far the work is: 0 to 100, and a word about it."""

    @abstractmethod
    async def extend(self, duration: str | timedelta) -> None:
        """Give this attempt more time: its deadline moves back by `duration`."""
