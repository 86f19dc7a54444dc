"""What the chart makes of its values."""

import json
import re
import tarfile

import pytest
import yaml

import chart
from chart import flags, matches, of_kind, only, pod, server, workload

SHA256 = "ab" * 32
DOWNLOAD = {"source": "download", "download": {"url": "https://models.example.com/m.tar", "sha256": SHA256}}


def test_lint_has_nothing_to_say(helm):
    for preset in chart.PRESETS:
        values = [] if preset == "values" else [f"--values={chart.EXAMPLES / preset}.yaml"]
        result = helm.run("lint", "--strict", str(chart.CHART), *values)
        assert result.returncode == 0, result.stdout + result.stderr
        assert not re.search(r"\[(WARNING|ERROR)\]", result.stdout), result.stdout


def test_every_example_is_tested():
    assert {file.stem for file in chart.EXAMPLES.iterdir()} == set(chart.PRESETS) - {"values"}


def test_a_packaged_chart_holds_what_its_links_lead_to(helm, tmp_path):
    result = helm.run("package", str(chart.CHART), f"--destination={tmp_path}")
    assert result.returncode == 0, result.stderr
    [package] = tmp_path.iterdir()
    with tarfile.open(package) as archive:
        for link, source in (("alerts.yml", "prometheus/alerts.yml"), ("recording.yml", "prometheus/recording.yml"),
                             ("nsa-serve.json", "grafana/nsa-serve.json")):
            packed = archive.extractfile(f"nsa-serve/files/{link}").read()
            assert packed == (chart.ROOT / "deploy" / source).read_bytes()
    assert helm.objects(preset="production", chart=package) == helm.objects(preset="production")


def test_the_chart_is_of_the_servers_version():
    project = re.search(r"project\(nsa_serve VERSION (\S+)", (chart.ROOT / "CMakeLists.txt").read_text()).group(1)
    about = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
    assert about["appVersion"] == project


def test_names_and_labels(helm):
    for release, values, name in (("nsa-serve", {}, "nsa-serve"), ("chat", {}, "chat-nsa-serve"),
                                  ("chat", {"fullnameOverride": "llm"}, "llm"),
                                  ("123", {"fullnameOverride": "llm"}, "llm")):
        objects = helm.objects(values, release=release)
        assert workload(objects)["metadata"]["name"] == name
        assert all(item["metadata"]["name"].startswith(name) for item in objects)
        assert all(item["metadata"]["labels"]["app.kubernetes.io/instance"] == release for item in objects)


def test_selectors_find_the_replicas_and_nothing_else(preset):
    _, objects = preset
    replicas = pod(objects)["metadata"]["labels"]
    smoke = only(objects, "Pod")["metadata"]["labels"]
    selectors = [item["spec"]["selector"] for item in of_kind(objects, "Service")]
    selectors += [workload(objects)["spec"]["selector"]["matchLabels"]]
    selectors += [item["spec"]["selector"]["matchLabels"]
                  for kind in ("PodDisruptionBudget", "InferencePool") for item in of_kind(objects, kind)]
    selectors += [item["spec"]["podSelector"]["matchLabels"] for item in of_kind(objects, "NetworkPolicy")]
    assert len(selectors) >= 4
    for selector in selectors:
        assert matches(selector, replicas) and not matches(selector, smoke)


def test_a_service_has_both_ports(preset):
    _, objects = preset
    ports = {port["name"]: port["containerPort"] for port in server(objects)["ports"]}
    assert ports == {"http": 8000, "grpc": 9000}
    assert flags(objects)["http-port"] == "8000" and flags(objects)["grpc-port"] == "9000"
    for service in of_kind(objects, "Service"):
        ports = {port["name"]: port["targetPort"] for port in service["spec"]["ports"]}
        assert ports == {"http": "http", "grpc": "grpc"}
    main = of_kind(objects, "Service")[0]
    assert [port["appProtocol"] for port in main["spec"]["ports"]] == ["http", "kubernetes.io/h2c"]


