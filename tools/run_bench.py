"""Every benchmark in one run on this machine: run_bench.py BUILD_DIR MODEL_DIR [--quick].

Kernels and the engine are measured with random weights, the server with MODEL_DIR. docs/performance.md holds a
committed run.
"""

import json
import pathlib
import re
import statistics
import subprocess
import sys
import time
import urllib.request

FIRST_TOKEN_RUNS = 5
SOAK_REPORTS = 5


def machine() -> str:
    cpu = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    cores = subprocess.run(["nproc"], capture_output=True, text=True).stdout.strip()
    return f"{cpu.group(1) if cpu else 'unknown CPU'}, {cores} cores"


def section(title: str):
    print(f"\n## {title}\n", flush=True)


def start_server(build: pathlib.Path, model: str) -> tuple[subprocess.Popen, str, str]:
    """The server on free ports with its HTTP and gRPC addresses."""
    command = [build / "bin" / "nsa-server", f"--model={model}", "--http-port=0", "--grpc-port=0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    http = None
    for line in server.stdout:
        if match := re.search(r"HTTP\s+(http://\S+:\d+)", line):
            http = match.group(1)
        if (match := re.search(r"gRPC\s+(\S+:\d+)", line)) and http:
            return server, http, match.group(1)
    sys.exit("the server did not start")


def seconds_to_first_token(build: pathlib.Path, model: str) -> float:
    """From the start of the binary to the first streamed token."""
    start = time.monotonic()
    server, http, _ = start_server(build, model)
    request = urllib.request.Request(
        f"{http}/v1/completions", headers={"Content-Type": "application/json"},
        data=json.dumps({"prompt": "Once upon a time", "max_tokens": 4, "stream": True}).encode())
    with urllib.request.urlopen(request) as answer:
        while not answer.readline().startswith(b"data: {"):
            pass
        elapsed = time.monotonic() - start
        answer.read()
    server.terminate()
    server.wait()
    return elapsed


def run_load(build: pathlib.Path, address: str, *flags: str) -> dict:
    command = [build / "bin" / "serving_bench", address, "--json", "--ignore-eos", *flags]
    load = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if load["outcomes"]["ok"] != sum(load["outcomes"].values()):
        sys.exit(f"calls failed: {load['outcomes']}")
    return load


def resident_mib(pid: int) -> float:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024


def bench_server(build: pathlib.Path, model: str, num_soak_requests: int):
    server, _, grpc = start_server(build, model)
    address = f"grpc://{grpc}"
    run_load(build, address, "--concurrency=1", "--calls=1")  # warm-up
    print("prompt 128, generated 128 tokens per request\n"
          f"{'concurrency':<12} {'tokens/s':>12} {'TTFT ms':>12} {'ITL ms':>12}")
    for concurrency in (1, 4, 16):
        load = run_load(build, address, f"--concurrency={concurrency}", f"--calls={4 * concurrency}")
        print(f"{concurrency:<12} {load['tokens_per_second']:>12.1f} {load['ttft_ms']['p50']:>12.1f} "
              f"{load['itl_ms']['p50']:>12.2f}", flush=True)
    print(f"\n{'requests':<12} {'resident MiB':>12}\n{0:<12} {resident_mib(server.pid):>12.1f}")
    calls = num_soak_requests // SOAK_REPORTS
    for i in range(1, SOAK_REPORTS + 1):
        run_load(build, address, "--concurrency=8", f"--calls={calls}", "--prompt-tokens=16..63", "--output-tokens=2",
                 f"--seed={i}")
        print(f"{i * calls:<12} {resident_mib(server.pid):>12.1f}", flush=True)
    server.terminate()
    server.wait()


def main():
    build, model = pathlib.Path(sys.argv[1]), sys.argv[2]
    quick = "--quick" in sys.argv
    print(f"# nsa-serve on {machine()}")
    section("Kernels")
    subprocess.run([build / "bin" / "kernels_bench"], check=True)
    section("Engine, random weights: NSA against full attention")
    subprocess.run([build / "bin" / "engine_bench"], check=True)
    section(f"Server, {pathlib.Path(model).name}")
    times = [seconds_to_first_token(build, model) for _ in range(FIRST_TOKEN_RUNS)]
    print(f"start of the binary to first token: {statistics.median(times):.2f} s, median of {FIRST_TOKEN_RUNS}\n",
          flush=True)
    bench_server(build, model, num_soak_requests=500 if quick else 10_000)


if __name__ == "__main__":
    main()
