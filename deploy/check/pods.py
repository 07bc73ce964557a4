"""Pods as Kubernetes' restricted profile wants them, and a little stricter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

_Part = Mapping[str, Any]

# https://kubernetes.io/docs/concepts/security/pod-security-standards
_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir",
    "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip

_OF_THE_POD: Mapping[str, Callable[[_Part], bool]] = {
    "runAsNonRoot must be true": lambda pod: _security(pod).get("runAsNonRoot") is True,
    "runAsUser must be a user other than root": lambda pod: _security(pod).get("runAsUser", 0) > 0,
    "seccompProfile must be RuntimeDefault": lambda pod: (
        _security(pod).get("seccompProfile") == {"type": "RuntimeDefault"}
    ),
    "automountServiceAccountToken must be false": lambda pod: (
        pod.get("automountServiceAccountToken") is False
    ),
    "it must not share the host's network, processes or IPC": lambda pod: (
        not any(pod.get(shared) for shared in ("hostNetwork", "hostPID", "hostIPC"))
    ),
    f"volumes must be of the kinds {', '.join(sorted(_VOLUMES))}": lambda pod: all(
        volume.keys() - {"name"} <= _VOLUMES for volume in pod.get("volumes", ())
    ),
    "secrets must have defaultMode 0440, and the pod an fsGroup": lambda pod: all(
        volume["secret"].get("defaultMode") == 0o440 and "fsGroup" in _security(pod)
        for volume in pod.get("volumes", ())
        if "secret" in volume
    ),
}

_OF_A_CONTAINER: Mapping[str, Callable[[_Part], bool]] = {
    "privileged must not be true": lambda part: not _security(part).get("privileged"),
    "allowPrivilegeEscalation must be false": lambda part: (
        _security(part).get("allowPrivilegeEscalation") is False
    ),
    "readOnlyRootFilesystem must be true": lambda part: _security(part).get("readOnlyRootFilesystem") is True,
    "capabilities must drop ALL and add none": lambda part: (
        _security(part).get("capabilities") == {"drop": ["ALL"]}
    ),
    "it must not loosen what the pod says": lambda part: (
        not (_security(part).keys() & {"runAsNonRoot", "runAsUser", "seccompProfile"})
    ),
    "ports must not be the host's": lambda part: (
        not any("hostPort" in port for port in part.get("ports", ()))
    ),
    "the image must have a tag that stays what it is": lambda part: (
        part["image"].rpartition("/")[2].partition(":")[2] not in {"", "latest"}
    ),
    "resources must request cpu and memory": lambda part: (
        part.get("resources", {}).get("requests", {}).keys() >= {"cpu", "memory"}
    ),
    "resources must limit memory, and not cpu": lambda part: (
        part.get("resources", {}).get("limits", {}).keys() == {"memory"}
    ),
}


def check(pod: _Part) -> Iterator[str]:
    """The rules that a pod's `spec` breaks."""
    yield from (rule for rule, holds in _OF_THE_POD.items() if not holds(pod))
    for part in (*pod.get("initContainers", ()), *pod["containers"]):
        yield from (f"{part['name']}: {rule}" for rule, holds in _OF_A_CONTAINER.items() if not holds(part))


def _security(part: _Part) -> _Part:
    found: _Part = part.get("securityContext", {})
    return found
