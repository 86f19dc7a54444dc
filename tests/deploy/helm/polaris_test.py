"""The checks that Polaris 10 makes by default and kube-linter does not, each as a function that yields what it finds.

Its role and cluster role checks are one here: the chart has no such object. One check is made by its intent: Polaris
wants a NetworkPolicy to have an egress rule, here an empty list of them, which lets nothing out, will do.
"""

import copy
import re

import pytest

from chart import matches, of_kind, only, pod, server, workload
from kube_linter_test import containers, pods

SENSITIVE_NAME = re.compile(r"^AWS_SECRET_ACCESS_KEY$|^GOOGLE_APPLICATION_CREDENTIALS$|^AZURE_.+KEY$"
                            r"|^OCI_CLI_KEY_CONTENT$|password|token|bearer|secret", re.IGNORECASE)
PRIVATE_KEY = re.compile(r"-BEGIN\s+.*PRIVATE KEY-", re.IGNORECASE)


def deployment_missing_replicas(objects):
    for item in of_kind(objects, "Deployment"):
        replicas = item["spec"].get("replicas") or min(
            [scaler["spec"]["minReplicaCount"] for scaler in of_kind(objects, "ScaledObject")], default=1)
        if replicas < 2:
            yield item


def priority_class_not_set(objects):
    if not pod(objects)["spec"].get("priorityClassName"):
        yield pod(objects)


def pull_policy_not_always(objects):
    yield from (container for container, _ in containers(objects) if container.get("imagePullPolicy") != "Always")


def probe_missing(objects):  # livenessProbeMissing, readinessProbeMissing
    yield from (probe for probe in ("livenessProbe", "readinessProbe") if probe not in server(objects))


def metadata_and_instance_mismatched(objects):
    metadata = workload(objects)["metadata"]
    if metadata["labels"].get("app.kubernetes.io/instance") != metadata["name"]:
        yield metadata


def missing_pod_disruption_budget(objects):
    labels = pod(objects)["metadata"]["labels"]
    budgets = of_kind(objects, "PodDisruptionBudget")
    if not any(matches(item["spec"]["selector"]["matchLabels"], labels) for item in budgets):
        yield workload(objects)


def topology_spread_constraint(objects):
    if not pod(objects)["spec"].get("topologySpreadConstraints"):
        yield pod(objects)


def hpa_availability(objects):  # hpaMinAvailability, hpaMaxAvailability
    for item in of_kind(objects, "HorizontalPodAutoscaler"):
        if not 2 <= item["spec"]["minReplicas"] < item["spec"]["maxReplicas"]:
            yield item


def requirements_missing(objects):  # cpu and memory, requests and limits
    for container, _ in containers(objects):
        for kind in ("requests", "limits"):
            values = container.get("resources", {}).get(kind, {})
            yield from (container for name in ("cpu", "memory") if not isinstance(values.get(name), str))


def automount_service_account_token(objects):
    yield from (spec for _, spec in pods(objects) if spec.get("automountServiceAccountToken") is not False)


def host_access(objects):  # hostPathSet, hostPortSet, hostProcess
    for _, spec in pods(objects):
        yield from (item for item in spec.get("volumes", []) if "hostPath" in item)
        yield from (spec for part in (spec, *spec["containers"])
                    if part.get("securityContext", {}).get("windowsOptions", {}).get("hostProcess"))
    for container, _ in containers(objects):
        yield from (port for port in container.get("ports", []) if "hostPort" in port)


def linux_hardening(objects):
    for container, of_pod in containers(objects):
        profile = {**of_pod, **container.get("securityContext", {})}.get("seccompProfile", {}).get("type", "Unconfined")
        if profile == "Unconfined" or not container.get("securityContext", {}).get("capabilities", {}).get("drop"):
            yield container  # Polaris is content with one of the two


def missing_network_policy(objects):
    policies = [item["spec"] for item in of_kind(objects, "NetworkPolicy")
                if {"Ingress", "Egress"} <= set(item["spec"].get("policyTypes", []))
                and item["spec"].get("ingress") and "egress" in item["spec"]]
    if not any(matches(spec["podSelector"]["matchLabels"], pod(objects)["metadata"]["labels"]) for spec in policies):
        yield pod(objects)


def proc_mount(objects):
    for container, _ in containers(objects):
        if container.get("securityContext", {}).get("procMount", "Default") != "Default":
            yield container


def capabilities(objects):  # dangerousCapabilities, insecureCapabilities
    for container, _ in containers(objects):
        found = container.get("securityContext", {}).get("capabilities", {})
        if found.get("add") or "ALL" not in found.get("drop", []):
            yield container


