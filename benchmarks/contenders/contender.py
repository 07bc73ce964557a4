"""What the harness asks of everyone whose speed it measures."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "benchmarks" / "requirements"

QUEUE = "bench"
"""Where a peer wants a queue to have a name."""

NOOP: dict[str, Any] = {"user_id": 1, "template_id": "welcome"}
"""The payload of every task that does nothing. Those that are timed carry when they were sent instead."""


class UnavailableError(Exception):
    """A contender can't take part; the message says why."""


@dataclass(frozen=True)
class Command:
    """A program to start."""

    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)


class Producer(Protocol):
    """Enqueues, the fastest way that the contender documents."""

    def requests(self, count: int, sent_at: float | None = None) -> list[Any]:
        """So many tasks to hand to `enqueue_many`, made before the clock runs.

        With `sent_at` they are those whose start is noted, else those that do nothing.
        """

    async def enqueue(self, sent_at: float | None = None) -> None:
        """Enqueue and commit one task."""

    async def enqueue_many(self, requests: list[Any]) -> None:
        """Enqueue and commit many."""


class Contender(Protocol):
    """One task queue in one configuration."""

    peer: ClassVar[str]
    """The project; one project may contend in several configurations."""

    left: ClassVar[str]
    """SQL: whether anything is still to be run or to be written down. The newest first: that is what is left
    last, and whoever has to walk past all that is dead to find it says so late.
    """

    @property
    def name(self) -> str:
        """What it is called in tables and on the command line."""

    @property
    def settings(self) -> str:
        """How it is configured, in a few words."""

    @property
    def history(self) -> str:
        """What remains of a finished task."""

    @property
    def leads(self) -> bool:
        """Whether it stands for its project where one configuration is enough."""

    @property
    def share(self) -> float:
        """How much of the usual number of tasks it gets; less than 1 where all of them would take minutes."""

    def install(self) -> None:
        """Install it where it is missing. Raises UnavailableError."""

    def version(self) -> str:
        """Its version."""

    async def prepare(self, dsn: str) -> None:
        """Create its tables in an empty database."""

    def producer(self, dsn: str, *, connections: int = 1) -> AbstractAsyncContextManager[Producer]:
        """Connected to enqueue on so many connections."""

    def worker(self, dsn: str) -> Command:
        """Its worker, which reports as `benchmarks/workers/tally.py` says."""


def leading(contenders: list[Contender]) -> list[Contender]:
    """One configuration of each project: the one that leads, if it was chosen, else all that were."""
    led = {contender.peer for contender in contenders if contender.leads}
    return [contender for contender in contenders if contender.leads or contender.peer not in led]


def with_host(dsn: str) -> str:
    """The same URL for drivers that want a host before the path, also where the query has the socket's."""
    parts = urlsplit(dsn)
    if parts.hostname:
        return dsn
    return parts._replace(netloc=f"{parts.netloc}localhost").geturl()
