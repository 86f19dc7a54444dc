"""SIGTERM under load, and an engine that hangs: what those who are served, those who come and probes see.

With -s the tests print the figures of docs/reliability.md.
"""

import concurrent.futures
import contextlib
import ctypes
import os
import pathlib
import signal
import socket
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from server_process import ServerProcess
from transports import TRANSPORTS

WAYS = ["completions", "completions, streamed", "gRPC"]


def wishes(num_per_way: int, max_tokens: int) -> list[tuple[str, dict]]:
    return [(way, {"prompt": f"Story {i}:", "max_tokens": max_tokens, "seed": i, "temperature": 1, "ignore_eos": True})
            for i in range(num_per_way) for way in WAYS]


@contextlib.contextmanager
def load(server, api, calls):
    """Keeps the calls running; yields their futures once each has got a token or waits in the queue."""
    server.wait_until_idle()
    generated = server.metric("vllm:generation_tokens_total")
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(TRANSPORTS[way], server, api, wish) for way, wish in calls]
        wait_until(lambda: server.metric("vllm:num_requests_running") + server.metric("vllm:num_requests_waiting")
                   == len(calls))
        wait_until(lambda: server.metric("vllm:generation_tokens_total") > generated + 2 * len(calls))
        yield futures


def wait_until(is_met, timeout_s: float = 30):
    deadline = time.monotonic() + timeout_s
    while not is_met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def status(server, path: str) -> int:
    with server.client() as client:
        return client.get(path).status_code


def grpc_health(server, service: str) -> str:
    with grpc.insecure_channel(server.grpc) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def test_no_answer_is_cut_and_nothing_new_is_taken_before_the_deadline(api):
    server = ServerProcess("--drain-timeout=120")
    calls = wishes(num_per_way=4, max_tokens=120)
    with load(server, api, calls) as futures:
        expected = [future.result() for future in futures]
    with load(server, api, calls) as futures:
        num_running = server.metric("vllm:num_requests_running")
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: status(server, "/health/ready") == 503)
        assert status(server, "/health") == status(server, "/metrics") == 200
        assert grpc_health(server, "nsa.v1.GenerationService") == "NOT_SERVING"
        assert grpc_health(server, "") == "SERVING"
        messages = set()
        for way, ask in TRANSPORTS.items():
            refused = ask(server, api, {"prompt": "New", "max_tokens": 1})
            assert refused.code == ("UNAVAILABLE" if way.startswith("gRPC") else "unavailable"), (way, refused)
            messages.add(refused.message)
        assert messages == {"the server is shutting down"}
        with server.client() as client:
            assert int(client.post("/v1/completions", json={"prompt": "New"}).headers["retry-after"]) > 0
        assert not any(future.done() for future in futures), "too short for this test"
        outcomes = [future.result() for future in futures]
        answered = time.monotonic()
    assert server.process.wait(timeout=10) == 0
    num_cut = sum(outcome != whole for outcome, whole in zip(outcomes, expected))
    print(f"\nSIGTERM with {num_running:.0f} calls running: {num_cut} cut, the last one answered after "
          f"{answered - start:.2f} s, exit {time.monotonic() - answered:.2f} s later")
    assert outcomes == expected  # text by text, as without the signal


def test_at_the_deadline_what_runs_and_what_waits_ends_with_an_error(api):
    server = ServerProcess("--drain-timeout=1", "--max-num-seqs=4")
    calls = wishes(num_per_way=3, max_tokens=7000)
    with load(server, api, calls) as futures:
        assert server.metric("vllm:num_requests_waiting") == 5
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        outcomes = [future.result() for future in futures]
        assert time.monotonic() - start > 0.9
    assert server.process.wait(timeout=10) == 0
    exit_s = time.monotonic() - start
    print(f"\nSIGTERM with 4 calls running and 5 waiting, --drain-timeout=1: exit after {exit_s:.2f} s")
    assert exit_s < 5
    for (way, _), outcome in zip(calls, outcomes):
        assert outcome.code == ("UNAVAILABLE" if way == "gRPC" else "unavailable"), (way, outcome)
        assert outcome.message == "the server is shutting down" and outcome.usage is None
        assert all(choice.finish is None for choice in outcome.choices)
    assert sum(bool(outcome.choices and outcome.choices[0].text) for outcome in outcomes) >= 2  # cut, not unsaid


def test_a_second_signal_ends_at_once(api):
    server = ServerProcess("--drain-timeout=120")
    with load(server, api, wishes(num_per_way=1, max_tokens=7000)) as futures:
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: status(server, "/health/ready") == 503)
        server.process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        assert server.process.wait(timeout=10) == 128 + signal.SIGTERM
        exit_s = time.monotonic() - start
        print(f"\na second SIGTERM with 3 calls running: exit after {exit_s:.3f} s")
        assert exit_s < 1
        concurrent.futures.wait(futures, timeout=30)  # cut off, each in its transport's way


def test_half_a_request_does_not_delay_the_end():
    server = ServerProcess()
    port = int(server.http.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        time.sleep(0.3)
        start = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - start < 2.5  # less than an answer has to leave
    assert not any("did not finish" in line for line in server.stderr_lines)


# --- a step that hangs -------------------------------------------------------------------------------------------

PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def engine_thread(pid: int) -> int:
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    (thread,) = (int(task.name) for task in tasks if (task / "comm").read_text() == "nsa-engine\n")
    return thread


@contextlib.contextmanager
def hung_step(pid: int):
    """Holds the engine's thread where it is and yields its id; the process does not know."""
    thread = engine_thread(pid)
    if libc.ptrace(PTRACE_SEIZE, thread, None, None) != 0:
        pytest.skip(f"threads cannot be stopped here: {os.strerror(ctypes.get_errno())}")
    assert libc.ptrace(PTRACE_INTERRUPT, thread, None, None) == 0
    os.waitpid(thread, WALL)
    try:
        yield thread
    finally:
        libc.ptrace(PTRACE_DETACH, thread, None, None)


def test_a_hung_step_shows_in_health_and_passes(api):
    server = ServerProcess("--liveness-timeout=1")
    with load(server, api, wishes(num_per_way=1, max_tokens=400)) as futures:
        with hung_step(server.process.pid):
            hung = time.monotonic()
            wait_until(lambda: status(server, "/health") == 503)
            print(f"\na hung step, --liveness-timeout=1: /health is 503 after {time.monotonic() - hung:.2f} s")
            assert status(server, "/health/ready") == 503 and status(server, "/metrics") == 200
            assert server.metric("nsa_seconds_since_last_step") > 1
            assert server.metric("vllm:num_requests_running") == 3
            with server.client() as client:
                error = client.get("/health").json()["error"]
            assert error["code"] == "unavailable" and "no engine step has ended for" in error["message"]
        assert all(future.result().usage[1] == 400 for future in futures)
        wait_until(lambda: status(server, "/health") == 200)
    assert server.terminate() == 0


def test_a_hung_step_does_not_delay_the_end_for_ever(api):
    server = ServerProcess("--drain-timeout=1")
    with load(server, api, wishes(num_per_way=1, max_tokens=7000)), hung_step(server.process.pid) as thread:
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: os.waitpid(thread, WALL | os.WNOHANG)[0] == thread)  # its end; the process waits for this
        assert server.process.wait(timeout=5) == 0
        exit_s = time.monotonic() - start
        print(f"\nSIGTERM in a hung step, --drain-timeout=1: exit after {exit_s:.2f} s")
        assert 1 < exit_s < 8  # the drain, the flush and the slack of main.cc
    assert any("did not finish" in line for line in server.stderr_lines)
