"""Parameters of interface types: which classes implement them, and how their values are written."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema
from typing_extensions import get_protocol_members, is_protocol

from asynctaskd.errors import InvalidDefinitionError


class Implementations:
    """The classes that were registered, by name."""

    def __init__(self) -> None:
        self._classes: dict[str, type] = {}
        self._adapters: dict[type, TypeAdapter[Any]] = {}

    def register(self, cls: object) -> None:
        """Add one.

        Raises:
            InvalidDefinitionError: it is no class that can be made from JSON, or its name is taken.
        """
        if not isinstance(cls, type) or is_interface(cls):
            raise InvalidDefinitionError(f"register_type takes a class that isn't abstract, got {cls!r}")
        self._adapters[cls] = _adapter(cls)
        first = self._classes.setdefault(cls.__name__, cls)
        if first is not cls:
            raise InvalidDefinitionError(f"two types are named {cls.__name__!r}: {first!r} and {cls!r}")

    def known(self, annotation: Any) -> Any:
        """The annotation, with every interface in it that has implementations replaced by these."""
        if is_interface(annotation):
            found = tuple(cls for cls in self._classes.values() if _implements(cls, annotation))
            return Annotated[annotation, _Tagged(found)] if found else annotation
        arguments = get_args(annotation)
        replaced = tuple(self.known(argument) for argument in arguments)
        return annotation if replaced == arguments else _rebuilt(annotation, replaced)

    def tagged(self, value: object) -> object:
        """The value, with every one of a class that was registered written as its type and what it holds."""
        if adapter := self._adapters.get(type(value)):
            held = adapter.dump_python(value, mode="json", by_alias=True, round_trip=True)
            return {"type": type(value).__name__, "value": held}
        if isinstance(value, Mapping):
            return {key: self.tagged(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.tagged(one) for one in value]
        return value


@dataclass(frozen=True)
class _Tagged:
    """Reads `{"type": name, "value": …}` as a value of that class."""

    classes: tuple[type, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices: dict[Any, CoreSchema] = {
            cls.__name__: core_schema.typed_dict_schema(
                {
                    "type": core_schema.typed_dict_field(core_schema.literal_schema([cls.__name__])),
                    "value": core_schema.typed_dict_field(handler.generate_schema(cls)),
                },
                extra_behavior="forbid",
            )
            for cls in self.classes
        }
        written = core_schema.tagged_union_schema(choices, discriminator="type")
        return core_schema.no_info_after_validator_function(lambda read: read["value"], written)


def _adapter(cls: type) -> TypeAdapter[Any]:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(cls)
        adapter.json_schema()
    except Exception as error:
        raise InvalidDefinitionError(f"{cls!r} can't be read from JSON: {error}") from error
    return adapter


def is_interface(annotation: Any) -> bool:
    """Whether it is an abstract class or a Protocol, and none of the standard library's."""
    if not isinstance(annotation, type) or annotation.__module__ in ("typing", "collections.abc"):
        return False
    return inspect.isabstract(annotation) or is_protocol(annotation)


def _implements(cls: type, interface: type) -> bool:
    if is_protocol(interface):
        return all(
            hasattr(cls, member) or member in _fields(cls) for member in get_protocol_members(interface)
        )
    return issubclass(cls, interface)


def _fields(cls: type) -> set[str]:
    return {name for base in cls.__mro__ for name in getattr(base, "__annotations__", {})}


def _rebuilt(annotation: Any, arguments: tuple[Any, ...]) -> Any:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return reduce(or_, arguments)
    if origin is Annotated:
        return Annotated[arguments[0], *annotation.__metadata__]
    return origin[arguments]
