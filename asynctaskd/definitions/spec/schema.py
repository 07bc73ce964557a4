"""The JSON schemas of parameters: what may stand in them, and what is made of them.

Nothing that would restrict a payload is passed over: what isn't supported is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asynctaskd.definitions.payload import dump_payload
from asynctaskd.definitions.spec import keywords
from asynctaskd.definitions.spec.keys import list_of, warn_unknown
from asynctaskd.definitions.spec.names import field_name
from asynctaskd.definitions.spec.problems import Problems, nearest
from asynctaskd.definitions.spec.source import Node, inside
from asynctaskd.definitions.spec.values import FORMATS, misfits

Schema = dict[str, Any]


def read_schema(node: Node, problems: Problems) -> Schema:
    """The schema of one value, in a normal form.

    It is a JSON schema with these keywords: `type` (one; left out for anything), `nullable`, `description`,
    `default`, `enum` (without null), `format` (one that has a type of its own), the bounds of `keywords`,
    `items`, `properties`, `required` (without properties that have a default) and `additionalProperties`.
    """
    if not isinstance(node.value, dict):
        problems.refuse(node.place, f"a schema must be a mapping, got {node.got}")
        return {}
    return _SchemaReader(node, problems).read()


def read_parameters(node: Node, problems: Problems) -> Schema:
    """The schema of a payload: an object's."""
    schema = read_schema(node, problems)
    if schema and schema.get("type") != "object":
        problems.refuse(node.place, f"parameters must be of type object, got {schema.get('type', 'any')}")
    for keyword in ("default", "enum", "nullable"):
        if keyword in schema:
            # A type or a const may have said so too.
            place = node.value[keyword].key if keyword in node.value else node.place
            problems.refuse(place, f"{keyword} has no meaning for all parameters together")
    if isinstance(schema.get("additionalProperties"), dict):
        place = node.value["additionalProperties"].place
        problems.refuse(place, "additionalProperties of all parameters together must be true or false")
    return (
        {"type": "object", "properties": {}, "additionalProperties": True} | schema
        if _is_free(schema)
        else schema
    )


def _is_free(schema: Schema) -> bool:
    return "properties" not in schema and "additionalProperties" not in schema


