"""What the log says: its formats, a line for each request, nothing that a client may not put there."""

import json
import re
import socket
import subprocess
import time

import grpc
import httpx
import pytest
from server_process import MODEL, ServerProcess, build_dir

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
SECRET = "Zanzibar"


class Logging(ServerProcess):
    """A server whose log is JSON."""

    def __init__(self, *flags):
        super().__init__("--log-format=json", *flags)

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in list(self.stderr_lines)]

    def requests(self) -> list[dict]:
        return [line for line in self.lines() if line["message"] == "request"]

    def request(self, request_id: str, timeout_s: float = 20) -> dict:
        """The line of a request, once it is there."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            found = [line for line in self.requests() if line["request_id"] == request_id]
            assert len(found) < 2, found
            if found:
                return found[0]
            time.sleep(0.02)
        raise AssertionError(f"no line for {request_id}: {self.stderr_lines}")


@pytest.fixture(scope="module")
def logging():
    running = Logging()
    yield running
    assert running.terminate() == 0


def post(server, request_id, body, path="/v1/completions", **headers):
    with server.client() as http:
        return http.post(path, json=body, headers={"x-request-id": request_id, **headers})


def test_a_log_that_nobody_reads_holds_up_no_request():
    command = [build_dir() / "bin" / "nsa-server", f"--model={MODEL}", "--http-port=0", "--grpc-port=0", "--access-log=on"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = next(match.group(1) for line in process.stdout if (match := re.search(r"HTTP\s+(http://\S+)", line)))
            with httpx.Client(base_url=address, timeout=20) as http:
                for _ in range(800):  # more lines than a pipe holds, 64 KiB
                    assert http.get("/version").status_code == 200
                assert http.post("/v1/completions", json={"prompt": "Once"}).status_code == 200
        finally:
            process.kill()


def test_a_completion_has_a_line_with_its_usage_and_its_phases(logging):
    answer = post(logging, "whole", {"prompt": "Once upon a time", "max_tokens": 5, "n": 2, "ignore_eos": True},
                  traceparent=TRACEPARENT).json()
    line = logging.request("whole")
    assert {"level": "info", "transport": "http", "route": "/v1/completions", "status": 200, "trace_id": TRACE_ID,
            "finish_reasons": "length", "choices": 2, "prompt_tokens": answer["usage"]["prompt_tokens"],
            "output_tokens": 10}.items() <= line.items()
    assert line["cached_tokens"] <= line["prompt_tokens"]
    phases = [line["queue_ms"], line["prefill_ms"], line["decode_ms"]]
    assert min(phases) >= 0 and line["prefill_ms"] > 0 and line["decode_ms"] > 0
    assert line["first_token_ms"] >= line["prefill_ms"]
    assert line["total_ms"] >= line["decode_ms"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


def test_a_grpc_call_has_the_same(logging, api):
    pb, stubs = api
    metadata = (("x-request-id", "over-grpc"), ("traceparent", TRACEPARENT))
    with grpc.insecure_channel(logging.grpc) as channel:
        call = stubs.GenerationServiceStub(channel).Generate(
            pb.GenerateRequest(text="Once upon a time", max_tokens=4, ignore_eos=True), metadata=metadata)
        usage = list(call)[-1].usage
        assert dict(call.initial_metadata())["x-request-id"] == "over-grpc"
    line = logging.request("over-grpc")
    assert {"transport": "grpc", "route": "Generate", "grpc_status": "OK", "trace_id": TRACE_ID, "choices": 1,
            "finish_reasons": "length", "prompt_tokens": usage.prompt_tokens, "output_tokens": 4,
            "cached_tokens": usage.cached_prompt_tokens}.items() <= line.items()


@pytest.mark.parametrize("name, body, status, error", [
    ("wrong", {"prompt": "x", "temperature": 9}, 400, "invalid_value"),
    ("missing", {}, 400, "missing_required_parameter"),
    ("unknown", {"prompt": "x", "model": "another"}, 404, "model_not_found")])
def test_a_refusal_has_a_line_with_its_code(logging, name, body, status, error):
    assert post(logging, name, body).status_code == status
    line = logging.request(name)
    assert (line["status"], line["error"]) == (status, error)
    assert "choices" not in line and "output_tokens" not in line


def test_a_client_that_leaves_has_a_line_with_what_was_made_for_it(logging):
    with logging.client() as http, http.stream(
            "POST", "/v1/completions", headers={"x-request-id": "left"},
            json={"prompt": "Once", "max_tokens": 5000, "stream": True, "ignore_eos": True}) as stream:
        lines = stream.iter_lines()  # kept: dropping the iterator closes the stream
        next(lines)
    line = logging.request("left")
    assert (line["status"], line["error"]) == (200, "client_left")
    assert 1 <= line["output_tokens"] < 5000 and line["prompt_tokens"] > 0


def test_probes_are_not_logged_while_they_succeed(logging):
    with logging.client() as http:
        for path in ("/health", "/health/ready", "/metrics", "/version"):
            assert http.get(path).status_code == 200
        assert http.get("/nowhere", headers={"x-request-id": "behind"}).status_code == 404
    assert logging.request("behind")["route"] == "none"
    routes = {line["route"] for line in logging.requests()}
    assert "/version" in routes and not routes & {"/health", "/health/ready", "/metrics"}


def test_with_access_log_on_probes_are_logged_too():
    server = Logging("--access-log=on")
    with server.client() as http:
        http.get("/health", headers={"x-request-id": "probe"})
    assert server.request("probe")["route"] == "/health"
    assert server.terminate() == 0


def test_with_access_log_off_no_request_is_logged():
    server = Logging("--access-log=off")
    assert post(server, "silent", {"prompt": "Once", "max_tokens": 2}).status_code == 200
    assert server.terminate() == 0
    assert server.requests() == []
    assert [line["message"] for line in server.lines()][-1] == "drained"


EVIL = ['a"b', "a\\", "a\x01b", "a\tb", "é", "a b", '"},{"level":"error"', "x" * 129, "\x7f", "a\x85b"]


def test_every_line_is_one_json_object_whatever_a_client_sends(logging):
    """Identifiers, traces, paths, methods and bodies with all that JSON and terminals care about."""
    port = int(logging.http.rsplit(":", 1)[1])
    before = len(logging.requests())
    num_sent = 0
    for evil in EVIL:
        raw = evil.encode("latin-1")
        for request in (
                b"GET /version HTTP/1.1\r\nHost: h\r\nConnection: close\r\nx-request-id: " + raw + b"\r\n\r\n",
                b"GET /version HTTP/1.1\r\nHost: h\r\nConnection: close\r\ntraceparent: " + raw + b"\r\n\r\n",
                b"GET /" + raw.replace(b" ", b"%0A") + b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
                b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % len(raw) + raw):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(request)
                assert connection.makefile("rb").read().startswith(b"HTTP/1.1 ")
            num_sent += 1
    with grpc.insecure_channel(logging.grpc) as channel:
        call = channel.unary_unary("/nsa.v1.GenerationService/Tokenize")
        for message in (b"\x0a\x02\xff\n", b"\xff\xff\xff", b"\x12\x03a\x85\n"):
            with pytest.raises(grpc.RpcError):
                call(message, metadata=(("x-request-id", "a\\b c"), ("traceparent", 'x"},{')))
    post(logging, "after-evil", {"model": EVIL[6], "prompt": "\n\x1b"})
    logging.request("after-evil")
    lines = logging.requests()[before:]
    assert len(lines) >= num_sent + 1  # and those of gRPC that it did not refuse by itself
    for line in logging.stderr_lines:
        assert isinstance(json.loads(line), dict)
        assert line.isascii() and not re.search(r"[\x00-\x1f\x7f]", line.rstrip("\n"))
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", line["request_id"])
        assert "trace_id" not in line


def test_prompts_and_answers_are_not_logged(logging):
    answer = post(logging, "secret", {"prompt": SECRET, "max_tokens": 8, "ignore_eos": True}).json()
    post(logging, "secret-2", {"prompt": SECRET, "model": SECRET, "stop": SECRET, "n": 1000})
    logging.request("secret-2")
    everything = "".join(logging.stderr_lines)
    assert SECRET not in everything
    assert "prompt" not in logging.request("secret") and "output" not in logging.request("secret")
    assert json.dumps(answer["choices"][0]["text"])[1:-1] not in everything


def test_prompts_and_answers_are_logged_where_asked_for_and_only_so_much():
    server = Logging("--log-prompts=20")
    body = {"prompt": f"{SECRET}\n\"" + 100 * "é", "max_tokens": 32, "ignore_eos": True}
    answer = post(server, "shown", body).json()["choices"][0]["text"]
    line = server.request("shown")
    assert line["prompt"] == body["prompt"][:15]  # 20 bytes
    assert 0 < len(line["output"].encode()) <= 20 and answer.startswith(line["output"])
    post(server, "refused", {"prompt": "nothing of it", "n": 0})
    assert server.request("refused")["prompt"] == "nothing of it"
    assert server.terminate() == 0


def test_the_start_and_the_end_are_json_too():
    server = Logging()
    assert server.stdout_lines == []
    assert server.terminate() == 0
    messages = [(line["message"], line.get("phase")) for line in server.lines()]
    assert ("started", "weights") in messages and ("serving", None) in messages and messages[-1] == ("drained", None)


def test_a_start_that_fails_says_so_in_json():
    result = subprocess.run([build_dir() / "bin" / "nsa-server", "--model=nowhere", "--log-format=json"],
                            capture_output=True, text=True, timeout=60)
    assert result.returncode == 1 and result.stdout == ""
    last = json.loads(result.stderr.splitlines()[-1])
    assert last["level"] == "error" and "nowhere" in last["message"]


def test_text_lines_have_the_same_fields():
    server = ServerProcess()
    assert post(server, "plain", {"prompt": "Once", "max_tokens": 2}).status_code == 200
    assert server.terminate() == 0
    line = next(line for line in server.stderr_lines if "request_id=plain" in line)
    assert re.match(r"I \d\d:\d\d:\d\d\.\d{3} request request_id=plain transport=http route=/v1/completions status=200 "
                    r"finish_reasons=length choices=1 prompt_tokens=\d+ cached_tokens=0 output_tokens=2 queue_ms=", line)
    assert MODEL.name in "".join(server.stdout_lines)
