"""Servers and load for the measurements of this folder: starts them, reads their memory, CPU time and metrics."""

import json
import os
import pathlib
import re
import subprocess
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("NSA_BUILD_DIR", ROOT / "build" / "cpu-release"))
MODEL = ROOT / "models" / "nsa-story-27m"
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
RSS_INTERVAL_S = 1


class Server:
    """A running server; `http` and `grpc` are addresses for serving_bench. `prefix` is put before the command.

    Leaving the `with` block kills it, if stop() has not ended it.
    """

    def __init__(self, program: str, *flags: str, prefix: tuple[str, ...] = ()):
        command = [*prefix, str(BUILD / "bin" / program), *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.http = self.grpc = None
        for line in self.process.stdout:
            if match := re.search(r"HTTP\s+(http://\S+:\d+)", line):
                self.http = match.group(1)
            if match := re.search(r"gRPC\s+(\S+:\d+)", line):
                self.grpc = "grpc://" + match.group(1)
                break
        if not self.http or not self.grpc:
            raise RuntimeError(f"{program} did not start")
        # Whatever else it prints must not fill the pipe.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def cpu_seconds(self) -> float:
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS

    def rss_mib(self) -> float:
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024

    def metrics(self) -> dict[str, float]:
        """Every series, by its name with labels."""
        with urllib.request.urlopen(self.http + "/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}

    def wait_until_idle(self, timeout_s: float = 60):
        deadline = time.monotonic() + timeout_s
        while any(gauges(self.metrics()).values()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server did not become idle: {gauges(self.metrics())}")
            time.sleep(0.1)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=60)


def model_server(*flags: str, model: pathlib.Path = MODEL, prefix: tuple[str, ...] = ()) -> Server:
    return Server("nsa-server", f"--model={model}", "--http-port=0", "--grpc-port=0", *flags, prefix=prefix)


def series_sum(metrics: dict[str, float], name: str, label: str = "") -> float:
    """Of a series over its labels, or over those that contain `label`."""
    return sum(value for key, value in metrics.items() if key.split("{")[0] == name and label in key)


def gauges(metrics: dict[str, float]) -> dict[str, float]:
    """What must be 0 at rest."""
    return {"running": series_sum(metrics, "vllm:num_requests_running"),
            "waiting": series_sum(metrics, "vllm:num_requests_waiting"),
            "cache in use": series_sum(metrics, "vllm:kv_cache_usage_perc"),
            "owned pages": series_sum(metrics, "nsa_pages", 'state="owned"')}


def start_load(address: str, *flags: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen:
    command = [*prefix, str(BUILD / "bin" / "serving_bench"), address, "--json", *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish_load(load: subprocess.Popen) -> dict:
    output = load.communicate()[0]
    if load.returncode != 0:
        raise RuntimeError(f"serving_bench ended with {load.returncode}")
    return json.loads(output)


def run_load(address: str, *flags: str, prefix: tuple[str, ...] = ()) -> dict:
    return finish_load(start_load(address, *flags, prefix=prefix))


class RssLog:
    """Samples a server's resident memory in the background until it is left."""

    def __init__(self, server: Server):
        self.samples: list[tuple[float, float]] = []  # seconds, MiB
        self._server, self._stop, self._start = server, threading.Event(), time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        while not self._stop.wait(RSS_INTERVAL_S):
            self.samples.append((time.monotonic() - self._start, self._server.rss_mib()))

    def at(self, share: float) -> float:
        return self.samples[min(int(share * len(self.samples)), len(self.samples) - 1)][1]

    def slope_mib_per_hour(self, from_share: float) -> float:
        """Of a straight line through the samples behind that share of the time (least squares)."""
        samples = self.samples[int(from_share * len(self.samples)):]
        mean_t = sum(t for t, _ in samples) / len(samples)
        mean_m = sum(m for _, m in samples) / len(samples)
        spread = sum((t - mean_t) ** 2 for t, _ in samples)
        return 3600 * sum((t - mean_t) * (m - mean_m) for t, m in samples) / spread if spread else 0.0


def report(checks: dict[str, bool], figures: dict | None = None) -> int:
    """Prints the figures, and what held; the exit status."""
    if figures is not None:
        print(json.dumps(figures, indent=1))
    for name, ok in checks.items():
        print(f"{'ok    ' if ok else 'FAILED'}  {name}")
    return 0 if all(checks.values()) else 1
