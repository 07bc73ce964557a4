"""The small decisions of a parent: how many, when again, and what it says of a death."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path
from uuid import uuid4

import pytest

from asynctaskd.cli import stopping
from asynctaskd.cli.parent import child_command, how_many
from asynctaskd.cli.stopping import Signals
from asynctaskd.config import load_config
from asynctaskd.daemon.child import Child, Pauses, watch
from asynctaskd.daemon.process import DRAIN, HURRY, RELOAD

RUN = ("run", "--app", "shop:app", "--database", "postgresql://127.0.0.1:1/shop")


@pytest.mark.parametrize("given", ["0", "-1", "many", "1.5", ""])
def test_less_than_one_process_is_wrong_usage(bare, given):
    result = bare.run(*RUN, f"--processes={given}")
    assert result.exit_code == 2
    assert f"--processes must be an integer of at least 1, or cpu, got {given!r}" in result.stderr


def test_cpu_is_the_number_of_processors():
    config = load_config(None, {}, {"worker.concurrency": "cpu"})
    assert how_many("cpu") == config.worker.concurrency


def test_a_worker_gets_the_flags_that_were_given_and_no_others():
    flags = {"--app": "shop:app", "--labels": "-a,b", "--config": None}
    command = child_command(flags, debug=True, once=True)
    assert command[1:] == ["-m", "asynctaskd", "--debug", "run", "--app=shop:app", "--labels=-a,b", "--once"]


def test_on_the_embedded_server_the_parent_migrates_and_holds_it_for_its_workers(start):
    # A path that is short enough for a socket.
    home = Path(tempfile.mkdtemp(prefix="asynctaskd-cli-"))
    try:
        run = ("run", "--app", "shop:app", "--once", "--processes", "2", "--database", f"embedded:{home}")
        process = start(*run)
        assert process.exit_code() == 0
        events = [json.loads(line)["event"] for line in process.stderr if line.startswith("{")]
        assert events[:4] == ["database.starting", "database.migrated", "child.started", "child.started"]
        assert events.count("worker.stopped") == 2
    finally:
        wait_until_stopped(home)
        shutil.rmtree(home)


def wait_until_stopped(home: Path) -> None:
    """The keeper stops the server as soon as nobody uses it."""
    until = time.monotonic() + 30
    while (home / "data" / "postmaster.pid").exists() and time.monotonic() < until:
        time.sleep(0.01)


def test_pauses_grow_to_30_seconds_and_begin_again_after_a_long_life():
    pauses = Pauses()
    grown = [pauses.after(0.5) for _ in range(10)]
    assert grown == [pytest.approx(min(0.1 * 2**n, 30.0)) for n in range(10)]
    assert [pauses.after(60.0), pauses.after(0.5), pauses.after(0.5)] == [0.1, 0.2, 0.4]


class Handle:
    """A process that never was."""

    pid = 0
    returncode = None


@pytest.fixture
def child():
    """A child whose beats, or whatever it says, the test writes: (child, beat)."""
    pulse, beat = os.pipe()
    heard, orders = os.pipe()
    os.set_blocking(pulse, False)
    yield Child(uuid4(), Handle(), pulse=pulse, orders=orders), lambda said=b".": os.write(beat, said)
    for descriptor in (pulse, beat, heard, orders):
        os.close(descriptor)


def test_a_child_is_silent_only_from_its_first_beat_on(child):
    one, beat = child
    one.listen(100.0)
    assert one.silent_for == 0.0
    beat()
    one.listen(100.0)
    assert one.silent_for == 0.0
    one.listen(3.0)
    one.listen(4.0)
    assert one.silent_for == 7.0
    beat()
    beat()
    one.listen(5.0)
    assert one.silent_for == 0.0


async def test_a_worker_that_ends_while_another_one_is_put_down_is_watched_no_longer(monkeypatch):
    children, put_down, twice = {beaten_child(), beaten_child()}, [], asyncio.Event()

    async def put_down_while_the_other_ends(self: Child) -> None:
        for other in children - {self}:
            children.discard(other)
            other.close()
        put_down.append(self)
        if len(put_down) == 2:
            twice.set()

    monkeypatch.setattr(Child, "put_down", put_down_while_the_other_ends)
    watching = asyncio.create_task(watch(children, lambda: 0.001))
    waiting = asyncio.create_task(twice.wait())
    await asyncio.wait({watching, waiting}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    assert not watching.done(), repr(watching.exception())
    assert put_down[0] is put_down[1]
    watching.cancel()
    put_down[0].close()


def beaten_child() -> Child:
    """One that has told that it isn't stuck, and says no more."""
    pulse, beat = os.pipe()
    heard, orders = os.pipe()
    os.write(beat, b".")
    os.close(heard)
    os.set_blocking(pulse, False)
    silent = Child(uuid4(), Handle(), pulse=pulse, orders=orders)
    silent.listen(0.0)
    silent.listen(1.0)
    return silent


@pytest.mark.parametrize(
    "code,words",
    [(1, "exited with code 1"), (-9, "killed by SIGKILL"), (-40, "killed by signal 40")],
)
def test_a_death_in_words(child, code, words):
    assert child[0].obituary(code) == words


@pytest.fixture
def told():
    """Signals as a worker has them, bound to a list: what it was told to stop, each time."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    signals, stops = Signals(), []
    signals.install()
    with signals.bound_to(lambda: stops.append(1), lambda: stops.append("reload")):
        yield signals, stops
    for number, handler in before.items():
        signal.signal(number, handler)


def follow(signals: Signals, *orders: int) -> None:
    """Have a parent say so, and wait until all of it was heard."""
    heard = threading.Event()

    def say():
        yield from orders
        heard.set()

    signals.follow(say())
    assert heard.wait(10)


def test_what_a_parent_and_a_signal_say_counts_once(told):
    signals, stops = told
    signal.raise_signal(signal.SIGTERM)
    follow(signals, DRAIN)
    assert len(stops) == 1
    follow(signals, HURRY)
    signal.raise_signal(signal.SIGTERM)
    assert len(stops) == 2


def test_the_end_of_a_parent_that_had_told_to_drain_hurries_nobody(told):
    signals, stops = told
    follow(signals, DRAIN, DRAIN)
    assert len(stops) == 1


def test_an_order_to_hurry_stops_twice_at_once(told):
    signals, stops = told
    follow(signals, HURRY)
    assert len(stops) == 2


def test_a_hangup_and_an_order_to_reload_stop_nothing(told):
    signals, stops = told
    signal.raise_signal(signal.SIGHUP)
    assert stops == ["reload"]
    follow(signals, RELOAD)
    assert stops == ["reload", "reload"]


def test_a_hangup_before_there_is_anything_to_reload_is_not_forgotten(told):
    signals, reloads = Signals(), []
    signals.install()
    signal.raise_signal(signal.SIGHUP)
    with signals.bound_to(lambda: None, lambda: reloads.append(1)):
        assert reloads == [1]
    signal.raise_signal(signal.SIGHUP)
    assert reloads == [1]


def test_at_a_terminal_a_hangup_ends_the_process(monkeypatch, told):
    monkeypatch.setattr(stopping, "has_terminal", lambda: True)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    Signals().install()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_reports_come_whole_between_beats(child):
    one, say = child
    say(b'.{"ready": tr')
    one.listen(1.0)
    assert one.report is None
    say(b'ue, "trouble": "a. b."}\n')
    one.listen(1.0)
    assert one.report == {"ready": True, "trouble": "a. b."}
    assert one.silent_for == 1.0  # a report is no beat
