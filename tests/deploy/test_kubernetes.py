"""The check of the manifests finds each fault that is planted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import yaml

if TYPE_CHECKING:
    import asyncpg

    from tests.deploy.conftest import Copy

WORKERS = "kubernetes/base/deployment.yaml"
CONFIG = "kubernetes/base/config.toml"
BUDGET = "kubernetes/base/poddisruptionbudget.yaml"
NETWORK = "kubernetes/base/networkpolicy.yaml"
BASE = "kubernetes/base/kustomization.yaml"
JOB = "kubernetes/migrate/job.yaml"
PRODUCTION = "kubernetes/overlays/production/kustomization.yaml"
MONITOR = "kubernetes/overlays/production/podmonitor.yaml"
AUTOSCALED = "kubernetes/overlays/autoscaled/kustomization.yaml"
SCALER = "kubernetes/overlays/autoscaled/scaledobject.yaml"
TOKEN = "automountServiceAccountToken"
AUTHENTICATION = "kind: TriggerAuthentication\nmetadata:\n  name: "


def test_what_is_shipped_is_well(copy: Copy) -> None:
    assert list(copy.findings("kubernetes")) == []


@pytest.mark.parametrize(
    "file, old, new, found",
    [
        # What kustomize and the schemas find.
        (BASE, "- networkpolicy.yaml", "- policy.yaml", "policy.yaml"),
        (WORKERS, "strategy:", "strategie:", "strategie"),
        (BUDGET, "maxUnavailable: 1", "maxUnavailable: true", "True"),
        (BUDGET, "policy/v1", "policy/v1beta1", "has no PodDisruptionBudget of policy/v1beta1"),
        (MONITOR, "podMetricsEndpoints", "podMetricsEndpoint", "podMetricsEndpoint"),
        (SCALER, "minReplicaCount", "minReplicasCount", "minReplicasCount"),
        (SCALER, "maxReplicaCount: 20", 'maxReplicaCount: "20"', "Type 'string' is not assignable"),
        # What a pod may do.
        (WORKERS, "runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot must be true"),
        (WORKERS, "runAsUser: 65532", "runAsUser: 0", "runAsUser must be a user other than root"),
        (WORKERS, "type: RuntimeDefault", "type: Unconfined", "seccompProfile must be RuntimeDefault"),
        (WORKERS, f"{TOKEN}: false", f"{TOKEN}: true", f"{TOKEN} must be false"),
        (WORKERS, f"{TOKEN}: false", f"{TOKEN}: false\n      hostPID: true", "share the host's network"),
        (WORKERS, "emptyDir:\n            sizeLimit: 256Mi", "hostPath: { path: /tmp }", "volumes must"),
        (WORKERS, "            defaultMode: 0440\n", "", "secrets must have defaultMode 0440"),
        (JOB, "defaultMode: 0440", "defaultMode: 0444", "secrets must have defaultMode 0440"),
        (WORKERS, "        fsGroup: 65532\n", "", "and the pod an fsGroup"),
        (WORKERS, "allowPrivilegeEscalation: false", "privileged: true", "privileged must not be true"),
        (WORKERS, "Escalation: false", "Escalation: true", "allowPrivilegeEscalation must be false"),
        (WORKERS, "Filesystem: true", "Filesystem: false", "readOnlyRootFilesystem must be true"),
        (WORKERS, "drop: [ALL]", "drop: [ALL]\n              add: [NET_ADMIN]", "capabilities must drop"),
        (WORKERS, "Filesystem: true", "Filesystem: true\n            runAsUser: 0", "must not loosen"),
        (WORKERS, "Port: 9400", "Port: 9400\n              hostPort: 9400", "must not be the host's"),
        (WORKERS, "              cpu: 100m\n", "", "resources must request cpu and memory"),
        (WORKERS, "            limits:\n              memory: 512Mi\n", "", "resources must limit memory"),
        (JOB, "Filesystem: true", "Filesystem: false", "Job asynctaskd-migrate: migrate: readOnly"),
        (PRODUCTION, 'newTag: "1.0"', "newTag: latest", "the image must have a tag"),
        # What has to fit together.
        (WORKERS, "{ path: /livez,", "{ path: /readyz,", "livenessProbe must have path /livez"),
        (WORKERS, "{ path: /readyz,", "{ path: /metrics,", "startupProbe must have path /readyz"),
        (WORKERS, "failureThreshold: 30", "failureThreshold: 3", "startupProbe must have failureThreshold"),
        (WORKERS, "/livez, port: http", "/livez, port: 80", "livenessProbe must ask the port http"),
        (WORKERS, "containerPort: 9400", "containerPort: 9401", "ports must have http.port, 9400"),
        (WORKERS, "PeriodSeconds: 60", "PeriodSeconds: 40", "must be above worker.grace + 10"),
        (CONFIG, 'grace = "30s"', 'grace = "5m"', "must be above worker.grace + 10 s, 310, got 60"),
        (CONFIG, "concurrency = 10", "concurency = 10", "config.toml: "),
        (CONFIG, 'host = "0.0.0.0"', 'host = "127.0.0.1"', "one that the kubelet can reach"),
        (CONFIG, "url = ", "# url = ", "database.url is missing"),
        (CONFIG, "secrets/asynctaskd/", "secrets/", "database.url must be a file below one of"),
        (CONFIG, "concurrency = 10", "concurrency = 20", "targetQueryValue must be worker.concurrency, 20"),
        (NETWORK, "- port: 5432", "- port: 6432", "must let out to the database, port 5432"),
        (CONFIG, "port = 9400", "port = 9500", "ports must have http.port, 9500"),
        (BUDGET, "maxUnavailable: 1", "maxUnavailable: 0", "PodDisruptionBudget with maxUnavailable 1"),
        (BUDGET, "component: worker", "component: web", "PodDisruptionBudget with maxUnavailable 1"),
        (WORKERS, "topologyKey: kubernetes.io/hostname", "topologyKey: rack", "spread the workers over"),
        (NETWORK, "        - port: 53\n          protocol: UDP\n", "", "cluster's DNS"),
        (NETWORK, "policyTypes: [Ingress, Egress]", "policyTypes: [Ingress]", "for ingress and egress"),
        (NETWORK, "- port: 9400", "- port: 80", "must let in what asks the port 9400"),
        # Kustomize would have it that DNS is a worker.
        (BASE, "    # Selectors are", "    includeSelectors: true\n    #", "by its labels alone"),
        (MONITOR, "component: worker", "component: web", "PodMonitor must select the workers"),
        (MONITOR, "port: http", "port: metrics", "PodMonitor must ask /metrics of one of the ports http"),
        (SCALER, "minReplicaCount: 1", "minReplicaCount: 0", "must leave one worker"),
        (SCALER, "coalesce(sum(slots), 0)", "sum(slots)", "where there are no rows"),
        (SCALER, "name: asynctaskd\n  # Not", "name: worker\n  # Not", "ScaledObject must scale the workers"),
        (SCALER, f"{AUTHENTICATION}asynctaskd-scaler", f"{AUTHENTICATION}other", "password from"),
        (AUTOSCALED, "path: /spec/replicas", "path: /spec/paused", "paused"),
        (AUTOSCALED, "op: remove\n", "op: add\n        value: 2\n", "leave its replicas to the ScaledObject"),
        (JOB, "args: [migrate, --roles]", "args: [run]", "Job must run `asynctaskd migrate`"),
    ],
)  # fmt: skip
def test_a_fault_is_found(
    assert_found: Callable[..., None], file: str, old: str, new: str, found: str
) -> None:
    assert_found("kubernetes", file, old, new, found)


async def test_the_scaler_s_query_counts_what_its_workers_may_run(
    copy: Copy, connection: asyncpg.Connection
) -> None:
    [scaler, _] = yaml.safe_load_all((copy.folder / SCALER).read_text(encoding="utf8"))
    query = scaler["spec"]["triggers"][0]["metadata"]["query"]
    assert await connection.fetchval(query) == 0
    await connection.execute("SELECT asynctaskd.enqueue('a'), asynctaskd.enqueue('a', labels => '{gpu}')")
    assert await connection.fetchval(query) == 1
