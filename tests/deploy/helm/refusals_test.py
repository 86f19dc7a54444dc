"""Values that cannot work are refused before anything is installed, with their path or a sentence."""

import pytest

import chart

SHA256 = "0" * 64
SPREAD = {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
KEDA = {"enabled": True, "keda": {"serverAddress": "http://prometheus:9090"}}

# Values; what the message must contain.
REFUSALS = [
    # What the schema refuses.
    ({"replicas": 3}, "additional properties 'replicas' not allowed"),
    ({"server": {"max-seqs": 3}}, "at '/server': additional properties 'max-seqs' not allowed"),
    ({"server": {"http-port": 80}}, "additional properties 'http-port' not allowed"),
    ({"server": {"protect-probes": True}}, "additional properties 'protect-probes' not allowed"),
    ({"server": {"kv-cache-bytes": "1GB"}}, "at '/server/kv-cache-bytes': '1GB' does not match pattern"),
    ({"server": {"prefix-caching": "yes"}}, "at '/server/prefix-caching': value must be one of"),
    ({"server": {"gpu-memory-utilization": 1.5}}, "at '/server/gpu-memory-utilization': maximum: got 1.5, want 1"),
    ({"server": {"max-num-seqs": 0}}, "at '/server/max-num-seqs': minimum: got 0, want 1"),
    ({"kind": "DaemonSet"}, "at '/kind': value must be one of 'Deployment', 'StatefulSet'"),
    ({"fullnameOverride": "a.b"}, "at '/fullnameOverride': 'a.b' does not match pattern"),
    ({"replicaCount": -1}, "at '/replicaCount': minimum: got -1, want 0"),
    ({"image": {"digest": "sha256:12"}}, "at '/image/digest': 'sha256:12' does not match pattern"),
    ({"image": {"pullPolicy": "Sometimes"}}, "at '/image/pullPolicy': value must be one of"),
    ({"model": {"source": "s3"}}, "at '/model/source': value must be one of 'bundled', 'pvc', 'download'"),
    ({"model": {"download": {"url": "s3://a/b"}}}, "at '/model/download/url': 's3://a/b' does not match pattern"),
    ({"model": {"download": {"sha256": 123}}}, "at '/model/download/sha256': got number, want string"),
    ({"model": {"download": {"sha256": "abc"}}}, "at '/model/download/sha256': 'abc' does not match pattern"),
    ({"preStopSeconds": 0}, "at '/preStopSeconds': minimum: got 0, want 1"),
    ({"resources": {"limits": {"memory": 2}}}, "at '/resources/limits/memory': got number, want string"),
    *[({"tmpSize": size}, f"at '/tmpSize': '{size}' does not match pattern") for size in ("512ki", "1gi", "1KiB", "1e")],
    ({"resources": {"limits": {"cpu": 0}}}, "at '/resources/limits/cpu': minimum: got 0, want 1"),
    ({"podSecurityContext": {"runAsUser": 0}}, "at '/podSecurityContext/runAsUser': minimum: got 0, want 1"),
    ({"podSecurityContext": {"runAsNonRoot": False}}, "at '/podSecurityContext/runAsNonRoot': value must be true"),
    ({"gpu": {"resource": "gpu"}}, "at '/gpu/resource': 'gpu' does not match pattern"),
    ({"podAntiAffinity": "maybe"}, "at '/podAntiAffinity': value must be one of 'preferred', 'required', 'none'"),
    ({"topologySpreadConstraints": [{"maxSkew": 1}]}, "missing properties 'topologyKey', 'whenUnsatisfiable'"),
    ({"topologySpreadConstraints": [{**SPREAD, "labelSelector": {}}]},
     "at '/topologySpreadConstraints/0/labelSelector': false schema"),
    ({"topologySpreadConstraints": [{**SPREAD, "matchLabelKeys": []}]},
     "at '/topologySpreadConstraints/0/matchLabelKeys': false schema"),
    ({"service": {"httpPort": 70000}}, "at '/service/httpPort': maximum: got 70,000, want 65,535"),
    ({"probes": {"startup": {"httpGet": {}}}}, "additional properties 'httpGet' not allowed"),
    ({"podDisruptionBudget": {"maxUnavailable": 0}},
     "at '/podDisruptionBudget/maxUnavailable': minimum: got 0, want 1"),
    ({"networkPolicy": {"ingressFrom": [{}]}}, "at '/networkPolicy/ingressFrom/0': minProperties: got 0, want 1"),
    ({"autoscaling": {"engine": "cron"}}, "at '/autoscaling/engine': value must be one of 'keda', 'hpa'"),
    ({"autoscaling": {"kvUsage": 80}}, "at '/autoscaling/kvUsage': maximum: got 80, want 1"),
    *[({"monitoring": {"serviceMonitor": {"interval": interval}}},
       f"at '/monitoring/serviceMonitor/interval': '{interval}' does not match pattern") for interval in
      ("0s", "16s", "30s", "1m")],
    ({"publicPaths": ["v1"]}, "at '/publicPaths/0': 'v1' does not match pattern"),
    ({"inferencePool": {"endpointPicker": {"failureMode": "x"}}}, "value must be one of 'FailOpen', 'FailClose'"),
    # What the templates refuse.
    ({"drainTimeoutSeconds": 46},
     "terminationGracePeriodSeconds is 60: it must be at least 61, 10 more than preStopSeconds (5) and "
     "drainTimeoutSeconds (46) together, or running requests are killed"),
    ({"preStopSeconds": 21}, "it must be at least 61"),
    ({"terminationGracePeriodSeconds": 44}, "terminationGracePeriodSeconds is 44: it must be at least 45"),
    ({"progressDeadlineSeconds": 599},
     "progressDeadlineSeconds is 599: it must be at least 600, probes.startup.periodSeconds (5) times "
     "failureThreshold (120), or an update fails while its model loads"),
    ({"probes": {"startup": {"failureThreshold": 361}}}, "progressDeadlineSeconds is 1800: it must be at least 1805"),
    ({"image": {"tag": "latest"}}, "image.tag is latest: replicas may then differ"),
    ({"kind": "StatefulSet"}, "kind is StatefulSet, whose volumes keep downloaded models, and model.source is bundled"),
    ({"model": {"source": "pvc"}}, "model.pvc.claimName must name the claim"),
    ({"model": {"source": "download"}}, "model.download.url and model.download.sha256 must be set"),
    ({"model": {"source": "download", "download": {"url": "https://a.example"}}}, "model.download.sha256 must be set"),
    ({"autoscaling": {"enabled": True}}, "autoscaling.keda.serverAddress must be the URL of Prometheus"),
    ({"autoscaling": {**KEDA, "minReplicas": 9}}, "autoscaling.minReplicas is 9: it must not be above maxReplicas, 8"),
    ({"ingress": {"enabled": True}}, "ingress.hosts must have a host"),
    ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs must name a Gateway"),
    ({"grpcRoute": {"enabled": True}}, "grpcRoute.parentRefs must name a Gateway"),
    ({"inferencePool": {"enabled": True}}, "inferencePool.endpointPicker.name must name the Service"),
    *[({"podLabels": {label: "x"}}, f"podLabels has {label}, which the chart sets itself") for label in
      ("app.kubernetes.io/component", "app.kubernetes.io/version", "llm-d.ai/engine-type")],
    ({"extraEnv": [{"name": "A", "value": "a"}, {"name": "HOME", "value": "/x"}]},
     "extraEnv has HOME, which the chart sets itself"),
    ({"podAnnotations": {"checksum/config": "x"}}, "podAnnotations has checksum/config, which the chart sets itself"),
    *[({"monitoring": {name: {"enabled": True, "labels": {"helm.sh/chart": "x"}}}},
       f"monitoring.{name}.labels has helm.sh/chart, which the chart sets itself") for name in
      ("serviceMonitor", "prometheusRule", "dashboard")],
]


@pytest.mark.parametrize("values, message", REFUSALS, ids=lambda item: item[:40] if isinstance(item, str) else "")
def test_refused(helm, values, message):
    result = helm.template(values)
    assert result.returncode != 0
    assert message in result.stderr, result.stderr


@pytest.mark.parametrize("values", [
    {"drainTimeoutSeconds": 45}, {"terminationGracePeriodSeconds": 45}, {"progressDeadlineSeconds": 600},
    {"probes": {"startup": {"failureThreshold": 360}}}, {"topologySpreadConstraints": [SPREAD]},
    {"image": {"tag": "latest", "digest": f"sha256:{SHA256}"}},
    {"autoscaling": {**KEDA, "minReplicas": 8}}, {"podDisruptionBudget": {"maxUnavailable": "50%"}},
    *[{"tmpSize": size} for size in ("1024", "1k", "512Ki", "1M", "1Mi", "1G", "1.5Gi", "1T", "1Ti", "1P", "1Pi", "1E", "1Ei")],
    {"resources": {"limits": {"cpu": 4}, "requests": {"cpu": "500m"}}},
    {"podSecurityContext": {"runAsNonRoot": True}}, {"podLabels": {"app.kubernetes.io/part-of": "x"}},
    {"podAnnotations": {"checksum/other": "x"}}, {"extraEnv": [{"name": "HOMES", "value": "/x"}]}])
def test_the_nearest_value_that_works_is_taken(helm, values):
    helm.objects(values)  # its reader refuses a key that stands twice


def test_old_clusters_are_refused(helm):
    def render(version):
        return helm.run("template", "nsa-serve", str(chart.CHART), f"--kube-version={version}")
    assert render("1.31.0").returncode == 0
    assert "chart requires kubeVersion" in render("1.30.9").stderr
