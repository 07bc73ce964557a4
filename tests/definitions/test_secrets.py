"""Fields that nobody is to read in logs and listings."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import BaseModel, Field, SecretBytes, SecretStr

from asynctaskd import App, Client, Cron
from asynctaskd.definitions.secrets import hidden

Secret = Field(json_schema_extra={"secret": True})


class Card(BaseModel):
    number: Annotated[str, Secret]
    expires: str = "12/29"


class Node(BaseModel):
    value: Annotated[int, Secret]
    child: Node | None = None


class Order(BaseModel):
    password: Annotated[str | None, Secret] = None
    card: Card | None = None
    cards: list[Card] = []
    by_name: dict[str, Card] = {}
    pin: Annotated[int, Field(alias="PIN", json_schema_extra={"secret": True})] = 0
    note: str = ""


@pytest.fixture
def app() -> App:
    return App()


def test_a_field_with_an_alias_is_hidden_by_its_name_too(app):
    class Login(BaseModel, validate_by_name=True, validate_by_alias=True):
        pin: Annotated[int, Field(alias="PIN", json_schema_extra={"secret": True})]

    @app.task
    async def login(params: Login) -> None: ...

    assert login.bind('{"pin": 1}') == login.bind('{"PIN": 1}')
    assert hidden({"pin": 1, "PIN": 1}, login.secrets) == {"pin": "***", "PIN": "***"}


def test_paths_are_found_through_models_lists_and_mappings(app):
    @app.task
    async def order(params: Order) -> None: ...

    assert order.secrets == [
        ["PIN"],
        ["by_name", "*", "number"],
        ["card", "number"],
        ["cards", "*", "number"],
        ["password"],
        ["pin"],
    ]


def test_typed_arguments_may_be_secret_and_a_model_may_hold_itself(app):
    @app.task
    async def login(user: str, password: Annotated[str, Secret]) -> None: ...

    @app.task
    async def walk(node: Node) -> None: ...

    assert login.secrets == [["password"]]
    assert walk.secrets == [["child"], ["value"]]


def test_what_pydantic_calls_a_secret_is_marked_by_itself(app):
    class Account(BaseModel):
        pin: SecretStr | None = None
        keys: list[SecretBytes] = []
        secret: str = ""  # a name is no mark
        child: Account | None = None

    @app.task
    async def open_account(params: Account) -> None: ...

    @app.task
    async def close_account(user: str, pin: SecretStr) -> None: ...

    assert open_account.secrets == [["child"], ["keys", "*"], ["pin"]]
    assert close_account.secrets == [["pin"]]


async def test_a_client_with_an_app_hides_what_no_worker_has_written_down(app, pool):
    @app.task
    async def login(user: str, password: Annotated[str, Secret]) -> None: ...

    plain, knowing = Client(pool), Client(pool, app)
    given = {"user": "ada", "password": "p"}
    tasks = await plain.get_tasks([await plain.enqueue("login", given), await plain.enqueue("other", given)])
    await plain.add_schedule("nightly", Cron("@daily", params=given), task="login")
    schedules = await plain.list_schedules()
    assert {task.name: task.payload for task in await knowing.hide_secrets(tasks)} == {
        "login": {"user": "ada", "password": "***"},
        "other": given,
    }
    assert [row["params"] for row in await knowing.hide_secrets(schedules)] == [
        {"user": "ada", "password": "***"}
    ]


async def test_what_either_workers_or_the_app_call_secret_is_hidden(app, pool):
    @app.task
    async def login(user: str, password: Annotated[str, Secret]) -> None: ...

    await pool.execute(
        "INSERT INTO asynctaskd.definitions (name, schema_hash, secrets) VALUES ('login', '', '[[\"user\"]]')"
    )
    client = Client(pool, app)
    task = await client.get_task(await client.enqueue("login", {"user": "ada", "password": "p"}))
    [shown] = await client.hide_secrets([task])
    assert shown.payload == {"user": "***", "password": "***"}


def test_only_what_the_paths_lead_to_is_hidden():
    paths = [["card", "number"], ["cards", "*", "number"], ["by", "*"], ["missing", "x"], ["text", "x"]]
    value = {
        "card": {"number": "4111", "expires": "12/29"},
        "cards": [{"number": "1"}, {"number": "2"}, 3],
        "by": {"a": 1},
        "text": "free",
    }
    assert hidden(value, paths) == {
        "card": {"number": "***", "expires": "12/29"},
        "cards": [{"number": "***"}, {"number": "***"}, 3],
        "by": {"a": "***"},
        "text": "free",
    }
    assert value["card"]["number"] == "4111"
    assert hidden([1], paths) == [1]


async def test_a_client_hides_what_workers_have_written_down(app, database, pool):
    @app.task
    async def login(user: str, password: Annotated[str, Secret]) -> None: ...

    @app.route("login:")
    async def logins(card: Card) -> None: ...

    client = Client(pool)
    ids = [
        await client.enqueue("login", {"user": "ada", "password": "p"}, delay="1h"),
        await client.enqueue("login:new", {"number": "4111"}, delay="1h"),
        await client.enqueue("other", {"password": "p"}, delay="1h"),
    ]
    async with app.worker(database.dsn):
        tasks = await client.hide_secrets(await client.get_tasks(ids))
    assert {task.name: task.payload for task in tasks} == {
        "login": {"user": "ada", "password": "***"},
        "login:new": {"number": "***"},
        "other": {"password": "p"},
    }
