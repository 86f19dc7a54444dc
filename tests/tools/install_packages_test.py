"""tools/install_packages.sh leaves no service behind on the machine of whoever runs the tests."""

import os
import pathlib
import subprocess

import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "tools" / "install_packages.sh"
PROGRAMS = {  # as on a machine where only $INSTALLED is installed; they write down how they are called
    "dpkg-query": 'case " $INSTALLED " in *" ${!#} "*) echo installed;; esac',
    "apt-get": 'echo "apt-get $*" >> "$CALLS"',
    "systemctl": 'echo "systemctl $*" >> "$CALLS"',
    "id": "echo 0",
}


@pytest.mark.parametrize("installed, is_disabled", [("", True), ("prometheus", False)])
def test_prometheus_is_no_service_unless_it_was_there_before(tmp_path, installed, is_disabled):
    for name, body in PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    calls = tmp_path / "calls"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls), "INSTALLED": installed}
    subprocess.run([SCRIPT, "test"], env=environment, check=True, capture_output=True)
    said = calls.read_text().splitlines()
    install = next(number for number, line in enumerate(said) if line.startswith("apt-get install"))
    assert ("systemctl disable --quiet prometheus" in said[install:]) == is_disabled
    assert is_disabled or not any(line.startswith("systemctl") for line in said)
