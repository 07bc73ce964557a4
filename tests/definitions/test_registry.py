from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, AliasGenerator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from asynctaskd.app import App
from asynctaskd.definitions import context
from asynctaskd.definitions.context import TaskContext
from asynctaskd.definitions.definition import Definition
from asynctaskd.definitions.request import TaskRequest
from asynctaskd.errors import (
    InvalidDefinitionError,
    InvalidInputError,
    InvalidPayloadError,
    UnknownTaskError,
)
from asynctaskd.scheduling.retry import RetryPolicy
from asynctaskd.task import TaskFailure

if TYPE_CHECKING:
    from asynctaskd.definitions.context import TaskContext as Imported  # noqa: F401

CONTEXT = cast("TaskContext", object())


class SendEmail(BaseModel):
    user_id: int
    template_id: str = "welcome"


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=AliasGenerator(alias=to_camel))

    order_id: int
    unit_price: float = 1.0


@pytest.fixture
def app() -> App:
    return App()


def declaring(app: App, handler: Any, /, **options: Any) -> str:
    with pytest.raises(InvalidDefinitionError) as caught:
        app.task("broken", **options)(handler)
    return str(caught.value)


def misfit(task: Definition[..., Any], payload: object) -> str:
    with pytest.raises(InvalidPayloadError) as caught:
        task.dump(payload)
    return str(caught.value)


def test_a_declared_function_is_still_that_function(app: App):
    @app.task("add")
    def add(a: int, b: int = 3) -> int:
        """Add."""
        return a + b

    assert add(1, b=2) == 3
    assert (add.name, add.__name__, add.__doc__) == ("add", "add", "Add.")
    assert add.handler(1) == 4
    assert app["add"] is app.get("add") is app.definitions["add"] is add
    assert "add" in repr(add)


async def test_an_async_function_is_awaited_as_before(app: App):
    @app.task("echo")
    async def echo(text: str) -> str:
        return text

    assert await echo("hello") == "hello"
    assert not echo.is_sync


def test_without_a_name_the_function_gives_its_own(app: App):
    @app.task
    def first() -> None: ...

    @app.task()
    def second() -> None: ...

    assert list(app.definitions) == ["first", "second"]
    assert first.is_sync


def test_options_are_checked_and_kept(app: App):
    policy = RetryPolicy("1m,2m,4m", max_attempts=4)

    @app.task("mail", retry=policy, timeout="30s", labels=["mail"])
    def mail() -> None: ...

    assert mail.options.given() == {"retry": policy, "timeout": timedelta(seconds=30), "labels": ("mail",)}
    assert mail.retry is policy


def test_the_apps_retry_policy_is_the_default_and_no_declared_option():
    app = App(retry="1m")

    @app.task
    def plain() -> None: ...

    @app.task(retry="5m")
    def own() -> None: ...

    assert plain.retry is app.retry
    assert plain.options.retry is None
    assert own.retry is own.options.retry
    assert App().retry is None
    with pytest.raises(InvalidInputError, match="^retry: "):
        App(retry="sometimes")


# -- the three forms of a handler ------------------------------------------------------------------


def test_a_model_takes_the_whole_payload(app: App):
    @app.task("mail")
    def mail(params: SendEmail) -> SendEmail:
        return params

    bound = mail.bind('{"user_id": 1}')
    assert mail.call(bound, None) == SendEmail(user_id=1)
    assert not mail.wants_context


def test_plain_arguments_are_members_of_the_payload(app: App):
    @app.task("plain")
    def plain(a: int, *, b: UUID, c: list[SendEmail], d: int = 4) -> tuple[Any, ...]:
        return a, b, c, d

    bound = plain.bind('{"c": [{"user_id": 1}], "a": "1", "b": "00000000-0000-0000-0000-000000000002"}')
    assert plain.call(bound, None) == (1, UUID(int=2), [SendEmail(user_id=1)], 4)


def test_a_dict_named_payload_takes_the_whole_payload(app: App):
    @app.task("any")
    def anything(payload: dict[str, Any]) -> Any:
        return payload

    assert anything.call(anything.bind('{"a": [1]}'), None) == {"a": [1]}
    with pytest.raises(InvalidPayloadError):
        anything.bind("[1]")


def test_a_dict_of_another_name_is_a_plain_argument(app: App):
    @app.task("settings")
    def settings(values: dict[str, int]) -> Any:
        return values

    assert settings.call(settings.bind('{"values": {"a": 1}}'), None) == {"a": 1}


