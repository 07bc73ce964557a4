"""The dashboard with the rights of an operator, and of a viewer."""

from __future__ import annotations

import asyncpg
import pytest
from asyncpg.connection import LoggedQuery

from asynctaskd.cli.session import Reader
from asynctaskd.postgres.driver import LoginRefusedError
from asynctaskd.postgres.scratch import run_script
from asynctaskd.web.dashboard.desk import Desk
from tests.support.divided import divided_or_skipped
from tests.web.conftest import FLEET

PAGES = (
    "/", "/tasks", "/tasks?status=failed", "/tasks/902653", "/groups", "/workers", "/schedules",
    "/schedules/mail.digest", "/configuration", "/configuration/change?weights.mail=9", "/audit",
    "/bulk/cancel?label=mail",
)  # fmt: skip


@pytest.fixture(scope="module")
def divided(dsn):
    with divided_or_skipped(dsn) as made:
        yield made


@pytest.fixture
async def owner(divided):
    connection = await asyncpg.connect(divided.admin)
    await connection.execute(f"SET ROLE {divided.schema}_owner")
    if not await connection.fetchval(divided.sql("SELECT count(*) FROM asynctaskd.workers")):
        await connection.execute(divided.sql(FLEET).rpartition("ANALYZE")[0])
    yield connection
    await connection.close()


@pytest.mark.parametrize("part", ["viewer", "operator"])
async def test_every_page_is_shown_with_the_rights_of(browse, divided, owner, part):
    browser = await browse(dsn=divided.logins[part], schema=divided.schema)
    for path in PAGES:
        page = await browser.text(path)
        assert "ada@example.org" not in page
    assert "62 %" in await browser.text("/tasks/902653")
    tended = await browser.text("/schedules")
    assert "mail.digest" in tended


async def test_with_a_viewers_rights_a_page_says_that_payloads_arent_shown(browse, divided, owner):
    browser = await browse(dsn=divided.logins["viewer"], schema=divided.schema, shows_payloads=True)
    page = await browser.text("/tasks/902653")
    assert "ada@example.org" not in page
    assert "Not shown to the dashboard's database login" in page
    assert "Params" not in await browser.text("/schedules/mail.digest")


async def test_what_a_login_may_not_read_is_asked_for_once_and_again_a_minute_later(
    divided, owner, monkeypatch
):
    refused: list[str] = []

    def note(record: LoggedQuery) -> None:
        if record.exception is not None:
            refused.append(record.query)

    connection = await asyncpg.connect(divided.logins["viewer"])
    connection.add_query_logger(note)
    reader = Reader(connection, schema=divided.schema)
    for _ in range(3):
        assert await reader.list_tasks()
    assert len(refused) == 1
    monkeypatch.setattr("asynctaskd.control.looking._ASK_AGAIN", 0.0)
    monkeypatch.setattr(reader, "_refused_until", {})
    for _ in range(2):
        assert await reader.list_tasks()
    assert len(refused) == 3
    await connection.close()


async def test_a_login_that_was_kept_out_for_a_while_is_told_all_again_at_once(divided):
    name = f"{divided.schema}_as_operator"
    client = Desk(divided.logins["operator"], schema=divided.schema)
    await run_script(divided.admin, f"ALTER ROLE {name} NOLOGIN")
    try:
        with pytest.raises(LoginRefusedError):
            await client.list_schedules()
    finally:
        await run_script(divided.admin, f"ALTER ROLE {name} LOGIN")
    await client.list_schedules()
    assert client.sees_values
    await client.close()


async def test_an_operator_changes_what_a_viewer_cant(browse, divided, owner):
    task_id = await owner.fetchval(divided.sql("SELECT asynctaskd.enqueue('x')"))
    for part, status in (("viewer", 403), ("operator", 303)):
        browser = await browse(dsn=divided.logins[part], schema=divided.schema, may_write=True)
        await browser.text("/audit")
        assert (await browser.post(f"/tasks/{task_id}/cancel")).status_code == status
        assert (await browser.post("/schedules/mail.digest/run")).status_code == status
    row = await owner.fetchrow(
        divided.sql("SELECT actor, db_user FROM asynctaskd.audit ORDER BY id DESC LIMIT 1")
    )
    assert row["actor"] == "local"
    assert "operator" in row["db_user"]
