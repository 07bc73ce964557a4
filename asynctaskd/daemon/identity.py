"""What a worker tells the database of itself when it starts."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4, uuid5

from asynctaskd.daemon.caps import DEFAULT_TIMEOUT
from asynctaskd.daemon.process import this_process
from asynctaskd.postgres.records import DefinitionRow, WorkerRow
from asynctaskd.scheduling.retry import NO_RETRY
from asynctaskd.version import __version__

if TYPE_CHECKING:
    from datetime import timedelta
    from uuid import UUID

    from asynctaskd.config import WorkerConfig
    from asynctaskd.definitions.definition import Definition
    from asynctaskd.definitions.registry import Registry


def worker_row(app: Registry, worker: WorkerConfig) -> WorkerRow:
    """A new identity of this worker, named in the label `worker:<id>` as configured, or after itself.

    Of several processes with one worker.id each has a name of its own besides, made from it. Who runs a
    suspect has the labels of the worker in whose place it does. Who is disabled offers nothing: nobody is to
    count on it, or to wait until it claims within a limit.
    """
    process = this_process()
    names = _names(worker, process.nth)
    labels = [*worker.labels, *(f"worker:{name}" for name in names)] if worker.enabled else []
    return WorkerRow(
        id=uuid4(),
        name=names[-1],
        process=process.id,
        place=process.place,
        hostname=socket.gethostname(),
        pid=os.getpid(),
        version=__version__,
        labels=labels if process.suspects_of is None else process.suspects_of,
        names=list(app.definitions) if worker.enabled else [],
        concurrency=worker.concurrency,
        lease=worker.lease,
        max_strict_percentage=worker.max_strict_percentage,
    )


def changed_row(row: WorkerRow, worker: WorkerConfig) -> WorkerRow:
    """What a running worker says of itself once it is configured so; who it is stays."""
    own = [label for label in row.labels if label.startswith("worker:")]
    keeps_labels = this_process().suspects_of is not None or not worker.enabled
    return replace(
        row,
        labels=row.labels if keeps_labels else [*worker.labels, *own],
        concurrency=worker.concurrency,
        lease=worker.lease,
        max_strict_percentage=worker.max_strict_percentage,
    )


def _names(worker: WorkerConfig, nth: int | None) -> list[UUID]:
    if worker.id is None:
        return [uuid4()]
    return [worker.id] if nth is None else [worker.id, uuid5(worker.id, str(nth))]


def definition_rows(app: Registry) -> list[DefinitionRow]:
    """What an App knows, so that SQL and Python enqueue with the same defaults."""
    hears_of_all = bool(app.failure_hooks)
    return [_definition_row(definition, has_hook=hears_of_all) for definition in app.definitions.values()]


def _definition_row(definition: Definition[..., Any], *, has_hook: bool) -> DefinitionRow:
    options, retry = definition.options, definition.retry or NO_RETRY
    return DefinitionRow(
        name=definition.name,
        schema_hash=definition.schema_hash,
        priority=options.priority,
        weight=options.weight,
        label_set=None if options.labels is None else ",".join(options.labels),
        tags=None if options.tags is None else json.dumps(options.tags),
        serial_key=options.serial_key,
        unique_until=options.unique_until,
        delay=options.delay,
        deadline=cast("timedelta | None", options.deadline),  # an instant can't be declared
        timeout=options.timeout or DEFAULT_TIMEOUT,
        retry=retry.spec,
        max_attempts=retry.max_attempts,
        keep=options.keep,
        has_hook=has_hook or definition.has_failure_hook,
        codec=None if definition.encoding is None else definition.encoding.name,
        secrets=json.dumps(definition.secrets) if definition.secrets else None,
    )
