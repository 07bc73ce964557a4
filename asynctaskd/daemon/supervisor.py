"""The Daemon: has the stations built, starts their loops, and stops them in order.

Stop in two words: stop claiming, then stop working. A loop that crashes ends the daemon with its error and
leaves no task behind.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

from asynctaskd.daemon.control import CONTROL
from asynctaskd.daemon.execution import Interruption
from asynctaskd.daemon.identity import definition_rows
from asynctaskd.daemon.keeper import end_process
from asynctaskd.daemon.loops import OUTAGE, Backoff, repeat
from asynctaskd.daemon.stations import Stations
from asynctaskd.daemon.succession import succeed
from asynctaskd.errors import ConfigError, DatabaseUnavailableError, InvalidPayloadError
from asynctaskd.postgres.driver import StatementRefusedError
from asynctaskd.postgres.listener import require_notices
from asynctaskd.postgres.migrate import require_primary
from asynctaskd.postgres.tls import weakness
from asynctaskd.postgres.urls import read_url
from asynctaskd.task import EventKind, TaskStatus, Transition
from asynctaskd.telemetry.events import emit
from asynctaskd.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any
    from uuid import UUID

    from asynctaskd.config import DaemonConfig
    from asynctaskd.daemon.execution import Execution
    from asynctaskd.definitions.registry import Registry

# After the grace period: how long executions that were told to stop may take, and the last statements.
_LAST_WORDS = 1.5
_LAST_STATEMENTS = 4.0
_GOODBYE = 1.0
# How long `once` waits, in seconds, before it asks again whether there is work that nobody has claimed yet.
_ASK_AGAIN = 0.01

_GIVEN_BACK = Transition(TaskStatus.PENDING, attempt_spent=False, event=EventKind.RELEASED)


class Daemon(Stations):
    """One worker: it claims, executes and finalizes until it is told to stop.

    Args:
        app: the tasks it knows.
        dsn: a PostgreSQL URL (the private server's too, once it was started).
        config: what this worker is.
        app_path: where the App can be imported from, as `module:attribute`. Tasks that may kill their process
            run in one of their own there; without a path they run in this one, one at a time.
        one_suspect: claim one such task instead of all that is ready, and end after it.
        end_process: ends the process hard; called where nothing else can stop what it runs.
    """

    def __init__(
        self,
        app: Registry,
        dsn: str,
        config: DaemonConfig,
        *,
        app_path: str | None = None,
        one_suspect: bool = False,
        end_process: Callable[[], None] = end_process,
    ) -> None:
        super().__init__(
            app, dsn, config, app_path=app_path, one_suspect=one_suspect, end_process=end_process
        )
        self._hurry = asyncio.Event()
        self._labels = app.labels.declared()  # those whose policies are still to be written down
        self._loops: list[asyncio.Task[None]] = []
        self.ready = asyncio.Event()

    def stop(self) -> None:
        """Stop claiming and drain; said again, give up the running executions at once."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    async def reconfigure(self, config: DaemonConfig) -> None:
        """Be what that says from now on: it differs in keys alone that `config.live` names."""
        self._config = config
        if self._loops:
            await self._tune()

    def leap(self, seconds: float) -> None:
        """The database's clock was moved on by so much, in a test: what runs is older, and more is due."""
        self._executor.age(seconds)
        self._housekeeper.hasten()
        self._retention.wake.set()
        self._catch_up()

    @property
    def worker_id(self) -> UUID:
        """The identity that owns this worker's claims; there is one from `ready` on."""
        return self._lease.worker_id

    async def run(self, *, once: bool = False) -> None:
        """Work until stopped; with `once`, until nothing is due.

        Raises:
            SchemaVersionError: the schema doesn't suit this version.
            DatabaseRefusedError: the database refused at the start: password, name or rights.
            ConfigError: notices are required, and a pooler stands between.
        """
        async with AsyncExitStack() as stack:
            if not await self._begin(stack):
                return
            stack.push_async_callback(self._abandon)
            await self._tune()  # it may have been reconfigured meanwhile
            async with asyncio.TaskGroup() as group:
                self._start_loops(group)
                if self._config.database.listen == "on":
                    await _first_of(self._listener.up.wait(), self._stopping.wait())
                emit(
                    "worker.started", worker_id=self.worker_id, labels=self._lease.labels, version=__version__
                )
                self.ready.set()
                await self._work(once)
                await self._drain()
                for loop in self._loops:
                    loop.cancel()
            await self._leave()

    async def _begin(self, stack: AsyncExitStack) -> bool:
        """Wait for the database with backoff and register; what waiting doesn't mend is raised."""
        backoff = Backoff("start")
        while not self._stopping.is_set():
            async with AsyncExitStack() as attempt:
                try:
                    version = await require_primary(self._dsn, schema=self._config.database.schema_name)
                    emit("database.suits", schema_version="{}.{}".format(*version))
                    if self._config.database.listen == "on":
                        await require_notices(self._listen_dsn)
                    await self._build(attempt)
                    if not await self._enter():
                        return False
                except DatabaseUnavailableError as error:
                    await backoff.wait(error)
                else:
                    if backoff.has_waited:
                        self._housekeeper.note_cut_off()
                    backoff.reset()
                    _tell_unproven(self._dsn)
                    stack.push_async_exit(attempt.pop_all())
                    return True
        return False

    async def _enter(self) -> bool:
        """Register once nobody else has this one's worker.id; False if it was told to stop meanwhile."""
        while await self._is_alone():
            if await self._register():
                return True
        return False

    async def _is_alone(self) -> bool:
        """Wait for others of the same worker.id; False if this one was told to stop meanwhile."""
        named = self._config.worker.id is not None
        return not named or await succeed(self._store, self._lease.worker, self._stopping)

    async def _register(self) -> bool:
        await self._store.ensure_partitions()
        await self._store.register_definitions(definition_rows(self._app))
        await self._configs.expire()
        await self._declare_labels()
        await self._steering.load()
        if not await self._keeper.acquire(self._store):
            return False
        if not self._one_suspect:
            await self._cron.declare()
        return True

    async def _declare_labels(self) -> None:
        if self._labels and await self._configs.declare_labels(json.dumps(self._labels)):
            self._labels = {}

    async def _keep_house(self) -> float:
        await self._declare_labels()
        pause = await self._housekeeper.step()
        emit("queue.polled", interval=self._poll_interval, running=self._slots.running)
        return pause

    def _start_loops(self, group: asyncio.TaskGroup) -> None:
        def start(name: str, loop: Coroutine[Any, Any, None]) -> None:
            self._loops.append(group.create_task(loop, name=name))

        start("finalize", self._finalizer.run())
        start("lease", self._keeper.run())
        start("interrupts", self._interrupts.run())
        start("measures", repeat("measures", self._measures.step, asyncio.Event()))
        start("census", repeat("census", self._census.step, asyncio.Event()))
        start("audience", repeat("audience", self._audience.step, self._audience.wake))
        start("steering", repeat("steering", self._follow, self._steering.wake))
        start("housekeeping", repeat("housekeeping", self._keep_house, self._housekeeper.wake))
        if not self._one_suspect:
            start("cron", repeat("cron", self._cron.step, self._cron.wake))
            start("retention", repeat("retention", self._retention.step, self._retention.wake))
        if self._config.database.listen != "off":
            start("listen", self._listener.run())
        self._claiming = group.create_task(self._claim_until_stopped(), name="claim")
        self._isolating = group.create_task(self._isolate_until_stopped(), name="isolation")
        self._controlling = group.create_task(self._control_until_stopped(), name="control")

    async def _claim_until_stopped(self) -> None:
        if self._one_suspect:
            await self._claimer.run_one_suspect()
        elif self._config.worker.enabled:
            await self._claimer.run()
        else:
            await self._claimer.run_disabled()

    async def _isolate_until_stopped(self) -> None:
        if self._isolation is not None and self._config.worker.enabled:
            await self._isolation.run()

    async def _control_until_stopped(self) -> None:
        if not self._one_suspect:  # disabled ones too: perhaps no others live
            await self._control.run()

    async def _follow(self) -> float:
        return await self._steering.follow(self.worker_id)

    async def _work(self, once: bool) -> None:
        if self._one_suspect:
            await _first_of(self._until_idle(), self._stopping.wait())
        elif once:
            await self.work_off()
        else:
            await self._stopping.wait()

    async def work_off(self) -> None:
        """Work until nothing is due and nothing runs."""
        backoff = Backoff("once")
        has_caught_up = False
        while self._config.worker.enabled and not self._stopping.is_set():
            try:
                if not has_caught_up:
                    await self._cron.catch_up()
                    await self._housekeeper.tidy()
                    has_caught_up = True
                if not await self._has_work():
                    return
            except OUTAGE as error:
                await backoff.wait(error)
            else:
                self._look()
                await _first_of(self._slots.wait_empty(), self._stopping.wait(), timeout=self._poll_interval)
                await asyncio.sleep(_ASK_AGAIN)

    async def _has_work(self) -> bool:
        departed = self._slots.departed
        if self._runs_something() or await self._is_work_left():
            return True
        # What began, or even ended, while that was asked may have let others go since.
        return self._runs_something() or self._slots.departed > departed

    async def _is_work_left(self) -> bool:
        await self._housekeeper.promote_due()
        await self._housekeeper.settle_dependencies()
        # Asked in this order: what is let go has promoted the next of its serial key before.
        config = self._steering.config
        closed = [label for label, limit in config.limits.items() if not limit]
        return self._housekeeper.is_settling or await self._store.has_work(
            self.worker_id,
            [*self._lease.labels, CONTROL],
            strict=self._steering.max_strict_percentage > 0,
            paused_labels=[*config.paused_labels, *closed],
            paused_names=config.paused_names,
        )

    def _runs_something(self) -> bool:
        return bool(self._slots) or (self._isolation is not None and self._isolation.is_busy)

    async def _drain(self) -> None:
        """Stop claiming, let executions finish for the grace period, then give them back."""
        emit("worker.stopping", worker_id=self.worker_id, running=self._slots.running)
        self._claimer.stop()
        if self._isolation is not None:
            self._isolation.stop()
        grace = self._config.worker.grace.total_seconds()
        await _first_of(self._until_idle(), self._hurry.wait(), timeout=grace)
        self._control.stop()  # only now: what steers the fleet gets through while this one drains
        self._interrupt(Interruption.SHUTDOWN)
        await asyncio.gather(
            self._claiming, self._controlling
        )  # what a claim in flight brings is given back too
        self._interrupt(Interruption.SHUTDOWN)
        emptied = _first_of(self._slots.wait_empty(aside=True), timeout=_LAST_WORDS)
        await asyncio.gather(emptied, self._end_isolation())

    async def _until_idle(self) -> None:
        await asyncio.shield(self._claiming)
        await self._slots.wait_empty()
        await self._until_isolated()

    async def _until_isolated(self) -> None:
        await asyncio.shield(self._isolating)

    async def _end_isolation(self) -> None:
        """See off what runs in a process of its own; what that one can't put back itself is put back here."""
        if self._isolation is not None and not self._isolating.done():
            await _first_of(self._isolation.end(), self._until_isolated())
            await _first_of(self._until_isolated(), timeout=_LAST_WORDS)
        self._isolating.cancel()

    async def _leave(self) -> None:
        """Give back what couldn't be stopped or written, in the last statements before the process ends."""
        await self._finalizer.close(_LAST_WORDS)
        self._pool.terminate()  # a hook that doesn't stop keeps its task's row locked
        left = [execution for execution in self._slots if not execution.stored]
        await self._say(self._claimer.put_back_lost_claims(), _LAST_STATEMENTS)
        await self._say(self._write_last(left), _LAST_STATEMENTS)
        if any(one.asked_for for one in left):  # obeyed at last: now, where no other worker may see to it
            await self._say(self._orders.settle(), _LAST_STATEMENTS)
        # Short: what was put back may be running elsewhere already. Where it isn't heard, the lease ends.
        await self._say(self._store.stop_worker(self.worker_id), _GOODBYE)
        self._measures.tell()
        emit("worker.stopped", worker_id=self.worker_id, left_behind=len(left))

    async def _write_last(self, left: list[Execution]) -> None:
        """What each came to where that is known; the others go back."""
        ended = [one.ended(one.decided or _GIVEN_BACK) for one in left]
        try:
            await self._store.finalize(ended)
        except (StatementRefusedError, InvalidPayloadError):  # one result can't be stored: find out next time
            await self._store.finalize([one.ended(_GIVEN_BACK) for one in left])
        except OUTAGE:  # a connection broke, or somebody keeps a row locked
            free = await self._store.unlocked([one.task_id for one in ended])
            await self._store.finalize([one for one in ended if one.task_id in free])

    @staticmethod
    async def _say(last_words: Coroutine[Any, Any, None], limit: float) -> None:
        try:
            async with asyncio.timeout(limit):
                await last_words
        except (*OUTAGE, TimeoutError) as error:
            emit(
                "database.lost",
                station="stop",
                cause="unavailable",
                error=str(error) or f"no answer within {limit:g} s",
            )

    async def _abandon(self) -> None:
        """Leave no execution behind, whatever ended this worker; its lease sees to the tasks."""
        unaware = [one.runner for one in self._slots if one.runner is not None and one.interruption is None]
        self._interrupt(Interruption.SHUTDOWN)
        if unaware:
            await asyncio.wait(unaware, timeout=_LAST_WORDS)
        await self._finalizer.close(_LAST_WORDS)


async def _first_of(*waiting: Coroutine[Any, Any, Any], timeout: float | None = None) -> None:
    """Until one of them is over, but not longer than that, in seconds."""
    tasks = [asyncio.create_task(one) for one in waiting]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _tell_unproven(dsn: str) -> None:
    with suppress(ConfigError):  # its file is just being replaced
        if unproven := weakness(read_url(dsn)):
            emit("database.unproven", note=unproven)
