"""What a worker and the process of an isolated execution say to each other.

The worker sends one pickled `Assignment`, and lines of JSON after it; the process answers in lines of JSON.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
import struct
import tempfile
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from asynctaskd.task import Completed, Failed, Overdue, Released, Snoozed, Unroutable

if TYPE_CHECKING:
    from asynctaskd.task import ClaimedTask, Outcome

LONGEST_LINE = 8 * 1_048_576
"""In bytes. A result has at most 1 MiB, and JSON within JSON escapes what it quotes."""

LEASE_OVER = 213
"""The exit code of a process that found the lease of its worker over."""

_LENGTH = struct.Struct("!I")
_INSTANT = struct.Struct("d")
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
    """One execution; `worker_pid` is whom the process must not outlive, `lease_end` a descriptor."""

    task: ClaimedTask
    workplace: Workplace
    worker_pid: int
    lease_end: int


class SharedInstant:
    """A moment in memory that processes share, in seconds by `lease.clock`, which is one clock for all."""

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = _shared_memory() if descriptor is None else descriptor
        self._memory = mmap.mmap(self.descriptor, _INSTANT.size)

    def set(self, instant: float) -> None:
        """From any thread: eight aligned bytes are written at once."""
        _INSTANT.pack_into(self._memory, 0, instant)

    def get(self) -> float:
        """What was set last, by whichever process; 0 before."""
        instant: float = _INSTANT.unpack_from(self._memory)[0]
        return instant

    def close(self) -> None:
        """Give it up; other processes keep it."""
        self._memory.close()
        os.close(self.descriptor)


def _shared_memory() -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("asynctaskd")
    else:
        descriptor, path = tempfile.mkstemp()
        Path(path).unlink()
    os.ftruncate(descriptor, _INSTANT.size)
    return descriptor


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
