"""Who may see the dashboard, who may change something, and what is refused to whom."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path

import httpx
import pytest
from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.routing import Mount, Route
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from asynctaskd.config import load_config
from asynctaskd.errors import ConfigError
from asynctaskd.telemetry import attach
from asynctaskd.web.dashboard import dashboard
from asynctaskd.web.dashboard.access import Attempts, Role, Token, Tokens, is_loopback
from asynctaskd.web.dashboard.configured import configured
from asynctaskd.web.dashboard.token_file import CurrentTokens, read_tokens
from asynctaskd.web.dashboard.visitors import COOKIE, LIFETIME
from tests.support.browser import csrf_in

READ, WRITE = "the secret of who reads", "the secret of who writes"
HOST = "http://localhost"
ID = 1
UUID = "00000000-0000-4000-8000-000000000000"
FORMS = {
    "/bulk/{action}": {"status": "pending", "newest": "999999"},
    "/configuration/change": {"default_weight": "7"},
    "/configuration/rollback": {"version": "0"},
}


def tokens() -> Tokens:
    return Tokens([Token("rita", Role.READ, READ), Token("will", Role.WRITE, WRITE)])


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def routes() -> list[Route]:
    """Every route there is, found in the application itself."""
    found = [route for route in dashboard("postgresql://nowhere/").routes if not isinstance(route, Mount)]
    assert all(isinstance(route, Route) for route in found)
    return [route for route in found if isinstance(route, Route)]


def address(route: Route) -> str:
    """A path of that route."""
    values = {"action": "cancel", "task_id": str(ID), "request_id": UUID, "name": "nightly"}
    return re.sub(r"\{(\w+)(:\w+)?\}", lambda found: values[found[1]], route.path)


READING = [route for route in routes() if "GET" in (route.methods or ()) and route.name != "login"]
CHANGES = [route for route in routes() if "POST" in (route.methods or ())]
WITHIN = [route for route in CHANGES if route.name not in ("log_in", "log_out")]


def of(found: list[Route]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("route", found, ids=[str(route.name) for route in found])


async def nothing_happened(pool) -> bool:
    counts = await pool.fetchrow(
        "SELECT (SELECT count(*) FROM asynctaskd.audit), (SELECT count(*) FROM asynctaskd.commands),"
        " (SELECT count(*) FROM asynctaskd.tasks WHERE name = 'updateWorkerRuntimeConfig'),"
        " (SELECT count(*) FROM asynctaskd.schedules WHERE paused_at IS NOT NULL)"
    )
    return tuple(counts) == (0, 0, 0, 0)


@pytest.fixture
async def something(pool) -> None:
    """One task, number 1, and a schedule: whatever is asked for could be done."""
    await pool.execute("SELECT asynctaskd.enqueue('x')")
    await pool.execute(
        "INSERT INTO asynctaskd.schedules (name, task, expression) VALUES ('nightly', 'x', '@daily')"
    )


# The matrix: every page and every change × everybody


def test_no_route_both_reads_and_changes():
    assert len(WITHIN) == 8
    assert all(route.methods in ({"GET", "HEAD"}, {"POST"}) for route in routes())


@of(READING)
async def test_a_page_is_shown_to_those_with_a_token_and_to_nobody_else(browse, something, route):
    for secret in (READ, WRITE):
        answer = await (await browse(tokens=tokens(), headers=bearer(secret))).http.get(address(route))
        assert answer.status_code in (200, 404, 422)
        assert "Log in" not in answer.text
    stranger = await browse(tokens=tokens())
    answer = await stranger.http.get(address(route))
    assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/login")
    for secret in ("", "x", READ + "x", READ[:-1], f"{READ} {WRITE}"):
        wrong = await browse(tokens=tokens(), headers={"Accept": "*/*", **bearer(secret)})
        answer = await wrong.http.get(address(route))
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert (await stranger.http.get("/static/dashboard.css")).status_code == 200


@of(WITHIN)
async def test_a_change_is_for_those_who_may_write_alone(browse, pool, something, route):
    fields = FORMS.get(route.path, {})
    for options, headers in (
        ({"tokens": tokens(), "may_write": True}, {}),
        ({"tokens": tokens(), "may_write": True}, bearer("x")),
        ({"tokens": tokens(), "may_write": True}, bearer(READ)),
        ({"tokens": tokens(), "may_write": False}, bearer(WRITE)),
        ({"may_write": False}, {}),
    ):
        browser = await browse(headers=headers, **options)
        await browser.http.get("/login" if "tokens" in options else "/")
        given = fields if headers else {"csrf": browser.csrf, **fields}
        answer = await browser.http.post(address(route), data=given, headers={"Origin": HOST})
        assert answer.status_code in (401, 403)
        assert await nothing_happened(pool)
    writer = await browse(tokens=tokens(), may_write=True, headers=bearer(WRITE))
    answer = await writer.http.post(address(route), data=fields)
    assert answer.status_code in (303, 409), answer.text


@of(CHANGES)
@pytest.mark.parametrize(
    ("csrf", "headers"),
    [
        (False, {"Origin": HOST}),
        ("wrong", {"Origin": HOST}),
        ("another's", {"Origin": HOST}),
        (True, {}),
        (True, {"Origin": "https://evil.example"}),
        (True, {"Origin": "http://localhost:9481"}),
        (True, {"Origin": "https://localhost"}),
        (True, {"Origin": "http://localhost.evil.example"}),
        (True, {"Origin": "null"}),
        (True, {"Origin": HOST, "Sec-Fetch-Site": "cross-site"}),
        (True, {"Sec-Fetch-Site": "same-site"}),
        (True, {"Sec-Fetch-Site": "none"}),
    ],
    ids=str,
)
async def test_a_change_without_its_token_or_from_elsewhere_is_refused(
    browse, pool, something, route, csrf, headers
):
    browser = await browse(may_write=True, tokens=tokens() if route.name == "log_in" else None)
    await browser.http.get("/login" if route.name == "log_in" else "/")
    other = await browse(may_write=True)
    await other.http.get("/")
    given = {True: browser.csrf, False: None, "wrong": "x", "another's": other.csrf}[csrf]
    fields = FORMS.get(route.path, {}) | {"token": WRITE} | ({} if given is None else {"csrf": given})
    before = dict(browser.http.cookies)
    answer = await browser.http.post(address(route), data=fields, headers=headers)
    assert answer.status_code == 403
    assert dict(browser.http.cookies) == before
    assert await nothing_happened(pool)


async def test_a_bearer_token_is_no_excuse_for_a_foreign_page(browse, pool, something):
    browser = await browse(tokens=tokens(), may_write=True, headers=bearer(WRITE))
    answer = await browser.http.post("/tasks/1/cancel", headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    assert await nothing_happened(pool)


@pytest.mark.parametrize(
    ("proxy", "origin", "status"),
    [("127.0.0.1", "https://localhost", 303), ("127.0.0.1", HOST, 403),
     ("192.0.2.1", "https://localhost", 403), ("192.0.2.1", HOST, 303)],
)  # fmt: skip
async def test_behind_a_proxy_that_is_trusted_the_scheme_is_what_it_says(
    browse, something, proxy, origin, status
):
    site = (await browse(tokens=tokens(), may_write=True)).site
    behind = ProxyHeadersMiddleware(site, trusted_hosts="127.0.0.1")  # as the server does
    headers = {"X-Forwarded-Proto": "https", "Origin": origin, **bearer(WRITE)}
    transport = httpx.ASGITransport(behind, client=(proxy, 1))
    async with httpx.AsyncClient(transport=transport, base_url=HOST, headers=headers) as http:
        assert (await http.post("/tasks/1/cancel")).status_code == status


# What protects every answer


@pytest.mark.parametrize(
    "path", ["/", "/login", "/nowhere", "/tasks/1", "/static/dashboard.css", "/static/no"]
)
async def test_every_answer_has_the_headers_that_protect_it(browse, path):
    headers = (await (await browse(tokens=tokens())).http.get(path)).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert ("no-store" in headers["cache-control"]) == (path != "/static/dashboard.css")


async def test_no_page_has_scripts_or_styles_of_its_own(browse, fleet):
    browser = await browse(may_write=True, shows_payloads=True)
    for path in ("/", "/tasks", "/tasks/902653", "/groups", "/configuration"):
        page = await browser.text(path)
        assert re.findall(r"<script(?! src)|<style|\sstyle=|\son\w+=|javascript:", page) == []
        assert re.findall(r'(?:src|href)="(?:https?:)?//', page) == []


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("localhost:9480", 200), ("127.0.0.1:1", 200), ("[::1]:80", 200), ("LOCALHOST", 200),
     ("ops.example", 200), ("evil.example", 403), ("localhost.evil.example", 403), ("", 403),
     ("127.0.0.1.nip.io", 403), ("[::1", 403)],
)  # fmt: skip
async def test_only_names_of_this_machine_lead_to_a_dashboard_without_tokens(database, host, status):
    config = load_config(None, {"ASYNCTASKD_DASHBOARD_HOSTS": "ops.example"}, {})
    site = configured(config, database.dsn, host="127.0.0.1", may_write=False)
    asking = httpx.AsyncClient(transport=httpx.ASGITransport(site), base_url=HOST)
    async with site.router.lifespan_context(site), asking as http:
        assert (await http.get("/audit", headers={"Host": host})).status_code == status


async def test_a_host_or_origin_that_is_no_address_is_refused(browse, pool, something):
    browser = await browse(tokens=tokens(), may_write=True)
    await browser.log_in(WRITE)
    assert (await browser.http.get("/audit", headers={"Host": "[::1"})).status_code == 403
    answer = await browser.http.post("/tasks/1/cancel", headers={"Origin": "http://[::1"})
    assert answer.status_code == 403
    assert await nothing_happened(pool)


@pytest.mark.parametrize("address", ["/tasks/", "/tasks?id=", "/audit?before="])
async def test_a_number_that_nobody_can_read_is_no_error_of_ours(browse, address):
    browser = await browse()
    assert (await browser.http.get(address + 5000 * "9")).status_code == 403


@pytest.mark.parametrize("address", ["/tasks/{}", "/changes/{}"])
async def test_an_id_that_no_task_can_have_is_that_of_no_task(browse, address):
    browser = await browse()
    for number in (2**63 - 1, 2**63, 10**20 - 1):
        assert (await browser.http.get(address.format(number))).status_code == 404


async def test_no_task_of_such_an_id_is_changed(browse):
    browser = await browse(may_write=True)
    await browser.text("/audit")
    assert (await browser.post(f"/tasks/{10**20 - 1}/cancel")).status_code == 404


@pytest.mark.parametrize(
    "address",
    ["/tasks?name=%00", "/tasks?label=a,%00b", "/tasks?since=%00", "/bulk/cancel?tag=%00", "/schedules/%00",
     "/login?to=%00"],
)  # fmt: skip
async def test_an_address_with_a_nul_is_refused_before_anybody_reads_it(browse, address):
    answer = await (await browse()).http.get(address)
    assert (answer.status_code, answer.text) == (400, "this address has a NUL in it, which is in no text\n")


async def test_a_form_with_a_nul_is_refused(browse, pool, something):
    browser = await browse(may_write=True)
    await browser.text("/audit")
    assert (await browser.post("/bulk/cancel", name="\0", newest="9")).status_code == 400
    assert await nothing_happened(pool)


async def test_a_form_that_is_too_long_isnt_read(browse, pool, something):
    browser = await browse(may_write=True)
    await browser.http.get("/")
    answer = await browser.post("/tasks/1/cancel", more="x" * 70_000)
    assert answer.status_code == 413

    async def pieces():
        yield b"csrf="

    answer = await browser.http.post("/tasks/1/cancel", content=pieces(), headers={"Origin": HOST})
    assert answer.status_code == 411
    assert await nothing_happened(pool)


# Logging in


async def test_a_token_opens_a_session_of_its_role_and_it_ends(browse, pool, something):
    browser = await browse(tokens=tokens(), may_write=True)
    answer = await browser.log_in(WRITE, to="/tasks?status=failed")
    assert (answer.status_code, answer.headers["location"]) == (303, "/tasks?status=failed")
    for flag in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert flag in answer.headers["set-cookie"]
    assert "will" in await browser.text("/audit")
    assert (await browser.post("/tasks/1/cancel")).status_code == 303
    assert await pool.fetchval("SELECT actor FROM asynctaskd.audit") == "will"
    assert (await browser.post("/logout")).status_code == 303
    assert (await browser.http.get("/audit")).status_code == 303


async def test_a_session_of_a_role_that_reads_changes_nothing(browse, pool, something):
    browser = await browse(tokens=tokens(), may_write=True)
    await browser.log_in(READ)
    assert "read only" in await browser.text("/audit")
    assert (await browser.post("/tasks/1/cancel")).status_code == 403
    assert await nothing_happened(pool)


async def test_over_https_the_cookie_is_for_https_alone(browse):
    browser = await browse(tokens=tokens())
    answer = await browser.http.get("https://localhost/login")
    assert "Secure" in answer.headers["set-cookie"]
    assert "Secure" not in (await browser.http.get("/login", headers={"Cookie": ""})).headers.get(
        "set-cookie", ""
    )


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example", "/\\evil.example", "/\tx", "x", ""])
async def test_a_login_leads_to_a_page_of_ours_alone(browse, to):
    answer = await (await browse(tokens=tokens())).log_in(READ, to=to)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


async def test_who_tries_many_tokens_has_to_wait(browse):
    browser = await browse(tokens=tokens())
    answers = [(await browser.log_in(f"wrong {nth}")).status_code for nth in range(7)]
    assert answers == [401] * 5 + [429] * 2
    assert (await browser.log_in(READ)).status_code == 429


async def test_wrong_bearer_tokens_count_too(browse):
    browser = await browse(tokens=tokens())
    for _ in range(5):
        assert (await browser.http.get("/audit", headers={"Accept": "*/*", **bearer("x")})).status_code == 401
    answer = await browser.http.get("/audit", headers={"Accept": "*/*", **bearer(READ)})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    answer = await browser.http.post("/tasks/1/cancel", headers=bearer(WRITE))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")


async def test_strangers_who_try_many_tokens_lock_nobody_else_out(browse):
    site = (await browse(tokens=tokens())).site

    async def statuses(address: str, secret: str, times: int) -> set[int]:
        transport = httpx.ASGITransport(site, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url=HOST, headers=bearer(secret)) as http:
            return {(await http.get("/audit", headers={"Accept": "*/*"})).status_code for _ in range(times)}

    for nth in range(1, 14):
        assert await statuses(f"192.0.2.{nth}", "x", 8) == {401, 429}
    assert await statuses("192.0.2.99", READ, 1) == {200}
    assert await statuses("192.0.2.1", READ, 1) == {429}
    somebody = await browse(tokens=tokens())
    assert (await somebody.log_in(READ)).status_code == 303


def test_wrong_tokens_are_forgotten_after_a_minute(monkeypatch):
    attempts, now = Attempts(), time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for _ in range(5):
        attempts.note("a")
    assert attempts.is_too_many("a")
    assert not attempts.is_too_many("b")
    now += 61
    assert not attempts.is_too_many("a")


@pytest.mark.parametrize(
    ("another", "is_same"),
    [
        ("2001:db8::2", True),
        ("2001:db8:0:0:ffff::1", True),
        ("2001:db8:0:1::1", False),
        ("192.0.2.1", False),
    ],
)
def test_addresses_of_one_ipv6_network_count_as_one(another, is_same):
    attempts = Attempts()
    for nth in range(5):
        attempts.note(f"2001:db8::{nth + 3:x}")
    assert attempts.is_too_many(another) == is_same


def test_an_ipv4_address_in_the_guise_of_ipv6_counts_for_itself():
    attempts = Attempts()
    for _ in range(5):
        attempts.note("::ffff:192.0.2.1")
    assert attempts.is_too_many("192.0.2.1")
    assert not attempts.is_too_many("::ffff:192.0.2.2")


async def test_a_session_is_worth_nothing_once_it_is_old_forged_or_its_token_gone(browse, monkeypatch):
    browser = await browse(tokens=tokens())
    await browser.log_in(READ)
    cookie = browser.http.cookies[COOKIE]
    for other in (
        Tokens([Token("rita", Role.READ, "another secret of hers")]),
        tokens().and_those(Tokens([Token("x", Role.READ, "y" * 16)])),
    ):
        answer = await (await browse(tokens=other, headers={"Cookie": f"{COOKIE}={cookie}"})).http.get(
            "/audit"
        )
        assert answer.status_code == 303
    same = await browse(tokens=tokens(), headers={"Cookie": f"{COOKIE}={cookie}"})
    assert (await same.http.get("/audit")).status_code == 200
    forged = await browse(tokens=tokens(), headers={"Cookie": f"{COOKIE}={cookie[:-2]}xx"})
    assert (await forged.http.get("/audit")).status_code == 303
    later = time.time() + LIFETIME + 5
    monkeypatch.setattr(time, "time", lambda: later)
    assert (await browser.http.get("/audit")).status_code == 303


async def test_the_cookie_of_a_stranger_is_no_quick_way_to_try_tokens(browse):
    browser = await browse(tokens=tokens())
    await browser.text("/login")
    key = hashlib.sha256(f"read rita {READ}\nwrite will {WRITE}".encode()).digest()
    with pytest.raises(BadData):
        URLSafeTimedSerializer(key, salt="asynctaskd.dashboard").loads(browser.http.cookies[COOKIE])
    began = time.process_time()
    assert tokens().session_key == tokens().session_key
    assert time.process_time() - began > 0.01


async def test_dashboards_at_two_ports_leave_each_others_forms_alone(browse, pool, something):
    sites = {port: (await browse(may_write=True)).site for port in (9400, 9401)}
    mounts = {f"http://localhost:{port}": httpx.ASGITransport(site) for port, site in sites.items()}
    async with httpx.AsyncClient(mounts=mounts) as http:
        forms = {port: csrf_in((await http.get(f"http://localhost:{port}/tasks/1")).text) for port in sites}
        for port, csrf in forms.items():
            origin = f"http://localhost:{port}"
            answer = await http.post(
                f"{origin}/tasks/1/cancel", data={"csrf": csrf}, headers={"Origin": origin}
            )
            assert answer.status_code == 303


# Tokens, and where it may be served


def test_tokens_are_lines_of_role_name_and_secret():
    text = f"# who\n\nread rita {READ.replace(' ', '-')}\n  write will@home {WRITE.replace(' ', '-')}  \n"
    found = Tokens.read(text, "here")
    token = found.by_secret(WRITE.replace(" ", "-"))
    assert token is not None
    assert (token.name, token.role) == ("will@home", "write")
    assert found.by_secret("") is None
    assert WRITE.replace(" ", "-") not in repr(token)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no token"),
        ("# nobody", "holds no token"),
        ("admin ada 0123456789abcdef", "line 1: write ROLE NAME SECRET"),
        ("read ada 0123456789abcde", "line 1: the secret must have at least 16 characters"),
        ("read a/b 0123456789abcdef", "line 1: write ROLE"),
        ("read ada", "line 1: write ROLE"),
        ("read ada 0123456789abcdef\nwrite ada 0123456789abcdeg", "have one name"),
        ("read ada 0123456789abcdef\nwrite bob 0123456789abcdef", "have one secret"),
    ],
)
def test_a_token_that_breaks_a_rule_is_refused_without_being_quoted(text, told):
    with pytest.raises(ConfigError, match=re.escape(told)) as refused:
        Tokens.read(text, "the file")
    assert "0123456789" not in str(refused.value)


def test_tokens_come_from_a_file_and_from_a_variable(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("read rita 0123456789abcdef\n")
    environ = {
        "ASYNCTASKD_DASHBOARD_TOKEN_FILE": str(path),
        "ASYNCTASKD_DASHBOARD_TOKENS": "write will fedcba9876543210",
    }
    config = load_config(None, environ, {}).dashboard
    assert "fedcba" not in repr(config)
    found = read_tokens(config)
    assert {one.name for one in (found.by_name("rita"), found.by_name("will")) if one} == {"rita", "will"}
    path.unlink()
    with pytest.raises(ConfigError, match="can't be read"):
        read_tokens(config)


@pytest.fixture
def token_file(tmp_path, monkeypatch):
    """A file, and what it does to who is let in: `write` it, and the next request looks at it."""
    monkeypatch.setattr("asynctaskd.web.dashboard.token_file._PAUSE", 0.0)
    path = tmp_path / "tokens"
    path.write_text("read rita 0123456789abcdef\n")
    return path


@pytest.fixture
def current(token_file):
    return CurrentTokens(
        load_config(None, {"ASYNCTASKD_DASHBOARD_TOKEN_FILE": str(token_file)}, {}).dashboard
    )


@pytest.fixture
def told():
    """What the log was told of the file."""
    found = []
    detach = attach(
        lambda event, facts: found.append((event, facts.get("error", ""))),
        "dashboard_tokens.read",
        "dashboard_tokens.refused",
    )
    yield found
    detach()


def replaced(path, text):
    """As a secret store does it."""
    (path.parent / "new").write_text(text)
    (path.parent / "new").replace(path)


@pytest.mark.parametrize("write", [Path.write_text, replaced])
async def test_a_token_file_that_changes_is_read_again(browse, token_file, current, told, write):
    browser = await browse(tokens=current)
    await browser.log_in("0123456789abcdef")
    assert (await browser.http.get("/audit")).status_code == 200
    write(token_file, "read rita fedcba9876543210\n")
    assert (await browser.http.get("/audit")).status_code == 303, "her session ended with her token"
    assert (await browser.log_in("0123456789abcdef")).status_code == 401
    assert (await browser.log_in("fedcba9876543210")).status_code == 303
    assert told == [("dashboard_tokens.read", "")]


async def test_who_logs_in_while_their_token_is_taken_back_has_no_session(browse):
    new = Tokens.read("read rita fedcba9876543210", "")
    now = []

    class Old(Tokens):
        def by_secret(self, given):
            now.append(new)
            return super().by_secret(given)

    now.append(Old.read("read rita 0123456789abcdef", ""))
    browser = await browse(tokens=lambda: now[-1])
    assert (await browser.log_in("0123456789abcdef")).status_code == 303
    assert (await browser.http.get("/audit")).status_code == 303, "asked to log in"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.write_text(""), "holds no token"),
        (lambda path: path.write_text("read rita fedcba"), "at least 16 characters"),
        (lambda path: path.write_bytes(b"read rita \xff"), "can't be read"),
        (Path.unlink, "can't be read"),
    ],
)
async def test_a_token_file_that_is_spoiled_changes_nothing_and_the_log_says_why_once(
    browse, token_file, current, told, spoil, why
):
    browser = await browse(tokens=current, headers=bearer("0123456789abcdef"))
    spoil(token_file)
    for _ in range(3):
        assert (await browser.http.get("/audit")).status_code == 200
    [(event, error)] = told
    assert event == "dashboard_tokens.refused"
    assert why in error
    token_file.write_text("read rita fedcba9876543210\n")
    answer = await browser.http.get("/audit", headers={"Accept": "*/*"})
    assert answer.status_code == 401


def test_a_token_file_is_read_again_though_its_times_stand_still(token_file, current, monkeypatch):
    times = token_file.stat()
    monkeypatch.setattr(Path, "stat", lambda *_, **__: times)
    for text, name in (("", "rita"), ("read will fedcba9876543210\n", "will")):
        token_file.write_text(text)
        assert current().by_name(name) is not None


def test_a_token_file_is_looked_at_once_a_second_at_most(token_file, current, monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr("asynctaskd.web.dashboard.token_file._PAUSE", 1.0)
    current()
    token_file.write_text("read will fedcba9876543210\n")
    assert current().by_name("will") is None
    now += 1.1
    assert current().by_name("will") is not None


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.org", False),
     ("localhost.example", False)],
)  # fmt: skip
def test_an_address_is_this_machines_alone_or_it_isnt(host, expected):
    assert is_loopback(host) is expected


def test_where_others_reach_it_there_have_to_be_tokens():
    config = load_config(None, {}, {})
    with pytest.raises(ConfigError, match="could be reached by anybody"):
        configured(config, "postgresql://nowhere/", host="0.0.0.0", may_write=False)
    config = load_config(None, {"ASYNCTASKD_DASHBOARD_TOKENS": "read ada 0123456789abcdef"}, {})
    configured(config, "postgresql://nowhere/", host="0.0.0.0", may_write=False)
