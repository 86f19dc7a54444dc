"""Runs the GPU's cases of kernels_test under one tool of compute-sanitizer and ends with one count.

usage: sanitize_gpu.py KERNELS_TEST memcheck|initcheck|racecheck [--filter GTEST_FILTER] [--jobs N]
           [--batch N] [--seconds N] [--logs FOLDER]

Several processes share the GPU, each with a few tests at a time. Needs Python and compute-sanitizer alone, in the
source root. For racecheck KERNELS_TEST is the preset cuda-racecheck's: the tool follows a barrier from the threads that
arrive on it, so every lane must. Exit status 1 if a tool reported anything, a test failed or none ended. Tests that had
not ended after --seconds are counted by themselves. The logs of reports stay in FOLDER.
"""

import argparse
import concurrent.futures
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import test_gpu

# cuBLASLt's products are not ours, and caches beyond 2^31 elements take a sanitizer minutes.
LEFT_OUT = "*OffsetsAre64Bit*:*CudaLinearTest.MatchesReference*:ContractDeathTest.*"
FLAGS = {"memcheck": [], "initcheck": [], "racecheck": ["--racecheck-report=all"]}
REPORT = re.compile(r"^========= (?!COMPUTE-SANITIZER|ERROR SUMMARY: 0 errors|RACECHECK SUMMARY: 0 hazards)\S.*",
                    re.MULTILINE)


@dataclasses.dataclass
class Outcome:
    passed: int
    failed: int
    unfinished: int
    report: str  # of the tool; empty: nothing was wrong
    log: str


def cases_of(program: pathlib.Path, gtest_filter: str, environment: dict) -> list[str]:
    listing = subprocess.run([program, "--gtest_list_tests", f"--gtest_filter={gtest_filter}"], capture_output=True,
                             text=True, check=True, env=environment).stdout
    suite, cases = "", []
    for line in listing.splitlines():
        name = line.split("#")[0].rstrip()
        if not line.startswith(" "):
            suite = name
        elif "cuda" in name.lower() or "cuda" in suite.lower():
            cases.append(suite + name.strip())
    return cases


def run_batch(command: list[str], cases: list[str], deadline: float, environment: dict) -> Outcome:
    seconds = deadline - time.monotonic()
    if seconds <= 1:
        return Outcome(0, 0, len(cases), "", "")
    command = [*command, f"--gtest_filter={':'.join(cases)}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
                               cwd=test_gpu.ROOT, start_new_session=True)
    try:
        log, _ = process.communicate(timeout=seconds)
        late = False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        log, _ = process.communicate()
        late = True
    # The name alone: behind that of a test with a parameter comes "where GetParam() = ...".
    passed, failed = log.count("[       OK ]"), len(set(re.findall(r"\[  FAILED  \] (\w[\w/]*\.[\w/]+)", log)))
    missing = len(cases) - passed - failed
    found = REPORT.search(log)
    report = found.group() if found else ""
    if not late and "SUMMARY: " not in log:
        report = report or "the tool has said nothing"
    # A process that ends by itself has run all of its tests, and on a GPU none has a reason to be skipped.
    return Outcome(passed, failed + (0 if late else missing), missing if late else 0, report, log)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("tool", choices=FLAGS)
    parser.add_argument("--filter", default="*")
    parser.add_argument("--jobs", type=int, default=min(14, max(1, (os.cpu_count() or 1) - 2)))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--logs", type=pathlib.Path, default=pathlib.Path("build/sanitizer"))
    args = parser.parse_args()
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    environment = test_gpu.cuda_environment()
    deadline = time.monotonic() + args.seconds
    positive, _, negative = args.filter.partition("-")
    cases = cases_of(args.program, f"{positive}-{negative}:{LEFT_OUT}", environment)
    command = [sanitizer, f"--tool={args.tool}", *FLAGS[args.tool], "--print-limit=5", str(args.program.resolve())]
    batches = [cases[i:i + args.batch] for i in range(0, len(cases), args.batch)]
    args.logs.mkdir(parents=True, exist_ok=True)
    passed = failed = unfinished = reports = 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        runs = [pool.submit(run_batch, command, batch, deadline, environment) for batch in batches]
        for number, (batch, run) in enumerate(zip(batches, runs)):
            outcome = run.result()
            passed += outcome.passed
            failed += outcome.failed
            unfinished += outcome.unfinished
            if outcome.report or outcome.failed:
                reports += 1
                (args.logs / f"{args.tool}_{number}.txt").write_text(outcome.log, encoding="utf-8")
                print(f"{batch[0]} (1 of {len(batch)}): {outcome.report or 'failed'}", flush=True)
            if outcome.unfinished:
                print(f"not ended: {batch[-outcome.unfinished]} (1 of {outcome.unfinished})", flush=True)
    print(f"{args.tool}: {passed} passed, {failed} failed, {unfinished} not ended, {reports} processes with reports")
    return 0 if failed == 0 and reports == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
