"""The control task `updateWorkerRuntimeConfig`: write a version, tell the workers, and see what they answer.

Messages only hurry: the rows decide, and are looked at twice a second whether acks arrive or not.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from asynctaskd.config.convergence import Canary, report_of
from asynctaskd.daemon.caps import DEFAULT_TIMEOUT
from asynctaskd.daemon.loops import OUTAGE, Backoff, wait_for
from asynctaskd.daemon.proof import Fate, fate_of
from asynctaskd.durations import parse_duration
from asynctaskd.postgres.listener import Listener
from asynctaskd.postgres.messages import hearing
from asynctaskd.scheduling.canary import Tally, is_worse
from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from uuid import UUID

    from asynctaskd.config.convergence import Answer, ConfigReport
    from asynctaskd.postgres.configs import ConfigStore, Published, Trial, Written
    from asynctaskd.task import ClaimedTask

T = TypeVar("T")

_LOOK_INTERVAL = 0.5
_WATCH_INTERVAL = 1.0

# How long to wait for LISTEN before going on without it, in seconds.
_LISTEN_TIMEOUT = 2.0

# A task that was tried before, or had to wait, has at least so many seconds, unless its timeout is shorter.
_LEAST = 5.0


class ConfigUpdates:
    """Carries out changes of the runtime configuration.

    Args:
        configs: the statements.
        dsn: where to listen for acks.
        channel: on which they come.
        hears: whether listening is possible.
        declare_lost: what ends the claims of workers whose process is gone, so that nobody waits for them.
    """

    def __init__(
        self,
        configs: ConfigStore,
        dsn: str,
        *,
        channel: str,
        hears: Callable[[], bool],
        declare_lost: Callable[[list[UUID], str], Awaitable[object]],
    ) -> None:
        self._configs = configs
        self._dsn = dsn
        self._channel = channel
        self._hears = hears
        self._declare_lost = declare_lost
        # However many changes there are at once, claim and finalize find a connection.
        self._turn = asyncio.Lock()
        self._waiting: set[asyncio.Event] = set()
        self._listening: asyncio.Task[None] | None = None

    async def carry_out(self, task: ClaimedTask) -> str:
        """Write what the task asks for, and wait for the workers; returns the report (JSON).

        Raises:
            InvalidInputError: a field breaks a rule.
            InvalidStateError: there is no canary to promote, or nothing to go back to.
        """
        began = _now()
        async with self._acks() as acks:
            published = await self._insist(lambda: self._configs.publish(task.id, task.payload))
            change = _Change(self, published, acks, ends_at=began + _seconds_for(task))
            report = await change.see_through(trial=_trial_of(task))
        _tell(report, _now() - began)
        return json.dumps(report.as_json())

    async def answers(self, written: Written) -> tuple[int, list[Answer]]:
        """The newest version, and how far the workers have come towards that one."""
        return await self._insist(lambda: self._configs.answers(written.identity))

    async def bury(self, silent: list[Answer]) -> None:
        """Declare those lost of whom it is proven here that their process has ended."""
        gone = [one.worker_id for one in silent if fate_of(one.process, one.place) is Fate.GONE]
        if gone:
            await self._insist(lambda: self._declare_lost(gone, "its process is gone"))

    async def trial(self, written: Written) -> Trial:
        """How a canary goes."""
        return await self._insist(lambda: self._configs.trial(written.identity))

    async def settle(self, written: Written, *, promoted: bool) -> Written | None:
        """End a canary; returns the version that is to hold, or None where somebody else has ended it."""
        return await self._insist(lambda: self._configs.settle_canary(written.identity, promoted=promoted))

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until the database answers; asked a second time, each of these changes nothing."""
        backoff = Backoff("control")
        while True:
            try:
                async with self._turn:
                    return await ask()
            except OUTAGE as error:
                await backoff.wait(error)

    @asynccontextmanager
    async def _acks(self) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever a worker has answered, from before anybody could."""
        news = asyncio.Event()
        self._waiting.add(news)
        try:
            if self._hears():
                await self._listen()
            yield news
        finally:
            self._waiting.discard(news)
            if not self._waiting:
                await self._listen_no_more()

    async def _listen(self) -> None:
        """Listen, with one connection for all who wait; where it takes long, it begins later."""
        if self._listening is None:
            self._listener = Listener(
                self._dsn, {self._channel: hearing({"ack": self._on_ack})}, wake=self._tell_all
            )
            self._listening = asyncio.create_task(self._listener.run(), name="acks")
        await wait_for(self._listener.up, _LISTEN_TIMEOUT)

    async def _listen_no_more(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
            await asyncio.wait([listening])

    def _on_ack(self, _: dict[str, Any]) -> None:
        """Whoever answered what: the rows say it."""
        self._tell_all()

    def _tell_all(self) -> None:
        for news in self._waiting:
            news.set()


class _Change:
    """One version on its way to the workers."""

    def __init__(
        self, updates: ConfigUpdates, published: Published, acks: asyncio.Event, *, ends_at: float
    ) -> None:
        self._updates = updates
        self._published = published
        self._acks = acks
        self._ends_at = ends_at

    async def see_through(self, *, trial: float) -> ConfigReport:
        """Wait for what there is to wait for; `trial` seconds more where one worker tries it first."""
        written, worker = self._published.written, self._published.canary
        if self._published.reach == "all" or worker is None:
            return await self._until_converged(written)
        ends_at, self._ends_at = self._ends_at, self._ends_at + trial
        report = await self._until_converged(written, only=worker, ends_at=ends_at)
        if report.status == "superseded":
            return _with(report, worker, "superseded", "a newer version came")
        if report.status == "converged" and report.applied:
            return await self._watch(written, worker)
        silence = "it didn't apply the change in time" if report.lagging else "it was lost"
        why = "; ".join(report.rejected.values()) or silence
        return await self._settle(written, worker, promoted=False, why=why)

    async def _until_converged(
        self, written: Written, *, only: UUID | None = None, ends_at: float | None = None
    ) -> ConfigReport:
        ends_at = self._ends_at if ends_at is None else ends_at
        while True:
            self._acks.clear()
            newest, answers = await self._updates.answers(written)
            concerned = [one for one in answers if only in (None, one.worker_id)]
            report = report_of(written.version, newest, concerned)
            left = ends_at - _now()
            if report.is_final or left <= 0:
                return report
            await wait_for(self._acks, min(left, _LOOK_INTERVAL))
            if not self._acks.is_set():
                await self._updates.bury([one for one in concerned if one.worker_id in report.lagging])

    async def _watch(self, written: Written, worker: UUID) -> ConfigReport:
        """Until the trial is over, by time or because somebody ended it."""
        while True:
            trial = await self._updates.trial(written)
            _, answers = await self._updates.answers(written)
            if trial.reach == "all":
                return await self._ended(written, worker, "promoted", "an operator said so")
            if trial.reach == "nobody":
                return await self._ended(written, worker, "superseded", "a newer version came")
            if worker not in {one.worker_id for one in answers}:
                return await self._settle(written, worker, promoted=False, why="it was lost")
            if trial.seconds_left <= 0:
                worse, why = _verdict(worker, answers, trial)
                return await self._settle(written, worker, promoted=not worse, why=why)
            await asyncio.sleep(min(trial.seconds_left, _WATCH_INTERVAL))

    async def _settle(self, written: Written, worker: UUID, *, promoted: bool, why: str) -> ConfigReport:
        settled = await self._updates.settle(written, promoted=promoted)
        if settled is None:  # an operator was faster
            return await self._watch(written, worker)
        return await self._ended(settled, worker, "promoted" if promoted else "rolled_back", why)

    async def _ended(self, written: Written, worker: UUID, outcome: str, why: str) -> ConfigReport:
        return _with(await self._until_converged(written), worker, outcome, why)


def _with(report: ConfigReport, worker: UUID, outcome: str, why: str) -> ConfigReport:
    return replace(report, canary=Canary(worker, outcome, why))


def _verdict(worker: UUID, answers: list[Answer], trial: Trial) -> tuple[bool, str]:
    """Whether the trial went worse than what it is compared with, and in words how it went."""
    before = {name: Tally(*counts) for name, counts in trial.base.items()}
    nothing = Tally(0, 0)
    since = {
        one.worker_id: Tally(one.finished, one.failed).since(before.get(str(one.worker_id), nothing))
        for one in answers
    }
    tried = since.pop(worker)
    others = sum(since.values(), nothing)
    compared, who = (others, "of the others") if since else (before.get(str(worker), nothing), "before")
    return is_worse(tried, compared), f"{tried} executions failed, {compared} {who}"


def _seconds_for(task: ClaimedTask) -> float:
    """How long the workers have to answer, from now on: what is left of the timeout since it was asked
    for.
    """
    timeout = (task.timeout or DEFAULT_TIMEOUT).total_seconds() - _trial_of(task)
    waited = 0.0 if task.created_at is None else (task.claimed_at - task.created_at).total_seconds()
    return max(timeout - waited, min(timeout, _LEAST))


def _trial_of(task: ClaimedTask) -> float:
    """How long one worker is to try it first, in seconds."""
    changes = json.loads(task.payload)
    try:
        return parse_duration(changes["canary"]).total_seconds()
    except (KeyError, TypeError, ValueError):  # there is none, or it will be refused
        return 0.0


def _tell(report: ConfigReport, seconds: float) -> None:
    emit(
        f"config.{report.status}",
        version=report.version,
        seconds=seconds,
        lagging=[report.hosts[worker] for worker in report.lagging],
        rejected=[report.hosts[worker] for worker in report.rejected],
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
