"""What a worker can be asked, without a worker."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import ExitStack, asynccontextmanager, contextmanager
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from asynctaskd.telemetry import attach, emit
from asynctaskd.telemetry.health import Health
from asynctaskd.web.server import serving
from asynctaskd.web.site import worker_site


@pytest.fixture
def told():
    """Facts of the last event about the server, by its name."""
    facts = {}
    detach = attach(facts.__setitem__, "http.serving", "http.failed")
    yield facts
    detach()


@pytest.fixture
def health():
    facts = Health(stall_limit=60.0)
    yield facts
    facts.close()


@contextmanager
def served(site, told, host="127.0.0.1"):
    """Ask a path: its status and its text."""
    with serving(site, host, 0):
        url = f"http://{host if ':' not in host else f'[{host}]'}:{told['http.serving']['port']}"

        def ask(path: str) -> tuple[int, str]:
            try:
                with urlopen(f"{url}{path}", timeout=10) as answer:
                    return answer.status, answer.read().decode()
            except HTTPError as error:
                with error:
                    return error.code, error.read().decode()

        yield ask


def test_health_is_told_as_json_with_the_names_of_what_fails(health, told):
    with served(worker_site(health, CollectorRegistry()), told) as ask:
        status, text = ask("/livez")
        assert (status, json.loads(text)["alive"]) == (200, True)
        status, text = ask("/readyz")
        assert status == 503
        assert json.loads(text)["failing"] == ["database", "primary", "schema", "listening", "lease"]
        assert json.loads(text)["checks"]["lease"] == {"ok": False, "reason": "not acquired yet"}
        emit("database.suits", schema_version="1.18")
        emit("listener.up", channels=[])
        emit("lease.renewed", worker_id="w", seconds=24.0)
        status, text = ask("/readyz")
        assert (status, json.loads(text)["failing"]) == (200, [])


def test_a_loop_that_stands_still_is_not_alive(told):
    health = Health(stall_limit=-1.0)
    with served(worker_site(health, CollectorRegistry()), told) as ask:
        status, text = ask("/livez")
    health.close()
    assert (status, json.loads(text)["alive"]) == (503, False)


def test_a_loop_that_was_frozen_with_its_process_gets_a_moment_to_turn(told):
    clock = iter([0.0, 100.0, 100.0])
    health = Health(stall_limit=60.0, clock=lambda: next(clock, 101.0))
    turning = threading.Timer(0.1, health.turn)
    with served(worker_site(health, CollectorRegistry()), told) as ask:
        turning.start()
        assert ask("/livez")[0] == 200
    health.close()


def test_what_isnt_http_is_answered_and_writes_no_log(health, told, caplog):
    with served(worker_site(health, CollectorRegistry()), told):
        address = ("127.0.0.1", told["http.serving"]["port"])
        with socket.create_connection(address, timeout=10) as visitor:
            visitor.sendall(b"POST /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
            assert visitor.recv(100).startswith(b"HTTP/1.1 4")
            while visitor.recv(100):
                pass
    assert [record for record in caplog.records if record.exc_info] == []


def test_what_a_site_holds_open_ends_with_the_block(told):
    seen = []

    @asynccontextmanager
    async def lifespan(_):
        seen.append("open")
        yield
        seen.append("closed")

    site = Starlette(routes=[Route("/", lambda _: PlainTextResponse("hello"))], lifespan=lifespan)
    with served(site, told) as ask:
        assert ask("/") == (200, "hello")
        assert seen == ["open"]
    assert seen == ["open", "closed"]


def test_a_port_that_was_given_back_can_be_had_again(health, told):
    site = worker_site(health, CollectorRegistry())
    with served(site, told):
        port = told["http.serving"]["port"]
    with serving(site, "127.0.0.1", port):
        assert told["http.serving"]["port"] == port
    assert "http.failed" not in told


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_it_is_served_over_ipv6_too(health, told):
    with served(worker_site(health, CollectorRegistry()), told, "::1") as ask:
        assert ask("/livez")[0] == 200


@pytest.mark.parametrize("host,port", [("127.0.0.1", 65_537), ("192.0.2.1", 0), ("no.such.host.invalid", 0)])
def test_an_address_that_can_not_be_had_is_told(health, told, host, port):
    with serving(worker_site(health, CollectorRegistry()), host, port):
        pass
    assert (told["http.failed"]["host"], told["http.failed"]["port"]) == (host, port)
    assert told["http.failed"]["error"].endswith("http.port a free port")


def test_a_site_that_can_not_begin_is_told(told):
    failed = threading.Event()
    detach = attach(lambda *_: failed.set(), "http.failed")

    @asynccontextmanager
    async def lifespan(_):
        raise RuntimeError("on purpose")
        yield

    with serving(Starlette(lifespan=lifespan), "127.0.0.1", 0):
        assert failed.wait(10)
    detach()
    assert str(told["http.failed"]["error"]) == "on purpose"


def test_one_connection_too_many_takes_the_place_of_who_was_silent_longest(health, told, monkeypatch):
    monkeypatch.setattr("asynctaskd.web.server._MOST_OPEN", 3)
    with served(worker_site(health, CollectorRegistry()), told), visitors(told) as visit:
        first, second, third = (visit() for _ in range(3))
        assert [asked(one) for one in (second, third, first)] == [b"HTTP"] * 3
        assert asked(visit()) == b"HTTP"
        assert closed(second)
        assert [asked(one) for one in (third, first)] == [b"HTTP"] * 2


@pytest.mark.parametrize(
    "said", ["", "GET /liv", "POST /dashboard/ HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"]
)
def test_many_who_say_nothing_or_half_of_it_crowd_no_probe_out(health, told, said):
    async def read(request):
        return PlainTextResponse(await request.body())

    dashboard = Starlette(routes=[Route("/", read, methods=["POST"])])
    site = worker_site(health, CollectorRegistry(), dashboard=dashboard)
    with served(site, told) as ask, visitors(told) as visit:
        for _ in range(250):
            visit().sendall(said.encode())
        assert [ask("/livez")[0] for _ in range(3)] == [200] * 3


def test_who_is_being_answered_is_let_finish(told, monkeypatch):
    monkeypatch.setattr("asynctaskd.web.server._MOST_OPEN", 2)
    begun, go_on = threading.Semaphore(0), threading.Event()

    def slow(_):
        begun.release()
        go_on.wait(10)
        return PlainTextResponse("")

    with served(Starlette(routes=[Route("/livez", slow)]), told), visitors(told) as visit:
        opened = [visit() for _ in range(2)]
        for one in opened:
            one.sendall(REQUEST)
            assert begun.acquire(timeout=10)
        assert closed(visit())
        go_on.set()
        assert [one.recv(4) for one in opened] == [b"HTTP"] * 2


def test_who_connects_and_asks_nothing_is_let_go(health, told):
    with served(worker_site(health, CollectorRegistry()), told), visitors(told) as visit:
        assert closed(visit())


REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextmanager
def visitors(told):
    """Connect, as often as one likes; all are closed at the end."""
    with ExitStack() as stack:
        address = ("127.0.0.1", told["http.serving"]["port"])
        yield lambda: stack.enter_context(socket.create_connection(address, timeout=10))


def asked(connection: socket.socket) -> bytes:
    connection.sendall(REQUEST)
    answer = b""
    while b"}" not in answer and (more := connection.recv(1000)):
        answer += more
    return answer[:4]


def closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
