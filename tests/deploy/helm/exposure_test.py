"""Scaling, disruption, network, monitoring and routes."""

import copy

import pytest
import yaml

import chart
from chart import of_kind, only, pod, workload

KEDA = {"enabled": True, "keda": {"serverAddress": "http://prometheus:9090"}}
GATEWAY = [{"name": "gateway"}]


def rule_groups() -> list[dict]:
    texts = [(chart.ROOT / "deploy" / "prometheus" / f"{name}.yml").read_text() for name in ("recording", "alerts")]
    return [group for text in texts for group in yaml.safe_load(text)["groups"]]


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_keda_scales_by_waiting_requests_and_cache_usage(helm, kind):
    model = {"source": "download", "download": {"url": "https://a.example/m", "sha256": "0" * 64}}
    objects = helm.objects({"autoscaling": KEDA, "kind": kind, "model": model})
    assert "replicas" not in workload(objects)["spec"] and not of_kind(objects, "HorizontalPodAutoscaler")
    spec = only(objects, "ScaledObject")["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": kind, "name": "nsa-serve"}
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 8)
    assert [(item["type"], item["metricType"]) for item in spec["triggers"]] == [("prometheus", "AverageValue")] * 2
    assert {item["metadata"]["query"]: item["metadata"]["threshold"] for item in spec["triggers"]} == {
        'sum(vllm:kv_cache_usage_perc{namespace="llm",service="nsa-serve"})': "0.8",
        'sum(vllm:num_requests_waiting{namespace="llm",service="nsa-serve"})': "4"}


def test_no_data_does_not_scale_down(helm):
    triggers = only(helm.objects({"autoscaling": KEDA}), "ScaledObject")["spec"]["triggers"]
    assert {item["metadata"]["ignoreNullValues"] for item in triggers} == {"false"}


