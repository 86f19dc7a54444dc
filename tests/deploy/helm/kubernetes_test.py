"""Rendered objects against the schemas of Kubernetes, and of the CRDs as far as the chart uses them."""

import copy

import jsonschema
import kubernetes_validate
import pytest

import chart
from chart import only, server, workload

VERSIONS = ("1.31", "1.37")  # the oldest that Chart.yaml allows, the newest known

STRING = {"type": "string", "minLength": 1}
STRINGS = {"type": "array", "items": STRING}
DURATION = {"pattern": "^([0-9]+[dhms])+$"}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}


def closed(required: str, **properties) -> dict:
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": required.split()}


def listed(item: dict) -> dict:
    return {"type": "array", "minItems": 1, "items": item}


PATH = closed("type value", type={"const": "PathPrefix"}, value={"pattern": "^/"})
PARENTS = listed(closed("name", name=STRING, namespace=STRING, sectionName=STRING))
BACKEND = closed("name", group=STRING, kind=STRING, name=STRING, port=PORT)
LABELS = {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}}

# The spec of each, written by hand from its API's reference: only the fields that the chart sets.
CRDS = {
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): closed(
        "parentRefs rules", parentRefs=PARENTS, hostnames=STRINGS, rules=listed(closed(
            "matches backendRefs", backendRefs=listed(BACKEND),
            matches=listed(closed("path", path=PATH)),
            timeouts=closed("request", request={"pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"})))),
    ("gateway.networking.k8s.io/v1", "GRPCRoute"): closed(
        "parentRefs rules", parentRefs=PARENTS, hostnames=STRINGS,
        rules=listed(closed("backendRefs", backendRefs=listed(BACKEND)))),
    ("inference.networking.k8s.io/v1", "InferencePool"): closed(
        "selector targetPorts", selector=closed("matchLabels", matchLabels=LABELS),
        targetPorts={**listed(closed("number", number=PORT)), "maxItems": 8},
        endpointPickerRef=closed("name port", name=STRING, port=closed("number", number=PORT),
                                 failureMode={"enum": ["FailOpen", "FailClose"]})),
    ("keda.sh/v1alpha1", "ScaledObject"): closed(
        "scaleTargetRef triggers", scaleTargetRef=closed("name", apiVersion=STRING, kind=STRING, name=STRING),
        pollingInterval={"type": "integer"}, minReplicaCount={"type": "integer"}, maxReplicaCount={"type": "integer"},
        advanced=closed("", horizontalPodAutoscalerConfig=closed("", behavior={"type": "object"})),
        triggers=listed(closed(
            "type metadata", type={"const": "prometheus"}, metricType={"enum": ["AverageValue", "Value"]},
            metadata=closed("serverAddress query threshold", serverAddress=STRING, query=STRING, threshold=STRING,
                            ignoreNullValues={"enum": ["true", "false"]})))),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): closed(
        "selector endpoints", jobLabel=STRING, selector=closed("matchLabels", matchLabels=LABELS),
        endpoints=listed(closed("port", port=STRING, path=STRING, interval={"pattern": "^[0-9]+(ms|s|m)$"},
                                scheme={"enum": ["http", "https"]},
                                tlsConfig=closed("", insecureSkipVerify={"type": "boolean"})))),
    ("monitoring.coreos.com/v1", "PrometheusRule"): closed("groups", groups=listed(closed(
        "name rules", name=STRING, interval=STRING, rules=listed({
            **closed("expr", record=STRING, alert=STRING, expr={"type": ["string", "integer"]},
                     labels=LABELS, annotations=LABELS, keep_firing_for=DURATION, **{"for": DURATION}),
            "oneOf": [{"required": ["record"]}, {"required": ["alert"]}]})))),
}

EVERYTHING = {
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}]}, "ingress": {"enabled": True, "hosts": ["h.example"]},
    "tls": {"existingSecret": "t"}, "podAntiAffinity": "required",
    "gpu": {"enabled": True, "runtimeClassName": "nvidia"},
    "monitoring": {"serviceMonitor": {"enabled": True}, "dashboard": {"enabled": True}},
    "image": {"digest": "sha256:" + "0" * 64, "pullSecrets": [{"name": "s"}]},
    "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}]}},
    "networkPolicy": {"egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}]},
    "autoscaling": {"enabled": True, "engine": "hpa"}, "extraEnv": [{"name": "A", "value": "b"}],
}


def check(item: dict, version: str):
    spec = CRDS.get((item["apiVersion"], item["kind"]))
    if spec is None:
        kubernetes_validate.validate(item, version, strict=True)
    else:
        jsonschema.validate(item, closed("apiVersion kind metadata spec", apiVersion=STRING, kind=STRING,
                                         metadata={"type": "object", "required": ["name", "labels"]}, spec=spec))


@pytest.mark.parametrize("version", VERSIONS)
def test_presets(preset, version):
    _, objects = preset
    for item in objects:
        check(item, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_kind_of_object(helm, version):
    kinds = set()
    for objects in (helm.objects(EVERYTHING), helm.objects(preset="production"), helm.objects(preset="single-gpu")):
        for item in objects:
            check(item, version)
            kinds.add(item["kind"])
    assert kinds == {"ConfigMap", "Deployment", "GRPCRoute", "HTTPRoute", "HorizontalPodAutoscaler", "InferencePool",
                     "Ingress", "NetworkPolicy", "Pod", "PodDisruptionBudget", "PrometheusRule", "ScaledObject",
                     "Service", "ServiceAccount", "ServiceMonitor", "StatefulSet"}


def test_the_check_finds_what_is_wrong(helm):
    def spoilt(kind: str, spoil) -> dict:
        item = copy.deepcopy(only(helm.objects(preset="production"), kind))
        spoil(item)
        return item

    for item, error in (
            (spoilt("Deployment", lambda item: server([item]).update(imagePullPolicies="Always")),
             kubernetes_validate.ValidationError),
            (spoilt("Deployment", lambda item: workload([item])["spec"].pop("selector")),
             kubernetes_validate.ValidationError),
            (spoilt("HTTPRoute", lambda item: item["spec"].pop("parentRefs")), jsonschema.ValidationError),
            (spoilt("ScaledObject", lambda item: item["spec"].update(maxReplicas=3)), jsonschema.ValidationError)):
        with pytest.raises(error):
            check(item, VERSIONS[0])


def test_the_oldest_version_is_the_charts():
    assert f'kubeVersion: ">={VERSIONS[0]}.0-0"' in (chart.CHART / "Chart.yaml").read_text()
