"""The server under company: batching does not change results, clients that leave free their pages, bad input hurts
nobody else."""

import concurrent.futures
import contextlib
import json
import socket
import time

import pytest

PROMPTS = ["The old man looked at the sea and", "\"Come here,\" said the king,", "It was a dark night, when suddenly",
           "The rabbit ran and ran until", "In the morning the children"]


def generate(server, prompt, **fields):
    with server.client() as http:
        answer = http.post("/v1/completions", json={"prompt": prompt, "max_tokens": 20, "temperature": 0,
                                                    "logprobs": 1, **fields})
    assert answer.status_code == 200, answer.text
    choice = answer.json()["choices"][0]
    return choice["text"], choice["logprobs"]["token_logprobs"]


def test_results_are_bit_identical_alone_and_batched(server):
    alone = [generate(server, prompt) for prompt in PROMPTS]
    with concurrent.futures.ThreadPoolExecutor(len(PROMPTS) * 2) as pool:
        batched = list(pool.map(lambda prompt: generate(server, prompt), PROMPTS * 2))
    assert batched == alone * 2  # text and every log-probability, as doubles


def test_prompts_of_one_call_are_scored_as_alone(server):
    """As lm-eval asks: prompts of token ids, echoed, one token behind each; entries for all of them."""
    with server.client() as http:
        prompts = [http.post("/tokenize", json={"prompt": " ".join(PROMPTS[:i + 1])}).json()["tokens"]
                   for i in range(len(PROMPTS))]
        wish = {"echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0, "seed": 1234}
        alone = [http.post("/v1/completions", json={"prompt": prompt, **wish}).json()["choices"][0]
                 for prompt in prompts]
        answer = http.post("/v1/completions", json={"prompt": prompts, **wish}).json()
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(prompts)))
    assert answer["usage"] == {**answer["usage"], "prompt_tokens": sum(map(len, prompts)),
                               "completion_tokens": len(prompts)}
    for prompt, single, choice in zip(prompts, alone, answer["choices"]):
        logprobs = choice["logprobs"]
        assert (choice["text"], logprobs) == (single["text"], single["logprobs"])
        assert {len(values) for values in logprobs.values()} == {len(prompt) + 1}
        assert logprobs["token_logprobs"][0] is logprobs["top_logprobs"][0] is None
        # "Is it greedy" compares doubles: the greedy token's must be that of the best one.
        for chosen, best in zip(logprobs["token_logprobs"][1:], logprobs["top_logprobs"][1:]):
            assert chosen in best.values() and chosen <= max(best.values())
        assert logprobs["token_logprobs"][-1] == max(logprobs["top_logprobs"][-1].values())
        # Offsets point into the text, behind the beginning-of-text token.
        for token, offset in list(zip(logprobs["tokens"], logprobs["text_offset"]))[2:]:
            if not token.startswith(("bytes:", "<")):
                assert choice["text"][offset:offset + len(token)] == token


ENDLESS = {"prompt": "Once", "max_tokens": 8000, "ignore_eos": True}


@contextlib.contextmanager
def one_request_is_aborted(server):
    """Around a client that leaves: its request ends as aborted, early, and frees everything."""
    server.wait_until_idle()
    aborted = server.metric("vllm:request_success_total", 'finished_reason="abort"')
    generated = server.metric("vllm:generation_tokens_total")
    yield
    server.wait_until_idle(timeout_s=10)
    assert server.metric("vllm:request_success_total", 'finished_reason="abort"') == aborted + 1
    assert server.metric("vllm:generation_tokens_total") - generated < ENDLESS["max_tokens"] / 2


def test_a_client_that_leaves_a_stream_frees_its_pages(server):
    with one_request_is_aborted(server), server.client() as http:
        with http.stream("POST", "/v1/completions", json={**ENDLESS, "stream": True}) as stream:
            lines = stream.iter_lines()  # kept: dropping the iterator closes the stream
            next(lines)
            assert server.metric("vllm:num_requests_running") == 1


def test_a_client_that_leaves_without_a_stream_frees_its_pages(server):
    body = json.dumps(ENDLESS).encode()
    host, port = server.http.removeprefix("http://").split(":")
    with one_request_is_aborted(server), socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                           + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        deadline = time.monotonic() + 20
        while server.metric("vllm:num_requests_running") < 1:
            assert time.monotonic() < deadline


@pytest.mark.parametrize("body,code", [
    (b"{", "invalid_json"), (b"[]", "invalid_json"), (b"", "invalid_json"), (b'{"prompt": "\xff"}', "invalid_json"),
    (b"{}", "missing_required_parameter"), (b'{"prompt": 5}', "invalid_type"),
    (b'{"prompt": "x", "n": 1e400}', None), (b'{"prompt": "x", "model": "other"}', "model_not_found"),
    (b'{"prompt": ' + b"[" * 10000 + b"]" * 10000 + b"}", None),
])
def test_malformed_requests_are_refused_and_others_do_not_notice(server, body, code):
    before = generate(server, PROMPTS[0])
    with server.client() as http:
        answer = http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 404), answer.text
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"} and answer.headers["x-request-id"]
        if code:
            assert error["code"] == code
    assert generate(server, PROMPTS[0]) == before


def test_unknown_paths_and_methods(server):
    with server.client() as http:
        assert http.get("/nowhere").status_code == 404
        answer = http.get("/v1/completions")
        assert answer.status_code == 405 and "POST" in answer.headers["allow"]
        assert http.get("/health").status_code == 200
        assert http.get("/version").json()["version"]


def test_request_ids_come_back(server):
    with server.client() as http:
        assert http.get("/health", headers={"x-request-id": "my-id.1"}).headers["x-request-id"] == "my-id.1"
        fresh = http.get("/health", headers={"x-request-id": "bad id!"}).headers["x-request-id"]
        assert fresh and fresh != "bad id!"


def test_sse_framing(server):
    with server.client() as http:
        with http.stream("POST", "/v1/chat/completions", json={
                "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3, "stream": True,
                "stream_options": {"include_usage": True}}) as stream:
            assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert stream.headers["cache-control"] == "no-cache"
            raw = b"".join(stream.iter_raw()).decode()
    events = raw.split("\n\n")
    assert events[-1] == "" and events[-2] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2] if not event.startswith(":")]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == 3


def test_conservation_of_the_counters(server):
    server.wait_until_idle()
    names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:request_success_total",
             "nsa_kv_bytes_read_total", "nsa_kv_bytes_dense_total")
    before = [server.metric(name) for name in names]
    with server.client() as http:
        usage = http.post("/v1/completions", json={"prompt": PROMPTS[0], "max_tokens": 9, "n": 2,
                                                   "ignore_eos": True}).json()["usage"]
    prompt, generated, ended, read, dense = (server.metric(name) - b for name, b in zip(names, before))
    assert prompt == usage["prompt_tokens"] and generated == usage["completion_tokens"] == 18
    assert ended == 2
    # 8 decode steps of each choice, with prompt + 1 .. prompt + 8 tokens in the cache; bf16 K and V of 64, 6 layers.
    # Below one window and one block every branch sees every token.
    row_bytes = (64 + 64) * 2 * 6
    num_rows = 2 * sum(prompt + step for step in range(1, 9))
    assert dense == num_rows * row_bytes
    num_compressed = 2 * sum(max(0, (prompt + step - 32) // 16 + 1) for step in range(1, 9))
    assert read == (2 * num_rows + num_compressed) * row_bytes
