"""Functions, methods and interface types as tasks."""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any, Protocol

import pytest
from pydantic import BaseModel, Field

from asynctaskd import (
    App,
    Client,
    InvalidDefinitionError,
    InvalidInputError,
    InvalidPayloadError,
    TaskContext,
    TaskRequest,
    UnknownTaskError,
)


def add(a: int, b: int = 1) -> int:
    return a + b


@pytest.fixture
def app() -> App:
    return App()


# Registered


def test_a_registered_function_stays_itself_and_makes_requests(app):
    assert app.register(add).name == "add"
    assert add(1, 2) == 3
    request = app[add].request(2, b=3)
    assert (request.name, request.payload) == ("add", {"a": 2, "b": 3})


def test_registered_twice_it_is_one_task(app):
    assert app.register(add) is app.register(add)
    assert app.register(add, "plus") is not app.register(add)


def test_two_functions_of_one_name_are_an_error(app):
    app.register(add)
    with pytest.raises(InvalidDefinitionError, match="task 'add' has two functions"):
        app.register(math_add, "add")


def math_add(a: float) -> float:
    return a


def starred(*args: int) -> None: ...


def unannotated(a) -> None: ...


def unserialisable(a: sys.__class__) -> None: ...


def generator(a: int):
    yield a


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (3, "its handler must be a function, got int"),
        (starred, r"parameter '\*args': a task takes a fixed set of parameters"),
        (unannotated, "parameter 'a': it has no annotation"),
        (unserialisable, "parameter 'a': its type can't be read from JSON"),
        (generator, "its handler must not be a generator"),
    ],
)
def test_what_cant_be_a_task_is_refused_when_it_is_registered(app, function, message):
    with pytest.raises(InvalidDefinitionError, match=message):
        app.register(function, "it")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "missing a required argument: 'a'"),
        ((1, 2, 3), "too many positional arguments"),
        (("x",), "a: Input should be a valid integer"),
    ],
)
def test_a_request_that_doesnt_fit_names_the_parameter(app, args, message):
    with pytest.raises(InvalidPayloadError, match=f"task 'add'.*{message}"):
        app.register(add).request(*args)


def test_a_function_that_was_never_registered_is_asked_after(app):
    with pytest.raises(
        UnknownTaskError, match=r"add is no task.*did you forget to register it\? app.register\(add\)"
    ):
        app[add]


async def test_a_client_enqueues_functions_of_its_app(app, pool):
    app.register(add)
    client = Client(pool, app)
    task = await client.get_task(await client.enqueue(add, {"a": 4}))
    assert (task.name, task.payload) == ("add", {"a": 4})
    with pytest.raises(UnknownTaskError, match="did you forget to register it"):
        await client.enqueue(math_add, {"a": 4})
    with pytest.raises(InvalidInputError, match="by a Client with an App"):
        await Client(pool).enqueue(add, {"a": 4})


# Exposed


class Orders:
    places: int = 3

    def ship(self, order: int, fast: bool = False) -> str:
        return f"{order} {fast}"

    async def bill(self, order: int, ctx: TaskContext) -> int:
        return order

    @staticmethod
    def count() -> int:
        return 1

    @property
    def secret(self) -> int:
        raise AssertionError("nobody asked for it")

    def _hidden(self, order: int) -> None: ...


def test_the_public_methods_of_a_class_are_exposed(app):
    orders = app.expose(Orders)
    target = f"{Orders.__module__}:Orders"
    assert orders.target == target
    assert set(app.definitions) == {f"{target}.{name}" for name in ("bill", "count", "ship")}
    request = orders.ship.request(7, fast=True)
    assert (request.name, request.payload) == (f"{target}.ship", {"order": 7, "fast": True})
    with pytest.raises(AttributeError, match=r"exposes no '_hidden'; it exposes"):
        _ = orders._hidden


def test_only_chosen_methods_of_an_instance_are_exposed_under_a_name(app):
    assert app.expose(Orders(), "orders", methods=["ship"], timeout="5s").ship.options.timeout
    assert set(app.definitions) == {"orders.ship"}


def test_functions_of_a_module_are_exposed_without_what_it_imports(app):
    module = ModuleType("mailing")
    exec("from math import sqrt\nfrom json import dumps\ndef send(to: str) -> None: ...", module.__dict__)
    app.expose(module)
    assert set(app.definitions) == {"mailing.send"}


def test_exposed_twice_it_is_one(app):
    assert app.expose(Orders).ship is app.expose(Orders).ship


class NeedsMore:
    def __init__(self, database: str) -> None: ...

    def ship(self) -> None: ...


class Bare: ...


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (NeedsMore, {}, "can't be made without arguments.*expose an instance"),
        (Orders(), {}, "has no name that others can write; expose it with name="),
        (Bare, {}, "no public method"),
        (Orders, {"methods": ["sail"]}, "has no method 'sail'"),
        (Orders, {"methods": ["secret"]}, "has no method 'secret'"),
    ],
)
def test_what_cant_be_exposed_is_refused(app, target, options, message):
    with pytest.raises(InvalidDefinitionError, match=message):
        app.expose(target, **options)


async def test_a_call_is_enqueued_by_target_and_method(app, pool):
    app.expose(Orders, "orders")
    client = Client(pool, app)
    task = await client.get_task(await client.enqueue(payload={"order": 7}, target="orders", method="ship"))
    assert (task.name, task.payload) == ("orders.ship", {"order": 7})
    with pytest.raises(UnknownTaskError, match="orders._hidden"):
        await client.enqueue(payload={"order": 7}, target="orders", method="_hidden")


