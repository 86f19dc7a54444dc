"""Runs every test of a build and ends with one count: run_tests.py BUILD_DIR.

C++: each GoogleTest executable in BUILD_DIR/bin/tests; those that only compute are cut into shards, one per core.
Python: pytest over tests/, against the server of the same build; with sanitizers over those tests alone that bring the
server into many states. Exit status 1 if anything failed or nothing ran.
"""

import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Their tests look at no clock: they may share the machine.
SHARDED = ("constraint_test", "kernels_test", "model_test", "text_test")
# What a sanitizer adds nothing to: tables of values, and tests without a server.
NOT_SANITIZED = ("tests/deploy", "tests/engine", "tests/lint", "tests/integration/console_page_test.py",
                 "tests/integration/console_test.py", "tests/integration/openapi_test.py",
                 "tests/integration/transport_matrix_test.py", "tests/tools/needle_test.py")

Counts = tuple[int, int, int]  # passed, failed, skipped


def run_gtest(binary: pathlib.Path, folder: pathlib.Path, environment: dict) -> Counts:
    num_shards = os.cpu_count() if binary.name in SHARDED else 1

    def run(shard: int) -> Counts:
        variables = {"GTEST_TOTAL_SHARDS": str(num_shards), "GTEST_SHARD_INDEX": str(shard)}
        return run_shard(binary, folder / f"{binary.name}.{shard}.json", {**environment, **variables})

    with concurrent.futures.ThreadPoolExecutor(num_shards) as pool:
        counts = list(pool.map(run, range(num_shards)))
    return tuple(map(sum, zip(*counts)))


def run_shard(binary: pathlib.Path, report: pathlib.Path, environment: dict) -> Counts:
    """A crash counts as one failure."""
    command = [str(binary), f"--gtest_output=json:{report}", "--gtest_brief=1"]
    exit_code = subprocess.run(command, cwd=ROOT, env=environment).returncode
    if not report.exists():
        print(f"{binary.name}: no report, exit code {exit_code}")
        return 0, 1, 0
    passed = failed = skipped = 0
    for suite in json.loads(report.read_text())["testsuites"]:
        for case in suite["testsuite"]:
            if case.get("failures"):
                failed += 1
            elif case["result"] == "SKIPPED" or case["status"] == "NOTRUN":
                skipped += 1
            else:
                passed += 1
    if exit_code != 0 and failed == 0:
        print(f"{binary.name}: exit code {exit_code} after its last test")
        failed = 1
    return passed, failed, skipped


def run_pytest(report: pathlib.Path, environment: dict, sanitized: bool) -> Counts:
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", f"--junitxml={report}", "tests"]
    if sanitized:
        command += [f"--ignore={path}" for path in NOT_SANITIZED]
    exit_code = subprocess.run(command, cwd=ROOT, env=environment).returncode
    if not report.exists():
        print(f"pytest: no report, exit code {exit_code}")
        return 0, 1, 0
    suite = ElementTree.parse(report).getroot().find("testsuite")
    total, skipped = int(suite.get("tests")), int(suite.get("skipped"))
    failed = int(suite.get("failures")) + int(suite.get("errors"))
    if exit_code not in (0, 5) and failed == 0:
        failed = 1
    return total - failed - skipped, failed, skipped


def is_sanitized(build: pathlib.Path) -> bool:
    return re.search(r"^NSA_SANITIZE:\w+=.", (build / "CMakeCache.txt").read_text(), re.MULTILINE) is not None


def sanitizer_environment(build: pathlib.Path) -> dict:
    support = ROOT / "tests" / "support"
    return {
        "NSA_BUILD_DIR": str(build.resolve()),
        "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1",
        "LSAN_OPTIONS": f"suppressions={support / 'lsan.supp'}:print_suppressions=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": f"suppressions={support / 'tsan.supp'}:second_deadlock_stack=1",
    }


def main() -> int:
    build = pathlib.Path(sys.argv[1])
    environment = {**os.environ, **sanitizer_environment(build)}
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for binary in sorted((build / "bin" / "tests").iterdir()):
            start = time.monotonic()
            counts = run_gtest(binary, pathlib.Path(folder), environment)
            results.append((binary.name, counts, time.monotonic() - start))
        start = time.monotonic()
        counts = run_pytest(pathlib.Path(folder) / "pytest.xml", environment, is_sanitized(build))
        results.append(("python", counts, time.monotonic() - start))

    print(f"\n{'tests':<24}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for name, (passed, failed, skipped), seconds in results:
        print(f"{name:<24}{passed:>8}{failed:>8}{skipped:>9}{seconds:>9.1f}")
    passed, failed, skipped = (sum(counts[i] for _, counts, _ in results) for i in range(3))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 0 if failed == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
