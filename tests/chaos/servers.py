"""Two clusters of PostgreSQL: a primary and its synchronous standby, to be crashed and promoted.

Only processes are killed, never the machine, so fsync is off: what a server has written, the next one reads.
That an acknowledged commit is on the standby too is what counts, and `synchronous_commit` sees to it. While
there is no standby, nothing is promoted.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import asyncpg

from asynctaskd.postgres import embedded
from tests.chaos.journal import Journal

STANDBY = "chaos_standby"
READY_LIMIT = 60.0
"""Seconds a server may take to accept connections, recovery included."""

_SETTINGS = f"""
include_if_exists = 'chaos.conf'
fsync = off
max_wal_size = 512MB
wal_retrieve_retry_interval = 200ms
wal_receiver_timeout = 10s
log_min_messages = warning
max_connections = {200}
"""

_STANDBY_TRIES = 10

_ERRORS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class Cluster:
    """One data directory and the server on it, a child of this process that dies with it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._server = embedded._server(f"embedded:{home}")
        self._process: asyncio.subprocess.Process | None = None

    @property
    def data(self) -> Path:
        return self._server.data

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def dsn(self, database: str = "postgres") -> str:
        """Past all proxies."""
        directory = quote(str(self.data), safe="/")
        return f"postgresql://postgres@/{database}?host={directory}&port={embedded.PORT}"

    async def create(self) -> None:
        """An empty cluster."""
        self._prepare_home()
        await self._run("initdb", *self._server._initdb_options(self.data))
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS)

    async def copy(self, primary: Cluster) -> None:
        """A standby of that primary."""
        await asyncio.to_thread(shutil.rmtree, self.home, ignore_errors=True)
        self._prepare_home()
        source = f"host={primary.data} port={embedded.PORT} user=postgres application_name={STANDBY}"
        await self._run(
            "pg_basebackup", "--dbname", source, "--pgdata", str(self.data),
            "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast",
        )  # fmt: skip
        self.configure("")

    def configure(self, settings: str) -> None:
        """Write the settings that change during a run; `reload` makes a running server read them."""
        path = self.data / "chaos.conf"
        path.write_text(settings)
        owner = self.data.stat()
        os.chown(path, owner.st_uid, owner.st_gid)

    def reload(self) -> None:
        self._signal(signal.SIGHUP)

    async def start(self) -> None:
        """Start the server; `accepting` waits until it answers."""
        for lock_file in (self.data / "postmaster.pid", self.data / f"{embedded.SOCKET}.lock"):
            lock_file.unlink(missing_ok=True)
        with (self.home / "server.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command("postgres", "-D", str(self.data)),
                cwd=self.home,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                start_new_session=True,
            )

    async def crash(self) -> None:
        """Stop in immediate mode: no checkpoint, no goodbye; until no process of it is left."""
        await self._stop(signal.SIGQUIT)

    async def stop(self) -> None:
        """Stop in order."""
        await self._stop(signal.SIGINT)

    async def accepting(self, *, primary: bool = True) -> asyncpg.Connection:
        """Until it takes connections, as a primary if asked for; the first connection."""
        until = time.monotonic() + READY_LIMIT
        while True:
            with suppress(*_ERRORS):
                connection = await asyncpg.connect(self.dsn(), timeout=5)
                if not primary or not await connection.fetchval("SELECT pg_is_in_recovery()"):
                    return connection
                await connection.close()
            if time.monotonic() > until or not self.is_running:
                raise RuntimeError(f"the server in {self.home} doesn't come up: {self._last_words()}")
            await asyncio.sleep(0.02)

    async def _stop(self, number: signal.Signals) -> None:
        self._signal(number)
        if self._process is not None:
            await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _prepare_home(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o755)
        self.data.mkdir(mode=0o700)
        self._server._give_to_account(self.data)

    def _command(self, program: str, *arguments: str) -> list[str]:
        command = self._server._command(program, *arguments)
        return dies_with_parent(command)

    async def _run(self, program: str, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *self._command(program, *arguments),
            cwd=self.home,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=_environment(),
        )
        said, _ = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"{program} failed: {said.decode(errors='replace').strip()}")

    def _last_words(self) -> str:
        with suppress(OSError):
            return " / ".join((self.home / "server.log").read_text(errors="replace").splitlines()[-5:])
        return "it said nothing"


