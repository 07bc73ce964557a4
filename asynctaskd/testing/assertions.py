"""Was it enqueued? An assertion whose message shows what came near."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from asynctaskd.client import Client
from asynctaskd.definitions.definition import Definition
from asynctaskd.definitions.payload import dump_payload
from asynctaskd.errors import InvalidInputError
from asynctaskd.task import Task
from asynctaskd.testing.memory import InMemoryClient

if TYPE_CHECKING:
    import asyncpg

    from asynctaskd.postgres.caller import AnyConnection

_MOST = 1_000
_SHOWN = 3
_FIELDS = {field.name for field in fields(Task)} - {"name", "payload"}
_SETS = {"labels", "tags", "depends_on"}


async def assert_enqueued(
    where: InMemoryClient | Client | AnyConnection | asyncpg.Pool,
    task: str | Definition[..., Any],
    payload: Mapping[str, Any] | BaseModel | None = None,
    **expected: Any,
) -> Task:
    """Assert that a task was enqueued, whatever has become of it since; returns the newest that fits.

    Args:
        where: an InMemoryClient; or a Client, a pool or a connection to the database: on a connection that
            is in a transaction, what was enqueued in that counts too.
        task: a name or a definition.
        payload: what its payload holds, at any depth; more may be there.
        expected: fields of `Task`. Of `labels`, `tags` and `depends_on` more may be there; others are equal.

    Raises:
        AssertionError: there is none. The message tells how the nearest ones differ.
        InvalidInputError: a task has no such field.
    """
    name = task.name if isinstance(task, Definition) else task
    wanted = {"payload": _decoded(payload)} | expected
    if unknown := expected.keys() - _FIELDS:
        known = ", ".join(sorted(_FIELDS))
        raise InvalidInputError(f"a task has no field {min(unknown)!r}; there are {known}")
    client = where if isinstance(where, InMemoryClient | Client) else Client(where)
    found = await client.list_tasks(name=name, limit=_MOST)
    misses = [(list(_differences(one, wanted)), one) for one in found]
    for differences, one in misses:
        if not differences:
            return one
    others = [] if found else await client.list_tasks(limit=_MOST)
    raise AssertionError("\n".join(_report(name, wanted, misses, others)))


def _decoded(payload: object) -> Any:
    return {} if payload is None else json.loads(dump_payload(payload))


def _differences(task: Task, wanted: Mapping[str, Any]) -> Iterator[str]:
    for field, value in wanted.items():
        found = getattr(task, field)
        if field == "payload":
            yield from _missing(value, found, "payload")
        elif field in _SETS:
            yield from (f"{field} {found!r} lack {one!r}" for one in value if one not in found)
        elif found != value:
            yield f"{field} is {found!r}, not {value!r}"


def _missing(wanted: Any, found: Any, where: str) -> Iterator[str]:
    """What of a JSON value isn't there: objects may hold more, everything else is equal."""
    if not isinstance(wanted, dict) or not isinstance(found, dict):
        if wanted != found:
            yield f"{where} is {found!r}, not {wanted!r}"
        return
    for key, value in wanted.items():
        if key in found:
            yield from _missing(value, found[key], f"{where}.{key}")
        else:
            yield f"{where} has no {key!r}"


def _report(
    name: str, wanted: Mapping[str, Any], misses: list[tuple[list[str], Task]], others: list[Task]
) -> Iterator[str]:
    given = ", ".join(f"{field}={value!r}" for field, value in wanted.items() if value != {})
    yield f"no task {name!r} was enqueued" + (f" with {given}" if given else "")
    if misses:
        yield f"of that name there are {len(misses)}; the nearest:"
        for differences, task in sorted(misses, key=lambda miss: len(miss[0]))[:_SHOWN]:
            yield f"  task {task.id} ({task.status}): {'; '.join(differences)}"
    else:
        names = sorted({task.name for task in others})
        yield f"of that name there is none; there are {', '.join(names) or 'no tasks at all'}"
