from __future__ import annotations

from pathlib import Path

import pytest

from asynctaskd.definitions.codegen.module import default_path, write_module
from asynctaskd.definitions.spec.tasks import load_spec

FILES = sorted((Path(__file__).parents[2] / "examples").rglob("tasks.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_the_generated_module_is_in_step_with_its_file(file: Path) -> None:
    spec = load_spec(file)
    assert spec.warnings == []
    assert default_path(file).read_text("utf8") == write_module(spec)