@pytest.mark.parametrize("name, label", [("values", "pod-template-hash"), ("single-gpu", "controller-revision-hash")])
def test_replicas_of_another_revision_do_not_count(helm, name, label):
    """Else those that an update replaces would keep the new ones off their nodes."""
    spec = pod(helm.objects(preset=name))["spec"]
    [term] = spec["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    for rule in (term["podAffinityTerm"], *spec["topologySpreadConstraints"]):
        assert rule["matchLabelKeys"] == [label]


def test_hpa_scales_by_the_same_two(helm):
    objects = helm.objects({"autoscaling": {"enabled": True, "engine": "hpa"}})
    assert "replicas" not in workload(objects)["spec"] and not of_kind(objects, "ScaledObject")
    spec = only(objects, "HorizontalPodAutoscaler")["spec"]
    assert spec["scaleTargetRef"]["name"] == workload(objects)["metadata"]["name"]
    assert {item["pods"]["metric"]["name"]: item["pods"]["target"]["averageValue"] for item in spec["metrics"]} == {
        "vllm_num_requests_waiting": "4", "vllm_kv_cache_usage_perc": "0.8"}
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300


def test_broken_replicas_may_always_be_evicted(preset):
    _, objects = preset
    spec = only(objects, "PodDisruptionBudget")["spec"]
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow" and spec["maxUnavailable"] == 1


def test_an_update_needs_a_spare_place_or_stops_a_replica_first(helm):
    for surge, unavailable in ((1, 0), (0, 1)):
        strategy = workload(helm.objects({"maxSurge": surge}))["spec"]["strategy"]
        assert strategy["rollingUpdate"] == {"maxSurge": surge, "maxUnavailable": unavailable}


def test_nothing_leaves_a_replica_and_only_peers_come_in(preset):
    name, objects = preset
    spec = only(objects, "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert bool(spec["egress"]) == (name == "single-gpu")  # which downloads
    [rule] = spec["ingress"]
    assert rule["from"] and {port["port"] for port in rule["ports"]} == {8000, 9000}


def test_without_peers_only_the_test_pod_comes_in(helm):
    """An empty `from` would mean everybody."""
    objects = helm.objects({"networkPolicy": {"ingressFrom": []}})
    [rule] = only(objects, "NetworkPolicy")["spec"]["ingress"]
    [peer] = rule["from"]
    smoke = only(objects, "Pod")["metadata"]["labels"]
    assert chart.matches(peer["podSelector"]["matchLabels"], smoke)
    assert not chart.matches(peer["podSelector"]["matchLabels"], pod(objects)["metadata"]["labels"])


def test_prometheus_scrapes_each_replica_once_under_the_job_of_the_alerts(helm):
    objects = helm.objects(preset="single-gpu", values={"monitoring": {"serviceMonitor": {"enabled": True}}})
    spec = only(objects, "ServiceMonitor")["spec"]
    found = [item for item in of_kind(objects, "Service")
             if chart.matches(spec["selector"]["matchLabels"], item["metadata"]["labels"])]
    assert len(of_kind(objects, "Service")) == 2 and len(found) == 1
    assert found[0]["metadata"]["labels"][spec["jobLabel"]] == "nsa-serve"
    [endpoint] = spec["endpoints"]
    assert (endpoint["port"], endpoint["path"], endpoint["scheme"]) == ("http", "/metrics", "http")
    assert "tlsConfig" not in endpoint


def test_scrapes_speak_tls_if_the_server_does(helm):
    objects = helm.objects({"tls": {"existingSecret": "t"}, "monitoring": {"serviceMonitor": {"enabled": True}}})
    [endpoint] = only(objects, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["scheme"] == "https" and endpoint["tlsConfig"] == {"insecureSkipVerify": True}


def test_rules_are_the_projects(helm):
    objects = helm.objects({"monitoring": {"prometheusRule": {"enabled": True}}})
    groups = only(objects, "PrometheusRule")["spec"]["groups"]
    assert groups == rule_groups()
    assert len({group["name"] for group in groups}) == len(groups)


def test_runbooks_get_an_address(helm):
    base = "https://git.example/blob/main/"
    values = {"monitoring": {"prometheusRule": {"enabled": True, "runbookBase": base}}}
    expected = copy.deepcopy(rule_groups())
    alerts = [rule for group in expected for rule in group["rules"] if "alert" in rule]
    assert alerts
    for alert in alerts:
        alert["annotations"]["runbook_url"] = base + alert["annotations"]["runbook_url"]
    assert only(helm.objects(values), "PrometheusRule")["spec"]["groups"] == expected


def test_ingress(helm):
    values = {"ingress": {"enabled": True, "className": "nginx", "hosts": ["llm.example.com"], "tlsSecret": "cert"},
              "publicPaths": ["/v1", "/tokenize"]}
    spec = only(helm.objects(values), "Ingress")["spec"]
    assert spec["ingressClassName"] == "nginx"
    assert spec["tls"] == [{"secretName": "cert", "hosts": ["llm.example.com"]}]
    [rule] = spec["rules"]
    assert rule["host"] == "llm.example.com"
    assert [path["path"] for path in rule["http"]["paths"]] == ["/v1", "/tokenize"]
    assert {path["backend"]["service"]["port"]["name"] for path in rule["http"]["paths"]} == {"http"}


def test_routes_lead_to_the_service(helm):
    objects = helm.objects({"httpRoute": {"enabled": True, "parentRefs": GATEWAY},
                            "grpcRoute": {"enabled": True, "parentRefs": GATEWAY, "hostnames": ["g.example.com"]}})
    [http] = only(objects, "HTTPRoute")["spec"]["rules"]
    assert http["backendRefs"] == [{"name": "nsa-serve", "port": 8000}]
    assert http["matches"] == [{"path": {"type": "PathPrefix", "value": "/v1"}}]
    assert http["timeouts"] == {"request": "0s"}
    [grpc] = only(objects, "GRPCRoute")["spec"]["rules"]
    assert grpc["backendRefs"] == [{"name": "nsa-serve", "port": 9000}]
    assert only(objects, "GRPCRoute")["spec"]["hostnames"] == ["g.example.com"]


def test_an_inference_pool_stands_between_route_and_replicas(helm):
    objects = helm.objects({"httpRoute": {"enabled": True, "parentRefs": GATEWAY},
                            "inferencePool": {"enabled": True, "endpointPicker": {"name": "epp"}}})
    pool = only(objects, "InferencePool")
    [rule] = only(objects, "HTTPRoute")["spec"]["rules"]
    assert rule["backendRefs"] == [{"group": "inference.networking.k8s.io", "kind": "InferencePool",
                                    "name": pool["metadata"]["name"]}]
    assert pool["spec"]["targetPorts"] == [{"number": 8000}]
    assert pool["spec"]["endpointPickerRef"] == {"name": "epp", "port": {"number": 9002}, "failureMode": "FailOpen"}


def test_endpoint_pickers_know_the_metrics(preset):
    _, objects = preset
    labels = pod(objects)["metadata"]["labels"]
    assert labels["inference.networking.k8s.io/engine-type"] == labels["llm-d.ai/engine-type"] == "vllm"
