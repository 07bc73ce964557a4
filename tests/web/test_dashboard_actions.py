"""What can be changed from the dashboard, and what it tells of it."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import asynccontextmanager
from typing import Any

import pytest

from asynctaskd import App, Client
from asynctaskd.config import load_config
from asynctaskd.daemon.supervisor import Daemon
from asynctaskd.telemetry import attach
from tests.support.browser import Browser, csrf_in

WAIT = 30.0


@pytest.fixture
async def writer(browse) -> Browser:
    browser = await browse(may_write=True)
    await browser.text("/audit")
    return browser


@pytest.fixture
def client(pool) -> Client:
    return Client(pool)


@asynccontextmanager
async def working(app: App, dsn: str, **environ: str):
    """A worker, while the block lasts."""
    environ = {f"ASYNCTASKD_WORKER_{key.upper()}": value for key, value in environ.items()}
    daemon = Daemon(app, dsn, load_config(None, environ, {}))
    running = asyncio.create_task(daemon.run())
    try:
        yield
    finally:
        daemon.stop()
        await running


async def audited(pool) -> list[dict[str, Any]]:
    rows = await pool.fetch("SELECT * FROM asynctaskd.audit ORDER BY id")
    names = ("target", "before", "after")
    return [dict(row) | {name: row[name] and json.loads(row[name]) for name in names} for row in rows]


async def until(browser: Browser, path: str, told: str) -> str:
    """The page, once it says that."""
    async with asyncio.timeout(WAIT):
        while told not in (page := await browser.text(path)):  # noqa: ASYNC110  (a page tells nobody)
            await asyncio.sleep(0.05)
    return page


# Tasks


async def test_a_task_is_cancelled_with_a_receipt_and_an_audit_row(writer, client, pool):
    task_id = await client.enqueue("x")
    page = await writer.text(f"/tasks/{task_id}")
    assert csrf_in(page) == writer.csrf
    answer = await writer.post(f"/tasks/{task_id}/cancel")
    receipt = await writer.follow(answer)
    assert "1 changed" in receipt
    assert (await client.get_task(task_id)).status == "cancelled"
    asked, row = await audited(pool)
    assert (asked["actor"], asked["action"], asked["outcome"]) == ("local", "cancel", "asked")
    assert (row["actor"], row["action"], row["outcome"]) == ("local", "cancel", "1 changed")
    assert asked["target"] == {"task": task_id}
    assert (row["target"]["task"], row["target"]["asked"]) == (task_id, asked["id"])
    assert row["before"] == {"status": "pending"}
    assert row["db_user"] == await pool.fetchval("SELECT session_user")
    audit = await writer.text("/audit")
    assert f'href="/tasks/{task_id}"' in audit
    assert f'href="{answer.headers["location"]}"' in audit


@pytest.mark.parametrize(
    ("status", "offered"),
    [
        ("pending", {"cancel", "pause", "run_now"}),
        ("running", {"cancel", "pause"}),
        ("paused", {"cancel", "resume"}),
        ("failed", {"retry", "purge"}),
        ("completed", {"purge"}),
    ],
)
async def test_a_task_offers_what_can_be_asked_of_it(browse, fleet, pool, status, offered):
    task_id = await pool.fetchval("SELECT id FROM asynctaskd.all_tasks WHERE status = $1 LIMIT 1", status)
    page = await (await browse(may_write=True)).text(f"/tasks/{task_id}")
    assert set(re.findall(rf'action="/tasks/{task_id}/(\w+)"', page)) == offered
    assert "<form" not in (await (await browse()).text(f"/tasks/{task_id}")).partition("<main")[2]


async def test_what_is_refused_is_told_with_its_reason(writer, client):
    task_id = await client.enqueue("x")
    assert "it is pending" in await writer.follow(await writer.post(f"/tasks/{task_id}/resume"))
    refused = await writer.follow(await writer.post(f"/tasks/{task_id}/run_now"))
    assert "1 refused" in refused
    assert "no worker that may run it had a free slot in time" in refused
    missing = await writer.follow(await writer.post("/tasks/77/cancel"))
    assert "there is no such task" in missing
    assert (await writer.post(f"/tasks/{task_id}/explode")).status_code == 404


async def test_a_running_task_is_followed_until_it_has_stopped(writer, client, database):
    app, begun = App(), asyncio.Event()

    @app.task("wait")
    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with working(app, database.dsn):
        task_id = await client.enqueue("wait")
        await asyncio.wait_for(begun.wait(), WAIT)
        answer = await writer.post(f"/tasks/{task_id}/cancel")
        page = await until(writer, answer.headers["location"], "1 stopped")
    assert "goes on" not in page
    assert (await client.get_task(task_id)).status == "cancelled"


async def test_a_task_runs_out_of_turn(writer, client, database):
    app = App()

    @app.task("later")
    async def later() -> None: ...

    task_id = await client.enqueue("later", delay="1h")
    async with working(app, database.dsn):
        await until(writer, "/workers", "live")
        assert "1 stopped" in await writer.follow(await writer.post(f"/tasks/{task_id}/run_now"))
    assert (await client.get_task(task_id)).status == "completed"


# All that fit a filter


async def test_a_preview_says_how_many_and_shows_the_newest(writer, client):
    ids = [await client.enqueue("x", labels=["a"]) for _ in range(12)]
    await client.enqueue("x")
    page = await writer.text("/bulk/cancel?label=a")
    assert "12 tasks." in page
    assert [int(one) for one in re.findall(r'href="/tasks/(\d+)"', page)] == ids[:1:-1]
    assert "Cancel 12 tasks" in page
    assert await client.statuses(ids) == dict.fromkeys(ids, "pending")


async def test_an_action_concerns_what_fitted_at_its_preview(writer, client, pool):
    ids = [await client.enqueue("x", labels=["a"]) for _ in range(3)]
    page = await writer.text("/bulk/cancel?label=a")
    [newest] = re.findall(r'name="newest" value="(\d+)"', page)
    late = await client.enqueue("x", labels=["a"])
    other = await client.enqueue("x")
    receipt = await writer.follow(await writer.post("/bulk/cancel", label="a", newest=newest))
    assert "3 changed" in receipt
    assert "More tasks fit" not in receipt
    assert set((await client.statuses(ids)).values()) == {"cancelled"}
    assert await client.statuses([late, other]) == {late: "pending", other: "pending"}
    _, row = await audited(pool)
    assert row["target"]["filter"] == {"label": "a"}
    assert (row["target"]["tasks"], row["target"]["more_are_left"]) == (3, False)


async def test_one_action_concerns_so_many_and_says_that_more_are_left(writer, client, monkeypatch):
    monkeypatch.setattr("asynctaskd.web.dashboard.pages.commands.CAP", 5)
    ids = [await client.enqueue("x") for _ in range(7)]
    page = await writer.text("/bulk/pause?name=x")
    assert "5 tasks and more." in page
    assert "One action concerns at most 5" in page
    receipt = await writer.follow(await writer.post("/bulk/pause", name="x", newest=str(ids[-1])))
    assert "5 changed" in receipt
    assert "More tasks fit" in receipt
    statuses = await client.statuses(ids)
    assert [statuses[one] for one in ids] == ["pending"] * 2 + ["paused"] * 5
    assert "2 tasks." in await writer.text("/bulk/pause?name=x")


async def test_a_bulk_action_without_its_preview_changes_nothing(writer, client):
    task_id = await client.enqueue("x")
    assert (await writer.post("/bulk/cancel", name="x")).status_code == 400
    assert await client.statuses([task_id]) == {task_id: "pending"}


async def test_what_failed_is_retried_and_what_was_paused_goes_on(writer, client):
    ids = [await client.enqueue("x") for _ in range(3)]
    for one in ids[:2]:
        await client.fail(one, "no")
    await client.pause(ids[2])
    assert "2 changed" in await writer.follow(await writer.post("/bulk/retry", newest="999999", name="x"))
    assert "1 changed" in await writer.follow(await writer.post("/bulk/resume", newest="999999"))
    assert set((await client.statuses(ids)).values()) == {"pending"}


async def test_finished_tasks_are_purged_and_no_others(writer, client):
    ids = [await client.enqueue("x") for _ in range(3)]
    await client.cancel(ids[0])
    assert (await writer.post("/bulk/purge", newest="999999", status="pending")).status_code == 422
    assert "1 changed" in await writer.follow(await writer.post("/bulk/purge", newest="999999", name="x"))
    assert set(await client.statuses(ids)) == set(ids[1:])


async def test_where_nothing_fits_nothing_is_asked(writer, pool):
    assert "No task fits" in await writer.text("/bulk/cancel?name=nobody")
    assert (await writer.post("/bulk/cancel", newest="999999", name="nobody")).status_code == 409
    assert await audited(pool) == []


async def test_an_action_is_for_statuses_that_it_can_change(writer):
    answer = await writer.http.get("/bulk/retry?status=pending")
    assert answer.status_code == 422
    assert "retry is for tasks that are failed, cancelled, expired" in answer.text


# The runtime configuration


async def test_a_change_is_previewed_made_and_answered_by_each_worker(writer, pool, database):
    async with working(App(), database.dsn, labels="mail"):
        await until(writer, "/workers", "live")
        preview = await writer.text("/configuration/change?weights.mail=3&limits.mail=&default_weight=1")
        assert "75 %" in preview
        fields = {"weights.mail": "3", "limits.mail": "", "default_weight": "1", "expires": "1h"}
        answer = await writer.post("/configuration/change", **fields)
        page = await until(writer, answer.headers["location"], "Converged.")
        assert "1 of 1 live workers apply it" in page
        assert '<span class="status applied">applied</span>' in page
    _, row = await audited(pool)
    assert (row["action"], row["before"]) == ("configure", {"weights": {}})
    assert row["after"] == {"weights": {"mail": 3}, "expires": "1h"}
    history = await writer.text("/configuration")
    assert "weights.mail" in history
    assert "expires" in history


async def test_where_no_worker_is_live_the_report_says_so(writer):
    page = await writer.follow(await writer.post("/configuration/change", default_weight="2"))
    assert "No worker is live; whoever starts from now on applies it." in page


async def test_a_worker_that_doesnt_answer_is_named(writer, pool, fleet):
    answer = await writer.post("/configuration/change", default_weight="2")
    page = await writer.follow(answer)
    assert "Not converged." in page
    assert "No worker has come to it yet" in page
    assert page.count(">not yet</span>") == 6
    assert "app-2:4107" in page
    assert f'hx-get="{answer.headers["location"]}" hx-trigger="every 1s"' in page


async def test_a_label_is_paused_and_a_new_one_gets_a_weight(writer):
    assert "paused_labels" in await writer.text("/configuration/change?paused_labels%2B=mail")
    preview = await writer.text("/configuration/change?label=eu&weight=4&limit=")
    assert "weights.eu" in preview
    assert "limits.eu" not in preview


async def test_a_version_is_rolled_back(writer, pool, database):
    async with working(App(), database.dsn):
        client = Client(pool)
        await client.update_runtime_config(default_weight=5)
        await client.update_runtime_config(default_weight=9)
        page = await writer.text("/configuration")
        assert "default_weight" in page
        answer = await writer.post("/configuration/rollback", version="1")
        await until(writer, answer.headers["location"], "Converged.")
        assert (await client.runtime_config()).default_weight == 5
        assert (await writer.post("/configuration/rollback", version="x")).status_code == 422
    _, row = await audited(pool)
    assert (row["before"], row["after"]) == ({"version": 2}, {"version": 1})


# Schedules


async def test_a_schedule_is_paused_resumed_and_run_at_once(writer, client, pool):
    await client.add_schedule("nightly/report", "@daily", task="report", labels=["a"], priority=3)
    await client.change_schedule("nightly/report", params={"size": 3})
    page = await writer.follow(await writer.post("/schedules/nightly/report/pause"))
    assert '<span class="status paused">paused</span>' in page
    page = await writer.follow(await writer.post("/schedules/nightly/report/resume"))
    assert "paused" not in page.partition("<h2>")[0].partition("<h1>")[2]
    await writer.follow(await writer.post("/schedules/nightly/report/run"))
    [task] = await client.list_tasks(name="report")
    assert (task.payload, task.labels, task.priority) == ({"size": 3}, ["a"], 3)
    rows = await audited(pool)
    assert [row["action"] for row in rows[1::2]] == ["pause_schedule", "resume_schedule", "run_schedule"]
    assert [row["outcome"] for row in rows] == [
        "asked", "paused", "asked", "resumed", "asked", f"enqueued task {task.id}",
    ]  # fmt: skip
    assert (await writer.post("/schedules/none/run")).status_code == 409
    assert (await audited(pool))[-1]["outcome"].startswith("failed: ")


async def without_audit(pool, when: str) -> None:
    """From now on no row of the audit can be written of which that holds."""
    await pool.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE 'no room' USING ERRCODE = 'insufficient_privilege'; END $$"
    )
    await pool.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON asynctaskd.audit FOR EACH ROW"
        f" WHEN ({when}) EXECUTE FUNCTION refuse()"
    )


async def test_what_cant_be_written_down_isnt_done(writer, client, pool):
    task_id = await client.enqueue("x")
    await client.add_schedule("nightly", "@daily", task="report")
    await without_audit(pool, "true")
    for path, fields in (
        (f"/tasks/{task_id}/cancel", {}),
        ("/bulk/cancel", {"name": "x", "newest": str(task_id)}),
        ("/schedules/nightly/pause", {}),
        ("/schedules/nightly/resume", {}),
        ("/schedules/nightly/run", {}),
        ("/configuration/change", {"default_weight": "2"}),
        ("/configuration/rollback", {"version": "0"}),
        ("/configuration/promote", {}),
    ):
        answer = await writer.post(path, **fields)
        assert answer.status_code == 403, path
        assert "no room" in answer.text
        assert "Nothing was changed" in answer.text
    assert (await client.get_task(task_id)).status == "pending"
    assert await pool.fetchval("SELECT count(*) FROM asynctaskd.commands") == 0
    assert await pool.fetchval("SELECT count(*) FROM asynctaskd.tasks") == 1


async def test_what_is_done_is_shown_even_if_it_cant_be_written_down_any_more(writer, client, pool):
    task_id = await client.enqueue("x")
    await without_audit(pool, "NEW.outcome <> 'asked'")
    told = []
    detach = attach(lambda _, facts: told.append(facts["outcome"]), "audit.failed")
    assert "1 changed" in await writer.follow(await writer.post(f"/tasks/{task_id}/cancel"))
    detach()
    assert told == ["1 changed"]
    [row] = await audited(pool)
    assert (row["outcome"], row["target"]) == ("asked", {"task": task_id})


async def test_the_audit_goes_back_page_by_page(writer, pool):
    await pool.execute(
        "INSERT INTO asynctaskd.audit (actor, action, outcome)"
        " SELECT 'ada', 'cancel', 'row ' || n FROM generate_series(1, 60) AS n"
    )
    first = await writer.text("/audit")
    assert "row 60" in first
    [older] = re.findall(r'rel="next" href="([^"]+)"', first)
    second = await writer.text(older)
    assert "row 10<" in second
    assert "row 11<" not in second
