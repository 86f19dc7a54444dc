"""Runs the GPU tests of a bundle and ends with one count: test_gpu.py BUNDLE [MODEL].

Needs Python alone, so that it runs on a GPU machine without the build's tools: BUNDLE is what tools/bundle.py made, and
the working directory is the source root (the goldens are in tests/golden). Runs kernels_test and the GPU's part of
model_test, then the server: greedy texts from the GPU and the CPU over HTTP and one over gRPC through nsa-cli, which agree
up to a near-tie but for 3 words at least, and refusals at the start. Exit status 1 if anything failed, or if there was
no GPU to test.
"""

import json
import os
import pathlib
import re
import site
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROMPTS = ["Once upon a time", "The old dog looked at the sea and", "Holmes took the letter from the table."]
GTESTS = {"kernels_test": "*-ContractDeathTest.CudaStreamWithoutCuda*", "model_test": "*cuda*:*Gpu*:OpenDevice*"}
LARGE = "*OffsetsAre64Bit*"  # tests of kernels_test that want tens of gigabytes, one after another
MAX_SHARDS = 8


def run_shards(command: list[str], num_shards: int, environment: dict) -> tuple[list[dict], list[int]]:
    """The cases that ran, and the exit codes of the processes that left no report or failed without a failed case."""
    cases, lost = [], []
    with tempfile.TemporaryDirectory() as folder:
        reports = [pathlib.Path(folder) / f"{i}.json" for i in range(num_shards)]
        processes = [subprocess.Popen([*command, f"--gtest_output=json:{report}"], cwd=ROOT,
                                      env={**environment, "GTEST_TOTAL_SHARDS": str(num_shards),
                                           "GTEST_SHARD_INDEX": str(i)}) for i, report in enumerate(reports)]
        for process, report in zip(processes, reports):
            exit_code = process.wait()
            if not report.exists():
                lost.append(exit_code)
                continue
            suites = json.loads(report.read_text())["testsuites"]
            ran = [case for suite in suites for case in suite["testsuite"] if case["status"] == "RUN"]
            if exit_code != 0 and not any(case.get("failures") for case in ran):
                lost.append(exit_code)
            cases += ran
    return cases, lost


