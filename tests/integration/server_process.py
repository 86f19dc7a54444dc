"""Starts the server of the build under test on free ports and talks to it as clients do."""

import os
import pathlib
import re
import signal
import subprocess
import threading
import time

import httpx

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "nsa-story-27m"
START_TIMEOUT_S = 120  # sanitizer builds are slow


def build_dir() -> pathlib.Path:
    return pathlib.Path(os.environ.get("NSA_BUILD_DIR", ROOT / "build" / "cpu-release"))


class ServerProcess:
    """One running nsa-server; `http` and `grpc` are its addresses."""

    def __init__(self, *flags: str, model: pathlib.Path = MODEL):
        command = [str(build_dir() / "bin" / "nsa-server"), f"--model={model}", "--http-port=0", "--grpc-port=0",
                   "--kv-cache-bytes=256MiB", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.http = self.grpc = None
        self.stdout_lines: list[str] = []
        self.stderr_lines: list[str] = []
        self._started = threading.Event()
        self._threads = [threading.Thread(target=self._read, args=(self.process.stdout, self.stdout_lines), daemon=True),
                         threading.Thread(target=self._read, args=(self.process.stderr, self.stderr_lines), daemon=True)]
        for thread in self._threads:
            thread.start()
        if not self._started.wait(START_TIMEOUT_S) or self.grpc is None:
            self.process.kill()
            raise RuntimeError("server did not start:\n" + "".join(self.stdout_lines + self.stderr_lines))

    def _read(self, stream, lines):
        for line in stream:
            lines.append(line)
            if match := re.search(r'HTTP\s+(https?://\S+:\d+)|"http":"([^"]+)"', line):
                self.http = match.group(1) or match.group(2)
            if match := re.search(r'gRPC\s+(\S+:\d+)|"grpc":"([^"]+)"', line):
                self.grpc = match.group(1) or match.group(2)
            if self.http and self.grpc:
                self._started.set()
        self._started.set()

    def client(self, **options) -> httpx.Client:
        return httpx.Client(base_url=self.http, timeout=300, **options)

    def metric(self, name: str, label: str = "") -> float:
        """Sum of a series over its labels, or over those that contain `label`."""
        with self.client() as client:
            text = client.get("/metrics").text
        labels = rf"\{{[^}}]*{re.escape(label)}[^}}]*\}}" if label else r"(?:\{[^}]*\})?"
        values = re.findall(rf"^{re.escape(name)}{labels} (\S+)$", text, re.MULTILINE)
        assert values, f"no series {name}"
        return sum(map(float, values))

    def wait_until_idle(self, timeout_s: float = 60):
        """Waits until no request runs or waits and every page is free."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            busy = (self.metric("vllm:num_requests_running") + self.metric("vllm:num_requests_waiting")
                    + self.metric("vllm:kv_cache_usage_perc"))
            if busy == 0:
                return
            time.sleep(0.05)
        raise AssertionError("the server did not become idle")

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=120)
        for thread in self._threads:
            thread.join(timeout=10)
        return code
