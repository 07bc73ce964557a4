"""The process of one isolated execution, started by a worker: `python -m asynctaskd.daemon.isolated NUMBER`.

NUMBER is the descriptor of a socket. It runs the handler as a worker would, and tells its worker what came
of it. It doesn't outlive its worker.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import uvloop
from typing_extensions import override

from asynctaskd.client import Client
from asynctaskd.daemon.assignment import (
    LEASE_OVER,
    Assignment,
    SharedInstant,
    dump_line,
    dump_outcome,
    read_assignment,
)
from asynctaskd.daemon.execute import Execution, Executor, Interruption
from asynctaskd.daemon.lease import clock
from asynctaskd.daemon.loops import OUTAGE, run_to_end
from asynctaskd.daemon.slots import Slots
from asynctaskd.daemon.transactions import Transactions
from asynctaskd.definitions.loader import load_app
from asynctaskd.definitions.text import describe_error
from asynctaskd.postgres.driver import open_pool
from asynctaskd.postgres.store import Store
from asynctaskd.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import timedelta

    import asyncpg

    from asynctaskd.daemon.assignment import Workplace
    from asynctaskd.definitions.registry import App
    from asynctaskd.task import Outcome

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class Channel:
    """The socket to the worker. The event loop's thread speaks; a thread of its own listens."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._received = connection.makefile("rb")

    def receive(self, size: int) -> bytes:
        """Exactly that many bytes."""
        return self._received.read(size)

    def say(self, **what: Any) -> None:
        """Tell the worker."""
        with suppress(OSError):  # the worker is gone, and so will be this process
            self._socket.sendall(dump_line(**what))

    def listen(self, hear: Callable[[dict[str, Any]], object]) -> None:
        """Pass on what the worker says; when its end is closed, end this process at once."""
        threading.Thread(target=self._listen, args=[hear], name="asynctaskd-worker", daemon=True).start()

    def _listen(self, hear: Callable[[dict[str, Any]], object]) -> None:
        with suppress(OSError, ValueError):
            for line in self._received:
                hear(json.loads(line))
        _vanish()


class _ToldExecution(Execution):
    """An execution whose worker is told what it has to know at once."""

    __slots__ = ("_channel", "_stored")

    def __init__(self, channel: Channel, *arguments: Any) -> None:
        self._channel = channel
        super().__init__(*arguments)

    @property
    @override
    def stored(self) -> bool:
        return self._stored

    @stored.setter
    def stored(self, stored: bool) -> None:
        self._stored = stored
        if stored:
            self._channel.say(stored=True)

    @override
    def extend(self, duration: timedelta) -> None:
        super().extend(duration)
        self._channel.say(extend=duration)


class LateTransactions:
    """Transactions whose connections are opened when a handler first asks for one."""

    def __init__(self, workplace: Workplace) -> None:
        self._workplace = workplace
        self._opening = asyncio.Lock()
        self._opened: Transactions | None = None

    @asynccontextmanager
    async def completing(
        self, execution: Execution, result: Callable[[], Any]
    ) -> AsyncIterator[asyncpg.Connection]:
        """As `Transactions.completing`."""
        try:
            transactions = await self._open()
        except OUTAGE:
            execution.was_cut_off = True
            raise
        async with transactions.completing(execution, result) as connection:
            yield connection

    async def note_progress(self, execution: Execution, progress: str) -> None:
        """As `Transactions.note_progress`."""
        await (await self._open()).note_progress(execution, progress)

    async def _open(self) -> Transactions:
        async with self._opening:
            if self._opened is None:
                dsn, schema = self._workplace.dsn, self._workplace.schema
                store = await Store.open(dsn, schema=schema, connections=1)
                pool = await open_pool(dsn, size=1)
                self._opened = Transactions(pool, store)
        return self._opened


def main() -> None:
    """Do what the worker asks, and tell it what came of it."""
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    assignment = read_assignment(channel.receive)
    _be_expendable(assignment.worker_pid)
    _leave_signals_to_the_worker()
    _end_with_the_lease(SharedInstant(assignment.lease_end))
    workplace = assignment.workplace
    configure_logging(workplace.log_level, workplace.log_format)
    sys.path[:] = workplace.import_path
    try:
        app = load_app(workplace.app_path)
    except BaseException as error:  # noqa: BLE001  (a module may raise SystemExit)
        channel.say(unable=describe_error(error))
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        loop = runner.get_loop()
        run_to_end(loop, loop.create_task(_work(app, assignment, channel)))


async def _work(app: App, assignment: Assignment, channel: Channel) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    slots = Slots(1, freed=lambda: None)
    workplace = assignment.workplace

    def finish(_: Execution, outcome: Outcome) -> None:
        channel.say(outcome=dump_outcome(outcome))
        over.set()

    def interrupt(said: dict[str, Any]) -> None:
        for execution in slots:
            execution.interrupt(Interruption(said["interrupt"]))

    executor = Executor(
        app,
        slots,
        LateTransactions(workplace),
        Client(workplace.dsn, app, schema=workplace.schema),
        finish=finish,
        new_execution=partial(_ToldExecution, channel),
    )
    channel.say(started=True)
    executor.start(assignment.task)
    channel.listen(lambda said: loop.call_soon_threadsafe(interrupt, said))
    await over.wait()
    executor.close()


def _be_expendable(worker_pid: int) -> None:
    """Die with the worker, and before it where memory runs out."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    if os.getppid() != worker_pid:
        _vanish()


def _end_with_the_lease(end: SharedInstant) -> None:
    """The worker fences itself, but not while it is frozen."""

    def watch() -> None:
        while (left := end.get() - clock()) > 0:
            time.sleep(left)
        os.killpg(os.getpid(), signal.SIGTERM)  # what the handler has started; not this process
        os._exit(LEASE_OVER)

    threading.Thread(target=watch, name="asynctaskd-lease", daemon=True).start()


def _leave_signals_to_the_worker() -> None:
    # Service managers send them to every process; the worker decides when the handler is told. A function,
    # since what is ignored would be ignored by the handler's own processes too.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)


def _vanish() -> NoReturn:
    """End at once, together with what the handler has started."""
    with suppress(OSError):
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
