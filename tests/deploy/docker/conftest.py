import os
import pathlib
import re
import subprocess

import pytest
from dockerfile import ROOT

SANITIZERS = re.compile(r"lib(asan|ubsan|tsan)\.so")  # of test builds


def output_of(*command) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="session")
def program_libraries() -> tuple[set[str], set[str]]:
    """Paths of the libraries that the server and the CLI ask for, and of all that are then loaded."""
    build = pathlib.Path(os.environ.get("NSA_BUILD_DIR", ROOT / "build" / "cpu-release"))
    direct, everything = set(), set()
    for program in ("nsa-server", "nsa-cli"):
        path = build / "bin" / program
        found = dict(re.findall(r"^\s*(\S+) => (/\S+) \(", output_of("ldd", path), re.MULTILINE))
        found = {name: file for name, file in found.items() if not SANITIZERS.match(name)}
        needed = re.findall(r"NEEDED.*\[(\S+)\]", output_of("readelf", "-d", path))
        direct |= {found[name] for name in needed if name in found}
        everything |= set(found.values())
    return direct, everything
