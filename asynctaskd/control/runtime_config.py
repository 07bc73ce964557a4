"""Change how a running fleet schedules, and learn what each worker answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, cast
from uuid import UUID

from asynctaskd.config.convergence import ConfigReport, report_of, trial_of
from asynctaskd.config.runtime import MAPPINGS, RuntimeConfig, fields_of, read_leniently
from asynctaskd.control.preview import Preview, preview_of
from asynctaskd.definitions import rules
from asynctaskd.durations import format_duration
from asynctaskd.errors import InvalidInputError, InvalidStateError, TaskError, TaskNotFoundError
from asynctaskd.postgres.caller import Caller, growing_pauses
from asynctaskd.postgres.configs import answers_of

if TYPE_CHECKING:
    import asyncpg

    from asynctaskd.postgres.caller import AnyConnection

# A report that was due just now may still be on its way.
_GRACE = timedelta(seconds=1)

_JSON = ("changes", *MAPPINGS)


class ConfigFields(TypedDict, total=False):
    """Fields of the runtime configuration; those left out keep their value.

    Attributes:
        max_strict_percentage: 0 to 100; None leaves it to each worker's own configuration.
        default_weight: the weight of the group `default`.
        weights: label to weight; with `labels`, a list of one length with it.
        labels: see `weights`.
        limits: label to the number of tasks that may run at once in the whole fleet.
        max_run_times: label to how long one execution of its tasks may take, such as `1h`.
        max_attempts: label to how often its tasks are run, retries included.
        paused_labels: tasks that carry one of them aren't claimed.
        paused_names: tasks of these names aren't claimed.
    """

    max_strict_percentage: int | None
    default_weight: int
    weights: Mapping[str, int] | Sequence[int]
    labels: Sequence[str]
    limits: Mapping[str, int]
    max_run_times: Mapping[str, str]
    max_attempts: Mapping[str, int]
    paused_labels: Sequence[str]
    paused_names: Sequence[str]


class ConfigChange(ConfigFields, total=False):
    """Fields, and how the change is made; or, alone, `rollback_to` or `promote`.

    Attributes:
        expires: after this duration the changed fields have their values of before, unless something newer
            has changed them again; each entry of a mapping or list by itself.
        canary: one worker tries the change for this duration first. It is promoted if that one doesn't fail
            more often than the others, else rolled back.
        canary_worker: which worker tries it, by id or by `worker.id`; else the one that has done most.
        rollback_to: publish what this version said as a new one; 0 are the defaults, and "previous" is the
            one before what holds or, where one worker is trying a change, the one before that.
        promote: True lets all workers apply what one of them is trying.
    """

    expires: str | timedelta
    canary: str | timedelta
    canary_worker: UUID | str
    rollback_to: int | Literal["previous"]
    promote: Literal[True]


class RuntimeConfigs(Caller):
    """Changes of the runtime configuration, and what became of them."""

    async def update_runtime_config(
        self, *, timeout: str | timedelta = "30s", **change: Unpack[ConfigChange]
    ) -> ConfigReport:
        """Change the runtime configuration and wait until all live workers apply it.

        Args:
            timeout: how long the workers have to answer, a canary's time not counted.
            change: see ConfigChange.

        Raises:
            InvalidInputError: a field breaks a rule, or none is given; nothing was written.
            InvalidStateError: no worker can be the canary; or this client's connection is in a transaction.
            DatabaseUnavailableError: the database can't be reached.
        """
        if self._is_in_transaction:
            raise InvalidStateError(
                "nobody sees the change before the transaction is committed: ask for it with "
                "request_runtime_config, and wait with runtime_config_report after the commit"
            )
        return await self.runtime_config_report(await self.request_runtime_config(timeout=timeout, **change))

    async def request_runtime_config(
        self,
        *,
        connection: AnyConnection | None = None,
        timeout: str | timedelta = "30s",
        **change: Unpack[ConfigChange],
    ) -> int:
        """The same without waiting: returns the id of the control task, for `runtime_config_report`.

        With `connection` it is asked for in that connection's transaction; the waiting comes after the
        commit.
        """
        limit = rules.positive_duration("timeout", timeout)
        changes = json.dumps(_request(change))
        task_id: int = await self._value("update_config", changes, limit, connection=connection)
        return task_id

    async def runtime_config_report(
        self, task_id: int, timeout: str | timedelta | None = None
    ) -> ConfigReport:
        """Wait for what became of a change; its report names the workers that haven't answered by then.

        Args:
            task_id: what `request_runtime_config` returned.
            timeout: how long to wait; None: as long as the change itself was given.

        Raises:
            InvalidInputError, InvalidStateError: the change was refused when a worker came to it.
            TaskNotFoundError: there is no such control task, or its record was forgotten.
            TaskError: it ended in another way.
        """
        given = None if timeout is None else rules.duration("timeout", timeout)
        row = await self._control_task(task_id)
        if report := _report_in(task_id, row):
            return report
        limit = row["timeout"] + _GRACE if given is None else given
        if limit:
            with suppress(TimeoutError):
                async with asyncio.timeout(limit.total_seconds()):
                    async for _ in growing_pauses():
                        row = await self._control_task(task_id)
                        if report := _report_in(task_id, row):
                            return report
        # Perhaps no worker has even come to it.
        answers = await self._fetch("config_answers", row["identity"])
        report = report_of(row["version"], *answers_of(answers))
        return report if row["canary"] is None else trial_of(report, row["canary"])

    async def promote_runtime_config(self, *, timeout: str | timedelta = "30s") -> ConfigReport:
        """Let all workers apply what one of them is trying, and wait for them.

        Raises:
            InvalidStateError: nothing is being tried.
        """
        return await self.update_runtime_config(timeout=timeout, promote=True)

    async def rollback_runtime_config(
        self, version: int | None = None, *, timeout: str | timedelta = "30s"
    ) -> ConfigReport:
        """Publish what a version said as a new one, and wait for the workers.

        Args:
            version: 0 are the defaults; None is the one before what holds or, where one worker is trying a
                change, the one before that.
            timeout: how long the workers have to answer.

        Raises:
            InvalidInputError: there is no such version.
            InvalidStateError: there is none at all.
        """
        target: int | Literal["previous"] = "previous" if version is None else version
        return await self.update_runtime_config(timeout=timeout, rollback_to=target)

    async def runtime_config(self) -> RuntimeConfig:
        """What holds for all workers now; version 0 are the defaults.

        Raises:
            InvalidStateError: the newest version, written by an older release, can't be read.
        """
        rows = await self._fetch("newest_config", None)
        if not rows:
            return RuntimeConfig()
        row = _read(dict(rows[0]))
        config, problem = read_leniently({field.name: row[field.name] for field in fields(RuntimeConfig)})
        if problem is not None:
            raise InvalidStateError(problem)
        return config

    async def runtime_config_history(self, limit: int = 20) -> list[dict[str, Any]]:
        """The newest versions, the newest first: a dict of columns each.

        `changes` are the fields that the version gave another value, on top of version `based_on`. `reach`
        says whom it is for: `all`, its `canary`, or `nobody`, since it was rolled back.
        """
        return [_read(dict(row)) for row in await self._fetch("config_history", limit)]

    async def preview_runtime_config(self, **change: Unpack[ConfigFields]) -> Preview:
        """What a change would come to, without making it: shares of the normal lane, and strict caps.

        Raises:
            InvalidInputError: a field breaks a rule, or none is given.
            InvalidStateError: what holds can't be read.
        """
        now = await self.runtime_config()
        live = [dict(row) for row in await self._fetch("list_workers") if row["status"] == "live"]
        return preview_of(now, now.updated(fields_of(_plain(change))), live)

    async def _control_task(self, task_id: int) -> asyncpg.Record:
        rows = await self._fetch("config_report", task_id)
        if not rows:
            raise TaskNotFoundError(
                f"there is no change of the runtime configuration with the id {task_id}", task_id=task_id
            )
        return rows[0]


def _report_in(task_id: int, row: asyncpg.Record) -> ConfigReport | None:
    """The report of a control task that has ended; None of one that hasn't."""
    status, error = row["status"], row["last_error"] or row["reason"]
    match status, row["reason"]:
        case "completed", _:
            return ConfigReport.from_json(json.loads(row["result"]))
        case "failed", "invalid_payload":
            raise InvalidInputError(error)
        case "failed", "terminated":
            raise InvalidStateError(error)
        case "failed" | "cancelled" | "expired", _:
            sentence = f"the change of the runtime configuration (task {task_id}) {status}: {error}"
            raise TaskError(sentence + _what_stands(row), task_id=task_id)
    return None


