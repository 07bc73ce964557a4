from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from datetime import datetime, timedelta

import pytest
import trustme
from pydantic import SecretStr

from asynctaskd import App, verify_signature
from tests.support.web import Reply, serving

SECRET = SecretStr("known to both")


@pytest.fixture
async def service():
    async with serving() as opened:
        yield opened


@pytest.fixture
def app() -> App:
    return App(http_hosts=["127.0.0.1"])


async def test_the_reply_of_a_service_is_stored_as_the_result(app, running, client, wait, service):
    app.http_task("email:new", url=service.url)
    service.reply = Reply(b'{"sent": true}', headers={"Content-Type": "application/json; charset=utf-8"})

    async with running(app):
        task = await wait(await client.enqueue("email:new", {"to": "ada"}))

    assert task.result == {"sent": True}
    [request] = service.requests
    assert (request.method, request.path) == ("POST", "/tasks")
    assert request.headers["content-type"] == "application/json"
    told = json.loads(request.body)
    assert told == {
        "id": task.id,
        "name": "email:new",
        "attempt": 1,
        "deadline": request.headers["asynctaskd-deadline"],
        "payload": {"to": "ada"},
    }


async def test_a_service_is_told_until_when_it_has_time(app, running, client, wait, service):
    app.http_task("slow", url=service.url, timeout="90s")

    async with running(app):
        task = await wait(await client.enqueue("slow"))

    headers = service.requests[0].headers
    assert headers["asynctaskd-deadline"].endswith("Z")
    assert datetime.fromisoformat(headers["asynctaskd-deadline"]) == task.claimed_at + timedelta(seconds=90)
    assert 0 < float(headers["asynctaskd-remaining"]) <= 90


async def test_a_cookie_of_one_reply_is_in_no_other_request(app, running, client, wait, service):
    app.http_task("first", url=service.url)
    app.http_task("second", url=service.url)
    service.reply = Reply(headers={"Set-Cookie": "session=of the first; Path=/"})

    async with running(app):
        await wait(await client.enqueue("first"))
        await wait(await client.enqueue("second"))

    assert ["cookie" in request.headers for request in service.requests] == [False, False]


async def test_a_signed_request_can_be_verified(app, running, client, wait, service):
    app.http_task("signed", url=service.url, secret=SECRET)

    async with running(app):
        await wait(await client.enqueue("signed", {"amount": 1}))

    [request] = service.requests
    verify_signature(SECRET, request.headers["asynctaskd-signature"], request.body, tolerance="1h")


async def test_a_secret_may_be_asked_for_each_time(app, running, client, wait, service):
    secrets = iter(["first", SecretStr("second")])
    app.http_task("signed", url=service.url, secret=lambda: next(secrets))

    async with running(app):
        for _ in range(2):
            await wait(await client.enqueue("signed"))

    for secret, request in zip(["first", "second"], service.requests, strict=True):
        verify_signature(secret, request.headers["asynctaskd-signature"], request.body, tolerance="1h")


async def test_an_error_header_is_retried_by_policy(app, running, client, wait, tables, service):
    app.http_task("flaky", url=service.url, retry="0s")
    replies = iter([Reply(headers={"Asynctaskd-Error": "no mailbox today"}), Reply(b"done")])
    service.reply = lambda _: next(replies)

    async with running(app):
        task = await wait(await client.enqueue("flaky"))

    assert (task.result, task.attempts) == ("done", 2)
    assert [json.loads(request.body)["attempt"] for request in service.requests] == [1, 2]
    assert "no mailbox today" in (await tables.detail(task.id, "retried"))["error"]


async def test_a_status_of_failure_is_an_error_with_what_the_service_said(
    app, running, client, tables, service
):
    app.http_task("broken", url=service.url)
    service.reply = Reply(b"the disk is full" + b"!" * 5000, status=500)

    async with running(app):
        row = await tables.until_status(await client.enqueue("broken"), "failed")

    assert row["reason"] == "error"
    assert "the service answered 500: the disk is full!!" in row["last_error"]
    assert len(row["last_error"]) < 700


async def test_terminate_fails_the_task_at_once(app, running, client, tables, service):
    hooked = []
    definition = app.http_task("doomed", url=service.url, retry="0s")
    service.reply = Reply(status=422, headers={"Asynctaskd-Terminate": "there is no such user"})

    @definition.on_failed
    async def note(params, failure, tx) -> None:
        hooked.append((params, failure.reason))

    async with running(app):
        row = await tables.until_status(await client.enqueue("doomed", {"user": 7}), "failed")

    assert (row["reason"], row["attempts"]) == ("terminated", 1)
    assert "there is no such user" in row["last_error"]
    assert hooked == [({"user": 7}, "terminated")]


@pytest.mark.parametrize(
    "reply",
    [
        Reply(headers={"Asynctaskd-Snooze": "1h"}),
        Reply(status=429, headers={"Retry-After": "3600"}),
        Reply(status=503, headers={"Retry-After": "3600"}),
    ],
    ids=["header", "429", "503"],
)
async def test_a_service_may_ask_for_a_task_later_without_spending_an_attempt(
    app, running, client, tables, service, reply
):
    app.http_task("later", url=service.url)
    service.reply = reply

    async with running(app):
        row = await tables.until_status(await client.enqueue("later"), "scheduled")

    assert await tables.events(row["id"]) == ["snoozed"]
    assert row["attempts"] == 0
    left = await tables.value("SELECT $1 - clock_timestamp()", row["run_at"])
    assert timedelta(minutes=50) < left <= timedelta(hours=1)


