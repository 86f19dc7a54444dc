"""sanitize_gpu.py against a stand-in of compute-sanitizer and of kernels_test: what it counts and when it fails."""

import os
import pathlib
import stat
import subprocess
import sys

import pytest

TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools" / "sanitize_gpu.py"

# Six tests, two of which are the CPU's and one of which takes long.
PROGRAM = """#!/usr/bin/env python3
import fnmatch, sys, time
SUITES = {"Devices/SumTest.": ["Adds/Cpu", "Adds/Cuda", "Breaks/Cuda"], "SumCudaTest.": ["Races", "Sleeps"],
          "HostTest.": ["Adds"]}
filters = [argument.split("=", 1)[1] for argument in sys.argv if argument.startswith("--gtest_filter=")]
wanted, unwanted = (part.split(":") for part in filters[0].partition("-")[::2])
failed = 0
for suite, names in SUITES.items():
    def any_is(patterns, name):
        return any(fnmatch.fnmatchcase(suite + name, pattern) for pattern in patterns)
    names = [name for name in names if any_is(wanted, name) and not any_is(unwanted, name)]
    if "--gtest_list_tests" in sys.argv:
        print("\\n  ".join([suite] + [f"{name}  # GetParam() = 1" for name in names]))
        continue
    for name in names:
        if name == "Sleeps":
            time.sleep(60)
        if name == "Races":
            print("========= Error: Race reported between Write access and Read access")
        text = f"{suite}{name}"
        if name.startswith("Breaks"):
            failed = 1
            print(f"[  FAILED  ] {text}, where GetParam() = 1 (1 ms)", flush=True)
        else:
            print(f"[       OK ] {text} (1 ms)", flush=True)
sys.exit(failed)
"""
SANITIZER = """#!/bin/sh
echo "========= COMPUTE-SANITIZER"
while [ "${1#--}" != "$1" ]; do shift; done
"$@"
code=$?
[ -n "$SILENT" ] || echo "========= ERROR SUMMARY: 0 errors"
exit $code
"""


@pytest.fixture(name="run")
def fixture_run(tmp_path):
    for name, text in (("kernels_test", PROGRAM), ("compute-sanitizer", SANITIZER)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(stat.S_IRWXU)

    def run(tool, gtest_filter, seconds=20, batch=1):
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        command = [sys.executable, TOOL, tmp_path / "kernels_test", tool, "--filter", gtest_filter, "--jobs", "2",
                   "--batch", str(batch), "--seconds", str(seconds), "--logs", tmp_path / "logs"]
        result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
        logs = sorted(path.name for path in (tmp_path / "logs").iterdir())
        return result.returncode, result.stdout.splitlines()[-1], logs

    return run


def test_counts_what_passes_fails_races_and_does_not_end(run):
    code, last, logs = run("racecheck", "*", seconds=5)
    assert last == "racecheck: 2 passed, 1 failed, 1 not ended, 2 processes with reports"
    assert code == 1
    assert logs == ["racecheck_1.txt", "racecheck_2.txt"]


def test_nothing_reported_is_success(run):
    assert run("memcheck", "*Adds*") == (0, "memcheck: 1 passed, 0 failed, 0 not ended, 0 processes with reports", [])


@pytest.mark.parametrize("gtest_filter", ["HostTest.*", "*Sleeps"])
def test_no_test_that_ended_is_no_success(run, gtest_filter):
    code, last, _ = run("initcheck", gtest_filter, seconds=2)
    assert code == 1
    assert last.startswith("initcheck: 0 passed, 0 failed, ")


def test_a_failure_counts_although_its_process_does_not_end(run):
    code, last, logs = run("memcheck", "*Breaks*:*Sleeps", seconds=3, batch=2)
    assert last == "memcheck: 0 passed, 1 failed, 1 not ended, 1 processes with reports"
    assert (code, logs) == (1, ["memcheck_0.txt"])


def test_a_tool_that_ends_without_a_summary_is_no_success(run, monkeypatch):
    monkeypatch.setenv("SILENT", "1")
    code, last, logs = run("racecheck", "*Adds*")
    assert last == "racecheck: 1 passed, 0 failed, 0 not ended, 1 processes with reports"
    assert (code, logs) == (1, ["racecheck_0.txt"])
