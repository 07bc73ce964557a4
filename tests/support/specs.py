"""Files of definitions as they may be written, and payloads that they describe."""

from __future__ import annotations

import string
from typing import Any

from hypothesis import strategies as st

from asynctaskd.definitions.spec.names import field_name, params_class, snake

Schema = dict[str, Any]

LETTERS = string.ascii_letters + string.digits + "_-. $äß日"
PROPERTY_NAMES = st.text(LETTERS, min_size=1, max_size=8).filter(lambda name: field_name(name).isidentifier())
TASK_NAMES = st.text(string.ascii_letters + string.digits + "_.:/-", min_size=1, max_size=12).filter(snake)
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cc", "Cs")), max_size=8
)

FORMATS = {
    "date": st.dates().map(str),
    "date-time": st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    "time": st.times().map(str),
    "duration": st.integers(0, 10**6).map(lambda seconds: f"PT{seconds}S"),
    "uuid": st.uuids().map(str),
    "ipv4": st.ip_addresses(v=4).map(str),
    "ipv6": st.ip_addresses(v=6).map(str),
    "email": st.just("ada@shop.example"),
    "uri": st.just("https://shop.example/a?b=c"),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)


def numbers() -> st.SearchStrategy[Schema]:
    bounds = st.fixed_dictionaries(
        {}, optional={"minimum": st.integers(-100, 0), "maximum": st.integers(1, 100)}
    )
    integers = st.sampled_from([{}, {"format": "int32"}, {"format": "int64"}])
    return st.builds(lambda kind, bound: {"type": "integer", **kind, **bound}, integers, bounds) | st.builds(
        lambda bound: {"type": "number", **bound}, bounds
    )


def texts() -> st.SearchStrategy[Schema]:
    return st.one_of(
        st.just({"type": "string"}),
        st.just({"type": "string", "minLength": 1, "maxLength": 5}),
        st.sampled_from([{"type": "string", "format": name} for name in FORMATS]),
        st.lists(TEXTS, min_size=1, max_size=3, unique=True).map(
            lambda enum: {"type": "string", "enum": enum}
        ),
        st.lists(st.integers(-5, 5), min_size=1, unique=True).map(lambda enum: {"enum": enum}),
        st.just({"type": "boolean"}),
        st.just({}),
    )


def objects(parts: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    """Objects with properties, of names that don't become one."""
    properties = st.lists(
        st.tuples(PROPERTY_NAMES, parts), max_size=4, unique_by=lambda one: field_name(one[0])
    )
    return st.builds(
        lambda pairs, required, extra: {
            "type": "object",
            "properties": dict(pairs),
            "required": [name for (name, _), wanted in zip(pairs, required, strict=False) if wanted],
            **extra,
        },
        properties,
        st.lists(st.booleans(), min_size=4, max_size=4),
        st.sampled_from([{}, {"additionalProperties": False}]),
    )


def nullable(parts: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return st.builds(lambda part, null: part | ({"nullable": True} if null else {}), parts, st.booleans())


def containers(parts: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    inner = nullable(parts)
    return st.one_of(
        inner.map(lambda items: {"type": "array", "items": items, "maxItems": 3}),
        inner.map(lambda values: {"type": "object", "additionalProperties": values}),
        st.just({"type": "object"}),
        objects(inner),
    )


SCHEMAS = st.recursive(nullable(texts() | numbers()), containers, max_leaves=6)


@st.composite
def with_defaults(draw: st.DrawFn, schema: Schema) -> Schema:
    """The same parameters, some properties with a default that fits."""
    properties = {
        name: part | ({"default": draw(payloads(part))} if draw(st.booleans()) else {})
        for name, part in schema["properties"].items()
    }
    properties = {
        name: part
        for name, part in properties.items()
        if part.get("default", 0) is not None or part.get("nullable")
    }
    return schema | {
        "properties": properties,
        "required": [name for name in schema["required"] if name in properties],
    }


def payloads(schema: Schema) -> st.SearchStrategy[Any]:
    """Values that a schema describes."""
    values = _values(schema)
    return st.none() | values if schema.get("nullable") else values


def _values(schema: Schema) -> st.SearchStrategy[Any]:
    match schema:
        case {"enum": members}:
            return st.sampled_from(members)
        case {"type": "integer"}:
            bits = 31 if schema.get("format") == "int32" else 63
            return st.integers(schema.get("minimum", -(2**bits)), schema.get("maximum", 2**bits - 1))
        case {"type": "number"}:
            return st.floats(schema.get("minimum", -1e6), schema.get("maximum", 1e6))
        case {"type": "string", "format": name}:
            return FORMATS[name]
        case {"type": "string"}:
            return TEXTS.map(lambda text: (text + "x")[:5]) if "minLength" in schema else TEXTS
        case {"type": "boolean"}:
            return st.booleans()
        case {"type": "array"}:
            return st.lists(payloads(schema["items"]), max_size=schema.get("maxItems"))
        case {"type": "object", "properties": properties}:
            optional = {
                name: payloads(part) for name, part in properties.items() if name not in schema["required"]
            }
            return st.fixed_dictionaries(
                {name: payloads(properties[name]) for name in schema["required"]}, optional=optional
            )
        case {"type": "object"}:
            return st.dictionaries(TEXTS, payloads(schema.get("additionalProperties", {})), max_size=3)
    return JSON


TASKS = st.lists(
    st.tuples(TASK_NAMES, objects(SCHEMAS).flatmap(with_defaults)),
    min_size=1,
    max_size=5,
    unique_by=(lambda one: snake(one[0]), lambda one: params_class(one[0])),
)
