"""The parts of a fleet fit: probes the port, grace the drain, selectors the pods, the scaler the slots."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from asynctaskd.config import DaemonConfig, load_config
from asynctaskd.errors import ConfigError

Resource = dict[str, Any]

_PROBES: Mapping[str, Mapping[str, object]] = {
    # 30 × 2 s for the first connection, the lease and LISTEN.
    "startupProbe": {"path": "/readyz", "periodSeconds": 2, "failureThreshold": 30},
    "livenessProbe": {"path": "/livez"},
    "readinessProbe": {"path": "/readyz"},
}
# What is put back after worker.grace takes as long, at most.
_PUTTING_BACK = 10
_DNS = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]


def check(resources: list[Resource]) -> Iterator[str]:
    """What doesn't fit among the resources of one overlay."""
    for part in resources:
        if "template" in part.get("spec", {}):
            yield from _configured(part, resources)
    for workers in _of(resources, "Deployment"):
        yield from _budget(workers, resources)
        yield from _spread(workers)
        yield from _network(workers, resources)
    for job in _of(resources, "Job"):
        if _container(job).get("args", [])[:1] != ["migrate"]:
            yield "Job must run `asynctaskd migrate`"


def check_custom(resources: list[Resource]) -> Iterator[str]:
    """What doesn't fit of custom resources: apart, since these have schemas of their own."""
    for workers in _of(resources, "Deployment"):
        yield from _monitored(workers, resources)
        yield from _scaled(workers, resources)


def _of(resources: list[Resource], kind: str) -> list[Resource]:
    return [part for part in resources if part["kind"] == kind]


def _container(part: Resource) -> Mapping[str, Any]:
    [container] = part["spec"]["template"]["spec"]["containers"]
    found: Mapping[str, Any] = container
    return found


def _configured(part: Resource, resources: list[Resource]) -> Iterator[str]:
    """A pod's configuration is one that the worker takes, and suits the pod."""
    config = _config(part, resources)
    if isinstance(config, str):
        yield f"{part['kind']}: {config}"
        return
    mounts = [mount["mountPath"] for mount in _container(part)["volumeMounts"]]
    file = _url(config).removeprefix("file:")
    if not any(Path(file).is_relative_to(mount) for mount in mounts):
        yield f"{part['kind']}: database.url must be a file below one of {', '.join(mounts)}, got {file}"
    if part["kind"] == "Deployment":
        yield from _probes(_container(part), config)
        yield from _grace(part["spec"]["template"]["spec"], config)


def _config(part: Resource, resources: list[Resource]) -> DaemonConfig | str:
    """What a pod's config.toml says, with a database.url; or why there is none."""
    mounted = [volume["configMap"]["name"] for volume in _volumes(part) if "configMap" in volume]
    maps = [each for each in _of(resources, "ConfigMap") if each["metadata"]["name"] in mounted]
    if len(maps) != 1 or "config.toml" not in maps[0].get("data", {}):
        return f"of the ConfigMaps {mounted} one with a config.toml must be here"
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(maps[0]["data"]["config.toml"])
        file.flush()
        try:
            config = load_config(Path(file.name), {}, {})
        except ConfigError as error:
            return f"config.toml: {str(error).replace(file.name, 'config.toml')}"
    return config if config.database.url is not None else "config.toml: database.url is missing"


def _volumes(part: Resource) -> list[Mapping[str, Any]]:
    volumes: list[Mapping[str, Any]] = part["spec"]["template"]["spec"].get("volumes", [])
    return volumes


def _probes(container: Mapping[str, Any], config: DaemonConfig) -> Iterator[str]:
    ports = {port["containerPort"]: port["name"] for port in container.get("ports", ())}
    if config.http.port not in ports:
        yield f"ports must have http.port, {config.http.port}, got {sorted(ports)}"
        return
    if _is_loopback(config.http.host):
        yield f"http.host must be one that the kubelet can reach, got {config.http.host}"
    for name, wanted in _PROBES.items():
        probe = container.get(name, {})
        asks = probe.get("httpGet", {})
        for key, value in wanted.items():
            if (got := asks.get(key) if key == "path" else probe.get(key)) != value:
                yield f"{name} must have {key} {value}, got {got}"
        if asks.get("port") not in {config.http.port, ports[config.http.port]}:
            yield f"{name} must ask the port {ports[config.http.port]}, got {asks.get('port')}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _grace(pod: Mapping[str, Any], config: DaemonConfig) -> Iterator[str]:
    needed = config.worker.grace.total_seconds() + _PUTTING_BACK
    if (granted := pod.get("terminationGracePeriodSeconds", 30)) <= needed:
        yield (
            f"terminationGracePeriodSeconds must be above worker.grace + {_PUTTING_BACK} s, {needed:g}, "
            f"got {granted}"
        )