def _what_stands(row: asyncpg.Record) -> str:
    """What the control task wrote before it ended: that isn't taken back."""
    if row["version"] is None:
        return ""
    if row["canary"] is None:
        return f"; version {row['version']}, which it had written, stands all the same"
    return (
        f"; version {row['version']} is still being tried by {row['canary']}, until "
        "`asynctaskd config promote` or `asynctaskd config rollback` ends that"
    )


def _request(change: ConfigChange) -> dict[str, Any]:
    """A change as the control task holds it, checked."""
    given = _plain(change)
    if "promote" in given or "rollback_to" in given:
        return _alone(given)
    durations = {name: given.pop(name) for name in ("expires", "canary") if name in given}
    worker = {name: _worker(given.pop(name)) for name in ("canary_worker",) if name in given}
    fields = fields_of(given)
    RuntimeConfig().updated(fields)
    return fields | worker | {name: _written(name, length) for name, length in durations.items()}


def _alone(given: dict[str, Any]) -> dict[str, Any]:
    if len(given) > 1:
        raise InvalidInputError("promote and rollback_to can't be combined with other fields")
    if given.get("promote", True) is not True:
        raise InvalidInputError(f"promote must be True, got {given['promote']!r}")
    if given.get("rollback_to", "previous") != "previous":
        rules.integer("rollback_to", given["rollback_to"], 0, rules.MAX_INT64)
    return given


def _plain(change: Mapping[str, Any]) -> dict[str, Any]:
    """The values as JSON has them."""
    return {name: _as_json(value) for name, value in change.items()}


def _as_json(value: object) -> object:
    match value:
        case Mapping():
            return dict(cast("Mapping[str, object]", value))
        case tuple() | AbstractSet():
            return list(cast("Sequence[object]", value))
    return value


def _written(name: str, duration: object) -> str:
    return format_duration(rules.positive_duration(name, duration))


def _worker(given: object) -> str:
    try:
        return str(given if isinstance(given, UUID) else UUID(str(given)))
    except ValueError:
        raise InvalidInputError(f"canary_worker must be the id of a worker, got {given!r}") from None


def _read(row: dict[str, Any]) -> dict[str, Any]:
    return row | {name: json.loads(row[name]) for name in _JSON if name in row}
