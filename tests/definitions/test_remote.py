"""Declarations of tasks that run elsewhere, and the signature that receivers verify."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from pydantic import BaseModel, SecretStr

from asynctaskd import (
    App,
    FatalTaskError,
    InvalidDefinitionError,
    InvalidInputError,
    InvalidPayloadError,
    InvalidSignatureError,
    RemoteTaskError,
    RetryQuietlyError,
    SnoozeTask,
    verify_signature,
)
from asynctaskd.definitions.remote.hosts import is_public
from asynctaskd.definitions.remote.reply import result_of
from asynctaskd.definitions.remote.signature import sign

BODY = b'{"id": 1}'


class Mail(BaseModel):
    to: str
    copies: int = 1


def refusal(app: App, url: str, **options) -> str:
    with pytest.raises(InvalidDefinitionError) as caught:
        app.http_task("email:new", url=url, **options)
    return str(caught.value)


# Where


@pytest.mark.parametrize(
    "url", ["https://api.example.org/tasks", "https://API.example.org:8443/", "https://93.184.216.34/"]
)
def test_without_a_list_any_public_host_will_do(url):
    assert App().http_task("email:new", url=url).name == "email:new"


@pytest.mark.parametrize(
    "url",
    [
        "https://localhost/",
        "https://LOCALHOST:8443/",
        "https://app.localhost/",
        "https://127.0.0.1/",
        "https://10.1.2.3/",
        "https://192.168.1.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://0.0.0.0/",
        "https://[::1]/",
        "https://[fe80::1]/",
        "https://[fd00::1]/",
        "https://[::ffff:127.0.0.1]/",
    ],
)
def test_a_private_host_has_to_be_listed(url):
    assert "isn't public: list it" in refusal(App(), url)
    host = httpx.URL(url).host
    App(http_hosts=[host]).http_task("email:new", url=url)


def test_a_host_that_is_not_listed_is_refused():
    app = App(http_hosts=["API.example.org", "127.0.0.1"])
    app.http_task("listed", url="https://api.example.org/")
    app.http_task("without tls".replace(" ", "-"), url="http://127.0.0.1:8000/")
    assert "its host evil.example.org isn't listed" in refusal(app, "https://evil.example.org/")
    assert "isn't listed" in refusal(app, "https://api.example.org.evil.example/")


def test_a_list_of_the_definition_is_in_the_place_of_the_apps():
    app = App(http_hosts=["api.example.org"])
    app.http_task("own", url="https://other.example.org/", hosts=["other.example.org"])
    assert "isn't listed" in refusal(app, "https://api.example.org/", hosts=["other.example.org"])


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://api.example.org/", "http:// sends the payload unencrypted"),
        ("ftp://api.example.org/", "its url must be such as"),
        ("api.example.org", "its url must be such as"),
        ("https:///path", "its url must be such as"),
        ("https://[::1", "can't be read"),
        ("https://api.example.org:99999/", "can't be read"),
        ("https://api.example.org/tasks\n", "its url holds a control character"),
        ("https://api.example.org\t/", "its url holds a control character"),
        ("https://ada:secret@api.example.org/", "which would end up in logs"),
    ],
)
def test_a_url_that_will_not_do_is_refused(url, why):
    message = refusal(App(), url)
    assert "task 'email:new'" in message
    assert why in message


@pytest.mark.parametrize("hosts", ["api.example.org", ["https://api.example.org"], ["a:80"], [""], [1]])
def test_a_list_of_hosts_holds_names(hosts):
    with pytest.raises(InvalidInputError, match="host"):
        App(http_hosts=hosts)
    assert "host" in refusal(App(), "https://api.example.org/", hosts=hosts)


def test_a_peer_with_an_address_of_the_internet_is_public():
    assert is_public("93.184.216.34")
    assert is_public("2606:2800:220:1::1")
    assert not is_public("::ffff:10.0.0.1")


def test_an_address_of_ipv6_that_leads_to_a_private_one_of_ipv4_isnt_public():
    assert is_public("64:ff9b::5db8:d822")  # as a network without IPv4 has 93.184.216.34
    for address in ("64:ff9b::a00:1", "64:ff9b:1::a00:1", "2002:a00:1::", "::10.0.0.1", "224.0.0.1", "::1"):
        assert not is_public(address), address


# With what


@pytest.mark.parametrize(
    ("secret", "why"), [("text", "must be a pydantic.SecretStr"), (SecretStr(""), "its secret is empty")]
)
def test_a_secret_that_will_not_do_is_refused_and_not_shown(secret, why):
    message = refusal(App(), "https://api.example.org/", secret=secret)
    assert why in message
    assert "text" not in message.replace("text/", "")


@pytest.mark.parametrize("verify", [False, True, 1])
def test_certificates_are_always_verified(verify):
    assert "there is no way not to verify" in refusal(App(), "https://api.example.org/", verify=verify)


def test_certificates_that_cannot_be_read_are_refused(tmp_path):
    nonsense = tmp_path / "ca.pem"
    nonsense.write_text("nonsense")
    for path in (nonsense, tmp_path / "absent.pem"):
        assert "can't read certificates" in refusal(App(), "https://api.example.org/", verify=str(path))


def test_without_the_extra_the_declaration_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("asynctaskd.definitions.remote.http")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "httpx", None)
    assert "pip install 'asynctaskd[http]'" in refusal(App(), "https://api.example.org/")


def test_httpx_is_imported_by_those_who_use_it_alone():
    script = "import sys, asynctaskd; asynctaskd.App(http_hosts=['a.org']); sys.exit('httpx' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"command": "ffmpeg -i x"}, "command must be a list"),
        ({"command": []}, "command must be a list"),
        ({"command": ["ffmpeg", 1]}, "command must be a list"),
        ({"command": ["a\0b"]}, "command must be a list"),
        ({"command": ["a"], "env": {"A": 1}}, "env must be a mapping"),
        ({"command": ["a"], "env": ["A"]}, "env must be a mapping"),
        ({"command": ["a"], "env": {"A=B": "1"}}, "env can't set 'A=B'"),
        ({"command": ["a"], "env": {"ASYNCTASKD_TASK_ID": "1"}}, "env can't set"),
    ],
)
def test_a_command_that_will_not_do_is_refused(arguments, why):
    with pytest.raises(InvalidDefinitionError, match="task 'encode'") as caught:
        App().command_task("encode", **arguments)
    assert why in str(caught.value)


# As every definition


@pytest.fixture(params=["http", "command"])
def declare(request):
    def declare(app: App, name: str = "email:new", **options):
        if request.param == "http":
            return app.http_task(name, url="https://api.example.org/new?token=hidden", **options)
        return app.command_task(name, command=["mail"], **options)

    return declare


def test_the_payload_is_any_json_object(declare):
    definition = declare(App())
    assert definition.request({"any": ["thing"]}).payload == {"any": ["thing"]}
    with pytest.raises(InvalidPayloadError):
        definition.request([1])


def test_the_payload_may_have_to_fit_a_model(declare):
    definition = declare(App(), parameters=Mail)
    request = definition.request(Mail(to="ada"))
    assert json.loads(definition.dump(request.payload)) == {"to": "ada", "copies": 1}
    with pytest.raises(InvalidPayloadError, match="to: Field required"):
        definition.dump({"copies": 2})


def test_options_are_those_of_every_task(declare):
    app = App(retry="1m")
    definition = declare(app, labels=["mail"], timeout="30s")
    assert app["email:new"] is definition
    assert definition.options.labels == ("mail",)
    assert definition.retry is app.retry
    with pytest.raises(InvalidDefinitionError, match="unknown option 'labls'"):
        declare(App(), labls=["mail"])


def test_a_name_that_is_taken_is_refused_with_both_places(declare):
    app = App()
    declare(app)
    with pytest.raises(InvalidDefinitionError, match="has two functions: .*(org/new>|<program mail>)"):
        declare(app)


# Replies


class Streamed(httpx.AsyncByteStream):
    def __init__(self, body: bytes) -> None:
        self.body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.body


async def read(status: int, body: bytes = b"", **headers: str):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await result_of(httpx.Response(status, headers=named, stream=Streamed(body)))


@pytest.mark.parametrize(
    ("body", "kind", "result"),
    [
        (b'{"a": [1.5, null]}', "application/json", {"a": [1.5, None]}),
        (b"7", "Application/JSON; charset=utf-8", 7),
        (b'{"a": 1}', "application/problem+json", {"a": 1}),
        (b'{"a": 1}', "text/plain", '{"a": 1}'),
        ("é".encode("latin-1"), "text/plain; charset=iso-8859-1", "é"),
        (b"\xff", "", "\N{REPLACEMENT CHARACTER}"),
        (b"done", "text/plain; charset=klingon", "done"),
        (b"done", "text/plain; charset=base64", "done"),
        (b"done", "text/plain; charset=undefined", "done"),
        (b"", "application/json", None),
    ],
)
async def test_a_body_is_json_where_it_says_so_and_else_text(body, kind, result):
    assert await read(200, body, Content_Type=kind) == result


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
async def test_a_reply_that_is_not_compressed_may_say_so(encoding):
    assert await read(200, b"done", Content_Encoding=encoding) == "done"


async def test_an_empty_reply_is_no_result():
    assert await read(204) is None


@pytest.mark.parametrize(
    ("status", "body", "headers", "why"),
    [
        (200, b"{", {"Content_Type": "application/json"}, "JSON that can't be read"),
        (200, b"NaN", {"Content_Type": "application/json"}, "JSON that can't be read"),
        (200, b"..", {"Content_Encoding": "gzip"}, "compressed its reply"),
        (200, b"", {"Asynctaskd_Snooze": "soon"}, "can't be read: malformed duration 'soon'"),
        (404, b"nothing\xff", {}, "answered 404: nothing\N{REPLACEMENT CHARACTER}"),
        (410, b"", {}, "answered 410"),
        (422, b"", {}, "answered 422"),
        (503, b"", {}, "answered 503"),
        (429, b"", {"Retry_After": "whenever"}, "answered 429"),
        (429, b"", {"Retry_After": "Mon, 01 Jan 2126 00:00:00 +99999999999999999"}, "answered 429"),
        (500, b"", {"Retry_After": "30"}, "answered 500"),
        (101, b"", {}, "answered 101"),
    ],
)
async def test_what_is_no_success_is_an_error(status, body, headers, why):
    with pytest.raises(RemoteTaskError, match=why.replace("'", ".")):
        await read(status, body, **headers)


@pytest.mark.parametrize("status", [200, 400, 500])
async def test_headers_decide_before_the_status_and_terminate_before_all(status):
    all_of_them = {
        "Asynctaskd_Error": "error",
        "Asynctaskd_Retry_Quietly": "quiet",
        "Asynctaskd_Snooze": "90s",
        "Asynctaskd_Terminate": "enough",
    }
    for kind, name in [
        (FatalTaskError, "Asynctaskd_Terminate"),
        (SnoozeTask, "Asynctaskd_Snooze"),
        (RetryQuietlyError, "Asynctaskd_Retry_Quietly"),
        (RemoteTaskError, "Asynctaskd_Error"),
    ]:
        with pytest.raises(kind):
            await read(status, **all_of_them)
        del all_of_them[name]


@pytest.mark.parametrize(
    ("retry_after", "least", "most"),
    [
        ("120", 120, 120),
        ("0", 1, 1),
        ("999999999", 86_400, 86_400),
        (format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True), 6_000, 7_200),
        (format_datetime(datetime.now(UTC) - timedelta(hours=2), usegmt=True), 1, 1),
    ],
    ids=["seconds", "none", "decades", "future", "past"],
)
async def test_retry_after_is_a_snooze_of_a_second_to_a_day(retry_after, least, most):
    with pytest.raises(SnoozeTask) as caught:
        await read(429, Retry_After=retry_after)
    assert timedelta(seconds=least) <= caught.value.delay <= timedelta(seconds=most)


# Signatures


@pytest.mark.parametrize("secret", ["s", SecretStr("s")])
def test_a_signature_is_of_the_body_the_time_and_the_secret(secret):
    signature = sign(secret, BODY, 1_000)
    verify_signature("s", signature, BODY, now=1_000)
    for wrong in [
        ("other", signature, BODY),
        ("s", signature, BODY + b" "),
        ("s", signature.replace("t=1000", "t=1001"), BODY),
    ]:
        with pytest.raises(InvalidSignatureError, match="is not that of its body and this secret"):
            verify_signature(*wrong, now=1_000)


@pytest.mark.parametrize("secret", ["", SecretStr("")])
def test_nothing_is_signed_or_verified_with_an_empty_secret(secret):
    with pytest.raises(InvalidInputError, match="empty"):
        sign(secret, BODY, 1_000)
    with pytest.raises(InvalidInputError, match="empty"):
        verify_signature(secret, f"t=1000,v1={'0' * 64}", BODY, now=1_000)


def test_a_signature_is_what_others_can_compute_too():
    # printf '1000.{"id": 1}' | openssl dgst -sha256 -hmac s
    digest = "9f11ef3db5693b65e7b5b4c757e89ac48fd345cd4bd708fccec3b5a024613a7e"
    assert sign("s", BODY, 1_000) == f"t=1000,v1={digest}"


@pytest.mark.parametrize("now", [1_000 + 301, 1_000 - 301])
def test_an_old_signature_and_one_of_the_future_are_refused(now):
    signature = sign("s", BODY, 1_000)
    with pytest.raises(InvalidSignatureError, match="more than the tolerance"):
        verify_signature("s", signature, BODY, now=now)
    verify_signature("s", signature, BODY, tolerance="10m", now=now)


def test_while_a_secret_is_replaced_there_may_be_two_signatures():
    both = sign("old", BODY, 1_000) + "," + sign("new", BODY, 1_000).partition(",")[2]
    for secret in ("old", "new"):
        verify_signature(secret, both, BODY, now=1_000)
    with pytest.raises(InvalidSignatureError):
        verify_signature("third", both, BODY, now=1_000)


@pytest.mark.parametrize("signature", [None, "", "v1=00", "t=1000", "t=x,v1=" + "0" * 64, "t=1000,v1=é"])
def test_a_signature_that_is_missing_or_malformed_is_refused(signature):
    with pytest.raises(InvalidSignatureError, match="no well-formed"):
        verify_signature("s", signature, BODY, now=1_000)
