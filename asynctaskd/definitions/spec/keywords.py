"""The keywords of JSON schema that are supported: for which types, and what their values may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic_core import SchemaError

from asynctaskd.definitions import rules
from asynctaskd.definitions.text import shown
from asynctaskd.errors import InvalidInputError

TYPES = ("string", "integer", "number", "boolean", "object", "array", "null")

PLAIN_FORMATS = {"number": ("float", "double")}
"""Formats that are known and say nothing beyond the type."""

_NUMERIC = frozenset({"integer", "number"})
_TEXT = frozenset({"string"})
_ARRAY = frozenset({"array"})
_OBJECT = frozenset({"object"})

_SUITED = {
    "minimum": _NUMERIC,
    "maximum": _NUMERIC,
    "exclusiveMinimum": _NUMERIC,
    "exclusiveMaximum": _NUMERIC,
    "multipleOf": _NUMERIC,
    "minLength": _TEXT,
    "maxLength": _TEXT,
    "pattern": _TEXT,
    "minItems": _ARRAY,
    "maxItems": _ARRAY,
    "items": _ARRAY,
    "properties": _OBJECT,
    "required": _OBJECT,
    "additionalProperties": _OBJECT,
}
_ANYWHERE = frozenset(
    {"type", "format", "enum", "const", "default", "nullable", "secret"}
    | {"title", "description", "deprecated", "example", "examples"}
)
KNOWN = _ANYWHERE | _SUITED.keys()
BOUNDS = frozenset(_SUITED) - {"items", "properties", "required", "additionalProperties"}
"""Keywords that bound a value."""

PAIRS = (
    ("minimum", "maximum"),
    ("exclusiveMinimum", "exclusiveMaximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
)

_WRITE_OUT = ": write the schema out"
CHECK = ": check it in the handler"
UNSUPPORTED = {
    **dict.fromkeys(("$ref", "$defs", "definitions", "$dynamicRef", "allOf"), _WRITE_OUT),
    **dict.fromkeys(("anyOf", "oneOf"), ": a value has one type, and may be null (nullable: true)"),
    **dict.fromkeys(
        (
            *("not", "if", "then", "else", "uniqueItems", "contains", "minContains", "maxContains"),
            *("prefixItems", "additionalItems", "unevaluatedItems", "unevaluatedProperties"),
            *("patternProperties", "propertyNames", "minProperties", "maxProperties"),
            *("dependentRequired", "dependentSchemas", "dependencies", "discriminator"),
        ),
        CHECK,
    ),
}
"""Keywords that restrict values, or name a schema elsewhere, and what to do instead."""


def suits(keyword: str, kind: str | None) -> bool:
    """Whether a keyword has a meaning for a type; None is any type."""
    return keyword in _ANYWHERE or kind in _SUITED[keyword]


def type_of(value: object) -> str:
    """The type of a value that has no parts, in the words of JSON schema."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
    return "string"


def _text(keyword: str, value: object, _: str | None) -> str:
    return rules.storable(keyword, value)


def _number(keyword: str, value: object, kind: str | None) -> int | float:
    if kind == "integer":
        return rules.int64(keyword, value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidInputError(f"{keyword} must be a number, got {shown(value)}")
    return value


def _divisor(keyword: str, value: object, kind: str | None) -> int | float:
    number = _number(keyword, value, kind)
    if number <= 0:
        raise InvalidInputError(f"{keyword} must be more than 0, got {shown(value)}")
    return number


def _count(keyword: str, value: object, _: str | None) -> int:
    return rules.integer(keyword, value, 0, rules.MAX_INT32)


def _pattern(keyword: str, value: object, _: str | None) -> str:
    pattern = rules.storable(keyword, value)
    text: Any = Annotated[str, Field(pattern=pattern)]
    try:
        TypeAdapter(text)
    except (SchemaError, PydanticUserError) as error:
        why = str(error).splitlines()[-1].strip()
        raise InvalidInputError(f"{keyword} {shown(pattern)} can't be read: {why}") from None
    return pattern


def _flag(keyword: str, value: object, _: str | None) -> bool:
    if not isinstance(value, bool):
        raise InvalidInputError(f"{keyword} must be true or false, got {shown(value)}")
    return value


RULES: dict[str, Callable[[str, object, str | None], Any]] = {
    "description": _text,
    "nullable": _flag,
    "secret": _flag,
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _number),
    "multipleOf": _divisor,
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _count),
    "pattern": _pattern,
}
"""(keyword, value, type) → the value; raises InvalidInputError where it can't be one."""
