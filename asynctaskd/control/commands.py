"""Commands: pause, cancel, resume, retry, expire, fail, reprioritize, run now; each answered by a receipt."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from asynctaskd.control.receipts import Receipt, TaskReceipt, explained, receipt_of, unexplained
from asynctaskd.definitions import rules
from asynctaskd.errors import InvalidInputError, InvalidStateError
from asynctaskd.postgres.caller import Caller, growing_pauses, not_found
from asynctaskd.postgres.driver import ConflictError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID

    from asynctaskd.postgres.caller import AnyConnection

# A command may concern any number of tasks, all in one transaction.
_LIMIT = 60.0

# Executions that end at this moment lock rows in an order of their own.
_TRIES = 5

Duration = str | timedelta


class CommandOptions(TypedDict, total=False):
    """What every command takes: see `Commands.command`."""

    timeout: Duration
    connection: AnyConnection | None


class TreeOptions(CommandOptions, total=False):
    """What those take that reach descendants."""

    cascade: bool


class Commands(Caller):
    """What operators ask of tasks.

    Each command is one transaction, and returns once every execution concerned has stopped or `timeout` is
    over; the receipt says which goes on. With `connection` it belongs to that connection's transaction and
    returns at once: wait after the commit, by `receipt(request_id)`.

    Pause, cancel and resume reach all descendants, unless `cascade` is False.

    Raises:
        InvalidInputError: the selection is empty or malformed.
        DatabaseUnavailableError: the database can't be reached.
    """

    async def pause(self, task_id: int, **options: Unpack[TreeOptions]) -> Receipt:
        """Keep a task from running until it is resumed; if it runs, stop it and give the attempt back."""
        return await self.command("pause", {"ids": [task_id]}, **options)

    async def pause_by_tags(
        self,
        tags: Iterable[str],
        *,
        except_tags: Iterable[Iterable[str]] = (),
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        """Pause the tasks that carry all of these tags and all of no set in `except_tags`."""
        return await self.command("pause", _tagged(tags, except_tags), **options)

    async def pause_by_unique_tag(self, unique_tag: str, **options: Unpack[TreeOptions]) -> Receipt:
        """Pause the task that holds this unique tag."""
        return await self.command("pause", {"unique_tag": unique_tag}, **options)

    async def cancel(self, task_id: int, **options: Unpack[TreeOptions]) -> Receipt:
        """End a task without completing it; if it runs, stop it."""
        return await self.command("cancel", {"ids": [task_id]}, **options)

    async def cancel_by_tags(
        self,
        tags: Iterable[str],
        *,
        except_tags: Iterable[Iterable[str]] = (),
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        """Cancel the tasks that carry all of these tags and all of no set in `except_tags`."""
        return await self.command("cancel", _tagged(tags, except_tags), **options)

    async def cancel_by_unique_tag(self, unique_tag: str, **options: Unpack[TreeOptions]) -> Receipt:
        """Cancel the task that holds this unique tag."""
        return await self.command("cancel", {"unique_tag": unique_tag}, **options)

    async def resume(self, task_id: int, **options: Unpack[TreeOptions]) -> Receipt:
        """Let a paused task go on from where it came."""
        return await self.command("resume", {"ids": [task_id]}, **options)

    async def resume_by_tags(
        self,
        tags: Iterable[str],
        *,
        except_tags: Iterable[Iterable[str]] = (),
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        """Resume the tasks that carry all of these tags and all of no set in `except_tags`."""
        return await self.command("resume", _tagged(tags, except_tags), **options)

    async def resume_by_unique_tag(self, unique_tag: str, **options: Unpack[TreeOptions]) -> Receipt:
        """Resume the task that holds this unique tag."""
        return await self.command("resume", {"unique_tag": unique_tag}, **options)

    async def retry(self, task_id: int, **options: Unpack[CommandOptions]) -> Receipt:
        """Run a failed, cancelled or expired task again, under its id and with a fresh budget."""
        return await self.command("retry", {"ids": [task_id]}, **options)

    async def retry_by_tags(
        self,
        tags: Iterable[str],
        *,
        except_tags: Iterable[Iterable[str]] = (),
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        """Retry what didn't complete and carries all of these tags and all of no set in `except_tags`."""
        return await self.command("retry", _tagged(tags, except_tags), **options)

    async def retry_by_unique_tag(self, unique_tag: str, **options: Unpack[CommandOptions]) -> Receipt:
        """Retry the task that holds this unique tag."""
        return await self.command("retry", {"unique_tag": unique_tag}, **options)

    async def expire(self, task_id: int, **options: Unpack[CommandOptions]) -> Receipt:
        """End a task as if its deadline had passed.

        Raises:
            InvalidStateError: it is at its end already; the message says which.
            TaskNotFoundError: there is no such task.
        """
        return _insisted(await self.command("expire", {"ids": [task_id]}, **options))

    async def fail(self, task_id: int, reason: str, **options: Unpack[CommandOptions]) -> Receipt:
        """End a task as failed, with its failure hook.

        Raises:
            InvalidStateError: it is at its end already; the message says which.
            TaskNotFoundError: there is no such task.
        """
        return _insisted(await self.command("fail", {"ids": [task_id]}, reason=reason, **options))

    async def run_now(self, task_id: int, **options: Unpack[CommandOptions]) -> Receipt:
        """Have a worker claim one task out of turn, if one that may run it has a free slot.

        It waits for the end of that execution; the receipt's outcome is `stopped` if it ran, and its status
        says how it ended. Else it is `refused`, and the reason says what `why` says of the task: at the end
        of the timeout, or at once where no worker is live.
        """
        return await self.command("run_now", {"ids": [task_id]}, **options)

    async def reprioritize(
        self,
        any_label: Iterable[str] = (),
        *,
        priority: int | None = None,
        weight: int | None = None,
        connection: AnyConnection | None = None,
    ) -> int:
        """Change priority or weight of tasks that don't run and carry any of these labels; returns how many.

        Without labels only tasks without any are meant.
        """
        labels = list(rules.labels("any_label", any_label))
        checked = (
            None if priority is None else rules.priority("priority", priority),
            None if weight is None else rules.weight("weight", weight),
        )
        return int(await self._value("reprioritize", labels, *checked, connection=connection, limit=_LIMIT))

    async def selected(
        self, action: str, selection: Mapping[str, Any], show: int = 10, *, cascade: bool = True
    ) -> tuple[int, list[int]]:
        """How many tasks a command would concern, and the ids of the first of them; see `command`."""
        rows = await self._fetch("selected", action, _written(selection), show, cascade, limit=_LIMIT)
        return rows[0][0], list(rows[0][1])

    async def command(
        self,
        action: str,
        selection: Mapping[str, Any],
        *,
        cascade: bool = True,
        reason: str | None = None,
        timeout: Duration = "30s",
        connection: AnyConnection | None = None,
    ) -> Receipt:
        """Ask something of tasks.

        Args:
            action: `pause`, `cancel`, `resume`, `retry`, `expire`, `fail`, `run_now` or `purge`.
            selection: `ids`, or `unique_tag`, or any of the conditions `tags` (all of them), `except_tags`
                (sets, any of which excludes a task), `name`, `status`, `label`, `since` and `until` (aware
                datetimes: of the creation, and for `retry` and `purge` of the end).
            cascade: whether pause, cancel and resume reach all descendants.
            reason: what `fail` writes as the error.
            timeout: how long to wait for executions to stop.
            connection: belong to this connection's transaction, and don't wait.
        """
        limit = rules.duration("timeout", timeout)
        why = None if reason is None else rules.storable("reason", reason)
        arguments = (action, _written(selection), cascade, why)
        request_id = await self._insist(arguments, connection)
        if connection is not None or self._is_in_transaction:
            return await self._receipt(request_id, connection)
        if action == "run_now":
            return await self._run(request_id, limit)
        return await self.receipt(request_id, timeout=limit)

    async def receipt(self, request_id: UUID, *, timeout: Duration = "0s") -> Receipt:
        """The receipt of a command, once all executions concerned have stopped or `timeout` is over.

        Without a timeout it is told as it stands, and nothing is seen to meanwhile.

        Raises:
            InvalidInputError: there is no such request, or it was forgotten.
        """
        limit = rules.duration("timeout", timeout).total_seconds()
        if limit:
            with suppress(TimeoutError):
                async with asyncio.timeout(limit):
                    async for _ in growing_pauses():
                        if not await self._value("count_open", request_id):
                            break
        return await self._receipt(request_id, None)

    async def _run(self, request_id: UUID, limit: timedelta) -> Receipt:
        """Wait for what is to run out of turn, as long as anybody is there to run it."""
        if not await self._value("has_live_worker"):
            limit = timedelta()
        receipt = await self.receipt(request_id, timeout=limit)
        if receipt.open:
            await self._value("withdraw", request_id)
            receipt = await self._receipt(request_id, None)
        if ids := unexplained(receipt):
            rows = await self._fetch("why_each", ids, limit=_LIMIT)
            reasons = {row["task_id"]: (row["reason"], row["explanation"]) for row in rows}
            receipt = explained(receipt, reasons)
        return receipt

    async def _insist(self, arguments: tuple[Any, ...], connection: AnyConnection | None) -> UUID:
        """Issue a command; where executions that end just now are in the way, try again."""
        for _ in range(_TRIES - 1):
            with suppress(ConflictError):
                return await self._issue(arguments, connection)
            await asyncio.sleep(random.uniform(0.01, 0.1))  # noqa: S311  (jitter, not a secret)
        return await self._issue(arguments, connection)

    async def _issue(self, arguments: tuple[Any, ...], connection: AnyConnection | None) -> UUID:
        request_id: UUID = await self._value("command", *arguments, connection=connection, limit=_LIMIT)
        return request_id

    async def _receipt(self, request_id: UUID, connection: AnyConnection | None) -> Receipt:
        rows = await self._fetch("receipts", request_id, connection=connection, limit=_LIMIT)
        if not rows:
            raise InvalidInputError(f"there is no request {request_id}: it never was, or it was forgotten")
        return receipt_of(request_id, rows)