class Servers:
    """The primary, its standby, and who is which."""

    def __init__(self, directory: Path, journal: Journal, database: str = "chaos") -> None:
        self.primary = Cluster(directory / "a")
        self.standby = Cluster(directory / "b")
        self.database = database
        self.is_protected = False
        self._journal = journal
        self._rebuilding: asyncio.Task[None] | None = None

    @property
    def dsn(self) -> str:
        """The primary's, past all proxies."""
        return self.primary.dsn(self.database)

    async def start(self) -> None:
        """A primary with an empty database, and a synchronous standby."""
        await self.primary.create()
        await self.primary.start()
        connection = await self.primary.accepting()
        await connection.execute(f'CREATE DATABASE "{self.database}"')
        await connection.close()
        await self._add_standby()

    async def stop(self) -> None:
        """Stop both."""
        if self._rebuilding is not None:
            self._rebuilding.cancel()
            await asyncio.wait({self._rebuilding})
        for cluster in (self.primary, self.standby):
            await cluster.crash()

    async def crash(self, n: int, down_for: float = 0.0) -> None:
        """Crash the primary and start it again."""
        self._journal.fault(n, "restart")
        await self.primary.crash()
        await asyncio.sleep(down_for)
        await self.primary.start()
        await self._accepted(n)

    async def fail_over(self, n: int, *, early: bool) -> None:
        """Crash the primary for good and promote its standby.

        `early` leads clients to the standby while it is still read-only.
        """
        self._journal.fault(n, "failover", early=early)
        self.is_protected = False
        await self.primary.crash()
        old, new = self.primary, self.standby
        if early:
            self.primary = new
            await asyncio.sleep(0.5)
        await self._promote(new)
        self.primary, self.standby = new, old
        await self._accepted(n)
        self._rebuilding = asyncio.create_task(self._add_standby())

    async def protected(self, timeout: float) -> bool:
        """Until there is a synchronous standby, but not longer than that."""
        if self._rebuilding is not None:
            await asyncio.wait({self._rebuilding}, timeout=timeout)
            if self._rebuilding.done():
                self._rebuilding.result()
        return self.is_protected

    async def _promote(self, cluster: Cluster) -> None:
        connection = await cluster.accepting(primary=False)
        await connection.execute("SELECT pg_promote(wait => false)")
        await connection.close()

    async def _accepted(self, n: int) -> None:
        connection = await self.primary.accepting()
        self._journal.event("accepting", n)
        await connection.close()

    async def _add_standby(self) -> None:
        """Build a standby; a crash of the primary meanwhile means to begin again."""
        for attempt in range(_STANDBY_TRIES):
            try:
                await self._build_standby()
            except (RuntimeError, *_ERRORS):
                if attempt == _STANDBY_TRIES - 1:
                    raise
                # Without a standby nobody could commit.
                self.primary.configure("")
                self.primary.reload()
                await self.standby.crash()
                await asyncio.sleep(0.5)
            else:
                return

    async def _build_standby(self) -> None:
        await self.standby.copy(self.primary)
        await self.standby.start()
        await (await self.standby.accepting(primary=False)).close()
        self.primary.configure(f"synchronous_standby_names = '{STANDBY}'\n")
        self.primary.reload()
        connection = await self.primary.accepting()
        try:
            await self._until_synchronous(connection)
        finally:
            await connection.close()
        self.is_protected = True
        self._journal.event("standby_ready")

    async def _until_synchronous(self, connection: asyncpg.Connection) -> None:
        """Until commits wait for the standby, and what was committed before is there too."""
        question = "SELECT sync_state = 'sync' FROM pg_stat_replication WHERE application_name = $1"
        async with asyncio.timeout(READY_LIMIT):
            while not await connection.fetchval(question, STANDBY):
                await asyncio.sleep(0.05)
            # The checkpointer tells the other processes, and says to nobody that it has.
            await asyncio.sleep(1.0)
            reached = "SELECT flush_lsn >= $2::pg_lsn FROM pg_stat_replication WHERE application_name = $1"
            written = await connection.fetchval("SELECT pg_current_wal_lsn()")
            while not await connection.fetchval(reached, STANDBY, written):
                await asyncio.sleep(0.05)


def dies_with_parent(command: list[str]) -> list[str]:
    """The command, so that the kernel kills it when this process ends, however it ends."""
    change = shutil.which("setpriv")
    if change is None:
        return command
    if command[0] == change:
        return [change, "--pdeathsig", "KILL", *command[1:]]
    return [change, "--pdeathsig", "KILL", "--", *command]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
