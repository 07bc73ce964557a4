"""What a worker and the process of an isolated execution say to each other.

The worker sends one pickled `Assignment`, and lines of JSON after it; the process answers in lines of JSON.
"""

from __future__ import annotations

import json
import pickle
import struct
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from asynctaskd.task import Completed, Failed, Overdue, Released, Snoozed, Unroutable

if TYPE_CHECKING:
    from asynctaskd.task import ClaimedTask, Outcome

LONGEST_LINE = 8 * 1_048_576
"""In bytes. A result has at most 1 MiB, and JSON within JSON escapes what it quotes."""

_LENGTH = struct.Struct("!I")
_OUTCOMES = {kind.__name__: kind for kind in (Completed, Failed, Overdue, Released, Snoozed, Unroutable)}


@dataclass(frozen=True, slots=True)
class Workplace:
    """What the process needs to be like its worker: the App's path, the database, the logs."""

    app_path: str
    dsn: str
    schema: str
    log_level: str
    log_format: str
    import_path: list[str]


@dataclass(frozen=True, slots=True)
class Assignment:
    """One execution; `worker_pid` is whom the process must not outlive."""

    task: ClaimedTask
    workplace: Workplace
    worker_pid: int


def dump_assignment(assignment: Assignment) -> bytes:
    """As it is sent: its length, then itself."""
    data = pickle.dumps(assignment)
    return _LENGTH.pack(len(data)) + data


def read_assignment(receive: Any) -> Assignment:
    """Read it by `receive(bytes)`, which returns exactly that many.

    Pickled, because it comes from the worker itself; the other direction carries what users' code made.
    """
    (length,) = _LENGTH.unpack(receive(_LENGTH.size))
    return cast("Assignment", pickle.loads(receive(length)))  # noqa: S301  (see above)


def dump_line(**what: Any) -> bytes:
    """One thing to say."""
    return json.dumps(what, ensure_ascii=False, default=timedelta.total_seconds).encode() + b"\n"


def dump_outcome(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON takes it."""
    return {"kind": type(outcome).__name__, **asdict(outcome)}


def load_outcome(said: dict[str, Any]) -> Outcome:
    """The outcome that `dump_outcome` wrote."""
    fields = dict(said)
    kind = _OUTCOMES[fields.pop("kind")]
    if fields.get("delay") is not None:
        fields["delay"] = timedelta(seconds=fields["delay"])
    return kind(**fields)
