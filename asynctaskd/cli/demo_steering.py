"""The demo's first act of steering: the weights change while it runs, and every worker says that it knows."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any
from uuid import UUID

from asynctaskd.cli.demo_files import LATER_WEIGHTS, WEIGHTS
from asynctaskd.cli.demo_view import duration
from asynctaskd.daemon.loops import wait_for
from asynctaskd.postgres.listener import Listener
from asynctaskd.postgres.messages import hearing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from asynctaskd import Client
    from asynctaskd.cli.demo_view import View
    from asynctaskd.config.convergence import ConfigReport
    from asynctaskd.postgres.messages import Params

# Notices may never come: through some poolers they don't. Then the report alone tells who knows.
_NOTICE_LIMIT = 2.0


@dataclass(frozen=True, slots=True)
class Ack:
    """What one worker answered.

    Attributes:
        host: where it runs, as `hostname:pid`.
        version: what it applies; None where it doesn't apply the change.
        seconds: from the request to the notice of the worker; None where that didn't come.
    """

    worker: UUID
    host: str
    version: int | None
    seconds: float | None

    def __str__(self) -> str:
        if self.version is None:
            return f"{self.host} doesn't apply it"
        when = "; its notice didn't come" if self.seconds is None else f" after {duration(self.seconds)}"
        return f"{self.host} acknowledged version {self.version}{when}"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        milliseconds = None if self.seconds is None else round(self.seconds * 1000, 1)
        return {
            "worker": str(self.worker),
            "host": self.host,
            "version": self.version,
            "milliseconds": milliseconds,
        }


@dataclass(frozen=True, slots=True)
class WeightChange:
    """What became of the change; `seconds` until all had answered."""

    version: int | None
    status: str
    seconds: float
    acks: Sequence[Ack]

    def is_known_to(self, workers: int) -> bool:
        """Whether so many workers acknowledged the version, and nobody lags."""
        known = [ack for ack in self.acks if self.version is not None and ack.version == self.version]
        return self.status == "converged" and len(known) == len(self.acks) == workers

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "version": self.version,
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "acks": [ack.as_json() for ack in self.acks],
        }


async def change_weights(client: Client, dsn: str, channel: str, view: View) -> WeightChange:
    """Give the groups their later weights, and tell what each worker answers.

    Args:
        client: through whom.
        dsn: where to listen.
        channel: on which the workers' answers come.
        view: where to tell it.
    """
    changes = ", ".join(f"{group} {weight} → {LATER_WEIGHTS[group]}" for group, weight in WEIGHTS.items())
    view.tell(f"the weights change while all groups wait: {changes}")
    async with _listening(dsn, channel) as notices:
        began = time.monotonic()
        report = await client.update_runtime_config(weights=LATER_WEIGHTS)
        took = time.monotonic() - began
        await notices.wait_for(report)
    acks = [_ack(worker, report, notices.heard, began) for worker in report.hosts]
    change = WeightChange(
        report.version, report.status, took, sorted(acks, key=lambda ack: ack.seconds or inf)
    )
    for ack in change.acks:
        view.tell(f"  {ack}")
    view.tell(f"  {change.status.replace('_', ' ')} after {duration(took)}; the shares are counted anew")
    return change


def _ack(
    worker: UUID, report: ConfigReport, heard: Mapping[tuple[UUID, int | None], float], began: float
) -> Ack:
    """Whether a worker applies the change the report says; when it answered, its notice."""
    if worker not in report.applied:
        return Ack(worker, report.hosts[worker], None, None)
    at = heard.get((worker, report.version))
    return Ack(worker, report.hosts[worker], report.version, None if at is None else at - began)


class _Notices:
    """The workers' answers as they come in: `heard` maps worker and version to the moment, on our clock."""

    def __init__(self) -> None:
        self.heard: dict[tuple[UUID, int | None], float] = {}
        self._news = asyncio.Event()

    def hear(self, params: Params) -> None:
        self.heard.setdefault((UUID(params["worker_id"]), params["applied_version"]), time.monotonic())
        self._news.set()

    async def wait_for(self, report: ConfigReport) -> None:
        """Wait for the notices of all workers that have answered, if they come at all."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_NOTICE_LIMIT):
                while not {(worker, report.version) for worker in report.applied} <= self.heard.keys():
                    self._news.clear()
                    await self._news.wait()


@asynccontextmanager
async def _listening(dsn: str, channel: str) -> AsyncIterator[_Notices]:
    """The answers from before anybody could give one."""
    notices = _Notices()
    listener = Listener(dsn, {channel: hearing({"ack": notices.hear})}, wake=lambda: None)
    listening = asyncio.create_task(listener.run())
    try:
        await wait_for(listener.up, _NOTICE_LIMIT)
        yield notices
    finally:
        listening.cancel()
        await asyncio.wait([listening])
