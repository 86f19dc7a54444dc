"""Every flag that the chart sets or lets be set is one of the server's, and the server takes the values."""

import json
import re
import subprocess

import chart
from chart import build_dir, flags, server

# Set by other values, or not settable: probes without a key are what kubelet sends.
MANAGED = {"model", "served-model-name", "chat-template", "host", "http-port", "grpc-port", "device", "drain-timeout",
           "api-key-file", "tls-cert", "tls-key", "protect-probes"}


def run_server(*arguments: str) -> subprocess.CompletedProcess:
    binary = build_dir() / "bin" / "nsa-server"
    return subprocess.run([str(binary), *arguments], capture_output=True, text=True, timeout=60)


def server_flags() -> set[str]:
    found = set(re.findall(r"^  --([a-z-]+)=", run_server("--help").stdout, re.MULTILINE))
    assert len(found) > 30
    return found


def settable() -> dict:
    schema = json.loads((chart.CHART / "values.schema.json").read_text())
    return schema["properties"]["server"]["properties"]


def test_rendered_flags_exist(preset):
    _, objects = preset
    assert set(flags(objects)) <= server_flags()


def test_every_flag_is_settable_or_managed_and_not_both():
    """A new one goes into values.schema.json, under server."""
    assert set(settable()) | MANAGED == server_flags()
    assert not set(settable()) & MANAGED


def test_managed_flags_exist_and_all_but_one_are_set(helm):
    objects = helm.objects({"model": {"name": "m", "chatTemplate": "t"}, "apiKeys": {"existingSecret": "k"},
                            "tls": {"existingSecret": "t"}})
    assert set(flags(objects)) - set(settable()) == MANAGED - {"protect-probes"}


def test_the_server_takes_the_values(helm):
    """It complains of the model that is not there, the last thing to go wrong, and of no flag."""
    values = {"kv-cache-bytes": "1GiB", "gpu-memory-utilization": 0.5, "kv-cache-dtype": "f32", "attention": "full",
              "cuda-graphs": False, "prefix-caching": True, "threads": 1, "max-num-seqs": 4, "max-batched-tokens": 64,
              "max-chunk-tokens": 32, "max-model-tokens": 512, "max-queued-requests": 3,
              "max-queued-tokens": 30_000_000, "max-concurrent-requests": 5, "liveness-timeout": 10,
              "cors-origins": "https://a.example", "strict": "on", "console": "off", "max-body-bytes": "1MiB",
              "max-total-body-bytes": 20_000_000, "max-header-bytes": "16KiB", "max-constraint-bytes": "128MiB",
              "max-connections": 10, "max-streams": 10, "idle-timeout": 5, "read-timeout": 5, "log-format": "text",
              "access-log": True, "log-prompts": 16}
    assert set(values) == set(settable()), "a settable flag is not tried"
    arguments = server(helm.objects({"server": values}))["args"]
    result = run_server(*[item for item in arguments if not item.startswith("--model=")], "--model=/nowhere")
    assert result.returncode == 1
    assert "/nowhere" in result.stderr and "allowed" not in result.stderr, result.stderr
