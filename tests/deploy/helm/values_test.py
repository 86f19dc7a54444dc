"""Every value of values.yaml changes what is rendered, and the schema knows it."""

import json
import re

import pytest
import yaml

import chart

SHA256 = "0" * 64
DOWNLOAD = {"model": {"source": "download", "download": {"url": "https://a.example/m", "sha256": SHA256}}}
HEADER = {"model": {"source": "download", "download": {**DOWNLOAD["model"]["download"], "headerSecret": {"name": "h"}}}}
CLAIM = {"model": {"source": "pvc", "pvc": {"claimName": "c"}}}
KEDA = {"autoscaling": {"enabled": True, "keda": {"serverAddress": "http://p:9090"}}}
HPA = {"autoscaling": {"enabled": True, "engine": "hpa"}}
GATEWAY = [{"name": "g"}]
HTTP_ROUTE = {"httpRoute": {"enabled": True, "parentRefs": GATEWAY}}
GRPC_ROUTE = {"grpcRoute": {"enabled": True, "parentRefs": GATEWAY}}
POOL = {"inferencePool": {"enabled": True, "endpointPicker": {"name": "epp"}}}
INGRESS = {"ingress": {"enabled": True, "hosts": ["h.example"]}}
GPU = {"gpu": {"enabled": True}}
LABELS = {"a": "b"}


def monitoring(kind: str) -> dict:
    return {"monitoring": {kind: {"enabled": True}}}