async def test_a_token_makes_one_task_per_target_and_method(app, pool):
    orders = app.expose(Orders, "orders")
    client = Client(pool, app)
    call = {"payload": {"order": 7}, "target": "orders", "idempotence_token": "t1"}
    first = await client.enqueue(**call, method="ship")
    assert await client.enqueue(**call, method="ship") == first
    assert await client.enqueue(orders.ship.request(8), idempotence_token="t1") == first
    assert await client.enqueue_many([TaskRequest("orders.ship", {"order": 9}, idempotence_token="t1")]) == [
        first
    ]
    assert await client.enqueue(**call, method="bill") != first
    assert await client.enqueue(orders.ship.request(8), idempotence_token="t2") != first


async def test_sql_enqueues_calls_alike(app, pool):
    app.expose(Orders, "orders")
    client = Client(pool, app)
    first = await client.enqueue(payload={"order": 7}, target="orders", method="ship", idempotence_token="t")
    call = "SELECT asynctaskd.enqueue(target => 'orders', method => 'ship', idempotence_token => 't')"
    assert await pool.fetchval(call) == first
    many = (
        "SELECT asynctaskd.enqueue_many("
        "'{orders.ship,x}', $1::text[]::jsonb[], options => $2::text[]::jsonb[])"
    )
    ids = await pool.fetchval(many, ["{}", "{}"], ['{"idempotence_token": "t"}', "{}"])
    assert ids[0] == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "orders"}, "target and method go together, in the place of a name"),
        ({"method": "ship"}, "target and method go together, in the place of a name"),
        (
            {"name": "x", "target": "a", "method": "b"},
            "target and method go together, in the place of a name",
        ),
        (
            {"name": "x", "unique_tag": "a", "idempotence_token": "b"},
            "idempotence_token and unique_tag exclude",
        ),
    ],
)
async def test_calls_that_contradict_themselves_are_refused_by_both(pool, options, message):
    given = dict(options)
    with pytest.raises(InvalidInputError, match=message):
        await Client(pool).enqueue(given.pop("name", None), **given)
    arguments = ", ".join(f"{name} => '{value}'" for name, value in options.items())
    with pytest.raises(Exception, match=message):
        await pool.fetchval(f"SELECT asynctaskd.enqueue({arguments})")


# Interface types


class Shape(ABC):
    @abstractmethod
    def area(self) -> float: ...


class Named(Protocol):
    name: str

    def greet(self) -> str: ...


@dataclass
class Circle(Shape):
    radius: float

    def area(self) -> float:
        return math.pi * self.radius**2


class Square(BaseModel):
    side: float

    def area(self) -> float:
        return self.side**2


Shape.register(Square)


@dataclass
class Person:
    name: str

    def greet(self) -> str:
        return f"I am {self.name}"


@pytest.fixture
def shapes(app):
    for cls in (Circle, Square, Person):
        app.register_type(cls)
    return app


def measure(shape: Shape, others: list[Shape] = [], who: Named | None = None) -> None: ...  # noqa: B006


def test_parameters_of_interface_types_accept_registered_implementations(shapes):
    definition = shapes.register(measure)
    request = definition.request(Circle(2.0), [Square(side=1), Circle(1)], who=Person("Ada"))
    text = definition.dump(request.payload)
    assert '"type":"Circle"' in text
    bound = definition.bind(text)
    assert bound == {
        "shape": Circle(2.0),
        "others": [Square(side=1), Circle(1.0)],
        "who": Person("Ada"),
    }


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"type": "Triangle", "value": {}}, "shape: .*'Circle', 'Square'"),
        ({"type": "Circle", "value": {}}, "radius: Field required"),
        (Person("Ada"), "shape: .*'Circle', 'Square'"),
        (3, "shape: Input should be an object"),
    ],
)
def test_a_value_that_implements_nothing_known_is_refused(shapes, value, message):
    with pytest.raises(InvalidPayloadError, match=message):
        shapes.register(measure).dump({"shape": value})


def test_an_interface_without_implementations_is_refused_with_what_to_do(app):
    with pytest.raises(InvalidDefinitionError, match=r"parameter 'shape': .*app.register_type"):
        app.register(measure)


def test_types_that_cant_be_read_or_share_a_name_are_refused(app):
    with pytest.raises(InvalidDefinitionError, match="isn't abstract"):
        app.register_type(Shape)
    with pytest.raises(InvalidDefinitionError, match="can't be read from JSON"):
        app.register_type(Orders)
    app.register_type(Circle)
    app.register_type(Circle)
    other = dataclass(type("Circle", (), {"__annotations__": {"r": int}}))
    with pytest.raises(InvalidDefinitionError, match="two types are named 'Circle'"):
        app.register_type(other)


def annotated(
    shape: Annotated[Shape, Field(description="what to measure")], rest: dict[str, Any]
) -> None: ...


def test_annotations_around_an_interface_stay(shapes):
    definition = shapes.register(annotated)
    assert definition.schema["properties"]["shape"]["description"] == "what to measure"


async def test_a_batch_writes_the_types_of_its_values_too(shapes, pool):
    shapes.register(measure)
    client = Client(pool, shapes)
    requests = [TaskRequest("measure", {"shape": shape}) for shape in (Circle(2.0), Square(side=1))]
    tasks = await client.get_tasks(await client.enqueue_many(requests))
    assert sorted(task.payload["shape"]["type"] for task in tasks) == ["Circle", "Square"]


def test_a_token_that_is_too_long_beside_the_name_is_called_by_its_own_name():
    with pytest.raises(InvalidInputError, match="idempotence_token must have at most 510 characters beside"):
        TaskRequest("x", idempotence_token="t" * 511)