async def test_a_quiet_retry_leaves_no_event(app, running, client, wait, tables, service):
    app.http_task("quiet", url=service.url, retry="0s")
    replies = iter([Reply(headers={"Asynctaskd-Retry-Quietly": "not yet"}), Reply()])
    service.reply = lambda _: next(replies)

    async with running(app):
        task = await wait(await client.enqueue("quiet"))

    assert (task.attempts, task.result, await tables.events(task.id)) == (2, None, [])


async def test_too_large_a_reply_is_an_error_and_is_not_read_to_its_end(
    app, running, client, tables, service, soon
):
    app.http_task("flood", url=service.url)
    service.reply = Reply(b"x" * 64 * 1024 * 1024)

    async with running(app):
        row = await tables.until_status(await client.enqueue("flood"), "failed")
        await soon(service.hung_up)

    assert "larger than 1048576 bytes" in row["last_error"]


async def test_a_redirect_is_not_followed(app, running, client, tables, service):
    app.http_task("moved", url=service.url)
    service.reply = Reply(status=307, headers={"Location": service.url + "/elsewhere"})

    async with running(app):
        row = await tables.until_status(await client.enqueue("moved"), "failed")

    assert "the service answered 307; redirects aren't followed" in row["last_error"]
    assert len(service.requests) == 1


async def test_a_slow_service_times_out_with_the_task_and_its_connection_is_closed(
    app, running, client, tables, service, soon
):
    app.http_task("slow", url=service.url, timeout="2s")
    service.reply = None

    async with running(app):
        row = await tables.until_status(await client.enqueue("slow"), "failed")
        await soon(service.hung_up)

    assert row["reason"] == "timeout"


async def test_cancelling_the_task_closes_the_connection(app, running, client, service, soon):
    app.http_task("slow", url=service.url)
    service.reply = None

    async with running(app):
        task_id = await client.enqueue("slow")
        await soon(service.asked)
        receipt = await client.cancel(task_id)
        await soon(service.hung_up)

    assert [task.outcome for task in receipt.tasks] == ["stopped"]


async def test_a_worker_keeps_its_connection_and_closes_it_at_its_end(
    app, running, client, wait, service, soon
):
    app.http_task("one", url=service.url)
    app.http_task("two", url=service.url)

    async with running(app):
        for name in ("one", "two", "one"):
            await wait(await client.enqueue(name))
        assert (service.connections, service.open) == (1, 1)
    await soon(service.hung_up)


async def test_nobody_at_the_address_is_an_error_that_names_the_host(app, running, client, tables):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        app.http_task("gone", url=f"http://127.0.0.1:{taken.getsockname()[1]}/?token=hidden")
        async with running(app):
            row = await tables.until_status(await client.enqueue("gone"), "failed")
    assert "RemoteTaskError: POST to 127.0.0.1: ConnectError" in row["last_error"]
    assert "hidden" not in row["last_error"]


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def tls_service(authority):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with serving(context) as opened:
        yield opened


async def test_a_certificate_of_nobody_known_is_refused(app, running, client, tables, tls_service):
    app.http_task("safe", url=tls_service.url)

    async with running(app):
        row = await tables.until_status(await client.enqueue("safe"), "failed")

    assert "CERTIFICATE_VERIFY_FAILED" in row["last_error"]
    assert tls_service.requests == []


async def test_a_certificate_of_a_trusted_authority_is_taken(
    app, running, client, wait, tls_service, authority, tmp_path
):
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    app.http_task("safe", url=tls_service.url, verify=str(tmp_path / "ca.pem"))

    async with running(app):
        await wait(await client.enqueue("safe"))

    assert len(tls_service.requests) == 1


async def test_a_public_name_that_leads_to_a_private_address_gets_nothing(
    running, client, tables, tls_service, authority, tmp_path, monkeypatch
):
    port = int(tls_service.url.split(":")[2].split("/")[0])
    resolve = socket.getaddrinfo

    def rebound(host, *args, **kwargs):
        is_lure = host in ("public.example.org", b"public.example.org")
        return resolve("127.0.0.1" if is_lure else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    app = App()
    app.http_task("lured", url=f"https://public.example.org:{port}/", verify=str(tmp_path / "ca.pem"))

    async with running(app):
        row = await tables.until_status(await client.enqueue("lured"), "failed")

    assert "resolves to 127.0.0.1, which isn't public" in row["last_error"]
    assert tls_service.requests == []


async def test_a_handler_can_be_called_without_a_worker(app, service):
    definition = app.http_task("alone", url=service.url)
    service.reply = Reply(b"well")

    assert await definition({"a": 1}, Standalone()) == "well"

    assert json.loads(service.requests[0].body)["payload"] == {"a": 1}
    async with asyncio.timeout(20):
        await service.hung_up.wait()


class Standalone:
    task_id, name, attempt = 1, "alone", 1
    deadline = datetime.fromtimestamp(time.time() + 60).astimezone()

    def remaining(self) -> timedelta:
        return timedelta(seconds=60)
