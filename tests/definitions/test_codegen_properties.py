"""Any file that may be written has a module that can be imported and reads what the file describes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asynctaskd.definitions.codegen.loading import app_of
from asynctaskd.definitions.spec.names import field_name
from asynctaskd.definitions.spec.tasks import load_spec
from tests.support.specs import TASKS, Schema, payloads


@given(TASKS, st.data())
@settings(max_examples=20, suppress_health_check=list(HealthCheck))
def test_any_file_has_a_module_that_reads_and_writes_what_the_file_describes(
    tasks: list[tuple[str, Schema]], data: st.DataObject
):
    document = {"tasks": [{"name": name, "parameters": schema} for name, schema in tasks]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tasks.yaml"
        path.write_text(json.dumps(document, ensure_ascii=False), "utf8")
        app = app_of(load_spec(path))
    for name, schema in tasks:
        payload = data.draw(payloads(schema), label=name)
        definition = app[name]
        read = definition.bind(json.dumps(payload))
        written = json.loads(read.model_dump_json())
        assert set(written) == set(schema["properties"])
        assert definition.bind(json.dumps(written)) == read
        assert definition.bind(definition.dump(payload)).model_fields_set == read.model_fields_set
        by_name = {field_name(key): value for key, value in payload.items()}
        assert definition.bind(json.dumps(by_name)) == read