def _tagged(tags: Iterable[str], except_tags: Iterable[Iterable[str]]) -> dict[str, Any]:
    selection: dict[str, Any] = {"tags": _list(tags)}
    if excluded := [_list(one) for one in except_tags]:
        selection["except_tags"] = excluded
    return selection


def _list(tags: Iterable[str]) -> Sequence[str]:
    return tags if isinstance(tags, str) else list(tags)  # a text is no list of tags: the database says so


def _written(selection: Mapping[str, Any]) -> str:
    given = {name: value for name, value in selection.items() if value is not None}
    for name in given.keys() & {"since", "until"}:
        given[name] = rules.instant(name, given[name]).isoformat()
    if "ids" in given:
        given["ids"] = rules.task_ids("ids", given["ids"])
    if "label" in given:  # no task has one that breaks the rule
        [given["label"]] = rules.labels("label", [given["label"]])
    return json.dumps(given)


def _insisted(receipt: Receipt) -> Receipt:
    """The receipt, unless its one task was at its end or isn't there."""
    [task] = receipt.tasks
    if task.status is None and task.outcome == "refused":
        raise not_found(task.task_id)
    if task.outcome == "refused":
        raise InvalidStateError(_refusal(receipt, task))
    return receipt


def _refusal(receipt: Receipt, task: TaskReceipt) -> str:
    return f"{receipt.action} of task {task.task_id} was refused: {task.reason}"