class _SchemaReader:
    def __init__(self, node: Node, problems: Problems) -> None:
        self._node = node
        self._given: Mapping[str, Node] = node.value
        self._problems = problems
        self._schema: Schema = {}

    def read(self) -> Schema:
        self._read_type()
        for keyword, member in self._given.items():
            self._read_keyword(keyword, member)
        self._compare_bounds()
        self._read_enum()
        self._read_parts()
        self._read_default()
        return self._schema

    @property
    def _type(self) -> str | None:
        return self._schema.get("type")

    def _read_type(self) -> None:
        types, is_nullable = self._types()
        if len(types) > 1:
            self._refuse("type", f"type must be one type, and null beside it if you like, got {types}")
        elif types:
            self._schema["type"] = types[0]
        if is_nullable:
            self._schema["nullable"] = True

    def _types(self) -> tuple[list[str], bool]:
        given = self._given.get("type")
        if given is None:
            return self._inferred_type(), self._has_null()
        written = given.value if isinstance(given.value, list) else [given]
        names = [str(one.value) for one in written]
        for name, one in zip(names, written, strict=True):
            if name not in keywords.TYPES:
                self._problems.refuse(one.place, f"{name!r} is no type{nearest(name, keywords.TYPES)}")
        types = [name for name in names if name in keywords.TYPES and name != "null"]
        return types, "null" in names or self._has_null()

    def _has_null(self) -> bool:
        nullable, enum = self._given.get("nullable"), self._given.get("enum")
        members = enum.value if enum is not None and isinstance(enum.value, list) else []
        return bool(nullable and nullable.value is True) or any(one.value is None for one in members)

    def _inferred_type(self) -> list[str]:
        """What a schema without a type is about."""
        if self._given.keys() & {"properties", "additionalProperties", "required"}:
            return ["object"]
        if "items" in self._given:
            return ["array"]
        kinds = {keywords.type_of(one.value) for one in self._members()} - {"null"}
        return sorted(kinds)

    def _members(self) -> list[Node]:
        """The members of its enum; a const is an enum of one."""
        if "const" in self._given:
            return [self._given["const"]]
        enum = self._given.get("enum")
        return [] if enum is None or not isinstance(enum.value, list) else enum.value

    def _read_keyword(self, keyword: str, member: Node) -> None:
        if keyword in keywords.UNSUPPORTED:
            self._problems.refuse(member.key, f"{keyword} isn't supported{keywords.UNSUPPORTED[keyword]}")
        elif keyword not in keywords.KNOWN:
            warn_unknown(keyword, member, keywords.KNOWN, self._problems)
        elif keyword == "format":
            self._read_format(member)
        elif not keywords.suits(keyword, self._type):
            what = "anything" if self._type is None else f"type {self._type}"
            self._problems.refuse(member.key, f"{keyword} has no meaning for {what}")
        elif keyword in keywords.RULES:
            with self._problems.at(member.place):
                self._schema[keyword] = keywords.RULES[keyword](keyword, member.plain, self._type)

    def _read_format(self, member: Node) -> None:
        formats = FORMATS.get(self._type or "", {})
        if member.value in formats:
            self._schema["format"] = member.value
            self._refuse_bounds_of_text()
        elif member.value not in keywords.PLAIN_FORMATS.get(self._type or "", ()):
            known = [*formats, *keywords.PLAIN_FORMATS.get(self._type or "", ())]
            hint = nearest(str(member.value), known)
            self._problems.warn(
                member.place, f"format {member.got} isn't known here and is passed over{hint}"
            )

    def _refuse_bounds_of_text(self) -> None:
        for keyword in ("minLength", "maxLength", "pattern"):
            if self._type == "string" and keyword in self._given:
                place = self._given[keyword].key
                self._problems.refuse(
                    place, f"{keyword} has no meaning beside format {self._schema['format']}"
                )

    def _compare_bounds(self) -> None:
        for least, most in keywords.PAIRS:
            if least in self._schema and most in self._schema and self._schema[least] > self._schema[most]:
                self._refuse(least, f"{least} is more than {most}")

    def _read_enum(self) -> None:
        if not self._given.keys() & {"enum", "const"}:
            return
        for keyword in self._schema.keys() & keywords.BOUNDS:
            self._refuse(keyword, f"{keyword} has no meaning beside an enum")
        self._schema.pop("format", None)
        members = [one for one in self._members() if one.value is not None]
        self._refuse_bad_members(members)
        self._schema["enum"] = list(dict.fromkeys(one.plain for one in members if _is_literal(one.value)))

    def _refuse_bad_members(self, members: list[Node]) -> None:
        keyword = "const" if "const" in self._given else "enum"
        if keyword == "enum" and not isinstance(self._given["enum"].value, list):
            self._refuse("enum", f"enum must be a list, got {self._given['enum'].got}")
        elif not members:
            self._refuse(keyword, f"{keyword} must hold a value that isn't null")
        elif self._type == "number":
            self._refuse(keyword, f"{keyword} isn't supported for type number{keywords.CHECK}")
            return
        for one in members:
            if not _is_literal(one.value):
                self._problems.refuse(
                    one.place, f"{keyword} may hold texts, integers, true and false, got {one.got}"
                )
            elif keywords.type_of(one.value) != self._type:
                self._problems.refuse(one.place, f"{one.got} isn't of type {self._type}")

    def _read_parts(self) -> None:
        if self._type == "array" and "items" in self._given:
            self._schema["items"] = read_schema(self._given["items"], self._problems)
        if self._type == "object":
            self._read_properties()
            self._read_required()
            self._read_additional()

    def _read_properties(self) -> None:
        given = self._given.get("properties")
        if given is None:
            return
        if not isinstance(given.value, dict):
            self._refuse("properties", f"properties must be a mapping, got {given.got}")
            return
        self._refuse_bad_names(given.value)
        self._schema["properties"] = {
            name: read_schema(member, self._problems) for name, member in given.value.items()
        }

    def _refuse_bad_names(self, properties: Mapping[str, Node]) -> None:
        names: dict[str, str] = {}
        for name, member in properties.items():
            field = field_name(name)
            if not field.isidentifier():
                self._problems.refuse(member.key, f"no name in Python can be made of {name!r}")
            elif field in names:
                both = f"{names[field]!r} and {name!r}"
                self._problems.refuse(
                    member.key, f"{both} would both be {field} in Python: rename one of them"
                )
            names.setdefault(field, name)

    def _read_required(self) -> None:
        given = self._given.get("required")
        properties = self._schema.get("properties", {})
        required: list[str] = []
        for one in [] if given is None else list_of(given, "required", self._problems):
            if one.value in properties:
                required.append(one.value)
            else:
                hint = nearest(str(one.value), properties)
                self._problems.refuse(one.place, f"{one.got} is required, but no property{hint}")
        left = [name for name in dict.fromkeys(required) if "default" not in properties[name]]
        if left:
            self._schema["required"] = left

    def _read_additional(self) -> None:
        given = self._given.get("additionalProperties")
        if given is None or isinstance(given.value, bool):
            self._schema |= {} if given is None else {"additionalProperties": given.value}
            return
        if self._schema.get("properties"):
            self._refuse(
                "additionalProperties", "additionalProperties beside properties must be true or false"
            )
        self._schema["additionalProperties"] = read_schema(given, self._problems)

    def _read_default(self) -> None:
        given = self._given.get("default")
        if given is None:
            return
        self._schema["default"] = given.plain
        if given.value is None and not self._schema.get("nullable"):
            self._refuse(
                "default", "null is no default of what can't be null: leave it out, or add nullable: true"
            )
            return
        with self._problems.at(given.place):
            dump_payload(given.plain, "the default")
        for path, message in misfits(self._schema, given.plain):
            self._problems.refuse(inside(given, path).place, f"default: {message}")

    def _refuse(self, keyword: str, message: str) -> None:
        self._problems.refuse(self._given.get(keyword, self._node).place, message)


def _is_literal(value: object) -> bool:
    return isinstance(value, str | int)
