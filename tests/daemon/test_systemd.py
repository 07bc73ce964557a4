"""What a service manager hears: on a socket of the test's own."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest

from asynctaskd.daemon.systemd import Service, ServiceManager
from asynctaskd.telemetry import attach, emit


class Listener:
    """A service manager's socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.setblocking(False)

    def heard(self) -> list[dict[str, str]]:
        """What has been said since the last time."""
        messages = []
        while True:
            try:
                text = self._socket.recv(4096).decode()
            except BlockingIOError:
                return messages
            messages.append(dict(line.split("=", 1) for line in text.split("\n")))

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def listener(request, tmp_path: Path):
    address = str(tmp_path / "notify") if request.param == "path" else f"@asynctaskd-test-{uuid4().hex}"
    opened = Listener(address)
    yield opened
    opened.close()


@pytest.fixture
def environ(listener):
    return {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}


@pytest.fixture
def manager(environ):
    manager = ServiceManager.of(environ)
    yield manager
    manager.close()


@pytest.fixture
def process():
    class Process:
        is_draining, alive, lacks, status = False, True, ("lease",), "starts"

        def is_alive(self):
            return self.alive

        def failing(self):
            return self.lacks

        def summary(self):
            return self.status

    return Process()


@pytest.fixture
def clock():
    return SimpleNamespace(now=1000.0)


@pytest.fixture
def service(manager, process, clock):
    service = Service(manager, process, fed_by="keeper.turned", grace=lambda: 30.0, clock=lambda: clock.now)
    yield service
    service.close()


def test_what_starts_from_here_has_no_say(environ, manager):
    assert environ == {}
    assert (manager.listens, manager.watchdog) == (True, 30.0)


@pytest.mark.parametrize(
    "given,watchdog",
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_meant_for_this_process_or_for_nobody(listener, given, watchdog):
    manager = ServiceManager.of({"NOTIFY_SOCKET": listener.address, **given})
    assert manager.watchdog == watchdog
    manager.close()


@pytest.mark.parametrize("address", [None, "", "vsock:2:1", "relative"])
def test_without_a_socket_that_is_known_everything_is_said_to_nobody(address):
    manager = ServiceManager.of({} if address is None else {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1"})
    assert (manager.listens, manager.watchdog) == (False, None)
    manager.tell(READY=1)


def test_a_manager_that_is_gone_is_told_of_once_and_harms_nobody(listener, manager):
    told = []
    detach = attach(lambda _, facts: told.append(facts["error"]), "systemd.unreachable")
    listener.close()
    Path(listener.address).unlink(missing_ok=True)
    manager.tell(READY=1)
    manager.tell(READY=1)
    detach()
    assert len(told) == 1


def fill(manager: ServiceManager) -> None:
    """Say so much that the manager takes no more."""
    for _ in range(10_000):
        if not manager.tell(STATUS="busy"):
            return
    pytest.fail("it takes everything")


def test_what_a_busy_manager_does_not_take_is_said_again_and_keeps_nobody_waiting(
    listener, manager, service, process
):
    process.lacks = ()
    fill(manager)
    service.tick()
    assert {"READY": "1"} not in listener.heard()
    service.tick()
    assert listener.heard() == [{"READY": "1"}, {"STATUS": "starts"}]
    fill(manager)
    service.reloaded()
    listener.heard()
    service.tick()
    assert listener.heard() == [{"READY": "1"}]
    fill(manager)
    process.is_draining = True
    service.tick()
    listener.heard()
    service.tick()
    assert {"STOPPING": "1"} in listener.heard()


def test_a_line_break_begins_no_variable_of_its_own(listener, manager):
    manager.tell(STATUS="gone\nREADY=1")
    assert listener.heard() == [{"STATUS": "gone READY=1"}]


def test_ready_is_said_once_when_nothing_fails_and_time_is_asked_for_until_then(
    listener, service, process, clock
):
    service.tick()
    assert listener.heard() == [{"EXTEND_TIMEOUT_USEC": "15000000"}, {"STATUS": "starts"}]
    clock.now += 1
    service.tick()
    assert listener.heard() == []
    clock.now += 1
    service.tick()
    assert listener.heard() == [{"EXTEND_TIMEOUT_USEC": "15000000"}]
    process.lacks, process.status = (), "12 running, 340 waiting, config v7"
    service.tick()
    assert listener.heard() == [{"READY": "1"}, {"STATUS": "12 running, 340 waiting, config v7"}]
    service.tick()
    process.lacks, process.status = ("database",), "12 running; database: gone"
    clock.now += 100
    service.tick()
    assert listener.heard() == [{"STATUS": "12 running; database: gone"}]


def test_a_drain_is_said_once_and_time_is_asked_for_as_long_as_it_may_take(listener, service, process, clock):
    process.lacks, process.is_draining = ("draining",), True
    service.tick()
    assert listener.heard()[:2] == [{"STOPPING": "1"}, {"EXTEND_TIMEOUT_USEC": "15000000"}]
    clock.now += 44
    service.tick()
    assert listener.heard() == [{"EXTEND_TIMEOUT_USEC": "15000000"}]
    clock.now += 2
    service.tick()
    assert listener.heard() == []


def test_the_watchdog_is_fed_by_the_keeper_alone_and_only_while_the_loop_turns(
    listener, service, process, clock
):
    service.tick()
    listener.heard()
    clock.now += 100
    service.tick()
    assert {"WATCHDOG": "1"} not in listener.heard()
    emit("keeper.turned")
    emit("keeper.turned")
    assert listener.heard() == [{"WATCHDOG": "1"}]
    clock.now += 15
    process.lacks = ("database",)
    emit("keeper.turned")
    assert listener.heard() == [{"WATCHDOG": "1"}]
    clock.now += 15
    process.alive = False
    emit("keeper.turned")
    assert listener.heard() == []


def test_it_is_fed_at_least_twice_in_its_time(listener, service, clock):
    fed = 0
    for _ in range(60):  # half a second each
        emit("keeper.turned")
        fed += listener.heard() == [{"WATCHDOG": "1"}]
        clock.now += 0.5
    assert fed >= 4


def test_without_a_watchdog_nobody_is_fed(listener, process):
    manager = ServiceManager.of({"NOTIFY_SOCKET": listener.address})
    service = Service(manager, process, fed_by="keeper.turned", grace=lambda: 30.0)
    emit("keeper.turned")
    service.close()
    manager.close()
    assert listener.heard() == []


def test_reloading_says_when_by_the_clock_that_systemd_has(listener, manager, service, process):
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    manager.tell_reloading()
    [told] = listener.heard()
    assert told["RELOADING"] == "1"
    assert before <= int(told["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    service.reloaded()
    assert listener.heard() == []  # it wasn't ready before, and isn't by that
    process.lacks = ()
    service.tick()
    listener.heard()
    service.reloaded()
    assert listener.heard() == [{"READY": "1"}]


def test_it_may_be_told_from_any_thread(listener, manager):
    threads = [threading.Thread(target=manager.tell, kwargs={"STATUS": str(n)}) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {message["STATUS"] for message in listener.heard()} == {"0", "1", "2", "3", "4"}
