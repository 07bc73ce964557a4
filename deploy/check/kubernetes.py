"""The manifests as kustomize builds them: schemas, the restricted profile, and that the parts fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from deploy.check import crds, fleets, pods
from deploy.check.tools import complaints, find, run

Resource = dict[str, Any]
# The oldest and the newest release whose schemas are checked.
_RELEASES = ("1.28.0", "1.34.0")


def check(deploy: Path) -> Iterator[str]:
    """What is wrong with what `kubectl apply -k` would apply."""
    folder = deploy / "kubernetes"
    applied: dict[str, list[Resource]] = {}
    for overlay in (folder / "migrate", *sorted((folder / "overlays").iterdir())):
        built = _build(overlay)
        yield from complaints(built, of=overlay.name)
        applied[overlay.name] = [part for part in yaml.safe_load_all(built.stdout) if part]
        yield from (f"{overlay.name}: {finding}" for finding in _findings(applied[overlay.name]))
    yield from _custom(applied)


def _custom(applied: dict[str, list[Resource]]) -> Iterator[str]:
    """The same for what isn't Kubernetes' own; all at once, for the compiler takes its time."""
    wrong = list(crds.check([part for parts in applied.values() for part in parts if _is_custom(part)]))
    yield from wrong
    if not wrong:
        for overlay, parts in applied.items():
            yield from (f"{overlay}: {finding}" for finding in fleets.check_custom(parts))


def _is_custom(part: Resource) -> bool:
    return part["kind"] in crds.KINDS


def _build(overlay: Path) -> Any:
    remedy = "install kubectl 1.21 or newer, or kustomize"
    program = find("kubectl", "kustomize", package="kubernetes-client", remedy=remedy)
    return run(program, "build" if program.endswith("kustomize") else "kustomize", overlay)


def _findings(resources: list[Resource]) -> Iterator[str]:
    wrong = list(_schemas(resources))
    yield from wrong
    if wrong:  # what follows takes the shapes for granted
        return
    for part in resources:
        if "template" in part.get("spec", {}):
            yield from (f"{named(part)}: {rule}" for rule in pods.check(part["spec"]["template"]["spec"]))
    yield from fleets.check(resources)


def _schemas(resources: list[Resource]) -> Iterator[str]:
    for part in resources:
        if _is_custom(part):
            continue
        for release in _RELEASES:
            try:
                kubernetes_validate.validate(part, release, strict=True)
            except kubernetes_validate.SchemaNotFoundError:
                yield f"{named(part)}: Kubernetes {release} has no {part['kind']} of {part['apiVersion']}"
            except kubernetes_validate.ValidationError as error:
                yield f"{named(part)}: {'.'.join(map(str, error.path))}: {error.message}"


def named(part: Resource) -> str:
    """A resource's kind and name."""
    return f"{part['kind']} {part['metadata']['name']}"
