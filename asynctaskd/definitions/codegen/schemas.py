"""From the parameters of tasks to one JSON schema, in which every class and every field has its name.

Whatever the generator would have to name itself (objects and bounded values inside others) is a definition of
its own here, so that no name depends on what else is in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from asynctaskd.definitions.spec.keywords import BOUNDS
from asynctaskd.definitions.spec.names import field_name, params_class, pascal
from asynctaskd.definitions.spec.spec import TaskSpec

Schema = Mapping[str, Any]

_RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


class Definitions:
    """The schema, as it grows.

    Attributes:
        schemas: the definitions by name, which is that of the class or of the type's alias.
        fields: `Class.property` → the name of the field, where that is another.
        defaults: what stands for a default that isn't a literal in Python → its value in JSON.
    """

    def __init__(self, tasks: Iterable[TaskSpec]) -> None:
        self.schemas: dict[str, Any] = {}
        self.fields: dict[str, str] = {}
        self.defaults: dict[str, Any] = {}
        for task in tasks:
            if task.parameters is not None:
                self._add_model(params_class(task.name), {"description": task.description, **task.parameters})

    def _add_model(self, name: str, schema: Schema) -> str:
        model = {keyword: schema[keyword] for keyword in _OF_MODELS if schema.get(keyword) not in (None, "")}
        name = self._add(name, model)
        properties = {key: self._field(name, key, one) for key, one in schema.get("properties", {}).items()}
        self.schemas[name]["properties"] = properties
        return name

    def _add(self, name: str, schema: dict[str, Any]) -> str:
        while name in self.schemas:
            name += "_"
        self.schemas[name] = schema
        return name

    def _field(self, model: str, key: str, schema: Schema) -> dict[str, Any]:
        if field_name(key) != key:
            self.fields[f"{model}.{key}"] = field_name(key)
        field = self._type(schema, model + pascal(key))
        if "description" in schema:
            field["description"] = schema["description"]
        if schema.get("secret"):
            field["secret"] = True
        if "default" in schema:
            field["default"] = self._default(schema)
        return field

    def _default(self, schema: Schema) -> Any:
        """The default, or what stands for it until the code is there."""
        value = schema["default"]
        if value is None or _is_literal(schema):
            return value
        mark = f"the asynctaskd default {len(self.defaults)}"
        self.defaults[mark] = value
        return mark

    def _type(self, schema: Schema, name: str) -> dict[str, Any]:
        """The schema of a value, `name` being free for a definition of its own."""
        wanted = self._type_of(schema, name)
        return _or_null(self._named(wanted, name)) if schema.get("nullable") else wanted

    def _part(self, schema: Schema, name: str) -> dict[str, Any]:
        """The same for what is inside a list or map."""
        wanted = self._named(self._type_of(schema, name), name)
        return _or_null(wanted) if schema.get("nullable") else wanted

    def _named(self, wanted: dict[str, Any], name: str) -> dict[str, Any]:
        """The same type, under a name if it is bounded."""
        return _reference(self._add(name, wanted)) if wanted.keys() & BOUNDS else wanted

    def _type_of(self, schema: Schema, name: str) -> dict[str, Any]:
        match schema:
            case {"enum": members}:
                return {"type": schema["type"], "enum": members}
            case {"type": "integer", "format": kind}:
                return self._integer(schema, kind)
            case {"type": "array"}:
                return _bounds(schema) | {
                    "type": "array",
                    "items": self._part(schema.get("items", {}), name + "Item"),
                }
            case {"type": "object"} if (
                "properties" not in schema and schema.get("additionalProperties") is not False
            ):
                values = schema.get("additionalProperties", True)
                return {"type": "object"} | self._map(values, name + "Value")
            case {"type": "object"}:
                return _reference(self._add_model(name, schema))
        return {keyword: part for keyword, part in schema.items() if keyword in _OF_VALUES}

    def _map(self, values: Any, name: str) -> dict[str, Any]:
        return {} if values is True or not values else {"additionalProperties": self._part(values, name)}

    def _integer(self, schema: Schema, kind: str) -> dict[str, Any]:
        least, most = _RANGES[kind]
        whole = {"type": "integer", "minimum": least, "maximum": most}
        bounds = _bounds(schema)
        if not bounds:
            self.schemas.setdefault(pascal(kind), whole)
            return _reference(pascal(kind))
        narrowed = {
            "minimum": max(bounds.get("minimum", least), least),
            "maximum": min(bounds.get("maximum", most), most),
        }
        return whole | bounds | narrowed


_OF_MODELS = ("type", "description", "required", "additionalProperties")
_OF_VALUES = BOUNDS | {"type", "format"}


def _bounds(schema: Schema) -> dict[str, Any]:
    return {keyword: value for keyword, value in schema.items() if keyword in BOUNDS}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _or_null(wanted: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [wanted, {"type": "null"}]}


def _is_literal(schema: Schema) -> bool:
    """Whether what JSON has for a value is the value in Python too."""
    match schema:
        case {"type": "string", "format": _}:
            return False
        case {"type": "array"}:
            return _is_literal(schema.get("items", {}))
        case {"type": "object", "additionalProperties": dict() as values}:
            return _is_literal(values)
        case {"type": "object"}:
            return "properties" not in schema and schema.get("additionalProperties", True) is True
    return True
