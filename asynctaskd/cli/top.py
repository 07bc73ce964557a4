"""`asynctaskd top`."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import aclosing, contextmanager, suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asynctaskd.cli.failures import ExitCode
from asynctaskd.cli.options import AsJson, ConfigFile, Database, Schema
from asynctaskd.cli.output import console, print_json
from asynctaskd.cli.session import ask, read_config
from asynctaskd.cli.top_keys import State, by_backlog, change_of, react
from asynctaskd.definitions import rules
from asynctaskd.errors import AsynctaskdError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.live import Live

    from asynctaskd.client import Client
    from asynctaskd.config.convergence import ConfigReport
    from asynctaskd.control.fleet import Overview

# The first snapshot has nothing to compare with, and workers tell their counts once a second from then on.
_SNAPSHOTS = 3

_ENDING = (signal.SIGTERM, signal.SIGHUP)


def top(
    *,
    interval: Annotated[str, typer.Option(metavar="1s", help="How often to look.")] = "1s",
    once: Annotated[
        bool, typer.Option("--once", help="Print one snapshot; without a terminal that is the rule.")
    ] = False,
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Watch the fleet: groups and their shares, the strict lane, workers, slow handlers, commands under way.

    In a terminal the view is live, and keys change weights and pause labels; `?` explains them. A single
    snapshot takes two intervals, since shares are of what is claimed meanwhile; it exits with 1 if the
    runtime configuration can't be read.
    """
    rules.positive_duration("--interval", interval)
    settings = read_config(database, schema, config)
    if as_json or once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        overview = ask(settings, lambda client: _snapshot(client, interval))
        _print(overview, as_json=as_json)
        return ExitCode.FINE if overview.config_problem is None else ExitCode.FAILED
    with suppress(KeyboardInterrupt):
        ask(settings, lambda client: Screen(client, interval).run())
    return ExitCode.FINE


async def _snapshot(client: Client, interval: str) -> Overview:
    """One snapshot with the shares of two intervals; at once where nobody is there to tell them."""
    looks = 0
    async with aclosing(client.follow(interval)) as overviews:
        async for overview in overviews:
            looks += 1
            if looks == _SNAPSHOTS or not overview.workers:
                return overview
    raise AssertionError("following ends only where it is told to")


def _print(overview: Overview, *, as_json: bool) -> None:
    if as_json:
        print_json(as_object(overview))
        return
    from asynctaskd.cli.top_view import draw  # noqa: PLC0415  (JSON doesn't need it)

    console().print(draw(by_backlog(overview)))


def as_object(overview: Overview) -> dict[str, Any]:
    """A snapshot by its fields."""
    facts = asdict(overview)
    del facts["claims"]  # totals of each worker, which say nothing by themselves
    return facts


class Screen:
    """The live view: draws each snapshot, obeys keys, and asks for the changes they confirm."""

    def __init__(self, client: Client, interval: str) -> None:
        self._client = client
        self._interval = interval
        self._live: Live | None = None
        self._state = State()
        self._overview: Overview | None = None
        self._over = asyncio.Event()
        self._signal: signal.Signals | None = None
        self._asking: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until the operator leaves."""
        from rich.live import Live  # noqa: PLC0415  (it takes a while to import)

        from asynctaskd.cli.terminal import each_key  # noqa: PLC0415  (there is none on Windows)

        screen = Live(console=console(), screen=True, auto_refresh=False)
        with self._leaving_on_signals(), screen as self._live, each_key(self._press):
            following = asyncio.create_task(self._follow())
            leaving = asyncio.create_task(self._over.wait())
            try:
                await asyncio.wait({following, leaving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await self._end(following, leaving)
        if not following.cancelled():
            following.result()  # an error of the database
        if self._signal is not None:
            raise typer.Exit(128 + self._signal)

    @contextmanager
    def _leaving_on_signals(self) -> Iterator[None]:
        """Whoever is ended gives the terminal back as it was."""
        loop = asyncio.get_running_loop()
        for number in _ENDING:
            loop.add_signal_handler(number, self._leave, number)
        try:
            yield
        finally:
            for number in _ENDING:
                loop.remove_signal_handler(number)

    def _leave(self, number: signal.Signals) -> None:
        self._signal = number
        self._over.set()

    async def _follow(self) -> None:
        async with aclosing(self._client.follow(self._interval)) as overviews:
            async for overview in overviews:
                self._overview = by_backlog(overview)
                self._draw()

    async def _end(self, *tasks: asyncio.Task[Any]) -> None:
        asking = [] if self._asking is None else [self._asking]
        for task in (*tasks, *asking):
            task.cancel()
        await asyncio.wait({*tasks, *asking})

    def _press(self, key: str) -> None:
        if key == "q":
            self._over.set()
        elif self._overview is None:
            return
        elif key == "enter":
            self._ask(self._overview)
        else:
            self._state = react(self._state, key, self._overview)
        self._draw()

    def _ask(self, overview: Overview) -> None:
        if not self._state.is_pending:
            return
        if self._asking is not None and not self._asking.done():
            self._say("the change before isn't through yet")
            return
        if overview.config_problem is not None:  # mappings are written whole, and this one isn't known
            self._say(f"not changed: {overview.config_problem}")
            return
        change = change_of(self._state, overview)
        self._state = replace(self._state, weights={}, pauses={}, said="asked for …")
        self._asking = asyncio.create_task(self._change(dict(change)))

    async def _change(self, change: dict[str, Any]) -> None:
        try:
            task_id = await self._client.request_runtime_config(timeout="10s", **change)
            self._say(f"asked for by task {task_id}; waiting for the workers …")
            self._say(told(await self._client.runtime_config_report(task_id)))
        except AsynctaskdError as error:
            self._say(f"not changed: {error}")

    def _say(self, sentence: str) -> None:
        self._state = replace(self._state, said=sentence)
        self._draw()

    def _draw(self) -> None:
        from asynctaskd.cli.top_view import draw  # noqa: PLC0415  (rich takes a while to import)

        if self._overview is not None and self._live is not None:
            width, height = self._live.console.size
            view = draw(self._overview, self._state, height=height, width=width)
            self._live.update(view, refresh=True)


def told(report: ConfigReport) -> str:
    """What became of a change, in a sentence that names who has answered."""
    if report.status == "superseded":
        return f"version {report.version} was superseded by a newer one"
    applied = (
        ", ".join(report.hosts.get(one, str(one)) for one in report.applied) or "nobody: no worker is live"
    )
    sentence = f"version {report.version} is applied by {applied}"
    if report.lagging:
        sentence += f"; not in time by {', '.join(report.hosts.get(one, str(one)) for one in report.lagging)}"
    if report.rejected:
        sentence += f"; rejected by {', '.join(report.hosts.get(one, str(one)) for one in report.rejected)}"
    return sentence