def _budget(workers: Resource, resources: list[Resource]) -> Iterator[str]:
    budgets = [
        each["spec"] for each in _of(resources, "PodDisruptionBudget") if _selects(each["spec"], workers)
    ]
    if [budget.get("maxUnavailable") for budget in budgets] != [1]:
        yield "one PodDisruptionBudget with maxUnavailable 1 must select the workers"


def _selects(spec: Mapping[str, Any], part: Resource, key: str = "selector") -> bool:
    labels: Mapping[str, str] = part["spec"]["template"]["metadata"]["labels"]
    wanted: Mapping[str, str] = spec[key].get("matchLabels", {})
    return wanted.items() <= labels.items()


def _spread(workers: Resource) -> Iterator[str]:
    constraints = workers["spec"]["template"]["spec"].get("topologySpreadConstraints", [])
    chosen = {each["topologyKey"] for each in constraints if _selects(each, workers, "labelSelector")}
    if missing := {"kubernetes.io/hostname", "topology.kubernetes.io/zone"} - chosen:
        yield f"topologySpreadConstraints must spread the workers over {', '.join(sorted(missing))}"


def _network(workers: Resource, resources: list[Resource]) -> Iterator[str]:
    config = _config(workers, resources)
    policies = [
        each["spec"]
        for each in _of(resources, "NetworkPolicy")
        if _selects(each["spec"], workers, "podSelector")
    ]
    if len(policies) != 1 or set(policies[0]["policyTypes"]) != {"Ingress", "Egress"}:
        yield "one NetworkPolicy for ingress and egress must select the workers"
        return
    if isinstance(config, str):  # said elsewhere
        return
    [policy] = policies
    if [rule.get("ports") for rule in policy["ingress"]] != [[{"port": config.http.port}]]:
        yield f"NetworkPolicy must let in what asks the port {config.http.port}, and nothing else"
    if not all(rule.get("from") for rule in policy["ingress"]):
        yield "NetworkPolicy must say who may ask the workers"
    if not any({"port": 5432} in rule.get("ports", ()) for rule in policy["egress"]):
        yield "NetworkPolicy must let out to the database, port 5432"
    if not any(rule.get("ports") == _DNS and _reaches_dns(rule) for rule in policy["egress"]):
        yield "NetworkPolicy must let out to the cluster's DNS, by UDP and TCP, and by its labels alone"


def _url(config: DaemonConfig) -> str:
    return config.database.url.get_secret_value() if config.database.url else ""


def _reaches_dns(rule: Mapping[str, Any]) -> bool:
    return any(to.get("podSelector", {}).get("matchLabels") == {"k8s-app": "kube-dns"} for to in rule["to"])


def _monitored(workers: Resource, resources: list[Resource]) -> Iterator[str]:
    names = {port["name"] for port in _container(workers).get("ports", ())}
    for monitor in _of(resources, "PodMonitor"):
        if not _selects(monitor["spec"], workers):
            yield "PodMonitor must select the workers"
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            if endpoint.get("port") not in names or endpoint.get("path") != "/metrics":
                yield f"PodMonitor must ask /metrics of one of the ports {', '.join(sorted(names))}"


def _scaled(workers: Resource, resources: list[Resource]) -> Iterator[str]:
    scalers = _of(resources, "ScaledObject")
    if scalers and "replicas" in workers["spec"]:
        yield "Deployment must leave its replicas to the ScaledObject"
    if not scalers and "replicas" not in workers["spec"]:
        yield "Deployment must say how many replicas there are"
    for spec in (scaler["spec"] for scaler in scalers):
        if spec["scaleTargetRef"]["name"] != workers["metadata"]["name"]:
            yield "ScaledObject must scale the workers"
        if spec.get("minReplicaCount", 0) < 1:
            yield "ScaledObject must leave one worker, which sees to schedules, retries and lost workers"
        yield from _trigger(spec["triggers"], _config(workers, resources), resources)


def _trigger(triggers: list[Any], config: DaemonConfig | str, resources: list[Resource]) -> Iterator[str]:
    [trigger] = triggers
    asked = trigger["metadata"]
    if not isinstance(config, str) and asked.get("targetQueryValue") != str(config.worker.concurrency):
        yield f"targetQueryValue must be worker.concurrency, {config.worker.concurrency}"
    if "coalesce(" not in asked.get("query", ""):
        yield "the trigger's query must say what it is where there are no rows: coalesce(sum(slots), 0)"
    known = {part["metadata"]["name"] for part in _of(resources, "TriggerAuthentication")}
    if trigger.get("authenticationRef", {}).get("name") not in known:
        yield "the trigger must take its password from a TriggerAuthentication that is here"
