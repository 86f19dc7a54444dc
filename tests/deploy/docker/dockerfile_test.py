"""deploy/docker/Dockerfile follows the rules of linters and image scanners, and its image has what the server loads."""

import re
import subprocess

import dockerfile
import pytest
from dockerfile import ROOT

TEXT = dockerfile.DOCKERFILE.read_text()
STAGES = dockerfile.parse(TEXT)
NAMES = {stage.name for stage in STAGES}
TARGETS = ["cpu", "cuda"]
IN_THE_BASE = {"libc6", "libgcc-s1", "libstdc++6"}  # what apt itself needs is in every Debian image
SINGLE_QUOTED = re.compile("'[^']*'")
SECRET = re.compile(r"(?i)(password|passwd|secret|token|api_?key|private_?key)\w*\s*=|BEGIN [A-Z ]*PRIVATE KEY")


def image_of(target: str) -> list[dockerfile.Instruction]:
    return [instruction for stage in dockerfile.chain(STAGES, target) for instruction in stage.instructions]


def last(target: str, name: str) -> dockerfile.Instruction:
    return [instruction for instruction in image_of(target) if instruction.name == name][-1]


def problems(stages: list[dockerfile.Stage], text: str) -> list[str]:
    """What a linter would say of any Dockerfile."""
    found, names = [], {stage.name for stage in stages}
    for stage in stages:
        if stage.base not in names and not re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*@sha256:[0-9a-f]{64}", stage.base):
            found.append(f"{stage.base} is not pinned by tag and digest")
        if ":latest" in stage.base:
            found.append(f"{stage.base}: latest")
        for instruction in stage.instructions:
            found += [f"line {instruction.line}: {problem}" for problem in problems_of(instruction)]
    if SECRET.search(text):
        found.append("a secret")
    return found


def problems_of(instruction: dockerfile.Instruction) -> list[str]:
    name, text = instruction.name, instruction.text
    checks = {
        "ADD, where COPY does": name == "ADD",
        "MAINTAINER is deprecated": name == "MAINTAINER",
        "sudo": name == "RUN" and re.search(r"\bsudo\b", text),
        "cd instead of WORKDIR": name == "RUN" and re.search(r"(^|&&)\s*cd ", text),
        "a pipe hides a failure": name == "RUN" and re.search(r"(?<!\|)\|(?!\|)", SINGLE_QUOTED.sub("", text)),
        "curl or wget from the network": name == "RUN" and re.search(r"\b(curl|wget)\b", text),
        "a relative WORKDIR": name == "WORKDIR" and not text.startswith("/"),
        "not in exec form": name in ("CMD", "ENTRYPOINT") and not instruction.is_exec_form(),
        "the health check is not in exec form": name == "HEALTHCHECK" and "CMD [" not in text,
    }
    if name == "RUN" and "apt-get" in text:
        installs = re.findall(r"apt-get install[^&]*", text)
        checks |= {
            "apt-get update alone": "install" not in text,
            "apt-get install without update": bool(installs) and "apt-get update" not in text,
            "apt lists stay": "rm -rf /var/lib/apt/lists/*" not in text,
            "no -y": any(" -y" not in install for install in installs),
            "recommended packages": any("--no-install-recommends" not in install for install in installs),
            "an upgrade": re.search(r"apt-get (dist-)?upgrade", text),
        }
    return [problem for problem, holds in checks.items() if holds]


def test_it_follows_the_rules():
    assert not problems(STAGES, TEXT)


@pytest.mark.parametrize("line, problem", [
    ("FROM debian:latest", "pinned"), ("FROM debian", "pinned"), ("FROM debian:12.11-slim", "pinned"),
    ("ADD x /x", "COPY"), ("RUN apt-get update", "alone"),
    ("RUN apt-get install -y --no-install-recommends x", "without update"),
    ("RUN apt-get update && apt-get install -y x && rm -rf /var/lib/apt/lists/*", "recommended"),
    ("RUN apt-get update && apt-get install -y --no-install-recommends x", "lists"),
    ("RUN cd /x", "WORKDIR"), ("RUN a | b", "pipe"), ("RUN a|b", "pipe"), ("RUN x \"$(a | b '{c}')\"", "pipe"),
    ("ENTRYPOINT nsa-serve", "exec form"), ("ENV API_KEY=1", "secret"),
    ("HEALTHCHECK CMD nsa-healthcheck", "exec form")])
def test_a_breach_of_a_rule_is_found(line, problem):
    text = line if line.startswith("FROM") else f"FROM scratch\n{line}"
    assert any(problem in found for found in problems(dockerfile.parse(text), text))


@pytest.mark.parametrize("line", ["RUN a || b", "RUN awk '$1 | $2' x", "RUN x \"$(a || b)\""])
def test_what_is_no_pipe_is_none(line):
    assert not any("pipe" in found for found in problems(dockerfile.parse(f"FROM scratch\n{line}"), line))


@pytest.mark.parametrize("target", TARGETS)
def test_the_image_is_built_in_one_stage_and_runs_in_another(target):
    image = {stage.name for stage in dockerfile.chain(STAGES, target)}
    copied = {source for instruction in image_of(target) for source in instruction.flags.get("from", [])}
    assert copied and not copied & image
    assert last(target, "FROM") is not None and "build-" + target in copied


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
