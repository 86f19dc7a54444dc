"""Constrained decoding over both transports with the bundled model: what is answered satisfies what was asked for."""

import concurrent.futures
import json
import re
import socket
import time

import grpc
import pytest
from server_process import ServerProcess

SCHEMA = {"type": "object",
          "properties": {"name": {"type": "string", "maxLength": 16},
                         "age": {"type": "integer", "minimum": 0, "maximum": 130},
                         "tags": {"type": "array", "items": {"enum": ["old", "young", "é"]}, "maxItems": 3},
                         "born": {"type": "string", "format": "date"}},
          "required": ["name", "age", "tags"], "additionalProperties": False}
SEEDS = range(24)


def is_person(text: str) -> bool:
    person = json.loads(text)
    assert list(person) == [key for key in SCHEMA["properties"] if key in person]
    assert {"name", "age", "tags"} <= set(person) <= set(SCHEMA["properties"])
    assert len(person["name"]) <= 16 and 0 <= person["age"] <= 130 and isinstance(person["age"], int)
    assert len(person["tags"]) <= 3 and set(person["tags"]) <= {"old", "young", "é"}
    return "born" not in person or re.fullmatch(r"\d{4}-\d\d-\d\d", person["born"]) is not None


CASES = {
    "schema": ({"response_format": {"type": "json_schema",
                                    "json_schema": {"name": "person", "strict": True, "schema": SCHEMA}}}, is_person),
    "guided_json": ({"guided_json": SCHEMA}, is_person),
    "guided_json_text": ({"guided_json": json.dumps(SCHEMA)}, is_person),
    "regex": ({"guided_regex": r"[A-Z][a-z]{2,9}, \d{1,3}( years?)?\."},
              lambda text: re.fullmatch(r"[A-Z][a-z]{2,9}, \d{1,3}( years?)?\.", text) is not None),
    "choice": ({"guided_choice": ["yes", "no", "not sure", "ja – nein"]},
               lambda text: text in ("yes", "no", "not sure", "ja – nein")),
    "bool": ({"guided_json": {"type": "boolean"}}, lambda text: isinstance(json.loads(text), bool)),
}


def complete(server, **fields):
    with server.client() as http:
        return http.post("/v1/completions", json={"prompt": "The old king said:", "temperature": 1, "max_tokens": 300,
                                                  **fields})


@pytest.mark.parametrize("case", CASES)
def test_every_answer_satisfies_its_constraint(server, case):
    fields, is_right = CASES[case]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda seed: complete(server, seed=seed, **fields), SEEDS))
    texts = set()
    for answer in answers:
        assert answer.status_code == 200, answer.text
        choice = answer.json()["choices"][0]
        assert choice["finish_reason"] == "stop" and is_right(choice["text"]), choice
        texts.add(choice["text"])
    assert len(texts) > 1


def test_constraints_of_one_batch_do_not_touch_each_other(server):
    regexes = [f"{letter}[a-z ]{{2{i},2{i}}}{letter.upper()}" for i, letter in enumerate("abcdefgh")]
    wishes = [{"guided_regex": regex, "seed": i} for i, regex in enumerate(regexes)]
    alone = [complete(server, **wish).json()["choices"][0]["text"] for wish in wishes]
    with concurrent.futures.ThreadPoolExecutor(len(wishes)) as pool:
        for _ in range(3):
            together = [answer.json()["choices"][0]["text"]
                        for answer in pool.map(lambda wish: complete(server, **wish), wishes)]
            assert together == alone
    assert all(re.fullmatch(regex, text) for regex, text in zip(regexes, alone))
    assert not any(re.fullmatch(regexes[i], alone[i - 1]) for i in range(len(alone)))


def test_json_objects_parse_or_were_cut(server):
    finished = 0
    for seed in SEEDS:
        choice = complete(server, seed=seed, response_format={"type": "json_object"}, max_tokens=120).json()["choices"][0]
        if choice["finish_reason"] == "stop":
            finished += 1
            assert isinstance(json.loads(choice["text"]), dict)
        else:
            assert choice["finish_reason"] == "length" and choice["text"].lstrip().startswith("{")
    assert finished > 0


