"""`asynctaskd run`."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from asynctaskd.cli.admission import require_admission
from asynctaskd.cli.failures import ExitCode, complain, describe, exit_code
from asynctaskd.cli.migrate import title_of, version_of
from asynctaskd.cli.options import App, Concurrency, ConfigFile, Database, Schema, WorkerLabels
from asynctaskd.cli.parent import child_command, how_many, run_parent
from asynctaskd.cli.reloading import Reloading
from asynctaskd.cli.session import find_database, read_config
from asynctaskd.cli.stopping import Signals, end_rest, exit_hard, threads_have_ended
from asynctaskd.cli.telling import Told
from asynctaskd.daemon.process import this_process
from asynctaskd.daemon.systemd import ServiceManager
from asynctaskd.errors import SchemaVersionError, WorkerIdTakenError
from asynctaskd.postgres import embedded
from asynctaskd.telemetry.events import emit
from asynctaskd.telemetry.logs import configure_logging, describe_error, flush_logs

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from asynctaskd.config import DaemonConfig
    from asynctaskd.daemon.supervisor import Daemon
    from asynctaskd.definitions.registry import Registry
    from asynctaskd.telemetry.health import Health

# A handler may have taken them, in seconds.
_LOOK_AT_SIGNALS = 1.0


def run(
    ctx: typer.Context,
    app: App,
    concurrency: Concurrency = None,
    labels: WorkerLabels = None,
    once: Annotated[bool, typer.Option("--once", help="Run what is due, then end.")] = False,
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    *,
    processes: Annotated[
        str | None,
        typer.Option(
            "--processes",
            metavar="N|cpu",
            help="Run so many worker processes, each with all of the above, and start one that dies anew.",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Run a worker until it is told to stop.

    SIGTERM or Ctrl-C: it stops claiming and lets running tasks finish (worker.grace); a second time: it puts
    them back at once; a third time: it ends hard. An unreachable database is waited for.
    SIGHUP: it reads its configuration again.
    """
    count = None if processes is None else how_many(processes)
    debug = bool(ctx.find_root().params["debug"])

    def read() -> DaemonConfig:
        found = read_config(database, schema, config, concurrency=concurrency, labels=labels)
        require_admission(found)
        return _talkative(found) if debug else found

    settings = read()
    reloading = Reloading(read, settings)
    manager = ServiceManager.of(os.environ)
    signals = Signals()
    signals.install()
    _log_to_stderr(settings.log.level, settings.log.format)
    reloading.warn_of_exposed()
    if count is not None:
        flags = {"--concurrency": concurrency, "--labels": labels, "--database": database, "--schema": schema}
        command = child_command({"--app": app, "--config": config, **flags}, debug=debug, once=once)
        return run_parent(command, count, reloading, _prepared_database(settings), manager)
    if this_process().has_parent:
        faulthandler.enable()  # the parent ends a process that is stuck with SIGABRT, to see where
        signals.follow(this_process().orders())
    with closing(Told(manager, reloading)) as told:
        application = _load(app)
        with _served(settings, told.health, application):
            daemon = _build(application, app, settings)
            with _calm_collector():
                return _work(daemon, signals, told, once=once)


def _talkative(config: DaemonConfig) -> DaemonConfig:
    return config.model_copy(update={"log": config.log.model_copy(update={"level": "debug"})})


def _log_to_stderr(level: str, style: str) -> None:
    configure_logging(level, style, common={"pid": os.getpid()} if this_process().has_parent else None)


def _load(app: str) -> Registry:
    from asynctaskd.definitions.loader import load_app  # noqa: PLC0415  (only this command needs it)

    return load_app(app)


def _build(application: Registry, path: str, config: DaemonConfig) -> Daemon:
    from asynctaskd.daemon.isolation import be_expendable  # noqa: PLC0415
    from asynctaskd.daemon.supervisor import Daemon  # noqa: PLC0415

    if this_process().suspects_of is None:
        return Daemon(application, _prepared_database(config), config, app_path=path)
    be_expendable()
    return Daemon(application, _prepared_database(config), config, one_suspect=True)


