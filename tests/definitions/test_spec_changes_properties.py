"""Where no change is told, whatever the old file accepted and wrote is read by the new one."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from asynctaskd.definitions.spec.changes import breaking_changes
from asynctaskd.definitions.spec.spec import Spec
from asynctaskd.definitions.spec.tasks import load_spec
from asynctaskd.definitions.spec.values import misfits
from asynctaskd.errors import ConfigError
from tests.support.specs import SCHEMAS, Schema, objects, payloads

OBJECTS = objects(SCHEMAS)


@st.composite
def evolved(draw: st.DrawFn, schema: Schema) -> Schema:
    """A schema after somebody has worked on it, mostly with care."""
    match draw(st.sampled_from(["keep", "keep", "parts", "parts", "loosen", "tighten", "replace"])):
        case "replace":
            return draw(SCHEMAS)
        case "loosen":
            dropped = draw(st.sampled_from([*schema, "nullable"]))
            kept = {keyword: part for keyword, part in schema.items() if keyword not in (dropped, "default")}
            return kept | {"nullable": True} if "type" in kept or not kept else schema
        case "tighten":
            return schema | draw(st.sampled_from(TIGHTER.get(schema.get("type", ""), [{}])))
        case "parts":
            return draw(with_other_parts(schema))
    return schema


TIGHTER: dict[str, list[Schema]] = {
    "integer": [{"minimum": -3}, {"maximum": 3}, {"format": "int32"}, {"format": "int64"}, {"multipleOf": 2}],
    "number": [{"minimum": -3}, {"maximum": 3}],
    "array": [{"maxItems": 1}, {"items": {"type": "integer"}}],
    "object": [{"additionalProperties": False}],
}


@st.composite
def with_other_parts(draw: st.DrawFn, schema: Schema) -> Schema:
    if "items" in schema:
        return schema | {"items": draw(evolved(schema["items"]))}
    if isinstance(schema.get("additionalProperties"), dict):
        return schema | {"additionalProperties": draw(evolved(schema["additionalProperties"]))}
    if "properties" not in schema:
        return schema
    kept = {name: part for name, part in schema["properties"].items() if draw(st.integers(0, 5))}
    properties = {name: draw(evolved(part)) for name, part in kept.items()}
    if draw(st.booleans()):
        properties.setdefault("added", {"type": "string"})
    required = [name for name in schema["required"] if name in properties and draw(st.integers(0, 3))]
    added = [name for name in properties if name not in required and not draw(st.integers(0, 5))]
    return schema | {"properties": properties, "required": required + added}


def loaded(schema: Schema) -> Spec | None:
    """The file of one task with that schema, or None where nobody could have written it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tasks.yaml"
        document = {"tasks": [{"name": "x", "parameters": schema}]}
        path.write_text(json.dumps(document, ensure_ascii=False), "utf8")
        try:
            return load_spec(path)
        except ConfigError:
            return None


def accepted(schema: Any) -> Any:
    """What a model accepts: null, too, where a property is optional and has no default."""
    match schema:
        case {"properties": properties}:
            required = schema.get("required", ())
            loose = {
                name: accepted(part) | ({} if name in required or "default" in part else {"nullable": True})
                for name, part in properties.items()
            }
            return schema | {"properties": loose}
        case {"items": part} | {"additionalProperties": dict() as part}:
            keyword = "items" if "items" in schema else "additionalProperties"
            return schema | {keyword: accepted(part)}
    return schema


def written(schema: Any, value: Any) -> Any:
    """A payload as a model writes it: every property is there, and what isn't defined is gone."""
    match schema:
        case {"properties": properties} if isinstance(value, dict):
            defined = {
                name: written(part, value.get(name, part.get("default"))) for name, part in properties.items()
            }
            return defined if schema.get("additionalProperties") is not True else value | defined
        case {"items": part} if isinstance(value, list):
            return [written(part, one) for one in value]
        case {"additionalProperties": dict() as part} if isinstance(value, dict):
            return {name: written(part, one) for name, one in value.items()}
    return value


@given(OBJECTS.flatmap(lambda old: st.tuples(st.just(old), with_other_parts(old), payloads(old))))
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
def test_where_no_change_is_told_every_payload_is_still_read(case: tuple[Schema, Schema, Any]):
    before, after, payload = case
    old, new = loaded(before), loaded(after)
    if old is None or new is None:
        return
    changes = breaking_changes(old, new)
    event("changes" if changes else "no change" if before != after else "the same")
    if not changes:
        stored = written(old.tasks[0].parameters, payload)
        assert list(misfits(accepted(new.tasks[0].parameters), stored)) == []
