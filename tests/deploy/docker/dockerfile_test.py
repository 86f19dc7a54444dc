"""deploy/docker/Dockerfile follows the rules of hadolint and more, and its image has what the server loads."""

import pathlib
import re
import subprocess
import sysconfig

import dockerfile
import pytest
from dockerfile import ROOT

TEXT = dockerfile.DOCKERFILE.read_text()
STAGES = dockerfile.parse(TEXT)
NAMES = {stage.name for stage in STAGES}
TARGETS = ["cpu", "cuda"]
IN_THE_BASE = {"libc6", "libgcc-s1", "libstdc++6"}  # what apt itself needs is in every Debian image
SECRET = re.compile(r"(?i)(password|passwd|secret|token|api_?key|private_?key)\w*\s*=|BEGIN [A-Z ]*PRIVATE KEY")


def image_of(target: str) -> list[dockerfile.Instruction]:
    return [instruction for stage in dockerfile.chain(STAGES, target) for instruction in stage.instructions]


def last(target: str, name: str) -> dockerfile.Instruction:
    return [instruction for instruction in image_of(target) if instruction.name == name][-1]


def problems(stages: list[dockerfile.Stage], text: str) -> list[str]:
    """Breaches of rules that hadolint does not have."""
    found, names = [], {stage.name for stage in stages}
    for stage in stages:
        if stage.base not in names and not re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*@sha256:[0-9a-f]{64}", stage.base):
            found.append(f"{stage.base} is not pinned by tag and digest")
        for instruction in stage.instructions:
            found += [f"line {instruction.line}: {problem}" for problem in problems_of(instruction)]
    if SECRET.search(text):
        found.append("a secret")
    return found


def problems_of(instruction: dockerfile.Instruction) -> list[str]:
    text = instruction.text
    if instruction.name != "RUN":
        return []
    has_install = "apt-get install" in text
    checks = {
        "curl or wget from the network": re.search(r"\b(curl|wget)\b", text),
        "apt-get update alone": "apt-get update" in text and not has_install,
        "apt-get install without update": has_install and "apt-get update" not in text,
        "an upgrade": re.search(r"apt-get (dist-)?upgrade", text),
    }
    return [problem for problem, holds in checks.items() if holds]


def complaints(text: str) -> str:
    program = pathlib.Path(sysconfig.get_path("scripts")) / "hadolint"
    result = subprocess.run([program, "--no-color", "-"], input=text, capture_output=True, text=True)
    assert bool(result.returncode) == bool(result.stdout), result.stderr
    return result.stdout


def test_it_follows_the_rules():
    assert not problems(STAGES, TEXT)
    assert not complaints(TEXT)


def test_what_hadolint_shall_ignore_has_a_reason():
    """In the line above."""
    ignored = re.findall(r"^(.*)\n# hadolint ignore=(.*)\n", TEXT, re.MULTILINE)
    assert ignored and all(line.startswith("# ") and codes == "DL3008" for line, codes in ignored)


@pytest.mark.parametrize("line, problem", [
    ("FROM debian:latest", "pinned"), ("FROM debian", "pinned"), ("FROM debian:12.11-slim", "pinned"),
    ("RUN apt-get update", "alone"), ("RUN apt-get update && apt-get upgrade", "an upgrade"),
    ("RUN apt-get install -y --no-install-recommends x", "without update"), ("RUN curl https://a.example", "curl"),
    ("ENV API_KEY=1", "secret")])
def test_a_breach_of_a_rule_is_found(line, problem):
    text = line if line.startswith("FROM") else f"FROM scratch\n{line}"
    assert any(problem in found for found in problems(dockerfile.parse(text), text))


def test_hadolint_complains_of_a_breach():
    assert "DL3008" in complaints("FROM scratch\nRUN apt-get update && apt-get install -y x")


@pytest.mark.parametrize("target", TARGETS)
def test_the_image_is_built_in_one_stage_and_runs_in_another(target):
    image = {stage.name for stage in dockerfile.chain(STAGES, target)}
    copied = {source for instruction in image_of(target) for source in instruction.flags.get("from", [])}
    assert copied and not copied & image
    assert "build-" + target in copied


