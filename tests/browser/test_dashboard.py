"""The dashboard in a real browser: for everybody's eyes, by keyboard, without scripts, and live."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from asynctaskd.telemetry import attach
from asynctaskd.web.dashboard import dashboard
from asynctaskd.web.dashboard.access import Role, Token, Tokens
from asynctaskd.web.server import serving
from tests.browser.install import AXE

PAGES = (
    "/", "/tasks", "/tasks?status=failed", "/tasks?name=nobody", "/tasks/902653", "/bulk/cancel?label=mail",
    "/groups", "/workers", "/schedules", "/schedules/mail.digest", "/configuration",
    "/configuration/change?weights.mail=9", "/audit", "/nowhere", "/tasks?since=noon",
)  # fmt: skip
FOCUSABLE = "a[href], button, input:not([type=hidden]), select, textarea, [tabindex='0']"
PATIENCE = 20.0

Open = Callable[..., Any]


def until(tab: Any, condition: str) -> None:
    """Until something holds on a page, which tells nobody."""
    ends_at = time.monotonic() + PATIENCE
    while not tab.run(condition):
        assert time.monotonic() < ends_at, f"never: {condition}"
        time.sleep(0.05)


def violations(tab: Any) -> list[str]:
    """What axe finds, each with what it is about."""
    tab.run(f"{AXE.read_text('utf8')}; 0")
    found = tab.run("axe.run(document, {resultTypes: ['violations']}).then(found => found.violations)")
    return [f"{one['id']}: {node['html'][:160]}" for one in found for node in one["nodes"]]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing_and_nothing_sticks_out(open_tab: Open, url: str, width: int, theme: str) -> None:
    tab = open_tab(width=width, theme=theme)
    for path in PAGES:
        tab.go(f"{url}{path}")
        assert violations(tab) == [], path
        assert tab.run("document.documentElement.scrollWidth - innerWidth") <= 0, path
        background = tab.run("getComputedStyle(document.body).backgroundColor")
        assert background == {"light": "rgb(245, 246, 248)", "dark": "rgb(16, 20, 27)"}[theme]
    refused = [text for text in tab.complaints() if "404" not in text and "422" not in text]
    assert refused == []


def test_the_keyboard_reaches_everything_the_content_first(open_tab: Open, url: str) -> None:
    tab = open_tab()
    for path in PAGES:
        tab.go(f"{url}{path}")
        if path == "/":
            tab.run("document.getElementById('live').click()")  # so that nothing is replaced meanwhile
        tab.run(
            f"window.all = [...document.querySelectorAll(`{FOCUSABLE}`)].filter(one => one.checkVisibility())"
        )
        tab.run("window.seen = new Set(); document.activeElement.blur()")
        for _ in range(tab.run("all.length")):
            tab.press("Tab")
            tab.run("seen.add(document.activeElement)")
        missed = tab.run("all.filter(one => !seen.has(one)).map(one => one.outerHTML.slice(0, 200))")
        assert missed == [], path
        outlines = tab.run("getComputedStyle([...seen].pop()).outlineStyle")
        assert outlines != "none", path
    tab.go(f"{url}/tasks")
    tab.press("Tab")
    assert tab.run("document.activeElement.textContent") == "Skip to the content"
    tab.press("Enter")
    assert tab.run("document.activeElement.id") == "main"


def test_a_slash_searches_and_j_and_k_go_through_the_rows(open_tab: Open, url: str) -> None:
    tab = open_tab()
    tab.go(f"{url}/tasks?status=failed")
    rows = tab.run(
        "[...document.querySelectorAll('table.rows tbody tr')].map(row => row.cells[0].textContent)"
    )
    for keys, expected in (("j", 0), ("jj", 2), ("k", 1)):
        for key in keys:
            tab.press(key)
        assert tab.run("document.activeElement.textContent") == rows[expected]
    tab.press("/")
    assert tab.run("document.activeElement.name") == "name"
    tab.press("j")
    assert tab.run("document.activeElement.value") == "j"


def test_without_scripts_everything_is_there_and_forms_work(open_tab: Open, url: str) -> None:
    tab = open_tab(scripts=False)
    tab.go(f"{url}/")
    assert tab.run("document.querySelectorAll('.chart rect').length") > 30
    assert (
        tab.run("[...document.querySelectorAll('button')].filter(one => one.checkVisibility()).length") == 0
    )
    tab.go(f"{url}/tasks?status=paused")
    tab.run("document.querySelector('.rows tbody a').focus()")
    tab.press("Enter")
    tab.loaded()
    assert tab.run("document.querySelector('h1').textContent").endswith(
        tab.run("location.pathname.split('/')[2]")
    )
    tab.run(
        "[...document.querySelectorAll('.actions button')].find(one => one.textContent == 'Resume').focus()"
    )
    tab.press("Enter")
    tab.loaded()
    assert tab.run("location.pathname").startswith("/commands/")
    assert "1 changed" in tab.run("document.querySelector('.notice').textContent")


def test_the_overview_lives_and_holds_still_when_told(open_tab: Open, url: str) -> None:
    tab = open_tab()
    tab.go(f"{url}/")
    tab.run("document.querySelector('.tiles').dataset.old = '1'")
    until(tab, "!document.querySelector('.tiles').dataset.old")
    tab.run("document.getElementById('live').click()")
    assert tab.run("document.getElementById('live').textContent") == "Paused"
    tab.run("window.asked = 0; window.refused = 0")
    tab.run("document.addEventListener('htmx:beforeSend', () => { asked += 1; })")
    tab.run("document.addEventListener('htmx:beforeRequest', one => { refused += one.defaultPrevented; })")
    until(tab, "refused > 0")
    assert tab.run("asked") == 0
    tab.run("document.getElementById('live').click()")
    until(tab, "asked > 0")


def test_the_theme_that_was_chosen_stays(open_tab: Open, url: str) -> None:
    tab = open_tab(theme="light")
    tab.go(f"{url}/audit")
    for expected in ("light", "dark"):
        tab.run("document.getElementById('theme').click()")
        assert tab.run("document.documentElement.dataset.theme") == expected
    tab.go(f"{url}/workers")
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(16, 20, 27)"
    assert violations(tab) == []


def test_somebody_logs_in_and_out_and_a_form_of_another_page_is_refused(
    open_tab: Open, fleet_dsn: str
) -> None:
    told: dict[str, Any] = {}
    detach = attach(told.__setitem__, "http.serving")
    tokens = Tokens([Token("ada", Role.WRITE, "the secret of ada")])
    with serving(dashboard(fleet_dsn, tokens=tokens, may_write=True), "127.0.0.1", 0):
        url = f"http://127.0.0.1:{told['http.serving']['port']}"
        tab = open_tab()
        tab.go(f"{url}/tasks/902653")
        assert tab.run("document.activeElement.name") == "token"
        assert violations(tab) == []
        tab.run("document.activeElement.value = 'the secret of ada'")
        tab.press("Enter")
        tab.loaded()
        assert tab.run("location.pathname") == "/tasks/902653"
        form = tab.run("document.querySelector('.actions form').outerHTML")
        # The same form on a page of somebody else's: the cookie stays at home, and the origin is another one.
        foreign = form.replace('action="', f'action="{url}')
        tab.go("data:text/html,<p>Click here")
        tab.run(f"document.body.innerHTML = {json.dumps(foreign)}; document.querySelector('form').submit()")
        tab.loaded()
        assert "this request comes from another page" in tab.run("document.body.textContent")
        tab.go(f"{url}/audit")
        assert tab.run("document.querySelector('.who .tag').textContent").startswith("ada")
        tab.run("document.querySelector('.who form button').click()")
        tab.loaded()
        assert tab.run("location.pathname") == "/login"
    detach()