def run_gtest(bundle: pathlib.Path, name: str, environment: dict) -> tuple[int, int]:
    """(passed, failed); a process that crashes counts as one failure, and so does a run without a test on the GPU."""
    program = [str(bundle / "bin" / "tests" / name), "--gtest_brief=1"]
    if name == "kernels_test":  # its references are computed on the CPU
        num_shards = min(MAX_SHARDS, max(1, (os.cpu_count() or 1) // 2))
        cases, lost = run_shards([*program, f"--gtest_filter={GTESTS[name]}:{LARGE}"], num_shards, environment)
        large_cases, large_lost = run_shards([*program, f"--gtest_filter={LARGE}"], 1, environment)
        cases, lost = cases + large_cases, lost + large_lost
    else:
        cases, lost = run_shards([*program, f"--gtest_filter={GTESTS[name]}"], 1, environment)
    # On a machine with a GPU nothing has a reason to be skipped.
    failed = sum(1 for case in cases if case.get("failures") or case["result"] == "SKIPPED") + len(lost)
    on_gpu = sum(1 for case in cases if "cuda" in case["name"].lower() + case["classname"].lower())  # names say so
    if lost or on_gpu == 0:
        print(f"{name}: {on_gpu} tests on the GPU, exit codes {lost}")
        failed += 1 if on_gpu == 0 else 0
    return sum(1 for case in cases if case["result"] == "COMPLETED" and not case.get("failures")), failed


class Server:
    """A running nsa-server; `http` and `grpc` are its addresses."""

    def __init__(self, bundle: pathlib.Path, model: str, environment: dict, *flags: str):
        command = [str(bundle / "bin" / "nsa-server"), f"--model={model}", "--http-port=0", "--grpc-port=0", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        env=environment, cwd=ROOT)
        self.http = self.grpc = None
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            found = re.match(r"(HTTP|gRPC)\s+(\S+)", line)
            if found and found.group(1) == "HTTP":
                self.http = found.group(2)
            elif found:
                self.grpc = found.group(2)
                break
        if self.grpc is None:
            raise RuntimeError("nsa-server did not start: " + "; ".join(self.lines[-3:]))
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def complete(self, prompt, **fields) -> dict:
        body = json.dumps({"prompt": prompt, "temperature": 0, "ignore_eos": True, **fields}).encode()
        request = urllib.request.Request(self.http + "/v1/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=60)


def common_words(a: str, b: str) -> int:
    pairs = list(zip(a.split(), b.split()))
    return next((i for i, (x, y) in enumerate(pairs) if x != y), len(pairs))


class Smoke:
    """The server's checks; each is one test of the count."""

    def __init__(self, bundle: pathlib.Path, model: str, environment: dict):
        self.bundle, self.model, self.environment = bundle, model, environment
        self.passed = self.failed = 0

    def expect(self, holds: bool, what: str):
        self.passed += 1 if holds else 0
        self.failed += 0 if holds else 1
        print(f"  {'ok    ' if holds else 'FAILED'} {what}", flush=True)

    def run(self) -> tuple[int, int]:
        try:
            self.refusals()
            gpu = self.texts("--device=cuda:0")
            cpu = self.texts("--device=cpu")
            for prompt in PROMPTS:
                words = common_words(gpu[prompt], cpu[prompt])
                self.expect(words >= 3, f"'{prompt}': the GPU's text and the CPU's agree for {words} words")
        except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
            self.expect(False, str(error))
        return self.passed, self.failed

    def refusals(self):
        for flags, words in ((["--device=cuda:99"], "cuda:99, the machine has"),
                             (["--device=cuda:0", "--kv-cache-bytes=900TiB"], "--kv-cache-bytes is"),
                             (["--device=cuda:0", "--kv-cache-dtype=f32"], "--kv-cache-dtype is f32"),
                             (["--device=cuda:0", "--gpu-memory-utilization=0.001"], "--gpu-memory-utilization")):
            command = [str(self.bundle / "bin" / "nsa-server"), f"--model={self.model}", "--http-port=0",
                       "--grpc-port=0", *flags]
            result = subprocess.run(command, capture_output=True, text=True, timeout=60, env=self.environment, cwd=ROOT)
            last = (result.stderr.strip().splitlines() or [""])[-1]
            self.expect(result.returncode == 1 and words in last, f"{' '.join(flags)}: {last}")

    def texts(self, device: str) -> dict[str, str]:
        server = Server(self.bundle, self.model, self.environment, device)
        for line in server.lines:
            if re.match(r"(device|weights|kv cache) ", line):
                print("  " + line)
        texts = {prompt: server.complete(prompt, max_tokens=48)["choices"][0]["text"] for prompt in PROMPTS}
        start = time.monotonic()
        usage = server.complete(PROMPTS * 10, max_tokens=64, temperature=0.8, seed=1)["usage"]
        seconds = time.monotonic() - start
        self.expect(usage["completion_tokens"] == 64 * 30,
                    f"{device}: 30 prompts at once, {usage['completion_tokens'] / seconds:.0f} tokens/s")
        command = [str(self.bundle / "bin" / "nsa-cli"), "generate", PROMPTS[0], f"--address={server.grpc}",
                   "--temperature=0", "--max-tokens=48", "--ignore-eos"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, env=self.environment)
        words = common_words(result.stdout.removeprefix(PROMPTS[0]), texts[PROMPTS[0]])
        self.expect(result.returncode == 0 and words >= 3,
                    f"{device}: gRPC and HTTP agree for {words} words {result.stderr.strip()[-200:]}")
        self.expect(server.stop() == 0, f"{device}: ends with status 0")
        return texts


def cuda_environment() -> dict:
    """The environment, with CUDA's libraries where Python's packages may have put them."""
    folders = [pathlib.Path("/usr/local"), *map(pathlib.Path, site.getsitepackages())]
    places = [path.parent for folder in folders
              for pattern in ("cuda*/lib64", "cuda*/targets/x86_64-linux/lib", "nvidia/*/lib")
              for path in folder.glob(pattern + "/libcublasLt.so.13")]
    path = ":".join([os.environ.get("LD_LIBRARY_PATH", ""), *map(str, places)])
    return {**os.environ, "LD_LIBRARY_PATH": path.strip(":")}


def main() -> int:
    bundle = pathlib.Path(sys.argv[1]).resolve()
    model = sys.argv[2] if len(sys.argv) > 2 else str(ROOT / "models" / "nsa-story-27m")
    environment = cuda_environment()
    results = []
    for name in GTESTS:
        start = time.monotonic()
        results.append((name, run_gtest(bundle, name, environment), time.monotonic() - start))
    print("server:")
    start = time.monotonic()
    results.append(("server", Smoke(bundle, model, environment).run(), time.monotonic() - start))
    print(f"\n{'tests on the GPU':<24}{'passed':>8}{'failed':>8}{'seconds':>9}")
    for name, (passed, failed), seconds in results:
        print(f"{name:<24}{passed:>8}{failed:>8}{seconds:>9.1f}")
    passed, failed = (sum(counts[i] for _, counts, _ in results) for i in range(2))
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
