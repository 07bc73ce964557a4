"""Objects whose methods tasks may call, and no others."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from asynctaskd.definitions.text import describe_error
from asynctaskd.errors import InvalidDefinitionError

if TYPE_CHECKING:
    from asynctaskd.definitions.definition import Definition
    from asynctaskd.definitions.signature import Handler


class Exposed:
    """The methods of a target that tasks may call: `exposed.ship.request(7)`.

    Attributes:
        target: what it is called, for the option `target`.
    """

    def __init__(self, target: str, definitions: Iterable[Definition[..., Any]]) -> None:
        self.target = target
        self._methods = {one.name.removeprefix(f"{target}."): one for one in definitions}

    def __getattr__(self, method: str) -> Definition[..., Any]:
        try:
            return self._methods[method]
        except KeyError:
            exposed = ", ".join(self._methods)
            raise AttributeError(f"{self.target} exposes no {method!r}; it exposes {exposed}") from None


def exposed_name(target: object, name: str | None) -> str:
    """What a target is called: `module:Name`, or the name of a module.

    Raises:
        InvalidDefinitionError: it has no name of its own, and none was given.
    """
    if name is not None:
        return name
    if inspect.ismodule(target):
        return target.__name__
    if inspect.isclass(target) and "<locals>" not in target.__qualname__:
        return f"{target.__module__}:{target.__qualname__}"
    raise InvalidDefinitionError(f"{target!r} has no name that others can write; expose it with name=…")


def methods_of(target: Any, names: Iterable[str] | None) -> Mapping[str, Handler]:
    """The methods to call, by name: those that were asked for, or all public ones.

    Raises:
        InvalidDefinitionError: the target can't be made or has no such method, or none at all.
    """
    holder = _instance(target) if isinstance(target, type) else target
    found = {name: _method(holder, name) for name in (_public(holder) if names is None else names)}
    for name, method in found.items():
        if method is None:
            raise InvalidDefinitionError(f"{target!r} has no method {name!r}")
    if not found:
        raise InvalidDefinitionError(f"{target!r} has no public method to expose")
    return {name: method for name, method in found.items() if method is not None}


@cache
def _instance(cls: Callable[[], object]) -> object:
    """The one instance of an exposed class: exposed twice, its methods are the same."""
    try:
        return cls()
    except Exception as error:
        why = describe_error(error)
        raise InvalidDefinitionError(
            f"{cls!r} can't be made without arguments ({why}); expose an instance"
        ) from error


def _method(holder: object, name: str) -> Handler | None:
    """What a task would call; a property is none, and isn't asked."""
    if isinstance(inspect.getattr_static(holder, name, None), property):
        return None
    method = getattr(holder, name, None)
    return method if callable(method) else None


def _public(holder: object) -> list[str]:
    return [name for name in dir(holder) if not name.startswith("_") and _is_own(holder, name)]


def _is_own(holder: object, name: str) -> bool:
    """Whether it is a method, and no property; in a module, one that is defined there."""
    found = inspect.getattr_static(holder, name)
    function = getattr(found, "__func__", found)
    own = not inspect.ismodule(holder) or getattr(function, "__module__", None) == holder.__name__
    return inspect.isfunction(function) and own