def test_no_parameters_take_an_empty_payload(app: App):
    @app.task("tick")
    def tick() -> str:
        return "tock"

    assert tick.dump(None) == tick.dump({}) == "{}"
    assert tick.call(tick.bind("{}"), None) == "tock"


@pytest.mark.parametrize("name", ["model_config", "schema", "copy", "_private", "self", "handler", "context"])
def test_arguments_may_have_any_name(app: App, name: str):
    scope: dict[str, Any] = {}
    exec(f"def odd({name}: int) -> int: return {name}", scope)
    odd = app.task(scope["odd"])
    assert odd.call(odd.bind(odd.dump({name: 1})), None) == 1


def forms() -> list[Callable[..., Any]]:
    def first(ctx: TaskContext, params: SendEmail) -> Any:
        return params, ctx

    def last(params: SendEmail, anything: TaskContext) -> Any:
        return params, anything

    def optional(params: SendEmail, ctx: TaskContext | None = None) -> Any:
        return params, ctx

    def annotated(params: SendEmail, ctx: Annotated[TaskContext, "ours"]) -> Any:
        return params, ctx

    def keyword(params: SendEmail, /, *, ctx: TaskContext) -> Any:
        return params, ctx

    def keywords(*, ctx: TaskContext, params: SendEmail) -> Any:
        return params, ctx

    def mixed(ctx: TaskContext, /, *, params: SendEmail) -> Any:
        return params, ctx

    def qualified(params: SendEmail, ctx: context.TaskContext) -> Any:
        return params, ctx

    return [first, last, optional, annotated, keyword, keywords, mixed, qualified]


@pytest.mark.parametrize("handler", forms(), ids=lambda handler: handler.__name__)
def test_the_context_is_found_by_its_annotation_anywhere(app: App, handler: Callable[..., Any]):
    task = app.task(handler)
    assert task.wants_context
    assert task.call(task.bind('{"user_id": 1}'), CONTEXT) == (SendEmail(user_id=1), CONTEXT)


def test_plain_arguments_take_a_context_too(app: App):
    @app.task
    def first(ctx: TaskContext, a: int, b: int = 2) -> Any:
        return ctx, a, b

    @app.task
    def middle(a: int, ctx: TaskContext, b: int = 2) -> Any:
        return ctx, a, b

    @app.task
    def keyword(a: int, b: int = 2, *, ctx: TaskContext) -> Any:
        return ctx, a, b

    for task in (first, middle, keyword):
        bound = task.bind('{"a": 1}')
        assert task.call(bound, CONTEXT) == (CONTEXT, 1, 2)
        assert bound == {"a": 1}


def test_a_context_alone_is_enough(app: App):
    @app.task
    def alone(ctx: TaskContext) -> Any:
        return ctx

    assert alone.call(alone.bind("{}"), CONTEXT) is CONTEXT
    assert alone.request().payload == {}


def test_a_context_imported_for_type_checkers_only_is_recognised(app: App):
    def handler(params: SendEmail, ctx: Unknown.TaskContext) -> Any:  # type: ignore[name-defined]  # noqa: F821
        return ctx

    assert app.task(handler).wants_context


def test_classes_of_the_surrounding_function_can_be_annotations(app: App):
    class Local(BaseModel):
        a: int

    @app.task
    def handler(params: Local) -> Local:
        return params

    @app.task
    def nested(many: list[Local]) -> list[Local]:
        return many

    assert handler.call(handler.bind('{"a": 1}'), None) == Local(a=1)
    assert nested.call(nested.bind('{"many": [{"a": 1}]}'), None) == [Local(a=1)]


def test_a_method_of_an_object_can_be_a_handler(app: App):
    class Executor:
        def send(self, params: SendEmail) -> int:
            return params.user_id

    executor = Executor()
    task = app.task(executor.send)
    assert task.call(task.bind('{"user_id": 1}'), None) == 1
    assert app.task(executor.send) is task


