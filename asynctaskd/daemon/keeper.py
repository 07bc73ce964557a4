"""The lease keeper: renews the lease in a thread with a loop and a connection of its own.

A handler that blocks the event loop delays neither renewal nor the look at the clock. While the loop is
blocked nothing is claimed (the claims are made there), and who blocks it is named in the log and in the
worker's row. Past the limit, or where the lease is over and the loop can't be told, the process ends itself:
it can't stop what it runs in any other way.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

from asynctaskd.daemon.lease import clock
from asynctaskd.daemon.loops import OUTAGE, Backoff
from asynctaskd.daemon.process import this_process
from asynctaskd.daemon.stalls import LoopWatch, stack_of
from asynctaskd.daemon.succession import succeeded
from asynctaskd.telemetry.events import emit
from asynctaskd.telemetry.logs import flush_logs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asynctaskd.daemon.commands import Steering
    from asynctaskd.daemon.lease import Lease
    from asynctaskd.daemon.slots import Slots
    from asynctaskd.postgres.store import Store

_LONGEST_TICK = 0.5
_FAREWELL = 1.0
_INTERNAL_ERROR = 70


def end_process() -> None:
    """End the process at once, whatever its threads do."""
    flush_logs()
    os._exit(_INTERNAL_ERROR)


class LeaseKeeper:
    """Keeps one lease. `run` is the main loop's half; everything with `_keep` in its way is the thread's."""

    def __init__(
        self,
        lease: Lease,
        steering: Steering,
        slots: Slots,
        *,
        open_store: Callable[[], Awaitable[Store]],
        renew_interval: float,
        stall_limit: float,
        asked: Callable[[], None],
        watched: Callable[[], None],
        end_process: Callable[[], None],
    ) -> None:
        self._lease = lease
        self._steering = steering
        self._slots = slots
        self._open_store = open_store
        self.renew_interval = renew_interval
        """Seconds between two renewals, and the longest stall; the main loop may change both."""
        self.stall_limit = stall_limit
        self._asked = asked
        self._watched = watched
        self._end_process = end_process
        self._news = asyncio.Event()
        self._crash: BaseException | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._stopping = False

    async def acquire(self, store: Store) -> bool:
        """Register a new identity and its lease; False where another worker has the name by now.

        Raises what the store raises.
        """
        worker, asked_at = replace(self._lease.worker, id=uuid4()), clock()
        if not await store.register_worker(worker, self._steering.identity):
            return False
        self._lease.begin(worker, asked_at)
        this_process().beat()  # from here on it may be judged silent
        return True

    async def run(self) -> None:
        """Keep the lease until cancelled; follow the configuration that renewals tell of."""
        self._start()
        self._lease.watch()
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                if self._crash is not None:
                    raise self._crash
                with suppress(*OUTAGE):  # the next renewal tells it again
                    await self._steering.follow(self._lease.worker_id)
        finally:
            self._lease.unwatch()
            await self._stop()

    def _start(self) -> None:
        self._main = asyncio.get_running_loop()
        self._watch = LoopWatch(self._main, threading.get_ident(), self._slots)
        self._ended = asyncio.Event()
        # A daemon thread: an address that takes long to look up must not keep the process alive.
        threading.Thread(target=self._live, name="asynctaskd-lease", daemon=True).start()

    async def _stop(self) -> None:
        self._stopping = True
        if self._keeping is not None:
            with suppress(RuntimeError):  # it has ended already
                self._keeping.get_loop().call_soon_threadsafe(self._keeping.cancel)
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await self._ended.wait()

    def _live(self) -> None:
        try:
            asyncio.run(self._keep())
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001  (it ends the worker, from the main loop)
            self._crash = error
            self._tell_main(self._news.set)
        finally:
            self._tell_main(self._ended.set)

    def _tell_main(self, what: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # closed: nobody waits any more
            self._main.call_soon_threadsafe(what)

    async def _keep(self) -> None:
        self._keeping = asyncio.current_task()
        if self._stopping:  # said before there was anything to cancel
            return
        async with asyncio.TaskGroup() as group:
            renewing = group.create_task(self._renew_for_ever())
            why = await self._look_until_hopeless()
            renewing.cancel()
        await self._give_up(why)

    async def _renew_for_ever(self) -> None:
        store: Store | None = None
        backoff = Backoff("lease")
        try:
            while True:
                try:
                    store = store or await self._open_store()
                    await self._renew(store)
                except OUTAGE as error:
                    emit("lease.not_renewed", error=error)
                    await backoff.wait(error)
                else:
                    backoff.reset()
                    await asyncio.sleep(self.renew_interval)
        finally:
            if store is not None:
                await store.close()

    async def _renew(self, store: Store) -> None:
        asked_at, stall, worker = clock(), self._watch.stall, self._lease.worker
        news = await store.renew_lease(
            worker.id,
            worker.lease,
            running=self._slots.running,
            config=self._steering.identity,
            stall=None if stall is None else json.dumps(stall.as_json()),
            finished=self._slots.finished,
            failed=self._slots.failed,
            worker=worker,
        )
        emit("lease.answered", seconds=clock() - asked_at)
        if news is None:
            await self._on_main(partial(self._lease.fence, "the database declared it lost"))
            if not await self.acquire(store):
                raise succeeded(self._lease.worker)
            return
        self._lease.hold(asked_at, worker.lease)
        if news.is_steered:
            self._tell_main(self._news.set)
        if news.is_asked:
            self._tell_main(self._asked)
        if news.is_watched:
            self._tell_main(self._watched)

    async def _on_main(self, what: Callable[[], object]) -> None:
        """Call something on the main loop and wait until it has been called, however long that takes."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def call() -> None:
            what()
            loop.call_soon_threadsafe(done.set)

        self._tell_main(call)
        await done.wait()

    async def _look_until_hopeless(self) -> str:
        """Look whether the main loop turns, until it has to be given up; returns why."""
        before = clock()
        while True:
            tick = min(_LONGEST_TICK, self._lease.worker.lease.total_seconds() / 20)
            await asyncio.sleep(tick)
            this_process().beat()
            emit("keeper.turned")
            now = clock()
            self._watch.tick(min(now - before, 2 * tick))
            before = now
            if why := self._hopeless(now):
                return why

    def _hopeless(self, now: float) -> str | None:
        stall, term = self._watch.stall, self._lease.term
        if stall is None or term is None:
            return None
        culprit = stall.task if stall.task_id is None else f"{stall.task} (task {stall.task_id})"
        if stall.seconds >= self.stall_limit:
            return f"its event loop was blocked for {stall.seconds:.0f} s by {culprit}"
        if now >= term.last_at:
            return f"its lease could not be renewed, and {culprit} blocks its event loop"
        return None

    async def _give_up(self, why: str) -> None:
        emit("worker.gave_up", worker_id=self._lease.worker_id, error=why)
        for thread in threading.enumerate():
            emit("thread.stack", thread=thread.name, traceback=stack_of(thread.ident or 0))
        with suppress(*OUTAGE, TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await self._declare_itself_lost(why)
        self._end_process()

    async def _declare_itself_lost(self, why: str) -> None:
        store = await self._open_store()
        try:
            await store.declare_lost([self._lease.worker_id], why)
        finally:
            await store.close()
