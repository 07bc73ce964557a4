"""Tasks over HTTP."""

from __future__ import annotations

import json
from functools import reduce
from typing import Annotated, Any

import httpx
import pytest
from pydantic import Field

from asynctaskd import App, Client, InvalidInputError
from asynctaskd.definitions.payload import MAX_BYTES
from asynctaskd.web.api import ACTIONS, tasks_api

TOKEN = "a token of our own"


@pytest.fixture
def app() -> App:
    app = App()

    @app.task("add")
    async def add(a: int, b: int = 1) -> int:
        return a + b

    @app.task("login")
    async def login(password: Annotated[str, Field(json_schema_extra={"secret": True})]) -> None: ...

    return app


@pytest.fixture
async def http(app, pool):
    """A client of the API that has the token; of an API with all actions."""
    async with asking(tasks_api(Client(pool, app), token=TOKEN, actions=ACTIONS)) as client:
        yield client


def asking(api, token: str = TOKEN) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(api, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://shop", headers=headers)


def _within(inner: dict[str, Any], _: int) -> dict[str, Any]:
    return {"a": inner}


async def test_a_task_is_enqueued_with_its_options_and_shown(http, pool):
    asked = {"name": "add", "payload": {"a": 2}, "priority": 3, "labels": ["x"], "delay": "1h"}
    answer = await http.post("/", json=asked)
    assert answer.status_code == 201
    task_id = answer.json()["id"]
    shown = (await http.get(f"/{task_id}")).json()
    assert answer.headers["location"].endswith(f"/{task_id}")
    kept = ("name", "payload", "priority", "labels")
    assert {name: shown[name] for name in kept} == {name: asked[name] for name in kept}
    assert (shown["status"], shown["timeout"]) == ("scheduled", None)
    listed = (await http.get("/", params={"name": "add", "limit": 5})).json()
    assert [one["id"] for one in listed] == [task_id]
    assert (await http.get(f"/{task_id}/events")).json() == []


async def test_options_that_json_lacks_are_written_as_text(http):
    asked = {"name": "add", "payload": {"a": 2}, "run_at": "2030-01-31T12:00:00Z", "retry": "1m,2m"}
    for deadline, most in (("2031-01-31T12:00:00+01:00", 3), ("1h", None)):
        given = asked | {"deadline": deadline, "max_attempts": most}
        task = (await http.get(f"/{(await http.post('/', json=given)).json()['id']}")).json()
        assert task["run_at"] == "2030-01-31T12:00:00+00:00"
        assert task["max_attempts"] == (most or 10)
    for wrong in ({"run_at": "noon"}, {"retry": None, "max_attempts": 2}):
        assert (await http.post("/", json=asked | wrong)).status_code == 422


async def test_an_idempotency_key_makes_one_task(http):
    asked, headers = {"name": "add", "payload": {"a": 2}}, {"Idempotency-Key": "k1"}
    ids = [(await http.post("/", json=asked, headers=headers)).json()["id"] for _ in range(2)]
    other = (await http.post("/", json=asked)).json()["id"]
    assert ids[0] == ids[1] != other


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ("[1]", 422, "the body must be an object"),
        ("{", 422, "the body is not valid JSON"),
        ('{"payload": {}}', 422, "task name must match"),
        ('{"name": "sub"}', 422, "no task is named 'sub'"),
        ('{"name": "add", "payload": {"a": "x"}}', 422, "a: Input should be a valid integer"),
        ('{"name": "add", "payload": {"a": 1}, "colour": "red"}', 422, "unknown option 'colour'"),
        ('{"name": "add", "payload": {"a": 1}, "priority": -1}', 422, "priority must be at least 0"),
        ('{"name": "add", "connection": 1}', 422, "unknown option 'connection'"),
        ('{"name": "add", "self": 1}', 422, "unknown option 'self'"),
        ('{"name": "add", "payload": {"a": 1}, "cron": "@daily"}', 403, "can't be changed here"),
        ('{"name": "updateWorkerRuntimeConfig", "payload": {"default_weight": 2}}', 403, "can't be changed"),
        ('{"name": "add", "payload": {"a": NaN}}', 422, "payload holds NaN"),
        ('{"name": "add", "payload": {"a": 1%s}}' % ("0" * 30), 422, "payload holds an integral number"),
        ('{"name": "add", "payload": {"a": 1%s}}' % ("0" * 9000), 422, "the body is not valid JSON"),
        ('{"name": "add", "payload": "\\ud800"}', 422, "a lone surrogate"),
        ('{"name": "add", "unique_tag": "\\ud800"}', 422, "lone surrogate"),
        ('{"name": "add", "metadata": {"a": NaN}}', 422, "NaN"),
        ("[" * 100_000, 422, "the body is not valid JSON"),
        (" " * 1_200_000, 413, "longer than"),
        (b"\xff", 422, "isn't UTF-8"),
    ],
)
async def test_what_is_wrong_is_told_as_a_problem_and_nothing_is_written(http, pool, body, status, detail):
    answer = await http.post("/", content=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert detail in answer.json()["detail"]
    assert await pool.fetchval("SELECT count(*) FROM asynctaskd.tasks") == 0


@pytest.mark.parametrize(
    "payload", [{"a": "x" * (MAX_BYTES - 9)}, reduce(_within, range(63), {})], ids=["large", "deep"]
)
async def test_a_payload_may_be_as_large_and_as_deep_as_any(app, http, payload):
    @app.task("take")
    async def take(payload: dict) -> None: ...

    assert (await http.post("/", json={"name": "take", "payload": payload})).status_code == 201


async def test_a_taken_tag_answers_with_the_id_of_its_task(http):
    asked = {"name": "add", "payload": {"a": 2}, "unique_tag": "t", "on_conflict": "raise"}
    task_id = (await http.post("/", json=asked)).json()["id"]
    answer = await http.post("/", json=asked)
    assert (answer.status_code, answer.json()["task_id"]) == (409, task_id)


async def test_nobody_is_let_in_without_the_token(app, pool):
    api = tasks_api(Client(pool, app), token=TOKEN)
    for token in ("", TOKEN[:-1], TOKEN + "x"):
        async with asking(api, token) as http:
            answer = await http.get("/")
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    with pytest.raises(InvalidInputError, match="token must have at least 16 characters, got 5"):
        tasks_api(Client(pool), token="short")


async def test_actions_are_off_unless_they_are_named(app, pool):
    client = Client(pool, app)
    task_id = await client.enqueue("add", {"a": 1})
    async with asking(tasks_api(client, token=TOKEN, actions=["cancel"])) as http:
        assert (await http.post(f"/{task_id}/run_now")).status_code == 404
        receipt = (await http.post(f"/{task_id}/cancel")).json()
    assert (receipt["action"], receipt["tasks"][0]["status"]) == ("cancel", "cancelled")
    with pytest.raises(InvalidInputError, match="action must be"):
        tasks_api(client, token=TOKEN, actions=["purge"])


async def test_run_now_says_truthfully_whether_it_ran(http, app, database):
    task_id = (await http.post("/", json={"name": "add", "payload": {"a": 1}, "delay": "1h"})).json()["id"]
    [nobody] = (await http.post(f"/{task_id}/run_now")).json()["tasks"]
    async with app.worker(database.dsn):
        [ran] = (await http.post(f"/{task_id}/run_now")).json()["tasks"]
    assert nobody["outcome"] == "refused"
    assert (ran["outcome"], ran["status"]) == ("stopped", "completed")


async def test_secret_fields_are_hidden(http, app, database):
    async with app.worker(database.dsn):
        pass
    asked = {"name": "login", "payload": {"password": "p"}, "delay": "1h"}
    task_id = (await http.post("/", json=asked)).json()["id"]
    assert (await http.get(f"/{task_id}")).json()["payload"] == {"password": "***"}


async def test_what_isnt_there_is_404_and_a_wrong_status_422(http):
    for answer in (http.get("/999"), http.get("/999/events"), http.post("/999/cancel")):
        assert (await answer).status_code == 404
    assert (await http.get(f"/{2**63}")).status_code == 422
    assert (await http.get("/", params={"status": "lost"})).status_code == 422
    assert (await http.get("/", params={"limit": "many"})).status_code == 422
    assert (await http.delete("/1")).status_code == 405
    assert json.loads((await http.get("/nowhere")).text)["status"] == 404


async def test_a_database_that_is_away_is_503(app):
    async with asking(tasks_api(Client("postgresql://127.0.0.1:1/x", app), token=TOKEN)) as http:
        answer = await http.post("/", json={"name": "add", "payload": {"a": 1}})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