async def test_decorated_functions_are_seen_through(app: App):
    def twice(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @app.task
    @twice
    async def handler(params: SendEmail) -> int:
        return params.user_id

    assert not handler.is_sync
    assert await handler.call(handler.bind('{"user_id": 1}'), None) == 1


# -- what is refused at declaration ----------------------------------------------------------------


class Opaque:
    pass


def star(*args: int) -> None: ...
def double_star(**kwargs: int) -> None: ...
def bare(a) -> None: ...  # type: ignore[no-untyped-def]
def opaque(a: int, b: Opaque) -> None: ...
def function(a: int, b: Callable[[], int]) -> None: ...
def positional(a: int, /, b: int) -> None: ...
def two_contexts(a: TaskContext, b: TaskContext) -> None: ...
def undefined(a: int, b: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def field(a: int = Field(default=3)) -> None: ...
def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (star, "parameter '*args': a task takes a fixed set of parameters"),
        (double_star, "parameter '**kwargs': a task takes a fixed set of parameters"),
        (bare, "parameter 'a': it has no annotation"),
        (opaque, "parameter 'b': its type can't be read from JSON"),
        (function, "parameter 'b': its type can't be read from JSON"),
        (positional, "parameter 'a': it is positional-only"),
        (two_contexts, "parameter 'b': there is a TaskContext already"),
        (undefined, "parameter 'b': its annotation can't be evaluated: name 'Nowhere' is not defined"),
        (field, "parameter 'a': Field() can't be its default"),
    ],
)
def test_a_bad_parameter_is_named(app: App, handler: Any, message: str):
    assert declaring(app, handler).startswith(f"task 'broken': {message}")
    assert not app.definitions


@pytest.mark.parametrize("handler", [SendEmail, 3, None, print, functools.partial(star), Opaque()])
def test_what_is_no_function_is_refused(app: App, handler: Any):
    assert "its handler must be a function, got " in declaring(app, handler)


@pytest.mark.parametrize("handler", [generator, async_generator])
def test_generators_are_refused(app: App, handler: Any):
    assert declaring(app, handler) == "task 'broken': its handler must not be a generator"


def test_a_bad_option_is_refused_with_the_task_named(app: App):
    def handler() -> None: ...

    assert declaring(app, handler, weight=0) == "task 'broken': weight must be at least 1, got 0"
    assert declaring(app, handler, timout="1s") == (
        "task 'broken': unknown option 'timout'; the nearest known one is 'timeout'"
    )


@pytest.mark.parametrize("name", ["", "a b", "a" * 129, "é", "a\n"])
def test_a_malformed_name_is_refused(app: App, name: str):
    with pytest.raises(InvalidDefinitionError, match="task name must match"):
        app.task(name)(star)


def test_a_lambda_needs_a_name(app: App):
    with pytest.raises(InvalidDefinitionError, match="got '<lambda>'"):
        app.task(lambda: None)
    assert app.task("nothing")(lambda: None).name == "nothing"


def test_the_same_function_twice_is_one_definition_and_two_functions_are_an_error(app: App):
    def one() -> None: ...
    def two() -> None: ...

    first = app.task("name", weight=2)(one)
    assert app.task("name", weight=2)(one) is first
    with pytest.raises(InvalidDefinitionError, match=r"'name' has two functions: .*\.one and .*\.two"):
        app.task("name", weight=2)(two)
    with pytest.raises(InvalidDefinitionError, match="declared twice, with other options"):
        app.task("name")(one)
    assert app.task("other")(one) is not first


def test_an_unknown_name_says_what_may_have_been_forgotten(app: App):
    app.task("send_email")(lambda: None)
    assert app.get("send_mail") is None
    with pytest.raises(
        UnknownTaskError, match=r"named 'send_mail'\. Is it 'send_email'\? Did you forget to import"
    ):
        app["send_mail"]


# -- payloads in ------------------------------------------------------------------------------------


def test_a_payload_is_stored_as_it_was_given(app: App):
    @app.task
    def mail(params: SendEmail) -> None: ...

    assert mail.dump({"user_id": "1"}) == '{"user_id":"1"}'
    assert mail.dump(SendEmail(user_id=1)) == '{"user_id":1,"template_id":"welcome"}'


def test_aliases_are_written_and_names_are_taken_too(app: App):
    @app.task
    def order(params: Camel) -> Camel:
        return params

    assert order.dump({"order_id": 1}) == order.dump({"orderId": 1}) == '{"orderId":1}'
    assert order.dump(Camel(orderId=1)) == '{"orderId":1,"unitPrice":1.0}'
    assert order.bind('{"order_id": 1}') == order.bind('{"orderId": 1}')


