"""The overload and the soak of bench/serving, for seconds instead of minutes; docs/reliability.md has the long ones."""

import json
import pathlib
import subprocess
import sys

import server_process

sys.path.insert(0, str(server_process.ROOT / "bench" / "serving"))

import overload  # noqa: E402
import soak  # noqa: E402


def failed(result) -> str:
    figures, checks = result
    broken = [name for name, ok in checks.items() if not ok]
    return f"{broken}: {json.dumps(figures)}" if broken else ""


def test_overload_refuses_and_starves_nobody():
    # How fast it refuses is a measurement, and not one for a busy machine. Sanitizers keep freed memory.
    rest_mib = overload.REST_MIB if server_process.build_dir().name.endswith("release") else 1024
    assert not failed(overload.run(seconds=5, factor=20, threads=1, max_queued=16, rest_mib=rest_mib,
                                   refusal_bound=False))


def test_soak_with_clients_that_leave_holds_nothing_at_the_end():
    assert not failed(soak.run(seconds=8, cancel=0.3, threads=2))


def bench(*arguments: str) -> subprocess.CompletedProcess:
    program = pathlib.Path(server_process.build_dir()) / "bin" / "serving_bench"
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=300)


def test_the_load_generator_agrees_with_the_server(server):
    before = server.metric("vllm:generation_tokens_total"), server.metric("vllm:prompt_tokens_total")
    for address, flags in ((server.http, ("--endpoint=completions",)), (server.http, ("--words",)),
                           ("grpc://" + server.grpc, ())):
        result = bench(address, "--concurrency=2", "--calls=4", "--prompt-tokens=8..24", "--output-tokens=5",
                       "--ignore-eos", "--json", *flags)
        assert result.returncode == 0, result.stderr
        report = json.loads(result.stdout)
        assert report["outcomes"]["ok"] == 4
        assert report["output_tokens"] == 20
        assert report["ttft_ms"]["count"] == report["e2e_ms"]["count"] == 4
        assert 0 < report["ttft_ms"]["p50"] <= report["e2e_ms"]["max"]
    server.wait_until_idle()
    assert server.metric("vllm:generation_tokens_total") - before[0] == 60
    assert server.metric("vllm:prompt_tokens_total") - before[1] > 3 * 4 * 8


def test_the_load_generator_says_what_is_wrong(server):
    wrong = bench(server.http, "--concurrency=1", "--calls=1", "--model=another", "--json")
    assert json.loads(wrong.stdout)["outcomes"]["client_error"] == 1
    assert bench("ftp://x:1", "--concurrency=1", "--calls=1").returncode == 1