def tls_settings_missing(objects):
    yield from (item for item in of_kind(objects, "Ingress") if not item["spec"].get("tls"))


def sensitive_container_env_var(objects):
    for container, _ in containers(objects):
        for item in container.get("env", []):
            if "value" in item and (SENSITIVE_NAME.search(item["name"]) or PRIVATE_KEY.search(item["value"])):
                yield item


def sensitive_configmap_content(objects):
    for item in of_kind(objects, "ConfigMap"):
        yield from (name for name, value in item["data"].items()
                    if SENSITIVE_NAME.search(name) or PRIVATE_KEY.search(value))


def roles(objects):
    yield from (item for item in objects if "Role" in item["kind"])


CHECKS = [automount_service_account_token, capabilities, deployment_missing_replicas, host_access, hpa_availability,
          linux_hardening, metadata_and_instance_mismatched, missing_network_policy, missing_pod_disruption_budget,
          priority_class_not_set, probe_missing, proc_mount, pull_policy_not_always, requirements_missing, roles,
          sensitive_configmap_content, sensitive_container_env_var, tls_settings_missing, topology_spread_constraint]

# What a preset does not meet, and why.
EXCEPTIONS = {
    ("values", "priority_class_not_set"): "the classes are the cluster's",
    ("cpu-demo", "priority_class_not_set"): "the classes are the cluster's",
    ("single-gpu", "priority_class_not_set"): "the classes are the cluster's",
    ("cpu-demo", "deployment_missing_replicas"): "one replica, for a look",
    ("cpu-demo", "pull_policy_not_always"): "an image loaded by hand is in no registry",
}


@pytest.mark.parametrize("check", CHECKS)
def test_nothing_is_found_but_what_is_known(preset, check):
    name, objects = preset
    assert bool(list(check(objects))) == ((name, check.__name__) in EXCEPTIONS)


def test_an_ingress_with_a_certificate_and_an_hpa_pass(helm):
    objects = helm.objects({"ingress": {"enabled": True, "hosts": ["h.example"], "tlsSecret": "s"},
                            "autoscaling": {"enabled": True, "engine": "hpa"}})
    assert of_kind(objects, "Ingress") and of_kind(objects, "HorizontalPodAutoscaler")
    assert not list(tls_settings_missing(objects)) and not list(hpa_availability(objects))


# What makes each check find something in the production example.
SPOIL = {
    automount_service_account_token: lambda o: pod(o)["spec"].pop("automountServiceAccountToken"),
    capabilities: lambda o: server(o)["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
    deployment_missing_replicas: lambda o: workload(o)["spec"].update(replicas=1),
    host_access: lambda o: server(o)["ports"][0].update(hostPort=80),
    hpa_availability:
        lambda o: o.append({"kind": "HorizontalPodAutoscaler", "spec": {"minReplicas": 2, "maxReplicas": 2}}),
    linux_hardening: lambda o: pod(o)["spec"]["securityContext"].pop("seccompProfile"),
    metadata_and_instance_mismatched: lambda o: workload(o)["metadata"].update(name="other"),
    missing_network_policy: lambda o: only(o, "NetworkPolicy")["spec"].pop("egress"),
    missing_pod_disruption_budget: lambda o: o.remove(only(o, "PodDisruptionBudget")),
    priority_class_not_set: lambda o: pod(o)["spec"].pop("priorityClassName"),
    probe_missing: lambda o: server(o).pop("livenessProbe"),
    proc_mount: lambda o: server(o)["securityContext"].update(procMount="Unmasked"),
    pull_policy_not_always: lambda o: server(o).update(imagePullPolicy="IfNotPresent"),
    requirements_missing: lambda o: server(o)["resources"]["limits"].pop("cpu"),
    roles: lambda o: o.append({"kind": "ClusterRoleBinding"}),
    sensitive_configmap_content: lambda o: only(o, "ConfigMap")["data"].update(token="x"),
    sensitive_container_env_var: lambda o: server(o)["env"].append({"name": "PASSWORD", "value": "x"}),
    tls_settings_missing: lambda o: o.append({"kind": "Ingress", "spec": {}}),
    topology_spread_constraint: lambda o: pod(o)["spec"].pop("topologySpreadConstraints"),
}


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_finds_what_it_is_for(helm, check):
    objects = copy.deepcopy(helm.objects(preset="production"))
    SPOIL[check](objects)
    assert list(check(objects))