@contextmanager
def _calm_collector() -> Iterator[None]:
    """Let the cycle collector look less often, and not at what is there for good.

    With its defaults it takes a quarter of a busy worker's time.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.unfreeze()  # or what is there would never be finalized: a file's last lines not written


@contextmanager
def _served(config: DaemonConfig, health: Health, app: Registry) -> Iterator[None]:
    """Answer questions over HTTP, if that is wanted: each of several processes at a port of its own.

    Before the database is reached: where that takes long, it can be asked why.
    """
    if config.http.port is None:
        yield
        return
    from asynctaskd.telemetry.metrics import Metrics  # noqa: PLC0415
    from asynctaskd.web.server import serving  # noqa: PLC0415
    from asynctaskd.web.site import worker_site  # noqa: PLC0415

    port = config.http.port and config.http.port + (this_process().nth or 0)
    dashboard = _dashboard(config, app)
    with closing(Metrics(app)) as metrics:
        site = worker_site(health, metrics.registry, dashboard=dashboard)
        with serving(site, config.http.host, port):
            yield


def _dashboard(config: DaemonConfig, app: Registry) -> Starlette | None:
    """The dashboard, if it is wanted; raises ConfigError like `require_admission`."""
    if config.dashboard.mode == "off":
        return None
    from asynctaskd.web.dashboard.configured import configured  # noqa: PLC0415  (it is an extra)

    may_write = config.dashboard.mode == "write"
    return configured(config, _database(config), host=config.http.host, may_write=may_write, app=app)


def _database(config: DaemonConfig) -> str:
    return find_database(config, progress=lambda sentence: emit("database.starting", note=sentence))


def _prepared_database(config: DaemonConfig) -> str:
    dsn = _database(config)
    if embedded.is_embedded(config.database.require_url()):
        _migrate_private(dsn, config.database.schema_name)
    return dsn


def _migrate_private(dsn: str, schema: str) -> None:
    """Nobody else decides about a private server's schema, and the quick start is one command shorter."""
    from asynctaskd.postgres.migrate import migrate  # noqa: PLC0415

    applied = asyncio.run(migrate(dsn, schema=schema))
    if applied:
        names = [title_of(one) for one in applied]
        emit("database.migrated", migrations=names, schema_version=version_of(applied[-1]))


def _work(daemon: Daemon, signals: Signals, told: Told, *, once: bool) -> int:
    import uvloop  # noqa: PLC0415

    from asynctaskd.daemon.loops import run_to_end  # noqa: PLC0415

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        loop = runner.get_loop()
        stop, reload = (partial(loop.call_soon_threadsafe, do) for do in (daemon.stop, told.ask_to_reload))
        with signals.bound_to(stop, reload):
            code, in_order = run_to_end(loop, loop.create_task(_run(daemon, signals, told, once)))
        if not in_order or not threads_have_ended():
            # Closing the loop would wait for a handler that can't be stopped; its task is in the queue again.
            exit_hard(code)
    flush_logs()
    return code


async def _run(daemon: Daemon, signals: Signals, told: Told, once: bool) -> tuple[ExitCode, bool]:
    """The exit code, and whether everything has ended in order."""
    loop = asyncio.get_running_loop()
    with _own_threads(loop):
        beside = [asyncio.create_task(one) for one in (told.keep_telling(), told.keep_reloading(daemon))]
        beside.append(asyncio.create_task(_keep_signals(signals)))
        for task in beside:
            task.add_done_callback(lambda ended: daemon.stop() if _crash_of(ended) else None)
        try:
            await daemon.run(once=once)
            if crashes := list(filter(None, map(_crash_of, beside))):
                raise BaseExceptionGroup("what runs beside the daemon crashed", crashes)
        except BaseExceptionGroup as crash:
            return _report_crash(crash), await end_rest()
        finally:
            for task in beside:
                task.cancel()
        return ExitCode.FINE, await end_rest()


def _crash_of(task: asyncio.Task[None]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


async def _keep_signals(signals: Signals) -> None:
    while True:
        await asyncio.sleep(_LOOK_AT_SIGNALS)
        signals.take_back()


@contextmanager
def _own_threads(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """The threads of `asyncio.to_thread`, told to end with the daemon; the loop would wait for them."""
    threads = ThreadPoolExecutor(thread_name_prefix="asynctaskd-io")
    loop.set_default_executor(threads)
    try:
        yield
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _report_crash(crash: BaseExceptionGroup[BaseException]) -> ExitCode:
    errors = list(_leaves(crash))
    for error in errors:
        emit("loop.crashed", error=error)
    flush_logs()
    # Somebody migrated past this version, dropped the schema, or started another worker with this one's id.
    if isinstance(errors[0], SchemaVersionError | WorkerIdTakenError):
        complain(describe(errors[0]))
        return exit_code(errors[0])
    complain(
        f"the worker crashed: {describe_error(errors[0])}. The traceback is in the log above. Its tasks go "
        "to others when its lease ends; start it again, and report it if it comes back."
    )
    return ExitCode.INTERNAL


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
