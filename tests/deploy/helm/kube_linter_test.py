"""The checks that kube-linter 0.8 makes by default, each as a function that yields what it finds."""

import copy
import re

import pytest

from chart import matches, of_kind, only, pod, server, workload

SENSITIVE_MOUNTS = {"/", "/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr", "/var/run/docker.sock"}
SAFE_SYSCTLS = {"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies",
                "net.ipv4.ping_group_range"}


def pods(objects):
    """(labels, spec) of what runs."""
    for item in objects:
        if item["kind"] in ("Deployment", "StatefulSet"):
            yield item["spec"]["template"]["metadata"]["labels"], item["spec"]["template"]["spec"]
        elif item["kind"] == "Pod":
            yield item["metadata"]["labels"], item["spec"]


def containers(objects):
    """(container, security of its pod)."""
    for _, spec in pods(objects):
        for container in spec["containers"] + spec.get("initContainers", []):
            yield container, spec.get("securityContext", {})


def dangling_service(objects):
    for item in of_kind(objects, "Service"):
        if not any(matches(item["spec"]["selector"], labels) for labels, _ in pods(objects)):
            yield item


def deprecated_service_account_field(objects):
    yield from (spec for _, spec in pods(objects) if "serviceAccount" in spec)


def host_namespaces(objects):  # host-ipc, host-network, host-pid
    yield from (spec for _, spec in pods(objects) if any(spec.get(f"host{name}") for name in ("IPC", "Network", "PID")))


def host_mounts(objects):  # docker-sock, sensitive-host-mounts
    for _, spec in pods(objects):
        yield from (item for item in spec.get("volumes", [])
                    if item.get("hostPath", {}).get("path") in SENSITIVE_MOUNTS)


def drop_net_raw_capability(objects):
    for container, _ in containers(objects):
        if not {"ALL", "NET_RAW"} & set(container.get("securityContext", {}).get("capabilities", {}).get("drop", [])):
            yield container


def duplicate_env_var(objects):
    for container, _ in containers(objects):
        names = [item["name"] for item in container.get("env", [])]
        yield from (name for name in set(names) if names.count(name) > 1)


def env_var_secret(objects):
    for container, _ in containers(objects):
        yield from (item for item in container.get("env", []) if "secret" in item["name"].lower() and item.get("value"))


def invalid_target_ports(objects):
    names = [item["name"] for container, _ in containers(objects) for item in container.get("ports", [])]
    names += [item["targetPort"] for service in of_kind(objects, "Service") for item in service["spec"]["ports"]]
    for name in names:
        if isinstance(name, str) and not (len(name) <= 15 and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)):
            yield name


def job_ttl_seconds_after_finished(objects):
    yield from (item for item in of_kind(objects, "Job") if "ttlSecondsAfterFinished" not in item["spec"])


def latest_tag(objects):
    for container, _ in containers(objects):
        if re.search(r":latest$|^[^:]*$|/[^:]+$", container["image"]):
            yield container


def probe_ports(objects):  # liveness-port, readiness-port, startup-port
    for container, _ in containers(objects):
        exposed = {port[key] for port in container.get("ports", []) for key in ("name", "containerPort")}
        for name in ("livenessProbe", "readinessProbe", "startupProbe"):
            if name in container and container[name]["httpGet"]["port"] not in exposed:
                yield container[name]


def mismatching_selector(objects):
    item = workload(objects)
    if not matches(item["spec"]["selector"]["matchLabels"], pod(objects)["metadata"]["labels"]):
        yield item


def no_anti_affinity(objects):
    if workload(objects)["spec"].get("replicas", 2) < 2:
        return
    rules = pod(objects)["spec"].get("affinity", {}).get("podAntiAffinity", {})
    terms = [item["podAffinityTerm"] for item in rules.get("preferredDuringSchedulingIgnoredDuringExecution", [])]
    terms += rules.get("requiredDuringSchedulingIgnoredDuringExecution", [])
    if not any(term["topologyKey"] == "kubernetes.io/hostname"
               and matches(term["labelSelector"]["matchLabels"], pod(objects)["metadata"]["labels"]) for term in terms):
        yield rules


def no_extensions_v1beta(objects):
    yield from (item for item in objects if item["apiVersion"].startswith("extensions/"))


def no_read_only_root_fs(objects):
    yield from (item for item, _ in containers(objects)
                if not item.get("securityContext", {}).get("readOnlyRootFilesystem"))


def non_existent_service_account(objects):
    known = {item["metadata"]["name"] for item in of_kind(objects, "ServiceAccount")} | {"default"}
    yield from (spec for _, spec in pods(objects) if spec.get("serviceAccountName", "default") not in known)


def pdb_leaves_no_way(objects):  # pdb-max-unavailable, pdb-min-available
    for item in of_kind(objects, "PodDisruptionBudget"):
        replicas = workload(objects)["spec"].get("replicas", 2)
        if item["spec"].get("maxUnavailable") in (0, "0%") or item["spec"].get("minAvailable", 0) in ("100%", replicas):
            yield item