# Path: another value, and the values without which it has no meaning.
CHANGES = {
    "fullnameOverride": ("other", {}), "kind": ("StatefulSet", DOWNLOAD), "replicaCount": (3, {}), "maxSurge": (0, {}),
    "progressDeadlineSeconds": (1801, {}),
    "image.repository": ("r", {}), "image.tag": ("1", {}), "image.digest": ("sha256:" + SHA256, {}),
    "image.pullPolicy": ("Never", {}), "image.pullSecrets": ([{"name": "s"}], {}),
    "model.source": ("pvc", {"model": {"pvc": {"claimName": "c"}}}), "model.name": ("m", {}),
    "model.chatTemplate": ("t", {}), "model.bundledPath": ("/m", {}),
    "model.pvc.claimName": ("d", CLAIM), "model.pvc.path": ("p", CLAIM),
    "model.download.url": ("https://b.example", DOWNLOAD), "model.download.sha256": ("1" * 64, DOWNLOAD),
    "model.download.path": ("p", DOWNLOAD), "model.download.size": ("1Gi", DOWNLOAD),
    "model.download.storageClassName": ("fast", {"kind": "StatefulSet", **DOWNLOAD}),
    "model.download.headerSecret.name": ("h", DOWNLOAD), "model.download.headerSecret.key": ("k", HEADER),
    "server.log-format": ("text", {}), "host": ("::", {}), "extraEnv": ([{"name": "A", "value": "b"}], {}),
    "preStopSeconds": (6, {}), "drainTimeoutSeconds": (31, {}), "terminationGracePeriodSeconds": (61, {}),
    "apiKeys.existingSecret": ("s", {}), "apiKeys.key": ("k", {"apiKeys": {"existingSecret": "s"}}),
    "tls.existingSecret": ("s", {}), "gpu.enabled": (True, {}), "gpu.resource": ("nvidia.com/mig-1g.10gb", GPU),
    "gpu.runtimeClassName": ("nvidia", GPU),
    "resources.requests.cpu": ("1", {}), "resources.requests.memory": ("1Gi", {}),
    "resources.limits.cpu": ("3", {}), "resources.limits.memory": ("4Gi", {}),
    "priorityClassName": ("p", {}), "nodeSelector": (LABELS, {}), "tolerations": ([{"operator": "Exists"}], {}),
    "nodeAffinity": ({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}, {}),
    "podAntiAffinity": ("required", {}), "topologySpreadConstraints": ([], {}),
    "podAnnotations": (LABELS, {}), "podLabels": (LABELS, {}), "tmpSize": ("2Gi", {}),
    "podSecurityContext.runAsUser": (7, {}), "podSecurityContext.runAsGroup": (7, {}),
    "podSecurityContext.fsGroup": (7, {}), "podSecurityContext.fsGroupChangePolicy": ("Always", {}),
    **{f"probes.{probe}.{field}": (9, {}) for probe in ("startup", "readiness", "liveness")
       for field in ("periodSeconds", "timeoutSeconds", "failureThreshold")},
    "serviceAccount.create": (False, {}), "serviceAccount.name": ("n", {}), "serviceAccount.annotations": (LABELS, {}),
    "service.type": ("NodePort", {}), "service.httpPort": (80, {}), "service.grpcPort": (81, {}),
    "service.annotations": (LABELS, {}),
    "autoscaling.enabled": (True, {"autoscaling": {"engine": "hpa"}}), "autoscaling.engine": ("hpa", KEDA),
    "autoscaling.minReplicas": (3, KEDA), "autoscaling.maxReplicas": (9, KEDA),
    "autoscaling.waitingPerReplica": (5, KEDA), "autoscaling.kvUsage": (0.7, KEDA),
    "autoscaling.scaleDownStabilizationSeconds": (9, KEDA), "autoscaling.keda.serverAddress": ("http://q", KEDA),
    "autoscaling.keda.pollingInterval": (9, KEDA), "autoscaling.hpa.waitingMetric": ("w", HPA),
    "autoscaling.hpa.kvUsageMetric": ("k", HPA),
    "podDisruptionBudget.enabled": (False, {}), "podDisruptionBudget.maxUnavailable": (2, {}),
    "networkPolicy.enabled": (False, {}), "networkPolicy.ingressFrom": ([{"namespaceSelector": {}}], {}),
    "networkPolicy.egress": ([{"ports": [{"port": 53}]}], {}),
    "monitoring.serviceMonitor.enabled": (True, {}),
    "monitoring.serviceMonitor.interval": ("5s", monitoring("serviceMonitor")),
    "monitoring.serviceMonitor.labels": (LABELS, monitoring("serviceMonitor")),
    "monitoring.prometheusRule.enabled": (True, {}),
    "monitoring.prometheusRule.labels": (LABELS, monitoring("prometheusRule")),
    "monitoring.prometheusRule.runbookBase": ("https://r/", monitoring("prometheusRule")),
    "monitoring.dashboard.enabled": (True, {}),
    "monitoring.dashboard.labels.grafana_dashboard": ("2", monitoring("dashboard")),
    "publicPaths": (["/"], INGRESS), "ingress.enabled": (True, {"ingress": {"hosts": ["h.example"]}}),
    "ingress.className": ("c", INGRESS), "ingress.annotations": (LABELS, INGRESS),
    "ingress.hosts": (["i.example"], INGRESS), "ingress.tlsSecret": ("s", INGRESS),
    "httpRoute.enabled": (True, {"httpRoute": {"parentRefs": GATEWAY}}), "httpRoute.annotations": (LABELS, HTTP_ROUTE),
    "httpRoute.parentRefs": ([{"name": "h"}], HTTP_ROUTE), "httpRoute.hostnames": (["h.example"], HTTP_ROUTE),
    "httpRoute.timeout": ("60s", HTTP_ROUTE),
    "grpcRoute.enabled": (True, {"grpcRoute": {"parentRefs": GATEWAY}}), "grpcRoute.annotations": (LABELS, GRPC_ROUTE),
    "grpcRoute.parentRefs": ([{"name": "h"}], GRPC_ROUTE), "grpcRoute.hostnames": (["h.example"], GRPC_ROUTE),
    "inferencePool.enabled": (True, {"inferencePool": {"endpointPicker": {"name": "epp"}}}),
    "inferencePool.endpointPicker.name": ("other", POOL), "inferencePool.endpointPicker.port": (1, POOL),
    "inferencePool.endpointPicker.failureMode": ("FailClose", POOL),
    "tools.image": ("t:1", {}),
    "tools.resources.requests.cpu": ("1", {}), "tools.resources.requests.memory": ("1Gi", {}),
    "tools.resources.limits.cpu": ("2", {}), "tools.resources.limits.memory": ("2Gi", {}),
}


# Objects that are not there by default, so that odd strings come to all of them.
ALL = {**INGRESS, **HTTP_ROUTE, **GRPC_ROUTE, **POOL, **KEDA, **GPU, "priorityClassName": "p",
       "monitoring": {name: {"enabled": True} for name in ("serviceMonitor", "prometheusRule", "dashboard")}}
