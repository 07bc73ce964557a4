"""What a handler's signature says: its parameters, its context, and how it wants to be called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import Parameter
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from asynctaskd.definitions.context import TaskContext
from asynctaskd.errors import InvalidDefinitionError

Handler = Callable[..., Any]
Call = Callable[[Any, Any], Any]
"""(bound parameters, context) → whatever the handler returns: a value, or a coroutine of one."""


@dataclass(frozen=True, slots=True)
class HandlerSignature:
    """A handler's signature, resolved.

    Attributes:
        arguments: the signature without the context, with evaluated annotations.
        whole: the one parameter that takes the whole payload (a model, or `payload: dict`), or None
            where the payload is an object of arguments by name.
        context: the parameter that takes the TaskContext, or None.
        context_first: whether the context is the first parameter.
    """

    arguments: inspect.Signature
    whole: Parameter | None
    context: Parameter | None
    context_first: bool


def read_signature(task: str, handler: Handler) -> HandlerSignature:
    """Read and check a handler's signature.

    Raises:
        InvalidDefinitionError: it is no plain function, or a parameter can't be filled from a payload.
    """
    _refuse_what_is_no_handler(task, handler)
    parameters = [_resolved(task, handler, parameter) for parameter in _parameters(handler)]
    context = _context(task, parameters)
    arguments = [parameter for parameter in parameters if parameter is not context]
    whole = arguments[0] if len(arguments) == 1 and _takes_whole_payload(arguments[0]) else None
    if whole is None:
        _refuse_positional_only(task, arguments)
    return HandlerSignature(
        inspect.Signature(arguments), whole, context, bool(parameters) and parameters[0] is context
    )


def caller(handler: Handler, signature: HandlerSignature) -> Call:
    """The cheapest way to call this handler with bound parameters and a context."""
    if signature.whole is None:
        return _call_with_arguments(handler, signature)
    if signature.context is None:
        return _call_with_whole(handler, signature.whole)
    return _call_with_both(handler, signature.whole, signature.context, signature.context_first)


def is_async(handler: Handler) -> bool:
    """Whether calling the handler gives a coroutine, also below decorators that use functools.wraps."""
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(inspect.unwrap(handler))


def _refuse_what_is_no_handler(task: str, handler: object) -> None:
    if not inspect.isfunction(handler) and not inspect.ismethod(handler):
        kind = type(handler).__name__
        raise InvalidDefinitionError(f"task {task!r}: its handler must be a function, got {kind}")
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise InvalidDefinitionError(f"task {task!r}: its handler must not be a generator")


def _parameters(handler: Handler) -> Iterator[Parameter]:
    yield from inspect.signature(handler).parameters.values()


def _resolved(task: str, handler: Handler, parameter: Parameter) -> Parameter:
    if parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
        starred = str(parameter.replace(annotation=Parameter.empty))
        raise _refusal(task, starred, "a task takes a fixed set of parameters")
    if parameter.annotation is Parameter.empty:
        raise _refusal(task, parameter.name, "it has no annotation, so its values can't be checked")
    if isinstance(parameter.default, FieldInfo):
        raise _refusal(task, parameter.name, "Field() can't be its default; write Annotated[type, Field()]")
    return parameter.replace(annotation=_evaluated(task, handler, parameter))


def _refusal(task: str, parameter: str, why: str) -> InvalidDefinitionError:
    return InvalidDefinitionError(f"task {task!r}: parameter {parameter!r}: {why}")


def _evaluated(task: str, handler: Handler, parameter: Parameter) -> Any:
    function = inspect.unwrap(handler)
    function = getattr(function, "__func__", function)
    holder: Any = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    names = function.__globals__, _names_around(function)
    try:
        return get_type_hints(holder, *names, include_extras=True)[parameter.name]
    except Exception as error:  # noqa: BLE001  (evaluating an annotation runs any code)
        # Linters move imports that only annotations need below TYPE_CHECKING.
        if str(parameter.annotation).rpartition(".")[2] == TaskContext.__name__:
            return TaskContext
        raise _refusal(task, parameter.name, f"its annotation can't be evaluated: {error}") from None


def _names_around(function: FunctionType) -> dict[str, Any]:
    """The local names of the function that is defining this one, if it is being run right now."""
    frame = inspect.currentframe()
    while frame and not _defines(frame.f_code, function.__code__):
        frame = frame.f_back
    return frame.f_locals if frame else {}


def _defines(outer: CodeType, inner: CodeType) -> bool:
    return any(constant is inner for constant in outer.co_consts)


def _context(task: str, parameters: list[Parameter]) -> Parameter | None:
    contexts = [parameter for parameter in parameters if _is_context(parameter.annotation)]
    if len(contexts) > 1:
        raise _refusal(task, contexts[1].name, "there is a TaskContext already")
    return contexts[0] if contexts else None


def _is_context(annotation: Any) -> bool:
    return annotation is TaskContext or TaskContext in get_args(annotation)


def _takes_whole_payload(parameter: Parameter) -> bool:
    annotation = parameter.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    return parameter.name == "payload" and (annotation is dict or get_origin(annotation) is dict)


def _refuse_positional_only(task: str, arguments: list[Parameter]) -> None:
    for parameter in arguments:
        if parameter.kind is Parameter.POSITIONAL_ONLY:
            raise _refusal(task, parameter.name, "it is positional-only, but payloads give arguments by name")


def _call_with_arguments(handler: Handler, signature: HandlerSignature) -> Call:
    if signature.context is None:
        return lambda bound, context: handler(**bound)
    if signature.context_first and signature.context.kind is not Parameter.KEYWORD_ONLY:
        return lambda bound, context: handler(context, **bound)
    name = signature.context.name
    return lambda bound, context: handler(**bound, **{name: context})


def _call_with_whole(handler: Handler, whole: Parameter) -> Call:
    if whole.kind is Parameter.KEYWORD_ONLY:
        return lambda bound, context: handler(**{whole.name: bound})
    return lambda bound, context: handler(bound)


def _call_with_both(handler: Handler, whole: Parameter, context: Parameter, context_first: bool) -> Call:
    match whole.kind is Parameter.KEYWORD_ONLY, context.kind is Parameter.KEYWORD_ONLY:
        case False, False if context_first:
            return lambda bound, ctx: handler(ctx, bound)
        case False, False:
            return handler
        case False, True:
            return lambda bound, ctx: handler(bound, **{context.name: ctx})
        case True, False:
            return lambda bound, ctx: handler(ctx, **{whole.name: bound})
        case _:
            return lambda bound, ctx: handler(**{whole.name: bound, context.name: ctx})