def pdb_unhealthy_pod_eviction_policy(objects):
    yield from (item for item in of_kind(objects, "PodDisruptionBudget")
                if "unhealthyPodEvictionPolicy" not in item["spec"])


def privileged(objects):  # privilege-escalation-container, privileged-container
    for container, _ in containers(objects):
        security = container.get("securityContext", {})
        added = security.get("capabilities", {}).get("add", [])
        if security.get("allowPrivilegeEscalation", True) or security.get("privileged") or added:
            yield container


def run_as_non_root(objects):
    for container, of_pod in containers(objects):
        security = {**of_pod, **container.get("securityContext", {})}
        if security.get("runAsUser") == 0 or not (security.get("runAsNonRoot") or security.get("runAsUser", 0) > 0):
            yield container


def ssh_port(objects):
    yield from (container for container, _ in containers(objects)
                if any(port["containerPort"] == 22 for port in container.get("ports", [])))


def unsafe_sysctls(objects):
    for _, spec in pods(objects):
        yield from (item for item in spec["securityContext"].get("sysctls", []) if item["name"] not in SAFE_SYSCTLS)


def unset_requirements(objects):  # unset-cpu-requirements, unset-memory-requirements
    for container, _ in containers(objects):
        resources = container.get("resources", {})
        if "cpu" not in resources.get("requests", {}) or "memory" not in resources.get("limits", {}):
            yield container


CHECKS = [dangling_service, deprecated_service_account_field, drop_net_raw_capability, duplicate_env_var,
          env_var_secret, host_mounts, host_namespaces, invalid_target_ports, job_ttl_seconds_after_finished,
          latest_tag, mismatching_selector, no_anti_affinity, no_extensions_v1beta, no_read_only_root_fs,
          non_existent_service_account, pdb_leaves_no_way, pdb_unhealthy_pod_eviction_policy, privileged, probe_ports,
          run_as_non_root, ssh_port, unsafe_sysctls, unset_requirements]


@pytest.mark.parametrize("check", CHECKS)
def test_nothing_is_found(preset, check):
    _, objects = preset
    assert list(check(objects)) == []


# What makes each check find something.
SPOIL = {
    dangling_service: lambda o: of_kind(o, "Service")[0]["spec"]["selector"].update(a="b"),
    deprecated_service_account_field: lambda o: pod(o)["spec"].update(serviceAccount="a"),
    drop_net_raw_capability: lambda o: server(o)["securityContext"]["capabilities"].update(drop=["CHOWN"]),
    duplicate_env_var: lambda o: server(o)["env"].append(server(o)["env"][0]),
    env_var_secret: lambda o: server(o)["env"].append({"name": "MY_SECRET", "value": "x"}),
    host_mounts: lambda o: pod(o)["spec"]["volumes"].append({"name": "h", "hostPath": {"path": "/etc"}}),
    host_namespaces: lambda o: pod(o)["spec"].update(hostPID=True),
    invalid_target_ports: lambda o: server(o)["ports"][0].update(name="a_name_too_long_"),
    job_ttl_seconds_after_finished: lambda o: o.append({"kind": "Job", "spec": {}}),
    latest_tag: lambda o: server(o).update(image="registry.example.com/nsa-serve"),
    mismatching_selector: lambda o: workload(o)["spec"]["selector"]["matchLabels"].update(a="b"),
    no_anti_affinity: lambda o: pod(o)["spec"].pop("affinity"),
    no_extensions_v1beta: lambda o: workload(o).update(apiVersion="extensions/v1beta1"),
    no_read_only_root_fs: lambda o: server(o)["securityContext"].pop("readOnlyRootFilesystem"),
    non_existent_service_account: lambda o: pod(o)["spec"].update(serviceAccountName="b"),
    pdb_leaves_no_way: lambda o: only(o, "PodDisruptionBudget")["spec"].update(maxUnavailable=0),
    pdb_unhealthy_pod_eviction_policy:
        lambda o: only(o, "PodDisruptionBudget")["spec"].pop("unhealthyPodEvictionPolicy"),
    privileged: lambda o: server(o)["securityContext"].pop("allowPrivilegeEscalation"),
    probe_ports: lambda o: server(o)["startupProbe"]["httpGet"].update(port=8080),
    run_as_non_root: lambda o: server(o)["securityContext"].update(runAsUser=0),
    ssh_port: lambda o: server(o)["ports"].append({"name": "ssh", "containerPort": 22}),
    unsafe_sysctls:
        lambda o: pod(o)["spec"]["securityContext"].update(sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
    unset_requirements: lambda o: server(o)["resources"]["limits"].pop("memory"),
}


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_finds_what_it_is_for(helm, check):
    objects = copy.deepcopy(helm.objects())
    SPOIL[check](objects)
    assert list(check(objects))
