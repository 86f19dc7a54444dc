"""Every series of the contract (docs/api.md, Metrics) from the first scrape on, and books that balance under a storm."""

import asyncio
import contextlib
import json
import os
import pathlib
import random
import re
import time

import grpc
import httpx
import pytest
from server_process import MODEL, ServerProcess

ENGINE = {"model_name": MODEL.name, "engine": "0"}
FIRST_TOKEN_SECONDS = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
                       160, 640, 2560]
INTER_TOKEN_SECONDS = [0.001, 0.0025, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1,
                       2.5, 5, 7.5, 10, 20, 40, 80]
REQUEST_SECONDS = [0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680]
STEP_TOKENS = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384]
REQUEST_TOKENS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]  # while not above the longest request, 8192
ROUTES = ["/v1/completions", "/v1/chat/completions", "/v1/models", "/v1/models/{id}", "/tokenize", "/detokenize",
          "/tokenizer_info", "/health", "/health/ready", "/version", "/openapi.json", "/metrics", "/",
          "/console/{file}"]

# name: type, labels beside ENGINE
SINGLE = {
    "vllm:num_requests_running": ("gauge", [{}]),
    "vllm:num_requests_waiting": ("gauge", [{}]),
    "vllm:kv_cache_usage_perc": ("gauge", [{}]),
    "vllm:num_preemptions_total": ("counter", [{}]),
    "vllm:prompt_tokens_total": ("counter", [{}]),
    "vllm:generation_tokens_total": ("counter", [{}]),
    "vllm:prefix_cache_queries_total": ("counter", [{}]),
    "vllm:prefix_cache_hits_total": ("counter", [{}]),
    "vllm:request_success_total": ("counter", [{"finished_reason": reason}
                                               for reason in ("stop", "length", "abort", "timeout", "error")]),
    "vllm:admission_rejections_total": ("counter", [{"reason": reason} for reason in
                                                    ("queue_full", "queued_tokens", "concurrent_requests",
                                                     "constraint_queue")]),
    "nsa_kv_bytes_read_total": ("counter", [{}]),
    "nsa_kv_bytes_dense_total": ("counter", [{}]),
    "nsa_blocks_chosen_total": ("counter", [{}]),
    "nsa_blocks_visible_total": ("counter", [{}]),
    "nsa_http_requests_total": ("counter", [{"route": route, "code": "200"} for route in ROUTES]),
    "nsa_grpc_requests_total": ("counter", [{"method": method, "code": "OK"}
                                            for method in ("Generate", "Tokenize", "Detokenize", "GetModelInfo")]),
}
NOT_ZERO = {
    "vllm:cache_config_info": ("gauge", ["block_size", "num_gpu_blocks"], []),
    "nsa_pages": ("gauge", ["state"], [{"state": state} for state in ("free", "owned", "cached")]),
    "nsa_seconds_since_last_step": ("gauge", [], [{}]),
    "nsa_startup_phase_seconds": ("gauge", ["phase"], [{"phase": phase} for phase in
                                                       ("device", "tokenizer", "config", "weights", "kv cache", "listen")]),
    "nsa_build_info": ("gauge", ["version", "architecture", "attention"], []),
}
PROCESS = {  # no labels: as of any process
    "process_cpu_seconds_total": "counter", "process_resident_memory_bytes": "gauge",
    "process_virtual_memory_bytes": "gauge", "process_start_time_seconds": "gauge", "process_open_fds": "gauge",
    "process_max_fds": "gauge",
}
HISTOGRAMS = {
    "vllm:time_to_first_token_seconds": FIRST_TOKEN_SECONDS,
    "vllm:inter_token_latency_seconds": INTER_TOKEN_SECONDS,
    "vllm:e2e_request_latency_seconds": REQUEST_SECONDS,
    "vllm:request_queue_time_seconds": REQUEST_SECONDS,
    "vllm:request_prefill_time_seconds": REQUEST_SECONDS,
    "vllm:request_decode_time_seconds": REQUEST_SECONDS,
    "vllm:request_prompt_tokens": REQUEST_TOKENS,
    "vllm:request_generation_tokens": REQUEST_TOKENS,
    "vllm:iteration_tokens_total": STEP_TOKENS,
    "nsa_step_duration_seconds": INTER_TOKEN_SECONDS,
}