def test_an_argument_may_have_an_alias(app: App):
    @app.task
    def order(order_id: Annotated[int, Field(alias="orderId")], lines: list[Camel]) -> Any:
        return order_id

    text = order.dump({"order_id": 1, "lines": [{"order_id": 2}]})
    assert text == '{"orderId":1,"lines":[{"orderId":2}]}'
    assert order.call(order.bind(text), None) == 1


def test_what_a_worker_could_not_read_back_is_refused(app: App):
    class Asymmetric(BaseModel):
        a: Annotated[int, Field(serialization_alias="b")]

    @app.task
    def handler(params: Asymmetric) -> None: ...

    assert misfit(handler, Asymmetric(a=1)) == "payload doesn't fit task 'handler': a: Field required"


def test_a_misfit_names_every_field_and_no_value(app: App):
    @app.task("mail")
    def mail(params: SendEmail) -> None: ...

    assert misfit(mail, {"user_id": "secret", "template_id": 3}) == (
        "payload doesn't fit task 'mail': user_id: Input should be a valid integer, "
        "unable to parse string as an integer; template_id: Input should be a valid string"
    )
    with pytest.raises(InvalidPayloadError, match="template_id"):
        mail.bind('{"user_id": 1, "template_id": ["secret"]}')


def test_the_tag_of_a_union_is_no_exception(app: App):
    class Cat(BaseModel):
        kind: Literal["cat"]

    class Dog(BaseModel):
        kind: Literal["dog"]

    @app.task
    def feed(pet: Annotated[Cat | Dog, Field(discriminator="kind")]) -> None: ...

    assert misfit(feed, {"pet": {"kind": "secret"}}).endswith("pet: its tag is none of 'cat', 'dog'")


def test_many_errors_are_cut_short(app: App):
    @app.task
    def sum_of(numbers: list[int]) -> None: ...

    message = misfit(sum_of, {"numbers": ["x"] * 1000})
    assert message.endswith("(and 995 more)")
    assert len(message) < 700


def test_a_cause_does_not_bring_the_values_back(app: App):
    @app.task
    def mail(params: SendEmail) -> None: ...

    with pytest.raises(InvalidPayloadError) as caught:
        mail.bind('{"user_id": "secret"}')
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert isinstance(caught.value.__context__, ValidationError)


def test_an_unknown_argument_is_refused(app: App):
    @app.task
    def add(a: int, b: int = 0) -> int:
        return a + b

    assert "c: Extra inputs are not permitted" in misfit(add, {"a": 1, "c": 2})


def test_a_validator_that_raises_anything_is_a_misfit(app: App):
    def odd(value: int) -> int:
        raise KeyError(value)

    @app.task
    def handler(a: Annotated[int, AfterValidator(odd)]) -> None: ...

    assert misfit(handler, {"a": 1}).endswith("KeyError: 1")


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "[" * 5000, '{"user_id": NaN}', '{"user_id": 1e400}']
)
def test_an_unreadable_text_is_a_misfit(app: App, text: str):
    mail = app.task(forms_of_mail)
    with pytest.raises(InvalidPayloadError, match="payload doesn't fit task 'forms_of_mail'"):
        mail.bind(text)


def forms_of_mail(params: SendEmail) -> None: ...


def test_payloads_keep_the_general_rules_too(app: App):
    @app.task
    def anything(payload: dict[str, Any]) -> None: ...

    assert "beyond 64 bits" in misfit(anything, {"a": 2**64})


@given(a=st.integers(-(2**63), 2**63 - 1), b=st.lists(st.dates()), c=st.none() | st.uuids())
def test_arguments_arrive_as_they_were_given(a: int, b: list[Any], c: UUID | None):
    from datetime import date

    def handler(a: int, b: list[date], c: UUID | None = None) -> Any:
        return a, b, c

    task = App().task(handler)
    request = task.request(a, b, c=c)
    assert task.call(task.bind(task.dump(request.payload)), None) == (a, b, c)


# -- requests ---------------------------------------------------------------------------------------


def test_a_request_holds_the_arguments_by_name(app: App):
    @app.task("add")
    def add(a: int, b: int = 3, *, ctx: TaskContext) -> int:
        return a + b

    assert add.request(2, b=4) == TaskRequest("add", {"a": 2, "b": 4})  # type: ignore[call-arg]
    assert add.request(2).payload == {"a": 2}  # type: ignore[call-arg]
    assert add.request(2).with_options(priority=10).options.priority == 10  # type: ignore[call-arg]