@pytest.mark.parametrize("target", TARGETS)
def test_who_runs_what(target):
    user, _, group = last(target, "USER").text.partition(":")
    assert user.isdigit() and group.isdigit() and int(user) > 0 and int(group) > 0
    assert last(target, "ENTRYPOINT").words() == ["/usr/local/bin/nsa-serve"]
    assert "/usr/local/bin/nsa-healthcheck" in last(target, "HEALTHCHECK").text
    assert last(target, "EXPOSE").words() == ["8000", "9000"]


@pytest.mark.parametrize("target", TARGETS)
def test_labels_are_those_of_the_project(target):
    labels = last(target, "LABEL").pairs()
    version = re.search(r"project\(nsa_serve VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text()).group(1)
    assert labels["org.opencontainers.image.version"] == version
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.title"] and labels["org.opencontainers.image.description"]


def test_what_is_copied_exists():
    context = dockerfile.context()
    for stage in STAGES:
        for copy in stage.of("COPY"):
            for source in copy.words()[:-1]:
                if "from" in copy.flags:
                    assert copy.flags["from"][0] in NAMES, f"line {copy.line}"
                else:
                    assert dockerfile.select(context, source), f"line {copy.line}: {source}"


def test_the_context_has_every_folder_that_the_build_enters():
    entered = re.findall(r"^add_subdirectory\((\S+)\)", (ROOT / "CMakeLists.txt").read_text(), re.MULTILINE)
    assert len(entered) > 4 and all(dockerfile.select(dockerfile.context(), folder) for folder in entered)


def test_the_context_is_the_sources_alone():
    context = dockerfile.context()
    assert {"CMakeLists.txt", "server/main.cc", "models/nsa-story-27m/model.safetensors"} <= set(context)
    assert not [path for path in context if path.startswith(("tests/", "docs/", "bench/", "training/", "."))]
    ignored = dockerfile.ignore_pattern("**/__pycache__")
    assert ignored.match("tools/__pycache__/x.pyc") and ignored.match("__pycache__/x")
    assert not ignored.match("tools/x.py")


def test_the_model_is_where_the_environment_says():
    environment = {key: value for instruction in image_of("cpu") if instruction.name == "ENV"
                   for key, value in instruction.pairs().items()}
    targets = [instruction.words()[-1].rstrip("/") for instruction in image_of("cpu") if instruction.name == "COPY"]
    assert environment["NSA_MODEL"] in targets and environment["NSA_HOST"] == "0.0.0.0"
    values = (ROOT / "deploy" / "helm" / "nsa-serve" / "values.yaml").read_text()
    assert f"bundledPath: {environment['NSA_MODEL']}\n" in values and "runAsUser: 65532, runAsGroup: 65532" in values
    assert last("cpu", "USER").text == "65532:65532"


def installed_depends() -> dict[str, set[str]]:
    """The packages of this machine and what each depends on, alternatives included."""
    fields = "${Package}\t${Depends}, ${Pre-Depends}\n"
    listing = subprocess.run(["dpkg-query", "-W", "-f", fields], capture_output=True, text=True, check=True).stdout
    return {name: set(re.findall(r"([a-z0-9][a-z0-9.+-]+)(?::any)?(?: \([^)]*\))?", depends))
            for name, depends in (line.split("\t") for line in listing.splitlines())}


def packages_of(libraries: set[str]) -> set[str]:
    """dpkg knows a file by the name it was installed under, with or without /usr."""
    spellings = [prefix + path for path in libraries for prefix in ("", "/usr")]
    lines = subprocess.run(["dpkg", "-S", *spellings], capture_output=True, text=True).stdout.splitlines()
    owners = {line.rpartition(": ")[2].removeprefix("/usr"): line.split(":")[0] for line in lines}
    return {owners[path.removeprefix("/usr")] for path in libraries}


def test_the_image_has_the_packages_of_every_library_and_no_others(program_libraries):
    direct, all_of_them = program_libraries
    run = next(run for run in image_of("cpu") if run.name == "RUN").text
    listed = set(re.search(r"--no-install-recommends ([^&]+)", run).group(1).split())
    assert packages_of(direct) - IN_THE_BASE == listed
    depends, reached, queue = installed_depends(), set(), list(listed | IN_THE_BASE)
    while queue:
        name = queue.pop()
        if name not in reached:
            reached.add(name)
            queue += depends.get(name, ())
    missing = packages_of(all_of_them) - reached
    assert not missing
