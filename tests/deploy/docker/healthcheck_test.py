"""deploy/docker/healthcheck.sh: a container is healthy when its server takes work, not while it loads a model."""

import http.server
import os
import re
import subprocess
import threading

import dockerfile
import pytest
import yaml
from dockerfile import ROOT


def check_against(statuses: dict[str, int]) -> int:
    """The script's exit status where a server answers each path so."""
    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(statuses[self.path])
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {**os.environ, "NSA_HTTP_PORT": str(server.server_port), "NSA_TLS_CERT": ""}
        result = subprocess.run([ROOT / "deploy/docker/healthcheck.sh"], env=environment, timeout=60)
        server.shutdown()
    return result.returncode


@pytest.mark.parametrize("ready, healthy", [(200, True), (503, False), (401, True)],
                         ids=["ready", "loading", "protected"])
def test_it_is_healthy_when_it_is_ready(ready, healthy):
    assert (check_against({"/health": 200, "/health/ready": ready}) == 0) == healthy


def test_a_model_may_load_as_long_as_in_the_chart():
    minutes = int(re.search(r"^HEALTHCHECK .*--start-period=(\d+)m ", dockerfile.DOCKERFILE.read_text(), re.M).group(1))
    startup = yaml.safe_load((ROOT / "deploy/helm/nsa-serve/values.yaml").read_text())["probes"]["startup"]
    assert minutes * 60 == startup["periodSeconds"] * startup["failureThreshold"]
    assert f"A model may load for {minutes} minutes" in " ".join((ROOT / "docs" / "deploy.md").read_text().split())