def test_a_request_holds_the_model(app: App):
    @app.task("mail")
    def mail(params: SendEmail, ctx: TaskContext) -> None: ...

    assert mail.request(SendEmail(user_id=1)) == TaskRequest("mail", SendEmail(user_id=1))
    with pytest.raises(InvalidPayloadError, match="user_id: Field required"):
        mail.request(SendEmail.model_construct())


def test_a_model_that_is_not_complete_yet_is_refused(app: App):
    class Incomplete(BaseModel):
        a: NeverDefined  # type: ignore[name-defined]  # noqa: F821

    def handler(params: Incomplete) -> None: ...

    message = declaring(app, handler)
    assert message.startswith("task 'broken': parameter 'params': its type can't be read from JSON: ")
    assert "NeverDefined" in message


def test_wrong_arguments_are_refused_by_name(app: App):
    @app.task("add")
    def add(a: int, b: int) -> int:
        return a + b

    def refused(*args: Any, **kwargs: Any) -> str:
        with pytest.raises(InvalidPayloadError) as caught:
            add.request(*args, **kwargs)
        return str(caught.value)

    assert refused(1) == "task 'add': missing a required argument: 'b'"
    assert refused(1, 2, 3) == "task 'add': too many positional arguments"
    assert refused(1, b=2, c=3) == "task 'add': got an unexpected keyword argument 'c'"
    assert "b: Input should be a valid integer" in refused(1, "two")


# -- results and hooks ------------------------------------------------------------------------------


def test_results_become_json_text(app: App):
    task = app.task(forms_of_mail)
    assert task.dump_result(None) is None
    assert task.dump_result(Camel(orderId=1)) == '{"orderId":1,"unitPrice":1.0}'
    assert task.dump_result(5) == "5"


@pytest.mark.parametrize("value", [object(), float("nan"), "x" * 2**20, 2**64, "\0"])
def test_a_result_that_cannot_be_stored_is_refused(app: App, value: object):
    with pytest.raises(InvalidPayloadError, match="^result of task 'forms_of_mail' "):
        app.task(forms_of_mail).dump_result(value)


async def hook(params: object, failure: TaskFailure, tx: object) -> None: ...
async def app_hook(failure: TaskFailure, tx: object) -> None: ...


def test_a_failure_hook_is_registered_and_stays_a_function(app: App):
    task = app.task(forms_of_mail)
    assert task.failure_hook is None
    assert task.on_failed(hook) is hook
    assert task.failure_hook is hook
    with pytest.raises(InvalidDefinitionError, match="has a failure hook already"):
        task.on_failed(hook)


def test_an_app_may_have_several_failure_hooks(app: App):
    assert app.on_failed(app_hook) is app_hook
    app.on_failed(app_hook)
    assert app.failure_hooks == [app_hook, app_hook]


@pytest.mark.parametrize("wrong", [lambda params, failure, tx: None, app_hook, 3])
def test_a_failure_hook_must_be_async_and_take_three_arguments(app: App, wrong: Any):
    with pytest.raises(
        InvalidDefinitionError, match=r"its failure hook must be async \(params, failure, tx\)"
    ):
        app.task(forms_of_mail).on_failed(wrong)


def test_an_apps_failure_hook_must_be_async_and_take_two_arguments(app: App):
    with pytest.raises(InvalidDefinitionError, match=r"must be async \(failure, tx\)"):
        app.on_failed(cast("Any", hook))


# -- schema -----------------------------------------------------------------------------------------


def test_the_schemas_hash_depends_on_the_parameters_alone():
    def one(a: int, b: str = "x") -> None: ...
    def two(a: int, b: str = "y", *, ctx: TaskContext) -> None: ...
    def three(a: int, b: int = 1) -> None: ...

    hashes = [App().task(handler).schema_hash for handler in (one, two, three)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert len(hashes[0]) == 64


def test_a_default_that_json_cannot_hold_is_no_trouble(app: App):
    class Odd(BaseModel):
        a: Annotated[Any, Field()] = Opaque()

    @app.task
    def handler(params: Odd) -> None: ...

    assert handler.bind("{}").a is not None


def test_the_schema_says_what_a_payload_looks_like(app: App):
    schema = app.task(forms_of_mail).schema
    assert schema["required"] == ["user_id"]
    assert schema["properties"]["user_id"]["type"] == "integer"
