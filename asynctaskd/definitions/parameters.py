"""A definition's parameters: from JSON text to typed values, and back to the text that is stored."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from inspect import Parameter
from types import GenericAlias
from typing import Any, NotRequired

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind
from pydantic_core import ErrorDetails
from typing_extensions import TypedDict  # pydantic takes typing's own only from Python 3.12 on

from asynctaskd.definitions.payload import dump_payload
from asynctaskd.definitions.signature import HandlerSignature
from asynctaskd.definitions.text import describe_error, truncate_text
from asynctaskd.definitions.types import Implementations, is_interface
from asynctaskd.errors import InvalidDefinitionError, InvalidPayloadError

_ERRORS_SHOWN = 5
_MESSAGE_BYTES = 500


class Parameters:
    """What a task's payload has to look like.

    Attributes:
        schema: its JSON schema.
        schema_hash: SHA-256 of the schema in canonical form, in hexadecimal.
    """

    def __init__(self, task: str, signature: HandlerSignature, types: Implementations) -> None:
        """Build the validator.

        Raises:
            InvalidDefinitionError: a parameter's type can't be read from JSON; it is named.
        """
        self._task = task
        self._types = types
        given = signature.arguments.parameters
        known = {name: types.known(parameter.annotation) for name, parameter in given.items()}
        self._interfaces = [name for name in known if known[name] is not given[name].annotation]
        self._type = (
            _object_of(signature.arguments, known) if signature.whole is None else signature.whole.annotation
        )
        self._adapter, self.schema = _adapter(task, self._type, signature)
        self._read: Callable[..., Any] = self._adapter.validator.validate_json
        self.schema_hash = _hash(self.schema)

    def bind(self, payload: str) -> Any:
        """Read a payload: JSON text, fields by alias or name. Gives a model, or a dict.

        Raises:
            InvalidPayloadError: it doesn't fit; the message names the fields and holds no values.
        """
        try:
            return self._read(payload, by_alias=True, by_name=True)
        except ValidationError as error:
            raise self._misfit(_explained(error)) from None
        except Exception as error:  # a validator of the user's own may raise anything
            raise self._misfit(describe_error(error, _MESSAGE_BYTES)) from error

    def dump(self, payload: object) -> str:
        """Write a payload as the JSON text that is stored, by alias.

        It is read back as a worker will read it. What the caller left out stays out; a model brings all
        its fields.

        Raises:
            InvalidPayloadError: it doesn't fit, or breaks a rule that holds for all payloads.
        """
        return self.stored(dump_payload(payload))

    @property
    def has_interfaces(self) -> bool:
        """Whether a parameter is of an interface type."""
        return bool(self._interfaces)

    def tagged(self, payload: object) -> object:
        """A payload of arguments by name, with the type beside every value of an interface's parameter."""
        if not self._interfaces or not isinstance(payload, Mapping):
            return payload
        values = {name: self._types.tagged(payload[name]) for name in self._interfaces if name in payload}
        return {**payload, **values}

    def stored(self, text: str) -> str:
        """Check a payload that was written already; returns the text that is stored, by alias.

        Raises:
            InvalidPayloadError: it doesn't fit.
        """
        value = self.bind(text)
        return self._by_alias(value) if self._has_aliases else text

    def stores_as_given(self, document: str) -> bool:
        """Whether all payloads of a JSON array fit, and are stored as they are written there."""
        if self._has_aliases:
            return False
        try:
            self._read_all(document, by_alias=True, by_name=True)
        except Exception:  # noqa: BLE001  (a validator of the user's own may raise anything)
            return False
        return True

    def at_slot(self, params: object, slot: datetime) -> object:
        """Params with the slot in every required date and date-time that has no value."""
        if not isinstance(params, Mapping):
            return params
        values = {"date": slot.date().isoformat(), "date-time": slot.isoformat()}
        left_out = (
            (alias, values[kind])
            for alias, name, kind in self._instants
            if alias not in params and name not in params
        )
        return {**params, **dict(left_out)}

    @cached_property
    def schema_by_name(self) -> Mapping[str, Any]:
        """The schema with the fields' own names in the place of their aliases."""
        # Made when something is enqueued: schemas are most of what a declaration costs.
        return _schema(self._adapter, by_alias=False)

    @cached_property
    def _has_aliases(self) -> bool:
        return self.schema != self.schema_by_name

    @cached_property
    def _instants(self) -> list[tuple[str, str, str]]:
        """The required dates and date-times: alias, name, format."""
        required = self.schema.get("required", ())
        properties = self.schema.get("properties", {})
        names = self.schema_by_name.get("properties", {})
        return [
            (alias, name, property_["format"])
            for (alias, property_), name in zip(properties.items(), names, strict=True)
            if alias in required and property_.get("format") in ("date", "date-time")
        ]

    @cached_property
    def _read_all(self) -> Callable[..., Any]:
        # Built when it is first needed: a worker never enqueues by the thousand.
        many: Any = GenericAlias(list, self._type)
        adapter: TypeAdapter[Any] = TypeAdapter(many)
        adapter.rebuild()
        return adapter.validator.validate_json

    def _by_alias(self, value: object) -> str:
        text = self._adapter.dump_json(
            value, by_alias=True, exclude_unset=True, round_trip=True, warnings=False
        ).decode()
        self.bind(text)  # a field may be written under another alias than the one it is read by
        return text

    def _misfit(self, why: str) -> InvalidPayloadError:
        return InvalidPayloadError(f"payload doesn't fit task {self._task!r}: {why}")