# A value has the first plain string that its schema allows, and all such odd ones: unquoted, YAML reads them otherwise.
PLAIN = ("marker", "/marker", "https://marker", "98Ti")
ODD = ("a #b", "b: c", "'{\"\\\n&*!%@` ", "/b: c #d", "https://a/b: c #d", "true", "123")


def leaves(values: dict, prefix: str = ""):
    """Paths of what has no mapping with entries below it."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def nested(path: str, value) -> dict:
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def merged(first: dict, second: dict) -> dict:
    both = dict(first)
    for name, value in second.items():
        is_mapping = isinstance(value, dict) and isinstance(first.get(name), dict)
        both[name] = merged(first[name], value) if is_mapping else value
    return both


@pytest.fixture(scope="module")
def rendered(helm):
    """Texts by values: many changes have the same values to begin with."""
    known = {}

    def render(values: dict) -> str:
        key = json.dumps(values, sort_keys=True)
        if key not in known:
            known[key] = helm.text(values)
        return known[key]
    return render


def test_no_value_is_forgotten():
    values = yaml.safe_load((chart.CHART / "values.yaml").read_text())
    assert set(leaves(values)) == set(CHANGES)


def test_the_access_modes_of_a_claim_are_said():
    """ReadWriteOnce attaches a volume to one node: replicas on others would wait for it."""
    [comment] = re.findall("claimName: .*# (.*)", (chart.CHART / "values.yaml").read_text())
    assert comment == "ReadOnlyMany or ReadWriteMany; ReadWriteOnce only if all replicas are on one node"


@pytest.mark.parametrize("path", CHANGES)
def test_a_value_changes_what_is_rendered(rendered, path):
    value, context = CHANGES[path]
    assert rendered(context) != rendered(merged(context, nested(path, value)))


def string_schema(path: str) -> dict:
    """Of a value, or of the items of a list of strings; {} if it is not a string of our choice."""
    schema = json.loads((chart.CHART / "values.schema.json").read_text())
    part = schema
    for name in path.split("."):
        part = part.get("properties", {}).get(name) or part.get("additionalProperties") or {}
        part = part.get("items", part)
        if "$ref" in part:
            part = schema["definitions"][part["$ref"].rsplit("/", 1)[1]]
    return part if part.get("type") == "string" else {}


def allowed(path: str, texts: tuple[str, ...]) -> list[str]:
    schema = string_schema(path)
    return [text for text in texts if schema and re.search(schema.get("pattern", ""), text)]


def replaced(part, old: str, new: str):
    """In all strings, but a checksum."""
    if isinstance(part, dict):
        return {replaced(key, old, new): replaced(value, old, new) for key, value in part.items()
                if key != "checksum/config"}
    if isinstance(part, list):
        return [replaced(item, old, new) for item in part]
    return part.replace(old, new) if isinstance(part, str) else part


@pytest.mark.parametrize("path", [path for path in (*CHANGES, "server.cors-origins") if allowed(path, ODD)])
def test_an_odd_string_stays_what_it_is(helm, path):
    example, context = CHANGES.get(path, ("", {}))

    def objects(text: str) -> list[dict]:
        value = [text] if isinstance(example, list) else text
        return helm.objects(merged(merged(ALL, context), nested(path, value)))

    plain = allowed(path, PLAIN)[0]
    usual = objects(plain)
    assert replaced(usual, plain, "") != replaced(usual, plain, plain), "the value is nowhere"
    for odd in allowed(path, ODD):
        assert replaced(objects(odd), odd, odd) == replaced(usual, plain, odd)


def test_the_schema_knows_all_values_and_no_others():
    values = yaml.safe_load((chart.CHART / "values.yaml").read_text())
    schema = json.loads((chart.CHART / "values.schema.json").read_text())

    def check(part: dict, known: dict, path: str):
        while "$ref" in known:
            known = schema["definitions"][known["$ref"].rsplit("/", 1)[1]]
        if "properties" not in known:
            return
        if path not in ("server", "podSecurityContext"):  # settable, but not all set
            names = set(known["properties"]) - {"global", "initialDelaySeconds"}
            assert set(part) == names, path
        for name in part:
            if isinstance(part[name], dict) and name in known["properties"]:
                check(part[name], known["properties"][name], f"{path}.{name}".strip("."))
    check(values, schema, "")
