"""What the chart takes for granted of the image: the Dockerfile says it."""

import re

import chart
from chart import flags, pod, server

DOCKERFILE = (chart.ROOT / "deploy" / "docker" / "Dockerfile").read_text()


def said(pattern: str) -> str:
    return re.search(pattern, DOCKERFILE, re.MULTILINE).group(1)


def test_the_bundled_model_is_where_the_chart_looks(helm):
    assert flags(helm.objects())["model"] == said(r"\bNSA_MODEL=(\S+)")
    assert f"COPY models/nsa-story-27m/ {flags(helm.objects())['model']}/" in DOCKERFILE


def test_it_is_run_as_its_own_user(preset):
    _, objects = preset
    security = pod(objects)["spec"]["securityContext"]
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == said(r"^USER (\S+)")


def test_the_arguments_are_the_servers(preset):
    _, objects = preset
    assert "command" not in server(objects)
    assert said(r'^ENTRYPOINT \["(.*)"\]$') == "/usr/local/bin/nsa-serve"
    assert "ln -s nsa-server /usr/local/bin/nsa-serve" in DOCKERFILE


def test_the_ports_are_the_images(preset):
    _, objects = preset
    assert [str(port["containerPort"]) for port in server(objects)["ports"]] == said(r"^EXPOSE (.*)$").split()


def test_the_version_is_the_images(helm):
    assert server(helm.objects())["image"] == "nsa-serve:" + said(r'image\.version="(.*)"')


def test_models_of_others_do_not_hide_the_bundled_one(preset):
    _, objects = preset
    mounts = {mount["mountPath"] for mount in server(objects)["volumeMounts"]}
    assert "mkdir /models" in DOCKERFILE and mounts <= {"/tmp", "/models", "/etc/nsa-serve/api-keys"}
