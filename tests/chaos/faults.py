"""How each kind of fault of the plan is caused, and how it is mended."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import asyncpg
import psutil

if TYPE_CHECKING:
    from tests.chaos.enqueuer import Enqueuer
    from tests.chaos.fleet import Fleet, Worker
    from tests.chaos.journal import Journal
    from tests.chaos.plan import Event
    from tests.chaos.servers import Servers
    from tests.support.proxy import Connection, Part, Proxy

_ERRORS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
_STATEMENT_LIMIT = 10.0
_DIES_WITHIN = 0.3
"""How long after its connections a process that ends may still be in the system's table, in seconds."""


class Breaker:
    """Causes faults. What hits the server waits for the one before; the rest overlaps as it comes."""

    def __init__(
        self, servers: Servers, fleet: Fleet, enqueuer: Enqueuer, enqueuer_proxy: Proxy, journal: Journal
    ) -> None:
        self._servers = servers
        self._fleet = fleet
        self._enqueuer = enqueuer
        self._enqueuer_proxy = enqueuer_proxy
        self._journal = journal
        self._server_is_busy = asyncio.Lock()
        self._watches: set[asyncio.Task[None]] = set()
        self.skipped: list[tuple[Event, str]] = []

    async def strike(self, event: Event) -> None:
        """Cause the fault and, where it lasts, end it."""
        act: Callable[[Event], Awaitable[None]] = getattr(self, f"_{event.kind}")
        await act(event)

    async def close(self) -> None:
        """Stop watching."""
        for watch in self._watches:
            watch.cancel()
        if self._watches:
            await asyncio.wait(self._watches)

    # processes

    async def _kill(self, event: Event) -> None:
        self._send(event, self._worker(event), signal.SIGKILL)

    async def _kill_all(self, event: Event) -> None:
        for worker in self._fleet.workers.values():
            self._send(event, worker, signal.SIGKILL)

    async def _kill_child(self, event: Event) -> None:
        worker = self._worker(event)
        if not worker.pids:
            self._skip(event, f"{worker.name} has no children")
            return
        child = worker.pids[event.number % len(worker.pids)]
        assert worker.process is not None
        worker.process.lost_a_child = True
        self._journal.fault(event.number, "sigkill", pid=child, parent=worker.pid, target=worker.name)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)

    async def _kill_release(self, event: Event) -> None:
        """Kill, and say so, as systemd's ExecStopPost does."""
        worker = self._worker(event)
        identity = await self._identity_of(worker)
        if identity is None:
            self._skip(event, f"{worker.name} has no lease")
            return
        self._journal.fault(event.number, "sigkill", pid=worker.pid, target=worker.name, released=identity)
        ended = worker.ended
        worker.send(signal.SIGKILL)
        await ended.wait()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "asynctaskd", "release", "--worker", identity),
            *("--database", self._servers.dsn),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        self._journal.event("released", event.number, code=process.returncode, said=said.decode())

    async def _identity_of(self, worker: Worker) -> str | None:
        """The identity of its process, where it has just one that is live."""
        question = "SELECT id::text FROM asynctaskd.workers AS w WHERE pid = $1 AND asynctaskd.is_live(w)"
        try:
            connection = await asyncpg.connect(self._servers.dsn, timeout=_STATEMENT_LIMIT)
            try:
                return await connection.fetchval(question, worker.pid, timeout=_STATEMENT_LIMIT)
            finally:
                await connection.close(timeout=1)
        except _ERRORS:
            return None

    async def _terminate(self, event: Event) -> None:
        self._send(event, self._worker(event), signal.SIGTERM)

    async def _terminate_twice(self, event: Event) -> None:
        worker = self._worker(event)
        pid = worker.pid
        self._send(event, worker, signal.SIGTERM)
        await asyncio.sleep(event.seconds)
        if worker.pid == pid:
            self._send(event, worker, signal.SIGTERM)

    async def _freeze_short(self, event: Event) -> None:
        worker = self._worker(event)
        pid = worker.pid
        if worker.is_frozen:
            self._skip(event, f"{worker.name} is frozen already")
            return
        if not self._send(event, worker, signal.SIGSTOP):
            return
        await asyncio.sleep(event.seconds)
        if worker.pid == pid:
            worker.send(signal.SIGCONT)
        self._journal.event("over", event.number, pid=pid)

    _freeze_long = _freeze_short

    def _send(self, event: Event, worker: Worker, number: signal.Signals) -> bool:
        pid = worker.pid
        if pid is None:
            self._skip(event, f"{worker.name} isn't there")
            return False
        self._journal.fault(event.number, number.name.lower(), pid=pid, target=worker.name)
        if worker.processes and number != signal.SIGSTOP:
            for child in worker.pids:  # its parent passes it on, or is gone: either way it drains
                self._journal.fault(event.number, "sigterm", pid=child, target=worker.name, through=pid)
        worker.send(number)
        return True

    # one worker's network

    def _hit(self, event: Event, kind: str, worker: Worker, **facts: Any) -> None:
        """A fault that concerns every process behind the worker's proxy."""
        for pid in worker.everybody or [None]:
            self._journal.fault(event.number, kind, pid=pid, target=worker.name, **facts)

    async def _partition_short(self, event: Event) -> None:
        worker = self._worker(event)
        self._hit(event, "partition", worker, **event.details)
        if event.details["style"] == "cut":
            worker.proxy.refuse(event.number)
            worker.proxy.cut()
        else:
            worker.proxy.silence(event.number)
        await asyncio.sleep(event.seconds)
        await worker.proxy.restore(event.number)
        self._journal.event("over", event.number)

    _partition_long = _partition_short

    async def _half_open(self, event: Event) -> None:
        worker = self._worker(event)
        frozen = worker.proxy.freeze(event.number)
        owners = _owners(worker)
        for number, connection in enumerate(frozen):
            name, pid = f"{event.number}.{number}", owners.get(connection.client_port)
            facts = {"last": connection.last_statement[:100], "listens": connection.listens}
            self._journal.fault(event.number, "half_open", pid=pid, conn=name, **facts)
            self._watch(self._until_found(event, connection, name, pid))
        await asyncio.sleep(event.seconds)
        for number, connection in enumerate(frozen):
            name = f"{event.number}.{number}"
            if connection.asked_at is not None:
                self._journal.event("asked", event.number, conn=name, at=connection.asked_at)
            elif not connection.left.is_set():
                self._journal.event("moot", event.number, conn=name, why="nobody wanted anything of it")
            connection.cut()
        self._journal.event("over", event.number)

    async def _until_found(self, event: Event, connection: Connection, name: str, pid: int | None) -> None:
        """Note when its process gave the silent connection up, or that it ended in another way before."""
        with suppress(TimeoutError):
            async with asyncio.timeout(event.seconds):
                await connection.left.wait()
                found_at = time.time()
                await asyncio.sleep(_DIES_WITHIN)
                if connection.was_cut or pid is None or not psutil.pid_exists(pid):
                    self._journal.event("moot", event.number, conn=name, why="reset, or its process ended")
                else:
                    self._journal.event("found", event.number, conn=name, at=found_at)

    async def _deaf(self, event: Event) -> None:
        worker = self._worker(event)
        frozen = worker.proxy.freeze(event.number, lambda one: one.listens)
        if not frozen:
            self._skip(event, f"{worker.name} isn't listening")
            return
        pid = worker.pid
        self._journal.fault(event.number, "listen_broken", pid=pid, how="deaf")
        self._watch(self._until_listening(event, worker, pid, set()))
        await asyncio.sleep(event.seconds)
        for connection in frozen:
            connection.cut()

    async def _until_listening(
        self, event: Event, worker: Worker, pid: int | None, before: set[Connection]
    ) -> None:
        while worker.pid == pid and not worker.proxy.listeners - before:
            await asyncio.sleep(0.05)
        self._journal.event("over", event.number, pid=pid)

    async def _refuse(self, event: Event) -> None:
        worker = self._worker(event)
        self._hit(event, "refuse", worker)
        worker.proxy.refuse(event.number)
        await asyncio.sleep(event.seconds)
        await worker.proxy.restore(event.number)
        self._journal.event("over", event.number, pid=worker.pid)

    async def _delay(self, event: Event) -> None:
        worker = self._worker(event)
        self._hit(event, "delay", worker, **event.details)
        worker.proxy.delay = event.details["by"]
        await asyncio.sleep(event.seconds)
        worker.proxy.delay = 0.0
        self._journal.event("over", event.number, pid=worker.pid)

    async def _swallow(self, event: Event) -> None:
        await self._lose(event, self._worker(event).proxy, event.details["what"], "reply")

    async def _lose_request(self, event: Event) -> None:
        await self._lose(event, self._worker(event).proxy, event.details["what"], "request")

    async def _swallow_enqueue(self, event: Event) -> None:
        await self._lose(event, self._enqueuer_proxy, "commit", "reply")

    async def _lose(self, event: Event, proxy: Proxy, what: str, part: Part) -> None:
        """The next such statement; what comes after it is silence, until the connection is reset."""
        loss = proxy.lose(what, part, event.details["then"])
        try:
            async with asyncio.timeout(event.seconds * 2):
                await loss.done.wait()
        except TimeoutError:
            loss.forget()
            self._skip(event, f"no {what} came by")
            return
        assert loss.connection is not None
        pid = loss.connection.pid
        self._journal.fault(event.number, f"swallow_{what}", pid=pid, lost=part, then=loss.then)
        if loss.then == "freeze":
            await asyncio.sleep(event.seconds)
            loss.connection.cut()
        self._journal.event("over", event.number, pid=pid)

    async def _read_only(self, event: Event) -> None:
        """Lead the worker to the standby, as a stale address would."""
        worker = self._worker(event)
        if not self._servers.is_protected:
            self._skip(event, "there is no standby")
            return
        self._hit(event, "partition", worker, style="read_only")
        worker.proxy.divert(self._servers.standby.dsn(), event.number)
        worker.proxy.cut()
        await asyncio.sleep(event.seconds)
        await worker.proxy.restore(event.number)
        worker.proxy.cut()
        self._journal.event("over", event.number, pid=worker.pid)

    # the server

    async def _backends_all(self, event: Event) -> None:
        await self._terminate_backends(event, "true")

    async def _backends_one(self, event: Event) -> None:
        await self._terminate_backends(event, "true", limit=1)

    async def _backends_listen(self, event: Event) -> None:
        await self._terminate_backends(event, "query ILIKE 'LISTEN%'")

    async def _terminate_backends(self, event: Event, condition: str, limit: int | None = None) -> None:
        statement = (
            "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity"
            " WHERE application_name = 'asynctaskd' AND datname = current_database()"
            f" AND pid <> pg_backend_pid() AND ({condition}) ORDER BY random() LIMIT $1) AS chosen"
        )
        async with self._server_is_busy:
            listening = {worker.name: worker.proxy.listeners for worker in self._fleet.workers.values()}
            self._journal.fault(event.number, "terminate_backend", which=event.kind)
            try:
                connection = await asyncpg.connect(self._servers.dsn, timeout=_STATEMENT_LIMIT)
                await connection.fetchval(statement, limit)
                await connection.close()
            except _ERRORS as error:
                self._skip(event, f"the database was away: {error!r}")
                return
        if event.kind != "backends_one":
            for worker in self._fleet.workers.values():
                self._journal.fault(event.number, "listen_broken", pid=worker.pid, how="terminated")
                before = listening[worker.name]
                self._watch(self._until_listening(event, worker, worker.pid, before))

    async def _server_crash(self, event: Event) -> None:
        async with self._server_is_busy:
            await self._servers.crash(event.number, event.seconds)

    async def _failover(self, event: Event) -> None:
        async with self._server_is_busy:
            if await self._servers.protected(timeout=20.0):
                await self._servers.fail_over(event.number, early=event.details["early"])
            else:
                self._skip(event, "there is no synchronous standby yet; crashed instead")
                await self._servers.crash(event.number)

    async def _lock_table(self, event: Event) -> None:
        await self._hold(event, "LOCK TABLE asynctaskd.tasks IN ACCESS EXCLUSIVE MODE")

    async def _lock_rows(self, event: Event) -> None:
        await self._hold(
            event, "SELECT 1 FROM asynctaskd.tasks WHERE status = 'running' FOR UPDATE SKIP LOCKED LIMIT 20"
        )

    async def _hold(self, event: Event, lock: str) -> None:
        async with self._server_is_busy:
            self._journal.fault(event.number, event.kind)
            try:
                connection = await asyncpg.connect(self._servers.dsn, timeout=_STATEMENT_LIMIT)
                try:
                    async with connection.transaction():
                        await connection.execute("SET LOCAL lock_timeout = '5s'")
                        await connection.execute(lock)
                        await asyncio.sleep(event.seconds)
                finally:
                    await connection.close(timeout=1)
            except _ERRORS as error:
                self._skip(event, f"not locked: {error!r}")
            self._journal.event("over", event.number)

    # the application

    async def _burst(self, event: Event) -> None:
        self._journal.fault(event.number, "burst", **event.details)
        self._enqueuer.burst(event.details["tasks"])

    def _worker(self, event: Event) -> Worker:
        return self._fleet.workers[event.target]

    def _skip(self, event: Event, why: str) -> None:
        self.skipped.append((event, why))
        self._journal.event("skipped", event.number, kind=event.kind, why=why)

    def _watch(self, watching: Awaitable[None]) -> None:
        task = asyncio.ensure_future(watching)
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)


def _owners(worker: Worker) -> dict[int, int]:
    """Local port → process, of all connections of the processes behind the worker's proxy."""
    owners = {}
    for pid in worker.everybody:
        with suppress(psutil.Error):
            owners |= {one.laddr.port: pid for one in psutil.Process(pid).net_connections("tcp4")}
    return owners