def parse(text: str):
    """{name: type} and {(name, labels): value} of a scrape; every line must be understood."""
    types, values = {}, {}
    for line in text.splitlines():
        if match := re.fullmatch(r"# TYPE (\S+) (\w+)", line):
            assert match[1] not in types, f"{match[1]} twice"
            types[match[1]] = match[2]
        elif not line.startswith("# HELP "):
            match = re.fullmatch(r"([\w:]+)(?:\{(.*)\})? (\S+)", line)
            assert match, line
            labels = frozenset(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
            assert (match[1], labels) not in values, line
            values[match[1], labels] = float(match[3])
    return types, values


def key(name, **labels):
    return name, frozenset((ENGINE | labels).items())


@pytest.fixture(scope="module")
def fresh():
    """The first scrape of a server."""
    server = ServerProcess()
    with server.client() as http:
        answer = http.get("/metrics")
    assert server.terminate() == 0
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return parse(answer.text)


@pytest.mark.parametrize("name", SINGLE)
def test_series_at_zero(fresh, name):
    types, values = fresh
    kind, all_labels = SINGLE[name]
    assert types[name] == kind
    for labels in all_labels:
        assert values[key(name, **labels)] == 0, labels


@pytest.mark.parametrize("name", NOT_ZERO)
def test_series_that_describe(fresh, name):
    types, values = fresh
    kind, label_names, known = NOT_ZERO[name]
    assert types[name] == kind
    found = [dict(labels) for series, labels in values if series == name]
    assert found and all(set(labels) == set(ENGINE) | set(label_names) for labels in found)
    for labels in known:
        assert ENGINE | labels in found


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_histogram_at_zero_with_its_buckets(fresh, name):
    types, values = fresh
    assert types[name] == "histogram"
    assert values[key(f"{name}_count")] == values[key(f"{name}_sum")] == 0
    bounds = {float(dict(labels)["le"]): value for (series, labels), value in values.items()
              if series == f"{name}_bucket" and ENGINE.items() <= dict(labels).items()}
    assert sorted(bounds) == [*HISTOGRAMS[name], float("inf")]
    assert set(bounds.values()) == {0}


@pytest.mark.parametrize("name", PROCESS)
def test_series_of_the_process(fresh, name):
    types, values = fresh
    assert types[name] == PROCESS[name]
    assert [labels for series, labels in values if series == name] == [frozenset()]
    assert values[name, frozenset()] > 0


def test_the_process_is_the_one_that_the_kernel_knows(server):
    proc = pathlib.Path(f"/proc/{server.process.pid}")

    def of_status(name: str) -> int:
        return 1024 * int(re.search(rf"^{name}:\s+(\d+) kB$", (proc / "status").read_text(), re.MULTILINE)[1])

    for series, name in [("process_resident_memory_bytes", "VmRSS"), ("process_virtual_memory_bytes", "VmSize")]:
        low, value, high = of_status(name), server.metric(series), of_status(name)
        assert 0.9 * min(low, high) <= value <= 1.1 * max(low, high)
    assert server.metric("process_max_fds") == int(
        re.search(r"^Max open files\s+(\d+)", (proc / "limits").read_text(), re.MULTILINE)[1])
    started = int((proc / "stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")  # after boot
    uptime = float(pathlib.Path("/proc/uptime").read_text().split()[0])
    assert server.metric("process_start_time_seconds") == pytest.approx(time.time() - uptime + started, abs=2)
    before = server.metric("process_open_fds")
    with contextlib.ExitStack() as held:  # connections; others may just be going
        for _ in range(20):
            held.enter_context(server.client()).get("/health")
        assert 17 <= server.metric("process_open_fds") - before <= 23

    def cpu_seconds() -> float:
        return sum(map(int, (proc / "stat").read_text().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")

    before = server.metric("process_cpu_seconds_total")
    with server.client() as client:
        client.post("/v1/completions", json={"prompt": "a" * 500, "max_tokens": 50, "ignore_eos": True})
    low, value, high = cpu_seconds(), server.metric("process_cpu_seconds_total"), cpu_seconds()
    assert before < value
    assert low - 0.1 <= value <= high + 0.1


def test_no_series_is_missing_here_and_the_states_describe_an_idle_server(fresh):
    types, values = fresh
    assert set(types) == {*SINGLE, *NOT_ZERO, *PROCESS, *HISTOGRAMS}
    pages = {state: values[key("nsa_pages", state=state)] for state in ("free", "owned", "cached")}
    config = next(dict(labels) for name, labels in values if name == "vllm:cache_config_info")
    assert pages == {"free": float(config["num_gpu_blocks"]), "owned": 0, "cached": 0}
    assert 0 <= values[key("nsa_seconds_since_last_step")] < 60


# The storm: what clients know, what the counters say and what the log says must agree.

NUM_CALLS = 160
HTTP_CALLS = ("/v1/completions", "/v1/chat/completions")
RELAXED = httpx.Timeout(300, pool=None)


class Tally:
    """What the clients know."""

    def __init__(self):
        self.completed = self.invalid = self.refused = self.refused_choices = self.left = self.left_choices = 0
        self.prompt_tokens = self.completion_tokens = self.completed_choices = 0

    def complete(self, usage, num_choices):
        self.completed += 1
        self.completed_choices += num_choices
        self.prompt_tokens += usage["prompt_tokens"]
        self.completion_tokens += usage["completion_tokens"]

    def leave(self, num_choices):
        self.left += 1
        self.left_choices += num_choices

    def refuse(self, num_choices):
        self.refused += 1
        self.refused_choices += num_choices


def call_of(rng: random.Random, i: int, fate: str) -> dict:
    body = {"prompt": f"Once upon a time there were {i % 40} " + "very old trees and " * rng.randrange(0, 12),
            "max_tokens": rng.randrange(1, 24), "n": rng.choice([1, 1, 1, 2, 3]), "seed": i}
    if fate == "invalid":
        body["temperature"] = 99
    elif fate == "leave":  # nothing but the client ends it
        body |= {"max_tokens": 2000, "ignore_eos": True}
    elif rng.random() < 0.3:
        body["stop"] = ["the", "."]
    if fate != "leave" and rng.random() < 0.4:  # new constraints, and known ones
        body["guided_regex"] = rng.choice(["[a-z ]{1,20}", f"(yes|no|{i})"])
    return body


def as_chat(body: dict) -> dict:
    return {name: value for name, value in body.items() if name != "prompt"} | {
        "messages": [{"role": "user", "content": body["prompt"]}]}


async def http_call(http: httpx.AsyncClient, path: str, body: dict, fate: str, leave_after_s: float, tally: Tally):
    body = body | {"stream": True, "stream_options": {"include_usage": True}}
    try:
        async with http.stream("POST", path, json=body) as answer:
            if answer.status_code != 200:
                await answer.aread()
                assert answer.status_code == (400 if fate == "invalid" else 429), answer.text
                return tally.refuse(body["n"]) if answer.status_code == 429 else setattr(
                    tally, "invalid", tally.invalid + 1)
            if fate == "leave":
                await asyncio.sleep(leave_after_s)
                return tally.leave(body["n"])
            lines = [line async for line in answer.aiter_lines() if line]
    except httpx.HTTPError as error:
        raise AssertionError(f"{fate}: {error!r}") from error
    assert lines[-1] == "data: [DONE]", lines[-1]
    return tally.complete(json.loads(lines[-2].removeprefix("data: "))["usage"], body["n"])


async def grpc_call(stub, pb, body: dict, fate: str, leave_after_s: float, tally: Tally):
    request = pb.GenerateRequest(text=body["prompt"], max_tokens=body["max_tokens"], n=body["n"], seed=body["seed"],
                                 stop=body.get("stop", []), temperature=body.get("temperature"),
                                 ignore_eos=body.get("ignore_eos", False), regex=body.get("guided_regex"))
    call = stub.Generate(request)
    if fate == "leave":
        await asyncio.sleep(leave_after_s)
        call.cancel()
        # Refused before it could leave, perhaps.
        if await call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
            return tally.refuse(body["n"])
        return tally.leave(body["n"])
    try:
        responses = [response async for response in call]
    except grpc.aio.AioRpcError as error:
        if fate == "invalid":
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
            tally.invalid += 1
        else:
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
            tally.refuse(body["n"])
        return None
    usage = responses[-1].usage
    return tally.complete({"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens},
                          body["n"])


async def storm(server: ServerProcess, api) -> Tally:
    pb, stubs = api
    rng, tally = random.Random(7), Tally()
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=server.http, timeout=RELAXED, limits=limits) as http:
        async with grpc.aio.insecure_channel(server.grpc) as channel:
            stub = stubs.GenerationServiceStub(channel)
            tasks = []
            for i in range(NUM_CALLS):
                fate = rng.choices(["stay", "leave", "invalid"], [60, 30, 10])[0]
                body, rest = call_of(rng, i, fate), (fate, rng.uniform(0, 0.5), tally)
                if i % 4 == 1:
                    task = http_call(http, "/v1/chat/completions", as_chat(body), *rest)
                elif i % 4 == 3:
                    task = http_call(http, "/v1/completions", body, *rest)
                else:
                    task = grpc_call(stub, pb, body, *rest)
                tasks.append(asyncio.ensure_future(task))
                await asyncio.sleep(rng.choice([0, 0, 0.02, 0.2]))
            await asyncio.gather(*tasks)
    return tally


def test_the_books_balance_after_a_storm(api):
    server = ServerProcess("--log-format=json", "--max-queued-requests=12", "--max-num-seqs=8",
                           "--kv-cache-bytes=24MiB")
    tally = asyncio.run(storm(server, api))
    # Of each kind some; how many a busy machine refuses is open.
    assert tally.completed > 5 and tally.left > 0 and tally.invalid > 5 and tally.refused > 0, vars(tally)
    server.wait_until_idle()
    time.sleep(0.3)  # the last lines of the log
    with server.client() as http:
        _, values = parse(http.get("/metrics").text)
    assert server.terminate() == 0
    lines = [line for line in map(json.loads, server.stderr_lines) if line["message"] == "request"]
    check_books(values, lines, tally)


def check_books(values, lines, tally: Tally):
    def total(name):
        return sum(value for (series, _), value in values.items() if series == name)

    # Every call has one line, but for those that left before the server saw them.
    calls = [line for line in lines if line["route"] in (*HTTP_CALLS, "Generate")]
    assert tally.completed + tally.left + tally.invalid + tally.refused == NUM_CALLS, vars(tally)
    assert NUM_CALLS - 10 < len(calls) <= NUM_CALLS
    # Each admitted request (a choice of a call) has ended for one reason.
    admitted = [line for line in calls if "choices" in line]
    num_admitted = sum(line["choices"] for line in admitted)
    assert total("vllm:request_success_total") == num_admitted
    for histogram in ("e2e_request_latency_seconds", "request_prompt_tokens", "request_generation_tokens"):
        assert values[key(f"vllm:{histogram}_count")] == num_admitted
    # A client may leave before it hears that it was refused.
    rejections = total("vllm:admission_rejections_total")
    assert tally.refused_choices <= rejections <= tally.refused_choices + tally.left_choices
    # Tokens: those of the usages that clients got, and those of the clients that left.
    completed = [line for line in admitted if "error" not in line]
    gone = [line for line in admitted if "error" in line]
    assert {line["error"] for line in gone} == {"client_left"}
    assert len(completed) == tally.completed
    assert sum(line["choices"] for line in completed) == tally.completed_choices
    assert sum(line["prompt_tokens"] for line in completed) == tally.prompt_tokens
    generated = values[key("vllm:generation_tokens_total")]
    assert generated == tally.completion_tokens + sum(line["output_tokens"] for line in gone)
    assert generated == values[key("vllm:request_generation_tokens_sum")]
    prompts_left = [line["prompt_tokens"] for line in gone if line["output_tokens"] > 0]
    assert values[key("vllm:prompt_tokens_total")] >= tally.prompt_tokens + sum(prompts_left)
    assert values[key("vllm:prompt_tokens_total")] <= sum(line["prompt_tokens"] for line in admitted)
    # At rest.
    for gauge in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        assert values[key(f"vllm:{gauge}")] == 0
    assert values[key("nsa_pages", state="owned")] == 0
    config = next(dict(labels) for name, labels in values if name == "vllm:cache_config_info")
    assert (values[key("nsa_pages", state="free")] + values[key("nsa_pages", state="cached")]
            == float(config["num_gpu_blocks"]))
    # Calls by code.
    assert total("nsa_grpc_requests_total") == sum(line["transport"] == "grpc" for line in calls)
    for route in HTTP_CALLS:
        assert values[key("nsa_http_requests_total", route=route, code="400")] == sum(
            line["route"] == route and line.get("status") == 400 for line in calls)
