"""What the kernel says of processes: real ones, ended in every way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

import pytest

from asynctaskd.daemon import proof
from asynctaskd.daemon.process import this_process
from asynctaskd.daemon.proof import Fate, fate_of, hold_name, place

pytestmark = pytest.mark.skipif(place() is None, reason="only Linux has names that end with their owner")

HOLD = """
import subprocess, sys
from uuid import UUID
from asynctaskd.daemon.proof import hold_name
name = hold_name(UUID(sys.argv[1]))
if sys.argv[2:] == ["program"]:
    subprocess.Popen(["sleep", "3600"], stdout=subprocess.DEVNULL, close_fds=False)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process that holds a name: holder(name)."""
    started = []

    def start(name: UUID, *how: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(name), *how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        with process:
            process.kill()


def test_a_process_that_holds_its_name_lives(holder) -> None:
    name = uuid4()
    holder(name)
    assert fate_of(name, place()) is Fate.ALIVE


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGTERM])
def test_a_process_that_was_killed_is_gone_as_soon_as_it_has_ended(holder, number) -> None:
    name = uuid4()
    process = holder(name)
    process.send_signal(number)
    process.wait()
    assert fate_of(name, place()) is Fate.GONE


def test_a_stopped_process_lives(holder) -> None:
    name = uuid4()
    process = holder(name)
    process.send_signal(signal.SIGSTOP)
    assert fate_of(name, place()) is Fate.ALIVE


def test_a_program_that_it_started_does_not_keep_its_name(holder) -> None:
    name = uuid4()
    process = holder(name, "program")
    process.kill()
    process.wait()
    try:
        assert fate_of(name, place()) is Fate.GONE
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its session: the program


def test_looking_does_not_take_the_name() -> None:
    name = uuid4()
    assert [fate_of(name, place()) for _ in range(3)] == [Fate.GONE] * 3
    with hold_name(name) as held:
        assert held is not None
        assert fate_of(name, place()) is Fate.ALIVE


@pytest.mark.parametrize("where", [None, "another-boot:4026531840"])
def test_of_another_place_nothing_is_known(where) -> None:
    assert fate_of(uuid4(), where) is Fate.UNKNOWN


def test_of_a_worker_of_an_older_version_nothing_is_known() -> None:
    assert fate_of(None, place()) is Fate.UNKNOWN


def test_without_a_place_there_is_no_name_and_no_knowledge(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(proof, "_BOOT_ID", tmp_path / "none")
    assert hold_name(uuid4()) is None
    assert fate_of(uuid4(), None) is Fate.UNKNOWN


def test_in_a_sandbox_without_such_sockets_nothing_is_known(monkeypatch) -> None:
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(proof.socket, "socket", refuse)
    assert hold_name(uuid4()) is None
    assert fate_of(uuid4(), place()) is Fate.UNKNOWN


def test_this_process_holds_its_own_name() -> None:
    assert fate_of(this_process().id, this_process().place) is Fate.ALIVE