def test_max_tokens_cuts_a_prefix_of_the_whole_answer(server):
    fields = {"seed": 3, "temperature": 0.7, "guided_json": SCHEMA}
    whole = complete(server, **fields).json()
    assert is_person(whole["choices"][0]["text"])
    num_tokens = whole["usage"]["completion_tokens"]
    for max_tokens in (1, num_tokens // 2, num_tokens - 1, num_tokens):
        cut = complete(server, **fields, max_tokens=max_tokens).json()["choices"][0]
        assert whole["choices"][0]["text"].startswith(cut["text"])
        assert cut["finish_reason"] == ("stop" if max_tokens == num_tokens else "length")


def test_streams_choices_and_logprobs_agree(server):
    body = {"messages": [{"role": "user", "content": "Who?"}], "seed": 11, "n": 3, "logprobs": True, "top_logprobs": 2,
            "temperature": 1, "max_tokens": 200, "response_format": CASES["schema"][0]["response_format"]}
    with server.client() as http:
        whole = http.post("/v1/chat/completions", json=body).json()["choices"]
        texts, tokens = ["", "", ""], [[], [], []]
        with http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as stream:
            for line in stream.iter_lines():
                if not line.startswith("data: {"):
                    continue
                for choice in json.loads(line[6:])["choices"]:
                    texts[choice["index"]] += choice["delta"].get("content") or ""
                    tokens[choice["index"]] += (choice.get("logprobs") or {}).get("content") or []
    assert texts == [choice["message"]["content"] for choice in whole]
    assert tokens == [choice["logprobs"]["content"] for choice in whole]
    assert all(map(is_person, texts)) and len(set(texts)) > 1
    # They are those of the model itself; a forced token may be unlikely, and is none the less finite or -9999.
    assert all(-9999 <= token["logprob"] <= 0 for choice in tokens for token in choice)


def test_biases_penalties_and_min_tokens_stay_within_the_constraint(server):
    fields = {"guided_regex": "(?:yes|no)(?:, (?:yes|no)){0,3}", "frequency_penalty": 2, "repetition_penalty": 1.5,
              "logit_bias": {"5": 100}}
    for seed in range(8):
        text = complete(server, seed=seed, **fields).json()["choices"][0]["text"]
        assert re.fullmatch(fields["guided_regex"], text)
    answer = complete(server, guided_choice=["no"], min_tokens=50, ignore_eos=True).json()["choices"][0]
    assert (answer["text"], answer["finish_reason"]) == ("no", "stop")


def test_a_constrained_answer_is_the_same_alone_batched_and_preempted(server):
    # 11 pages of 64 tokens, about half of what the four answers need: some have to give theirs back.
    small = ServerProcess("--kv-cache-bytes=6MiB", "--max-num-seqs=4", "--max-model-tokens=640",
                          "--max-batched-tokens=128")
    try:
        wishes = [{"prompt": f"Story {i}:", "seed": i, "guided_regex": "[a-z ]{700,900}", "max_tokens": 600,
                   "temperature": 1} for i in range(4)]
        with server.client() as http:
            alone = [http.post("/v1/completions", json=wish).json()["choices"][0] for wish in wishes]

        def ask(wish):
            with small.client() as http:
                return http.post("/v1/completions", json=wish).json()["choices"][0]

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            assert list(pool.map(ask, wishes)) == alone
        assert small.metric("vllm:num_preemptions_total") > 0
        assert all(re.fullmatch("[a-z ]{2,}", choice["text"]) for choice in alone)
    finally:
        assert small.terminate() == 0


@pytest.mark.parametrize("fields,param,message", [
    ({"guided_json": {}, "guided_regex": "a"}, "guided_regex", "exclude each other"),
    ({"response_format": {"type": "json_object"}, "guided_choice": ["a"]}, "guided_choice", "exclude each other"),
    ({"guided_json": {"properties": {"a": {"multipleOf": 2}}}}, "guided_json", "/properties/a/multipleOf"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"not": {}}}}},
     "response_format.json_schema.schema", "/not"),
    ({"guided_json": "{"}, "guided_json", ""),
    ({"guided_regex": "(a"}, "guided_regex", "without ')'"),
    ({"guided_regex": "a" * 131073}, "guided_regex", "at most 131072"),
    ({"guided_choice": []}, "guided_choice", "empty"),
    ({"guided_choice": ["a"] * 1025}, "guided_choice", "at most 1024"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "not supported"),
    ({"guided_grammar": "x"}, "guided_grammar", "not supported"),
])
def test_refusals(server, fields, param, message):
    answer = complete(server, **fields)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param and message in error["message"]
    assert error["type"] == "invalid_request_error" and error["code"] == "invalid_value"


def test_a_client_that_leaves_while_its_constraint_is_compiled_leaves_nothing_behind(server):
    server.wait_until_idle()
    ended = server.metric("vllm:request_success_total")
    host, port = server.http.removeprefix("http://").split(":")
    for i in range(6):
        body = json.dumps({"prompt": "x", "guided_regex": f"[a-z ]{{0,{3000 + i}}}", "max_tokens": 4000}).encode()
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                               + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            time.sleep(0.02)
    assert complete(server, guided_choice=["a"], max_tokens=3).status_code == 200
    server.wait_until_idle()
    assert server.metric("vllm:request_success_total") == ended + 1


def test_grpc_follows_the_same_constraints(server, api):
    pb, pb_grpc = api
    regex = CASES["regex"][0]["guided_regex"]
    with grpc.insecure_channel(server.grpc) as channel:
        stub = pb_grpc.GenerationServiceStub(channel)

        def text(**fields):
            request = pb.GenerateRequest(text="The old king said:", temperature=1, max_tokens=300, seed=2, **fields)
            return "".join(response.text for response in stub.Generate(request))

        assert text(regex=regex) == complete(server, guided_regex=regex, seed=2).json()["choices"][0]["text"]
        assert is_person(text(json_schema=json.dumps(SCHEMA)))
        assert text(choices=pb.Choices(texts=["yes", "no"])) in ("yes", "no")
        assert text(json_object=True).lstrip().startswith("{")
        for fields in ({"regex": "("}, {"json_schema": '{"not":{}}'}, {"choices": pb.Choices()}):
            with pytest.raises(grpc.RpcError) as error:
                text(**fields)
            assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT and error.value.details()
