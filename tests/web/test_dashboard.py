"""The dashboard's pages: what they show, and what they keep to themselves."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta

import asyncpg
import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Mount

from asynctaskd import App, Client, Cron
from asynctaskd.control.browsing import TaskFilter
from asynctaskd.task import TaskStatus
from asynctaskd.web.dashboard import dashboard
from asynctaskd.web.dashboard.desk import Desk

PAGES = (
    "/", "/tasks", "/tasks/902653", "/bulk/cancel?label=mail", "/groups", "/workers", "/schedules",
    "/schedules/mail.digest", "/configuration", "/configuration/change?weights.mail=9", "/audit",
)  # fmt: skip
RUNNING = 902_653  # of the fleet: it has children, and a task waits for it
HOSTILE = "<script>alert('&\"')</script>"
NO_TIME = timedelta()


def rows_in(page: str) -> list[int]:
    """The tasks that a page lists."""
    return [int(one) for one in re.findall(r'<td class="n"><a href="/tasks/(\d+)">', page)]


def older_in(page: str) -> str | None:
    found = re.search(r'rel="next" href="([^"]+)"', page)
    return found and found[1].replace("&amp;", "&")


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_answers_with_a_fleet_at_work(browse, fleet, path):
    for options in ({}, {"may_write": True, "shows_payloads": True}):
        page = await (await browse(**options)).text(path)
        assert page.count("<h1>") == 1
        assert "</html>" in page


@pytest.mark.parametrize(
    "path", ["/", "/tasks", "/groups", "/workers", "/schedules", "/configuration", "/audit"]
)
async def test_every_page_answers_where_nothing_ever_happened(browse, path):
    assert "</html>" in await (await browse(may_write=True)).text(path)


async def test_the_overview_says_what_needs_a_look(browse, fleet):
    page = await (await browse()).text("/")
    for told in (
        'app-3:4114 is blocked for 7.4 s by\n    <a href="/tasks/902653">media.transcode</a>',
        "1 of 6 workers don’t apply",
        "media is at its limit: 13 of 8 run",
        "the label reports is paused",
    ):
        assert told in page
    assert "No worker is live" not in page


async def test_the_overview_asks_for_its_live_part_alone(browse, fleet):
    browser = await browse()
    page = await browser.text("/")
    assert 'hx-get="/" hx-trigger="every 2s"' in page
    part = (await browser.http.get("/", headers={"HX-Request": "true"})).text
    assert "<html" not in part
    assert "Throughput" in part


async def test_a_group_shows_its_rate_errors_and_waits(browse, pool, fleet):
    page = await (await browse()).text("/")
    [row] = re.findall(r'<tr>\s*<th scope="row"><a href="/tasks\?label=billing.*?</tr>', page, re.DOTALL)
    cells = [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)]
    assert cells[0] == "3"
    assert float(cells[5]) > 1
    assert re.fullmatch(r"1\.\d %", cells[6])
    assert cells[7].endswith(" s")


# Tasks


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ("status=running", "status = 'running'"),
        ("status=failed", "status = 'failed'"),
        ("status=expired&name=media.transcode", "status = 'expired' AND name = 'media.transcode'"),
        ("name=media.publish", "name = 'media.publish'"),
        ("label=media&status=pending", "status = 'pending' AND 'media' = ANY (labels)"),
        ("tag=customer:42", "'customer:42' = ANY (tags)"),
        ("unique_tag=one-of-a-kind", "unique_tag = 'one-of-a-kind'"),
        ("status=paused", "status = 'paused'"),
        ("since=30s&status=completed&name=mail.send",
         "status = 'completed' AND name = 'mail.send' AND created_at > clock_timestamp() - interval '30 s'"),
    ],
)  # fmt: skip
async def test_a_filter_finds_what_fits_and_nothing_else_the_newest_first(browse, pool, fleet, query, fits):
    await Client(pool).enqueue("x", unique_tag="one-of-a-kind")
    expected = [row[0] for row in await pool.fetch(f"SELECT id FROM asynctaskd.all_tasks WHERE {fits}")]
    browser, path, found = await browse(), f"/tasks?{query}", list[int]()
    while path:
        page = await browser.text(path)
        found += rows_in(page)
        path = older_in(page)
    assert len(found) == len(set(found))
    # Time goes on between the two questions.
    assert set(found) <= set(expected)
    assert len(expected) - len(found) < 20
    assert found
    if "failed" not in query and "expired" not in query:
        assert found == sorted(found, reverse=True)


async def test_pages_of_tasks_follow_each_other_without_a_gap(browse, pool, fleet):
    browser, path, found = await browse(), "/tasks?label=mail&status=pending", list[int]()
    while path:
        page = await browser.text(path)
        found += rows_in(page)
        path = older_in(page)
    rows = await pool.fetch(
        "SELECT id FROM asynctaskd.tasks WHERE status = 'pending' AND label_set = 'mail' ORDER BY id DESC"
    )
    assert found == [row[0] for row in rows]


async def test_a_search_that_has_no_more_time_says_so_and_goes_on_from_there(database, pool, fleet):
    desk, after, looked = Desk(pool), None, 0
    wanted = TaskFilter(statuses=(TaskStatus.WAITING,), name="media.publish")
    for _ in range(100):
        found = await desk.search_tasks(TaskFilter(name="nobody"), after=after, budget=NO_TIME)
        assert (found.tasks, found.is_full) == ([], False)
        looked, after = looked + found.looked, found.next
        if after is None:
            break
    assert looked == await pool.fetchval("SELECT count(*) FROM asynctaskd.all_tasks")
    assert len((await desk.search_tasks(wanted, budget=NO_TIME)).tasks) == 1


async def test_a_part_that_was_looked_at_is_told_on_the_page(browse, fleet, monkeypatch):
    monkeypatch.setattr("asynctaskd.web.dashboard.BUDGET", NO_TIME)
    page = await (await browse()).text("/tasks?name=nobody")
    assert "The time for looking was over" in page
    assert ">Look further</a>" in page


async def test_a_task_that_failed_twice_is_listed_once(browse, pool):
    client = Client(pool)
    task_id = await client.enqueue("x")
    for _ in range(2):
        await client.fail(task_id, "wrong address")
        page = await (await browse()).text("/tasks?status=failed")
        assert rows_in(page) == [task_id]
        await client.retry(task_id)
    assert rows_in(await (await browse()).text("/tasks?status=failed")) == []


async def test_counts_are_exact_where_they_are_small_and_estimates_above(database, pool, fleet, monkeypatch):
    desk = Desk(pool)
    exact = await desk.count_tasks()
    rows = await pool.fetch("SELECT status, count(*) FROM asynctaskd.all_tasks GROUP BY status")
    assert {status: exact[TaskStatus(status)].number for status, _ in rows} == dict(rows)
    assert not any(one.is_estimate for one in exact.values())
    monkeypatch.setattr("asynctaskd.control.browsing._COUNTED", 500)
    about = await desk.count_tasks()
    assert about[TaskStatus.COMPLETED].is_estimate
    assert about[TaskStatus.PENDING].is_estimate
    assert about[TaskStatus.COMPLETED].number == pytest.approx(exact[TaskStatus.COMPLETED].number, rel=0.1)
    assert not about[TaskStatus.RUNNING].is_estimate


async def test_an_id_leads_to_its_task(browse, fleet):
    answer = await (await browse()).http.get("/tasks?id=902653")
    assert (answer.status_code, answer.headers["location"]) == (303, "/tasks/902653")


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/tasks?since=noon", 422, "since must be an instant"),
        ("/tasks?status=gone", 422, "status"),
        ("/tasks?id=x", 422, "id"),
        ("/tasks/1", 404, "no task 1"),
        ("/tasks/99999999999999999999", 404, "There is no such task"),
        ("/schedules/none", 404, "no schedule none"),
        ("/commands/00000000-0000-0000-0000-000000000000", 422, "no request"),
        ("/changes/7", 404, "no change"),
        ("/bulk/explode", 404, "no action explode"),
        ("/bulk/run_now", 404, "no action run_now"),
        ("/configuration/change?weights.mail=x", 422, "weights"),
        ("/configuration/change?colour=red", 422, "colour"),
        ("/configuration/change", 422, "nothing would change"),
        ("/nowhere", 404, "Not"),
    ],
)
async def test_what_is_wrong_is_told_on_a_page(browse, path, status, told):
    answer = await (await browse()).http.get(path)
    assert answer.status_code == status
    assert told in answer.text
    assert "</html>" in answer.text


async def test_a_task_shows_why_its_timeline_and_its_relations(browse, fleet):
    page = await (await browse()).text(f"/tasks/{RUNNING}")
    assert "it runs on worker" in page
    assert re.findall(r"<strong>(enqueued|claimed)</strong>", page) == ["enqueued", "claimed"]
    for relative in (912_011, 912_012, 912_013, 912_014):
        assert f'href="/tasks/{relative}"' in page
    assert "62 %" in page
    child = await (await browse()).text("/tasks/912011")
    assert "Above it" in child
    assert f'href="/tasks/{RUNNING}"' in child
    waiting = await (await browse()).text("/tasks/912014")
    assert "Depends on" in waiting


# What it keeps to itself


async def test_what_handlers_were_given_and_said_is_hidden_unless_it_is_allowed(browse, pool, fleet):
    failed = await pool.fetchval(
        "SELECT id FROM asynctaskd.finished_tasks WHERE status = 'failed' ORDER BY id LIMIT 1"
    )
    retried = await pool.fetchval("SELECT id FROM asynctaskd.tasks WHERE status = 'scheduled' LIMIT 1")
    told = ("ada@example.org", "refused the connection", "no answer in 10 s", "third of five files")
    discreet, open_ = await browse(), await browse(shows_payloads=True)
    paths = [f"/tasks/{one}" for one in (failed, retried, RUNNING)]
    shown = [await open_.text(path) for path in paths]
    assert [any(text in page for page in shown) for text in told] == [True] * 4
    for path in (*paths, *PAGES, "/tasks?status=failed"):
        page = await discreet.text(path)
        assert [text for text in told if text in page] == []


async def test_secret_fields_are_never_shown(browse, pool):
    await pool.execute(
        "INSERT INTO asynctaskd.definitions (name, schema_hash, secrets)"
        " VALUES ('login', '', '[[\"password\"]]')"
    )
    task_id = await Client(pool).enqueue("login", {"user": "ada", "password": "hunter2"})
    page = await (await browse(shows_payloads=True)).text(f"/tasks/{task_id}")
    assert "ada" in page
    assert "***" in page
    assert "hunter2" not in page


async def test_params_of_a_schedule_are_shown_without_secret_fields(browse, pool):
    await pool.execute(
        "INSERT INTO asynctaskd.definitions (name, schema_hash, secrets)"
        " VALUES ('login', '', '[[\"password\"]]')"
    )
    params = {"user": "ada", "password": "hunter2"}
    await Client(pool).add_schedule("nightly", Cron("@daily", params=params), task="login")
    page = await (await browse(shows_payloads=True)).text("/schedules/nightly")
    assert "ada" in page
    assert "***" in page
    assert "hunter2" not in page


async def test_with_an_app_its_secret_fields_are_hidden_before_any_worker_has_registered_them(browse, pool):
    app = App()

    @app.task
    async def login(user: str, password: SecretStr) -> None: ...

    given = {"user": "ada", "password": "hunter2"}
    task_id = await Client(pool).enqueue("login", given)
    await Client(pool).add_schedule("nightly", Cron("@daily", params=given), task="login")
    browser = await browse(shows_payloads=True, app=app)
    for path in (f"/tasks/{task_id}", "/schedules/nightly"):
        page = await browser.text(path)
        assert "ada" in page
        assert "hunter2" not in page


async def test_names_from_the_database_are_text_and_never_markup(browse, pool, fleet):
    client = Client(pool)
    task_id = await client.enqueue(
        "x", {"a": HOSTILE}, tags=[HOSTILE], unique_tag=HOSTILE, serial_key=HOSTILE
    )
    await client.fail(task_id, HOSTILE)
    await pool.execute(
        "UPDATE asynctaskd.workers SET hostname = $1, lost_because = $1, version = $1", HOSTILE
    )
    await pool.execute("UPDATE asynctaskd.schedules SET paused_because = $1, zone = $1", HOSTILE)
    await pool.execute("UPDATE asynctaskd.runtime_configs SET created_by = $1", HOSTILE)
    await pool.execute(
        "UPDATE asynctaskd.audit SET actor = $1, outcome = $1, target = $2, before = $2", HOSTILE,
        json.dumps({HOSTILE: HOSTILE}),
    )  # fmt: skip
    browser = await browse(may_write=True, shows_payloads=True)
    hostile = httpx.QueryParams({"name": HOSTILE, "tag": HOSTILE, "label": HOSTILE})
    told = 0
    for path in (
        *PAGES, f"/tasks/{task_id}", "/tasks?status=failed", f"/tasks?{hostile}", f"/bulk/retry?{hostile}",
    ):  # fmt: skip
        page = await browser.text(path)
        assert "<script>alert" not in page, path
        told += "&lt;script&gt;alert(&#39;&amp;" in page
    assert told >= 10


async def test_pages_only_read(browse, database, fleet):
    """Every statement of a page goes through where the server takes no writes."""
    settings = {"default_transaction_read_only": "on"}
    async with asyncpg.create_pool(database.dsn, min_size=1, server_settings=settings) as reading:
        browser = await browse(dsn=reading, may_write=True, shows_payloads=True)
        for path in (*PAGES, "/tasks?status=failed", "/tasks?tag=x"):
            assert (await browser.http.get(path)).status_code == 200, path


async def test_a_statement_that_takes_too_long_is_cut_and_the_page_says_so(browse, database, pool, fleet):
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE asynctaskd.workers")
        browser = await browse(dsn=database.dsn, limit=timedelta(milliseconds=50))
        answer = await browser.http.get("/workers")
    assert answer.status_code == 503
    assert "This took too long" in answer.text
    assert "Narrow the filter" in answer.text


async def test_the_page_says_where_the_database_cant_be_reached(browse):
    answer = await (await browse(dsn="postgresql://nobody@127.0.0.1:1/nothing")).http.get("/")
    assert answer.status_code == 503
    assert "The database can&#39;t be reached" in answer.text
    assert "Try again in a moment." in answer.text
    assert "Narrow the filter" not in answer.text


async def test_it_can_be_mounted_below_a_path(database, fleet):
    mounted = dashboard(database.dsn, may_write=True)
    site = Starlette(routes=[Mount("/ops/tasks", mounted)])
    asking = httpx.AsyncClient(transport=httpx.ASGITransport(site), base_url="http://localhost")
    async with mounted.router.lifespan_context(mounted), asking as http:
        page = await http.get("/ops/tasks/tasks/902653")
        assert page.status_code == 200
        links = re.findall(r'(?:href|action|src)="([^"]+)"', page.text)
        assert {link for link in links if not link.startswith(("/ops/tasks/", "#"))} == set()
        assert (await http.get("/ops/tasks/static/dashboard.css")).status_code == 200
        assert "Path=/ops/tasks" in page.headers["set-cookie"]


async def test_what_many_ask_at_once_is_answered(browse, database, fleet):
    browser = await browse(dsn=database.dsn)
    answers = await asyncio.gather(*(browser.http.get(path) for path in PAGES * 3))
    assert [answer.text for answer in answers if answer.status_code != 200] == []
