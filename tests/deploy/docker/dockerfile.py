"""Reads a Dockerfile and a .dockerignore: stages, instructions with variables filled in, the build context."""

import dataclasses
import json
import pathlib
import re
import shlex
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[3]
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
EXPANDED = {"FROM", "COPY", "ENV", "LABEL", "USER", "WORKDIR", "EXPOSE"}  # the shell expands those of RUN


@dataclasses.dataclass
class Instruction:
    line: int
    name: str
    flags: dict[str, list[str]]
    text: str  # without its flags

    def words(self) -> list[str]:
        """Of the exec form (JSON), or split as a shell would."""
        return json.loads(self.text) if self.is_exec_form() else shlex.split(self.text)

    def is_exec_form(self) -> bool:
        return self.text.startswith("[")

    def pairs(self) -> dict[str, str]:
        """Of ENV and LABEL."""
        return dict(word.split("=", 1) for word in self.words())


@dataclasses.dataclass
class Stage:
    name: str
    base: str  # an image, or the name of an earlier stage
    instructions: list[Instruction]

    def of(self, name: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.name == name]


def logical_lines(text: str):
    """(number, line) with continuations joined and comments left out."""
    pending, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or (not line.strip() and not pending):
            continue
        start = start if pending else number
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        yield start, (pending + line).strip()
        pending = ""
    if pending:
        raise ValueError(f"line {start} does not end")


def expand(text: str, variables: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}|\$(\w+)", lambda match: variables[match.group(1) or match.group(2)], text)


def parse_instruction(number: int, line: str, variables: dict[str, str]) -> Instruction:
    name, _, rest = line.partition(" ")
    name, rest, flags = name.upper(), rest.strip(), {}
    while match := re.match(r"--([a-z-]+)(?:=(\S+))?\s+", rest):
        flags.setdefault(match.group(1), []).append(match.group(2) or "")
        rest = rest[match.end():]
    if "<<" in rest:
        raise ValueError(f"line {number}: here-documents are not read")
    return Instruction(number, name, flags, expand(rest, variables) if name in EXPANDED else rest)


def parse(text: str, arguments: dict[str, str] | None = None) -> list[Stage]:
    """All stages in order. Variables: ARG before the first FROM, ENV and ARG in a stage and its bases."""
    variables, stages, known = {}, [], {}
    for number, line in logical_lines(text):
        instruction = parse_instruction(number, line, {**variables, **(known[stages[-1].name] if stages else {})})
        if instruction.name == "ARG":
            name, _, value = instruction.text.partition("=")
            (known[stages[-1].name] if stages else variables)[name] = (arguments or {}).get(name, value)
        elif instruction.name == "FROM":
            words = instruction.words()
            name = words[2] if len(words) == 3 and words[1].upper() == "AS" else str(len(stages))
            stages.append(Stage(name, words[0], []))
            known[name] = dict(known.get(words[0], {}))
        if stages:
            stages[-1].instructions.append(instruction)
            if instruction.name == "ENV":
                known[stages[-1].name].update(instruction.pairs())
    return stages


def chain(stages: list[Stage], target: str) -> list[Stage]:
    """The target and the stages it stands on, the lowest first: what its image consists of."""
    by_name, found = {stage.name: stage for stage in stages}, []
    while target in by_name:
        found.insert(0, by_name[target])
        target = by_name[target].base
    return found


def image_config(stages: list[Stage], target: str) -> dict:
    """The configuration of the target's image, as Docker has it."""
    image = [instruction for stage in chain(stages, target) for instruction in stage.instructions]

    def all_pairs(name: str) -> dict[str, str]:
        return {key: value for item in image if item.name == name for key, value in item.pairs().items()}

    def last(name: str) -> Instruction:
        return [instruction for instruction in image if instruction.name == name][-1]

    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **all_pairs("ENV")}
    kind, _, check = last("HEALTHCHECK").text.partition(" ")
    return {"Env": [f"{name}={value}" for name, value in environment.items()], "User": last("USER").text,
            "Entrypoint": last("ENTRYPOINT").words(), "Labels": all_pairs("LABEL"),
            "Healthcheck": {"Test": [kind, *json.loads(check)]}}


def ignore_pattern(line: str) -> re.Pattern:
    """A pattern of .dockerignore; it also matches what is in a folder that it names."""
    parts = []
    for part in re.split(r"(\*\*/|\*\*|\*|\?)", line.strip("/")):
        parts.append({"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part)))
    return re.compile("".join(parts) + r"(?:/.*)?$")


def context(root: pathlib.Path = ROOT) -> list[str]:
    """The files of a clean checkout that .dockerignore lets into the build; the last pattern that matches decides."""
    rules = [(not line.startswith("!"), ignore_pattern(line.lstrip("!")))
             for line in (root / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    listing = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout

    def is_in(path: str) -> bool:
        verdicts = [ignored for ignored, pattern in rules if pattern.match(path)]
        return not verdicts or not verdicts[-1]

    return [path for path in listing.splitlines() if is_in(path)]


def select(paths: list[str], source: str) -> list[str]:
    """The context's files that a COPY's source names: a file, or all files of a folder."""
    source = source.strip("/").removeprefix("./")
    return [path for path in paths if source in (".", "") or path == source or path.startswith(source + "/")]