def test_probes_ask_the_servers_own_endpoints(preset):
    _, objects = preset
    documented = (chart.ROOT / "docs" / "api.md").read_text()
    paths = {name: server(objects)[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/health/ready", "readiness": "/health/ready", "liveness": "/health"}
    assert all(f"`GET {path}`" in documented for path in paths.values())


def seconds(file: str, constant: str) -> int:
    return int(re.search(rf"{constant} = absl::Seconds\((\d+)\)", (chart.ROOT / "server" / file).read_text()).group(1))


def test_a_pod_lives_longer_than_its_drain(preset):
    _, objects = preset
    grace = pod(objects)["spec"]["terminationGracePeriodSeconds"]
    pre_stop = server(objects)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pre_stop > 0
    assert grace > pre_stop + int(flags(objects)["drain-timeout"]) + seconds("server.h", "kFlushTime") + seconds(
        "main.cc", "kShutdownSlack")


FILES = {"model": {**DOWNLOAD, "chatTemplate": "t",
                   "download": {**DOWNLOAD["download"], "headerSecret": {"name": "h"}}},
         "apiKeys": {"existingSecret": "k"}, "tls": {"existingSecret": "t"}}


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_every_file_that_is_named_lies_in_a_mounted_volume(helm, kind):
    objects = helm.objects({"kind": kind, **FILES})
    claims = [item["metadata"]["name"] for item in workload(objects)["spec"].get("volumeClaimTemplates", [])]
    for spec, more in ((pod(objects)["spec"], claims), (only(objects, "Pod")["spec"], [])):
        volumes = {volume["name"] for volume in spec["volumes"]} | set(more)
        mounted = set()
        for container in spec["containers"] + spec.get("initContainers", []):
            words = container.get("args", []) + container.get("command", [])[:2]
            words += [item["value"] for item in container["env"] if "value" in item]
            folders = [mount["mountPath"] for mount in container["volumeMounts"]]
            mounted |= {mount["name"] for mount in container["volumeMounts"]}
            for path in (word.split("=")[-1] for word in words):
                assert not path.startswith("/") or any(f"{path}/".startswith(f"{folder}/") for folder in folders), path
        assert mounted == volumes


def test_variables_of_other_services_do_not_become_flags(preset):
    """A Service called nsa-http would set NSA_HTTP_PORT to its URL."""
    _, objects = preset
    assert pod(objects)["spec"]["enableServiceLinks"] is False


def test_helm_test_runs_its_pod_once(preset):
    _, objects = preset
    smoke = only(objects, "Pod")
    assert smoke["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert smoke["spec"]["restartPolicy"] == "Never"


def test_an_update_has_time_to_load_a_model(preset):
    """Unset, Kubernetes would give it 600 s, as long as the startup probe alone may take."""
    _, objects = preset
    assert workload(objects)["spec"].get("progressDeadlineSeconds") == (1800 if of_kind(objects, "Deployment") else None)


def test_no_pod_has_a_token(preset):
    _, objects = preset
    account = only(objects, "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    assert pod(objects)["spec"]["serviceAccountName"] == account["metadata"]["name"]
    for spec in (pod(objects)["spec"], only(objects, "Pod")["spec"]):
        assert spec["automountServiceAccountToken"] is False


def test_every_pod_may_pull_from_a_private_registry(helm):
    objects = helm.objects({"image": {"pullSecrets": [{"name": "s"}]}})
    for spec in (pod(objects)["spec"], only(objects, "Pod")["spec"]):
        assert spec["imagePullSecrets"] == [{"name": "s"}]


def test_an_existing_service_account_is_used(helm):
    objects = helm.objects({"serviceAccount": {"create": False, "name": "models"}})
    assert not of_kind(objects, "ServiceAccount")
    assert pod(objects)["spec"]["serviceAccountName"] == "models"


def test_flag_values_are_written_as_the_server_reads_them(helm):
    written = flags(helm.objects({"server": {
        "prefix-caching": False, "strict": True, "access-log": True, "max-queued-tokens": 20_000_000,
        "gpu-memory-utilization": 0.85, "kv-cache-bytes": 1073741824,
        "cors-origins": "https://a.example,https://b.example"}}))
    assert {name: written[name] for name in ("prefix-caching", "strict", "access-log", "max-queued-tokens",
                                             "gpu-memory-utilization", "kv-cache-bytes", "cors-origins")} == {
        "prefix-caching": "off", "strict": "on", "access-log": "on", "max-queued-tokens": "20000000",
        "gpu-memory-utilization": "0.85", "kv-cache-bytes": "1073741824",
        "cors-origins": "https://a.example,https://b.example"}


@pytest.mark.parametrize("model, path, volume", [
    ({}, "/usr/share/nsa-serve/models/nsa-story-27m", None),
    ({"source": "pvc", "pvc": {"claimName": "c", "path": "m"}}, "/models/m",
     {"name": "models", "persistentVolumeClaim": {"claimName": "c", "readOnly": True}}),
    (DOWNLOAD, "/models/model", {"name": "models", "emptyDir": {"sizeLimit": "20Gi"}})])
def test_model_sources(helm, model, path, volume):
    objects = helm.objects({"model": model})
    assert flags(objects)["model"] == path
    volumes = [item for item in pod(objects)["spec"]["volumes"] if item["name"] == "models"]
    assert volumes == ([volume] if volume else [])
    mounts = [item for item in server(objects)["volumeMounts"] if item["name"] == "models"]
    assert mounts == ([{"name": "models", "mountPath": "/models", "readOnly": True}] if volume else [])


def test_a_download_is_checked_and_may_send_a_header(helm):
    model = {**DOWNLOAD, "download": {**DOWNLOAD["download"], "headerSecret": {"name": "h", "key": "line"}}}
    objects = helm.objects({"model": model})
    [container] = pod(objects)["spec"]["initContainers"]
    environment = {item["name"]: item["value"] for item in container["env"]}
    assert environment == {"MODEL_DIR": "/models", "MODEL_URL": "https://models.example.com/m.tar",
                           "MODEL_SHA256": SHA256, "HEADER_FILE": "/etc/nsa-serve/header/line"}
    script = (chart.CHART / "files" / "download.sh").read_text()
    assert only(objects, "ConfigMap")["data"] == {"download.sh": script}
    [egress] = only(objects, "NetworkPolicy")["spec"]["egress"]
    assert {(port["port"], port["protocol"]) for port in egress["ports"]} == {(53, "UDP"), (53, "TCP"), (443, "TCP")}


@pytest.mark.parametrize("url, port", [("http://a.example/m", 80), ("https://a.example:8443/m:1", 8443)])
def test_a_download_may_reach_its_port_alone(helm, url, port):
    objects = helm.objects({"model": {"source": "download", "download": {"url": url, "sha256": SHA256}}})
    [egress] = only(objects, "NetworkPolicy")["spec"]["egress"]
    assert egress["ports"][-1]["port"] == port


def test_replicas_of_a_stateful_set_keep_their_models(helm):
    objects = helm.objects({"kind": "StatefulSet", "model": DOWNLOAD})
    spec = workload(objects)["spec"]
    [claim] = spec["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "models" and claim["spec"]["resources"]["requests"]["storage"] == "20Gi"
    assert "models" not in [volume["name"] for volume in pod(objects)["spec"]["volumes"]]
    assert spec["podManagementPolicy"] == "Parallel"  # replicas do not wait for each other's download
    headless = next(item for item in of_kind(objects, "Service") if item["spec"].get("clusterIP") == "None")
    assert spec["serviceName"] == headless["metadata"]["name"]


def test_a_new_chat_template_makes_new_pods(helm):
    first, second = (helm.objects({"model": {"chatTemplate": text}}) for text in ("{{ messages }}", "{{ bos_token }}"))
    assert only(first, "ConfigMap")["data"]["chat_template.jinja"] == "{{ messages }}"
    mount = next(item for item in server(first)["volumeMounts"] if item["name"] == "config")
    assert flags(first)["chat-template"] == mount["mountPath"] + "/chat_template.jinja"
    sums = [pod(objects)["metadata"]["annotations"]["checksum/config"] for objects in (first, second)]
    assert sums[0] != sums[1]


def test_api_keys_and_certificates_are_files(helm):
    objects = helm.objects({"apiKeys": {"existingSecret": "k", "key": "file"}, "tls": {"existingSecret": "t"}})
    volumes = {item["name"]: item.get("secret") for item in pod(objects)["spec"]["volumes"]}
    assert volumes["api-keys"] == {"secretName": "k", "defaultMode": 0o440}
    assert volumes["tls"] == {"secretName": "t", "defaultMode": 0o440}
    assert flags(objects)["api-key-file"] == "/etc/nsa-serve/api-keys/file"
    assert flags(objects)["tls-cert"] == "/etc/nsa-serve/tls/tls.crt"
    assert flags(objects)["tls-key"] == "/etc/nsa-serve/tls/tls.key"
    mounts = {item["name"]: item["mountPath"] for item in server(objects)["volumeMounts"]}
    assert (mounts["api-keys"], mounts["tls"]) == ("/etc/nsa-serve/api-keys", "/etc/nsa-serve/tls")
    assert server(objects)["livenessProbe"]["httpGet"]["scheme"] == "HTTPS"
    assert [port["appProtocol"] for port in only(objects, "Service")["spec"]["ports"]] == ["https", "https"]
    [smoke] = only(objects, "Pod")["spec"]["containers"]
    assert {item["name"]: item["value"] for item in smoke["env"]} == {
        "BASE_URL": "https://nsa-serve:8000", "KEY_FILE": "/etc/nsa-serve/api-keys/file"}


def test_a_gpu(helm):
    objects = helm.objects({"gpu": {"enabled": True, "runtimeClassName": "nvidia"},
                            "tolerations": [{"key": "spot", "operator": "Exists"}]})
    assert flags(objects)["device"] == "cuda"
    assert server(objects)["resources"]["limits"] == {"cpu": "2", "memory": "3Gi", "nvidia.com/gpu": 1}
    spec = pod(objects)["spec"]
    assert spec["runtimeClassName"] == "nvidia"
    assert [item["key"] for item in spec["tolerations"]] == ["nvidia.com/gpu", "spot"]
    plain = helm.objects()
    assert flags(plain)["device"] == "cpu" and "tolerations" not in pod(plain)["spec"]


def test_notes_say_how_to_call_it(helm):
    open_to_all = helm.notes()
    assert "http://nsa-serve.default.svc:8000" in open_to_all and "No API keys are set" in open_to_all
    with_keys = helm.notes({"apiKeys": {"existingSecret": "k"}, "tls": {"existingSecret": "t"}})
    assert "Authorization: Bearer" in with_keys and "curl --insecure https://" in with_keys
    assert "No API keys are set" not in with_keys


KEDA = {"enabled": True, "keda": {"serverAddress": "http://prometheus:9090"}}
SCRAPED = {"serviceMonitor": {"enabled": True}}


@pytest.mark.parametrize("values, is_noted", [
    ({"autoscaling": KEDA}, True), ({"autoscaling": KEDA, "monitoring": SCRAPED}, False),
    ({"autoscaling": {"enabled": True, "engine": "hpa"}}, False)])
def test_notes_say_what_keda_needs_of_scrapes(helm, values, is_noted):
    assert ('labels namespace="default" and service="nsa-serve"' in helm.notes(values)) == is_noted


ROUTED = {"enabled": True, "parentRefs": [{"name": "g"}]}


@pytest.mark.parametrize("name, values", [
    ("ingress", {"ingress": {"enabled": True, "hosts": ["h.example"]}}), ("httpRoute", {"httpRoute": ROUTED}),
    ("grpcRoute", {"grpcRoute": ROUTED}), ("monitoring.serviceMonitor", {"monitoring": SCRAPED}),
    ("service.type LoadBalancer", {"service": {"type": "LoadBalancer"}}),
    ("service.type NodePort", {"service": {"type": "NodePort"}})])
def test_notes_say_whom_the_network_policy_may_keep_out(helm, name, values):
    assert f"comes from elsewhere: {name}\n" in helm.notes(values)
    for policy in ({"enabled": False}, {"ingressFrom": [{"namespaceSelector": {}}]}, {"ingressFrom": []}):
        assert "comes from elsewhere" not in helm.notes({**values, "networkPolicy": policy})


def test_notes_say_nothing_of_a_network_policy_that_keeps_nobody_out(helm):
    assert "comes from elsewhere" not in helm.notes()


@pytest.mark.parametrize("caller, values", [
    ("the Ingress controller, by ingress.annotations", {"ingress": {"enabled": True, "hosts": ["h.example"]}}),
    ("the Gateway, by a BackendTLSPolicy", {"httpRoute": ROUTED}),
    ("the Gateway, by a BackendTLSPolicy", {"grpcRoute": ROUTED}),
    ("the endpoint picker, by its own flags for /metrics",
     {"inferencePool": {"enabled": True, "endpointPicker": {"name": "epp"}}})])
def test_notes_say_who_must_be_told_of_tls(helm, caller, values):
    tls = {"tls": {"existingSecret": "t"}}
    assert f"must be told so:\n  {caller}\n" in helm.notes({**values, **tls})
    assert "must be told so" not in helm.notes(values) and "must be told so" not in helm.notes(tls)


def test_the_dashboard_is_the_projects(helm):
    data = helm.objects({"monitoring": {"dashboard": {"enabled": True}}})
    dashboard = next(item for item in of_kind(data, "ConfigMap"))
    text = dashboard["data"]["nsa-serve.json"]
    assert json.loads(text) == json.loads((chart.ROOT / "deploy" / "grafana" / "nsa-serve.json").read_text())
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
