"""Starting and refusing to start; shutdown_test.py is about the end."""

import json
import os
import re
import shutil
import signal
import subprocess

import grpc
import httpx
import pytest
from server_process import MODEL, ServerProcess, build_dir


def run_server(*flags):
    return subprocess.run([build_dir() / "bin" / "nsa-server", "--http-port=0", "--grpc-port=0", *flags],
                          capture_output=True, text=True, timeout=120)


def assert_refused(result, *words):
    assert result.returncode == 1, result.stdout + result.stderr
    message = result.stderr.strip().splitlines()[-1]
    for word in words:
        assert word in message, result.stderr


@pytest.fixture
def model_copy(tmp_path):
    """A copy of the bundled model that a test may damage."""
    return pathlib_copy(MODEL, tmp_path / "model")


def pathlib_copy(source, target):
    shutil.copytree(source, target)
    return target


def change_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.update(changes)
    path.write_text(json.dumps(config))


def test_a_missing_model_is_named(tmp_path):
    assert_refused(run_server(f"--model={tmp_path / 'nothing'}"), "nothing")


def test_a_missing_weight_file_is_named(model_copy):
    (model_copy / "model.safetensors").unlink()
    assert_refused(run_server(f"--model={model_copy}"), "model.safetensors")


@pytest.mark.parametrize("keep_bytes", [0, 7, 1000, 10_000_000])
def test_a_truncated_weight_file_is_refused(model_copy, keep_bytes):
    with open(model_copy / "model.safetensors", "r+b") as weights:
        weights.truncate(keep_bytes)
    assert_refused(run_server(f"--model={model_copy}"), "model.safetensors")


def test_an_unknown_architecture_is_named_with_what_is_known(model_copy):
    change_config(model_copy, architectures=["MambaForCausalLM"])
    assert_refused(run_server(f"--model={model_copy}"), "MambaForCausalLM", "NsaForCausalLM")


def test_a_config_that_contradicts_the_tensors_is_refused(model_copy):
    change_config(model_copy, intermediate_size=1024)
    assert_refused(run_server(f"--model={model_copy}"), "mlp", "1024")


def test_a_corrupt_tokenizer_is_refused(model_copy):
    (model_copy / "tokenizer.model").write_bytes(b"not a tokenizer")
    assert_refused(run_server(f"--model={model_copy}"), "tokenizer")


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer_config.json", "generation_config.json", "config.json",
                                  "model.safetensors"])
def test_a_directory_where_a_file_belongs_is_named(model_copy, name):
    (model_copy / name).unlink()
    (model_copy / name).mkdir()
    assert_refused(run_server(f"--model={model_copy}"), name)


def test_a_chat_template_that_is_a_directory_is_named(tmp_path):
    assert_refused(run_server(f"--model={MODEL}", f"--chat-template={tmp_path}"), str(tmp_path), "directory")


def test_a_cache_that_is_too_small_names_both_numbers():
    assert_refused(run_server(f"--model={MODEL}", "--kv-cache-bytes=1KiB"), "--kv-cache-bytes is 1024", "at least")


def test_bad_flags_are_refused():
    for flag in ("--http-port=70000", "--no-such-flag", "--attention=magic", "--kv-cache-bytes=many"):
        result = run_server(f"--model={MODEL}", flag)
        assert result.returncode == 1 and flag.split("=")[0].lstrip("-").split("-")[0] in result.stderr


def test_the_doctor_goes_on_without_a_model_and_stands_anywhere():
    result = run_server("--device=cpu", "doctor")
    assert result.returncode == 1 and "--model=FOLDER is missing" in result.stdout
    for subject in ("machine", "device", "port", "access"):
        assert re.search(rf"^ok +{subject} ", result.stdout, re.MULTILINE), result.stdout
    result = run_server("--device=cpu", f"--model={MODEL}", "doctor", "--max-constraint-bytes=1024TiB")
    assert result.returncode == 0, result.stdout
    assert re.search("^warning +memory .* constraints 1048576.0 GiB", result.stdout, re.MULTILINE), result.stdout


def test_a_port_in_use_is_named(server):
    for flag, address in (("--http-port", server.http), ("--grpc-port", server.grpc)):
        port = address.rsplit(":", 1)[1]
        result = run_server(f"--model={MODEL}", f"{flag}={port}")
        assert_refused(result, f"{flag} is {port}", "127.0.0.1")
        assert "weights" not in result.stdout


def test_a_host_that_is_not_ours_is_named():
    assert_refused(run_server(f"--model={MODEL}", "--host=192.0.2.1"), "--host is '192.0.2.1'")


def test_what_the_config_decides_comes_before_the_weights(model_copy):
    result = run_server(f"--model={model_copy}", "--max-model-tokens=10000000")
    assert_refused(result, "--max-model-tokens is 10000000")
    assert "weights" not in result.stdout
    (model_copy / "generation_config.json").write_text('{"eos_token_id": [2, 9999999]}')
    result = run_server(f"--model={model_copy}")
    assert_refused(result, "generation_config.json: eos_token_id is 9999999")
    assert "weights" not in result.stdout


def test_full_attention_runs_the_same_model_and_says_so():
    server = ServerProcess("--attention=full")
    try:
        assert "full" in "".join(server.stdout_lines + server.stderr_lines).lower()
        with server.client() as http:
            answer = http.post("/v1/completions", json={"prompt": "Once upon a time", "max_tokens": 8})
            assert answer.status_code == 200
        assert server.metric("nsa_kv_bytes_read_total") == server.metric("nsa_kv_bytes_dense_total") > 0
    finally:
        assert server.terminate() == 0


def test_the_ports_answer_while_the_model_is_loaded(api, model_copy):
    config = model_copy / "config.json"
    config.unlink()
    os.mkfifo(config)  # whoever reads it waits
    command = [build_dir() / "bin" / "nsa-server", f"--model={model_copy}", "--http-port=0", "--grpc-port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            ports = re.search(r"port (\d+) for HTTP, (\d+) for gRPC", process.stdout.readline()).groups()
            with (httpx.Client(base_url=f"http://127.0.0.1:{ports[0]}", timeout=60) as http,
                  grpc.insecure_channel(f"127.0.0.1:{ports[1]}") as channel):
                stub = api[1].GenerationServiceStub(channel)
                with pytest.raises(grpc.RpcError) as refused:
                    stub.GetModelInfo(api[0].GetModelInfoRequest())
                assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
                assert http.get("/health").status_code == http.get("/").status_code == 200
                for answer in (http.get("/health/ready"), http.get("/v1/models"), http.get("/metrics"),
                               http.post("/v1/completions", json={"prompt": "Once"})):
                    assert answer.status_code == 503 and "retry-after" in answer.headers
                    assert answer.json()["error"]["message"] == "the model is being loaded"
        finally:
            process.kill()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_model_is_loaded_ends_the_process(model_copy, stop):
    config = model_copy / "config.json"
    config.unlink()
    os.mkfifo(config)  # whoever reads it waits
    command = [build_dir() / "bin" / "nsa-server", f"--model={model_copy}", "--http-port=0", "--grpc-port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=1)
            process.send_signal(stop)
            assert process.wait(timeout=10) == 0
            assert f"signal {int(stop)}" in process.stdout.read()
        finally:
            process.kill()