def _adapter(
    task: str, wanted: Any, signature: HandlerSignature
) -> tuple[TypeAdapter[Any], Mapping[str, Any]]:
    try:
        return _readable(wanted)
    except Exception as error:  # pydantic's own, or what a user's schema hook raises
        _name_the_culprit(task, signature)
        raise InvalidDefinitionError(
            f"task {task!r}: its payload can't be read from JSON: {error}"
        ) from error


def _readable(annotation: Any) -> tuple[TypeAdapter[Any], Mapping[str, Any]]:
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    adapter.rebuild()
    return adapter, _schema(adapter)


class _QuietSchema(GenerateJsonSchema):
    """A default that JSON can't hold is left out of the schema, and that is nothing to warn about."""

    def emit_warning(self, kind: JsonSchemaWarningKind, detail: str) -> None:
        pass


def _schema(adapter: TypeAdapter[Any], *, by_alias: bool = True) -> Mapping[str, Any]:
    return adapter.json_schema(by_alias=by_alias, schema_generator=_QuietSchema)


def _name_the_culprit(task: str, signature: HandlerSignature) -> None:
    for parameter in signature.arguments.parameters.values():
        try:
            _readable(parameter.annotation)
        except Exception as error:
            raise InvalidDefinitionError(
                f"task {task!r}: parameter {parameter.name!r}: {_unreadable(parameter.annotation, error)}"
            ) from error


def _unreadable(annotation: Any, error: Exception) -> str:
    if is_interface(annotation):
        return "it is an interface; register what implements it first: app.register_type(…)"
    return f"its type can't be read from JSON: {error}"


def _object_of(arguments: inspect.Signature, types: Mapping[str, Any]) -> Any:
    """A TypedDict: its keys may have any name, and what is left out is left to the function's defaults."""
    members = {name: _member(parameter, types[name]) for name, parameter in arguments.parameters.items()}
    typed = TypedDict("Parameters", members)  # type: ignore[misc]
    typed.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]
    return typed


def _member(parameter: Parameter, annotation: Any) -> Any:
    return annotation if parameter.default is Parameter.empty else NotRequired[annotation]


def _hash(schema: Mapping[str, Any]) -> str:
    canonical = json.dumps(schema, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _explained(error: ValidationError) -> str:
    details = error.errors(include_url=False, include_input=False)
    lines = [_line(detail) for detail in details[:_ERRORS_SHOWN]]
    more = len(details) - len(lines)
    return truncate_text("; ".join(lines), _MESSAGE_BYTES) + (f" (and {more} more)" if more else "")


def _line(detail: ErrorDetails) -> str:
    place = ".".join(str(part) for part in detail["loc"])
    return f"{place}: {_message(detail)}" if place else _message(detail)


def _message(detail: ErrorDetails) -> str:
    if detail["type"] == "union_tag_invalid":  # the only message of pydantic's that repeats the value
        return f"its tag is none of {detail.get('ctx', {}).get('expected_tags')}"
    return detail["msg"]
