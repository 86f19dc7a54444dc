"""A Prometheus that scrapes a server under load every second, with the rules of deploy/prometheus."""

import pathlib
import re
import socket
import subprocess
import sys
import time

import httpx
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
for folder in ("tests/integration", "deploy/grafana"):
    sys.path.insert(0, str(ROOT / folder))

import draw_panels  # noqa: E402
from server_process import ServerProcess, build_dir  # noqa: E402

RULES = ROOT / "deploy" / "prometheus"
LOAD_S = 6
NOBODY = "127.0.0.1:1"  # a target that is down
EXTERNAL = {"namespace", "job", "instance", "alertname", "alertstate", "severity"}  # labels that no server writes
METRIC_LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+$")
SELECTOR = re.compile(r"\b((?:vllm:|nsa_|process_|model:)[a-z0-9_:]+)(?:\{([^}]*)\})?")


class Prometheus:
    """Debian's, on a free port, until close()."""

    def __init__(self, folder: pathlib.Path, target: str):
        config = yaml.safe_load((RULES / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(RULES / name) for name in config["rule_files"]]
        config["scrape_configs"][0]["static_configs"] = [{"targets": [target, NOBODY]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.started = time.time()
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"])
        self.wait_for("up == 1")

    def wait_for(self, expression: str, timeout_s: float = 60):
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if draw_panels.query(self.address, "query", query=expression):
                    return
            except OSError:
                pass  # not up yet
            assert self.process.poll() is None and time.monotonic() < deadline, f"waited in vain for {expression}"
            time.sleep(0.2)

    def rules(self) -> list[dict]:
        groups = httpx.get(self.address + "/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def close(self):
        self.process.terminate()
        self.process.wait(60)


class Monitored:
    """A server, the Prometheus that watches it, and /metrics after mixed load."""

    def __init__(self, folder: pathlib.Path):
        self.server = ServerProcess("--threads=2")
        self.prometheus = Prometheus(folder, self.server.http.removeprefix("http://"))
        bench = str(build_dir() / "bin" / "serving_bench")
        shape = [f"--duration={LOAD_S}", "--prompt-tokens=16..300", "--output-tokens=8..48", "--json"]
        loads = [subprocess.Popen([bench, *load, *shape], stdout=subprocess.DEVNULL) for load in
                 ([self.server.http, "--concurrency=2", "--cancel=0.2"],
                  [f"grpc://{self.server.grpc}", "--concurrency=2"])]
        assert [load.wait(120) for load in loads] == [0, 0]
        with self.server.client() as client:
            self.text = client.get("/metrics").text
        self.prometheus.wait_for("model:nsa_requests_ended:rate5m > 0")
        self.ended = time.time()

    def query(self, expression: str) -> list[dict]:
        """When the load had ended."""
        return draw_panels.query(self.prometheus.address, "query", query=expression, time=self.ended)

    def query_panel(self, panel: dict) -> list[tuple[str, dict]]:
        return draw_panels.query_panel(self.prometheus.address, panel, self.prometheus.started, self.ended, 1, "10s")

    def close(self):
        self.prometheus.close()
        assert self.server.terminate() == 0


def exposed(text: str) -> dict[str, list[dict[str, str]]]:
    """The labels of every series of a /metrics, by its name."""
    found = {}
    for line in text.splitlines():
        if match := METRIC_LINE.match(line):
            labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match.group(2) or ""))
            found.setdefault(match.group(1), []).append(labels)
    return found


def problems_of(expression: str, live: dict[str, list[dict[str, str]]]) -> list[str]:
    """What the expression asks for and the server (or a recording rule) does not have: series, labels, exact values."""
    recorded = {rule["record"] for group in yaml.safe_load((RULES / "recording.yml").read_text())["groups"]
                for rule in group["rules"]}
    problems = []
    for name, matchers in SELECTOR.findall(expression):
        if name not in live and name not in recorded:
            problems.append(f"there is no {name}")
        for label, operator, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', matchers):
            values = {series.get(label) for series in live.get(name, [])}
            is_missing = values == {None} or (operator == "=" and value not in values)
            if label not in EXTERNAL and name in live and is_missing:
                problems.append(f'{name} has no {label}="{value}"')
    return problems
